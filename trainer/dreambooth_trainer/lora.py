"""Low-rank adapters on U-Net and text encoder, through peft as diffusers uses it."""

import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from dreambooth_api.imports import missing
from dreambooth_api.job import Lora
from dreambooth_trainer.faults import SpecFault

# What diffusers and transformers load; the text encoder's attention, as diffusers' own trainer has it.
WEIGHTS = "pytorch_lora_weights.safetensors"
TEXT_TARGETS = ["q_proj", "k_proj", "v_proj", "out_proj"]


def add_adapters(unet: nn.Module, encoders: Mapping[str, nn.Module], lora: Lora) -> None:
    """Put adapters on the U-Net and the given text encoders. Raises SpecFault for targets that do not exist."""
    # peft would import it, for two seconds, to see whether a layer is quantised; none is.
    with missing("bitsandbytes"):
        try:
            unet.add_adapter(_config(lora, list(lora.targets)))  # type: ignore[operator]
        except ValueError as e:
            raise SpecFault(f"method.lora.targets: {str(e).splitlines()[0][:300]}") from e
        for encoder in encoders.values():
            encoder.add_adapter(_config(lora, TEXT_TARGETS))  # type: ignore[operator]


def _config(lora: Lora, targets: list[str]):
    from peft import LoraConfig

    return LoraConfig(
        r=lora.rank,
        # peft's field is an int, its arithmetic takes any number.
        lora_alpha=lora.alpha,  # type: ignore[arg-type]
        use_dora=lora.dora,
        init_lora_weights="gaussian",
        target_modules=targets,
    )


def save_adapters(folder: Path, pipeline: str, unet: nn.Module, encoders: Mapping[str, nn.Module]) -> None:
    """Write the adapters as `pytorch_lora_weights.safetensors`, which diffusers' `pipeline` loads.

    The settings go into the file's metadata: without them a loader takes alpha for rank, and the effect changes.
    """
    import diffusers
    from diffusers.training_utils import _collate_lora_metadata
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft.utils import get_peft_model_state_dict

    def layers(module: nn.Module) -> dict[str, Tensor]:
        # The base's embeddings never are part of an adapter.
        found = get_peft_model_state_dict(module, save_embedding_layers=False)
        # As modules have it: without, transformers leaves DoRA's magnitudes as they begin, and says so in a log only.
        return {f"{k}.weight" if k.endswith("lora_magnitude_vector") else k: v for k, v in found.items()}

    modules = {"unet": unet, **encoders}
    # The U-Net's layers keep peft's names. diffusers' own are for attention alone, and its loader, which takes a file's
    # first name for the kind of all of them, drops what is named otherwise. Text encoders have adapters there alone.
    named = {"unet_lora_layers": layers(unet)} | {
        f"{name}_lora_layers": convert_state_dict_to_diffusers(layers(encoder)) for name, encoder in encoders.items()
    }
    getattr(diffusers, pipeline).save_lora_weights(
        folder,
        **named,
        safe_serialization=True,
        **_collate_lora_metadata(modules),
    )
    canonicalise(folder / WEIGHTS)


def canonicalise(path: Path) -> None:
    """Rewrite a safetensors file's header so that equal adapters are equal bytes on every machine.

    The library writes metadata in random order; peft adds the base's local path and lists sets as they come.
    """
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    metadata = header.get("__metadata__", {})
    if text := metadata.get("lora_adapter_metadata"):
        settings = json.loads(text)
        for key, value in settings.items():
            if key.endswith(".base_model_name_or_path"):
                settings[key] = None
            elif isinstance(value, list):
                settings[key] = sorted(value, key=str)
        metadata["lora_adapter_metadata"] = json.dumps(settings, sort_keys=True)
    header["__metadata__"] = dict(sorted(metadata.items()))
    text = json.dumps(header, separators=(",", ":"))
    # The data must begin at a multiple of 8 bytes.
    text += " " * (-len(text.encode()) % 8)
    path.write_bytes(len(text.encode()).to_bytes(8, "little") + text.encode() + data[8 + length :])
