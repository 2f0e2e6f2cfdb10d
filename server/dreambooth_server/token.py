"""A subject's learned token: a row for its identifier, added to the tokenizers and text encoders it draws with."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from safetensors.torch import load_file

from dreambooth_api.names import TOKEN_WEIGHTS, learned_token
from dreambooth_server.artifacts import Artifact
from dreambooth_server.sampler import Parts


def add_token(parts: Parts, artifact: Artifact, token: str) -> Parts:
    """`parts` that know the artifact's token under the name `token`, which no other subject has.

    Shared encoders only grow by a row that no other prompt reaches. Raises ValueError when the rows do not fit.
    """
    rows = load_file(artifact.folder / TOKEN_WEIGHTS)
    if parts.text_encoder_2 is None:
        _grow(parts.tokenizer, parts.text_encoder, token, rows[learned_token(artifact.card.identifier)])
    else:
        _grow(parts.tokenizer, parts.text_encoder, token, rows["clip_l"])
        _grow(parts.tokenizer_2, parts.text_encoder_2, token, rows["clip_g"])
    return replace(parts, spoken=speaker(artifact.card.identifier, token))


def speaker(identifier: str, token: str) -> Callable[[str], str]:
    """From a prompt to the same with `token` in the identifier's place."""
    word = re.compile(rf"(?<![\w-]){re.escape(identifier)}(?![\w-])")
    return lambda prompt: word.sub(lambda _: token, prompt)


def _grow(tokenizer: Any, encoder: Any, token: str, row: torch.Tensor) -> None:
    tokenizer.add_tokens([token])
    index = tokenizer.convert_tokens_to_ids(token)
    embedding = encoder.get_input_embeddings()
    if row.shape != (1, embedding.embedding_dim):
        raise ValueError(f"a learned token of shape {tuple(row.shape)} for words of width {embedding.embedding_dim}")
    if index >= embedding.num_embeddings:
        encoder.resize_token_embeddings(index + 1, mean_resizing=False)
    with torch.no_grad():
        encoder.get_input_embeddings().weight[index] = row[0]
    for module in encoder.modules():
        # Old configs say 2, by which transformers takes the highest id for the end: now the new token's.
        if getattr(module, "eos_token_id", None) == 2:
            module.eos_token_id = tokenizer.eos_token_id
