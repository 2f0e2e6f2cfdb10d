"""A subject's adapter as it lies in the host's memory: read from a verified artifact, fitted to the base."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.utils import (
    convert_state_dict_to_diffusers,
    convert_state_dict_to_peft,
    convert_unet_state_dict_to_peft,
)
from peft import LoraConfig
from peft.utils.other import get_pattern_key
from safetensors.torch import load_file
from torch import nn

from dreambooth_api.names import TOKEN_WEIGHTS, learned_token
from dreambooth_server.artifacts import LORA_WEIGHTS, Artifact

_PART = re.compile(r"^(.+)\.(lora_A|lora_B|lora_magnitude_vector)(?:\.weight)?$")


@dataclass(frozen=True)
class Update:
    """What an adapter does to one layer, in the layer's precision."""

    down: torch.Tensor
    """(rank, in, …): as the layer's weight, with ranks for outputs."""
    up: torch.Tensor
    """(rank, out), the scale alpha/rank multiplied in."""
    gain: torch.Tensor | None
    """(out,): of DoRA, what is added to each output of the base, in multiples of it."""


@dataclass(frozen=True)
class Adapter:
    """All of a subject's weights that the base lacks."""

    updates: Mapping[str, Update]
    """By the network's prefix and the layer's name."""
    token: tuple[torch.Tensor, ...]
    """The learned token's row (width,) for each text encoder; empty: the identifier is the base's own word."""


def read_adapter(artifact: Artifact, pipeline: Any, networks: Mapping[str, Any], max_rank: int) -> Adapter:
    """The adapter of `artifact` for the networks of diffusers' `pipeline`. Raises ValueError when it does not fit."""
    state, alphas, settings = type(pipeline).lora_state_dict(
        str(artifact.folder), weight_name=LORA_WEIGHTS, local_files_only=True, use_safetensors=True,
        return_lora_metadata=True, unet_config=pipeline.unet.config,
    )  # fmt: skip
    updates: dict[str, Update] = {}
    known = 0
    for prefix, network in networks.items():
        own = _below(state, prefix)
        known += len(own)
        config = _config(_below(settings or {}, prefix))
        modules = dict(network.named_modules())
        layers = {_called(name, modules): layer for name, layer in _layers(own, prefix).items()}
        scales = {name: _scale(name, layer, config, _below(alphas or {}, prefix)) for name, layer in layers.items()}
        for name, layer in layers.items():
            updates[f"{prefix}.{name}"] = _update(name, layer, scales[name], modules.get(name), max_rank)
    if not updates or known < len(state):
        raise ValueError(f"{LORA_WEIGHTS} holds weights that this base has no place for")
    return Adapter(updates, _token(artifact, networks))


def _below(found: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {key.removeprefix(f"{prefix}."): value for key, value in found.items() if key.startswith(f"{prefix}.")}


def _layers(state: dict[str, torch.Tensor], prefix: str) -> dict[str, dict[str, torch.Tensor]]:
    """Name of a layer → peft's name of a part → the part. Raises ValueError for parts that LoRA does not have."""
    if prefix == "unet":
        # Some files name their layers in both ways: what is named as peft does stays as it is.
        named = convert_unet_state_dict_to_peft(state)
    else:
        named = convert_state_dict_to_peft(convert_state_dict_to_diffusers(state)) if state else {}
    layers: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in named.items():
        if not (match := _PART.match(key)):
            raise ValueError(f"{prefix}.{key} is no part of a LoRA or DoRA adapter")
        layers.setdefault(match[1], {})[match[2]] = tensor
    return layers


def _called(name: str, modules: Mapping[str, Any]) -> str:
    """The layer's name in this release of transformers: some classes have lost a level of their names."""
    plain = name.removeprefix("text_model.")
    return next((each for each in (name, plain, f"text_model.{plain}") if each in modules), name)


def _config(settings: dict[str, Any]) -> LoraConfig | None:
    return LoraConfig(**settings) if settings else None


def _scale(name: str, layer: Mapping[str, torch.Tensor], config: LoraConfig | None, alphas: Mapping[str, Any]) -> float:
    """What the update is multiplied by: the file's settings, else its alphas; a file without either means 1."""
    rank = len(layer["lora_A"]) if "lora_A" in layer else 1
    if config is None:
        plain = name.removeprefix("text_model.")
        found = [alpha for key, alpha in alphas.items() if key.removeprefix("text_model.").startswith(f"{plain}.")]
        return float(found[0]) / rank if found else 1.0
    pattern = config.alpha_pattern or {}
    alpha = pattern.get(get_pattern_key(list(pattern), name), config.lora_alpha)
    return alpha / (rank**0.5 if config.use_rslora else rank)


def _update(name: str, layer: Mapping[str, torch.Tensor], scale: float, module: Any, max_rank: int) -> Update:
    if not isinstance(module, nn.Linear | nn.Conv2d):
        raise ValueError(f"the base has no layer {name} that an adapter can change")
    if not {"lora_A", "lora_B"} <= layer.keys():
        raise ValueError(f"{name}: half of the adapter is missing")
    down, up = layer["lora_A"].float(), layer["lora_B"].float().flatten(1)
    rank = len(down)
    if rank > max_rank:
        raise ValueError(f"{name}: rank {rank} is beyond the highest rank here, {max_rank}: train with a lower rank, "
                         "raise adapters.maxRank of the pool, or serve it with mode: Dedicated")  # fmt: skip
    weight = module.weight
    if down.shape[1:] != weight.shape[1:] or up.shape != (len(weight), rank):
        found = f"{tuple(layer['lora_A'].shape)} and {tuple(layer['lora_B'].shape)}"
        raise ValueError(f"{name}: parts of shapes {found} for a layer of shape {tuple(weight.shape)}")
    up = scale * up
    gain = None
    if (magnitude := layer.get("lora_magnitude_vector")) is not None:
        changed = weight.float().cpu().flatten(1) + up @ down.flatten(1)
        factor = magnitude.float().flatten() / changed.norm(dim=1)
        up, gain = factor.unsqueeze(1) * up, factor - 1
    parts = [part if part is None else part.to(weight.dtype).contiguous() for part in (down, up.mT, gain)]
    if not all(torch.isfinite(part).all() for part in parts if part is not None):
        raise ValueError(f"{name}: the adapter's numbers are not finite")
    assert parts[0] is not None
    assert parts[1] is not None
    return Update(parts[0], parts[1], parts[2])


def _token(artifact: Artifact, networks: Mapping[str, Any]) -> tuple[torch.Tensor, ...]:
    if not artifact.card.learned_token:
        return ()
    rows = load_file(artifact.folder / TOKEN_WEIGHTS)
    encoders = [network for prefix, network in networks.items() if prefix != "unet"]
    keys = ["clip_l", "clip_g"] if len(encoders) > 1 else [learned_token(artifact.card.identifier)]
    return tuple(fitting_row(rows[key], encoder) for key, encoder in zip(keys, encoders, strict=True))


def fitting_row(row: torch.Tensor, encoder: Any) -> torch.Tensor:
    """`row` as a row of the encoder's embedding. Raises ValueError when it is none."""
    embedding = encoder.get_input_embeddings()
    if row.shape != (1, embedding.embedding_dim):
        raise ValueError(f"a learned token of shape {tuple(row.shape)} for words of width {embedding.embedding_dim}")
    return row[0].to(embedding.weight.dtype)
