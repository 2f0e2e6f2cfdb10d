"""A subject's learned token: a row for its identifier, added to the tokenizers and text encoders it draws with."""

import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from safetensors.torch import load_file

from dreambooth_api.names import TOKEN_WEIGHTS, learned_token
from dreambooth_server.artifacts import Artifact
from dreambooth_server.sampler import Parts
from dreambooth_server.weights import fitting_row


class SlotTokens:
    """A token for each slot: its rows are exchanged with the slot's adapter."""

    def __init__(self, parts: Parts, slots: int) -> None:
        self._encoders = parts.encoders
        # Names that nobody can guess: a prompt that spelled one would draw another's subject.
        self._names = [f"<{secrets.token_hex(8)}>" for _ in range(slots)]
        self._first: list[int] = []

    def put(self, slot: int, rows: Sequence[torch.Tensor]) -> None:
        """Give the token of `slot` (1, 2, …) its row for each text encoder; none: nobody will say it."""
        if rows and not self._first:
            self._first = [_grow(tokenizer, encoder, self._names) for tokenizer, encoder in self._encoders]
        for (_, encoder), first, row in zip(self._encoders, self._first, rows, strict=False):
            _write(encoder, first + slot - 1, row)

    def speaker(self, identifier: str, slot: int) -> Callable[[str], str]:
        """From a prompt to the same with the token of `slot` in the identifier's place."""
        return speaker(identifier, self._names[slot - 1])


def add_token(parts: Parts, artifact: Artifact, token: str) -> Parts:
    """`parts` that know the artifact's token under the name `token`, which no other subject has.

    Shared encoders only grow by a row that no other prompt reaches. Raises ValueError when the rows do not fit.
    """
    rows = load_file(artifact.folder / TOKEN_WEIGHTS)
    keys = [learned_token(artifact.card.identifier)] if parts.text_encoder_2 is None else ["clip_l", "clip_g"]
    for (tokenizer, encoder), key in zip(parts.encoders, keys, strict=True):
        row = fitting_row(rows[key], encoder)
        _write(encoder, _grow(tokenizer, encoder, [token]), row)
    return replace(parts, spoken=speaker(artifact.card.identifier, token))


def speaker(identifier: str, token: str) -> Callable[[str], str]:
    """From a prompt to the same with `token` in the identifier's place."""
    word = re.compile(rf"(?<![\w-]){re.escape(identifier)}(?![\w-])")
    return lambda prompt: word.sub(lambda _: token, prompt)


def _grow(tokenizer: Any, encoder: Any, tokens: list[str]) -> int:
    """Teach the new `tokens`; returns the first one's row in the embedding."""
    tokenizer.add_tokens(tokens)
    first = tokenizer.convert_tokens_to_ids(tokens[0])
    if first + len(tokens) > encoder.get_input_embeddings().num_embeddings:
        encoder.resize_token_embeddings(first + len(tokens), mean_resizing=False)
    for module in encoder.modules():
        # Old configs say 2, by which transformers takes the highest id for the end: now the new token's.
        if getattr(module, "eos_token_id", None) == 2:
            module.eos_token_id = tokenizer.eos_token_id
    return first


def _write(encoder: Any, index: int, row: torch.Tensor) -> None:
    with torch.no_grad():
        encoder.get_input_embeddings().weight[index] = row
