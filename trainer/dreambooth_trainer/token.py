"""A learned token: a row of its own for the identifier in a text encoder's embedding (pivotal tuning).

Source: Gal et al., Textual Inversion, arXiv 2208.01618; trained together with the weights as in diffusers' advanced
DreamBooth. The base's vocabulary keeps its size: the row is a parameter beside it, so nothing else of it can move.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from dreambooth_api.names import TOKEN_WEIGHTS as WEIGHTS
from dreambooth_api.names import learned_token

__all__ = ["WEIGHTS", "LearnedEmbedding", "learned_token", "save_token"]

ROW = "learned"
# Names of the rows in the file, as loaders of SDXL's textual inversions expect them.
_SDXL_KEYS = {"text_encoder": "clip_l", "text_encoder_2": "clip_g"}


class LearnedEmbedding(nn.Embedding):
    """The embedding `base`, whose token `index` is the parameter `learned` (D,); it begins as the mean of `start`."""

    def __init__(self, base: nn.Embedding, index: int, start: list[int]) -> None:
        super().__init__(base.num_embeddings, base.embedding_dim, _weight=base.weight)
        self.weight = base.weight
        self.index = index
        self.learned = nn.Parameter(base.weight.detach()[start].float().mean(0))

    def forward(self, ids: Tensor) -> Tensor:
        """Embeddings (…, D) of token ids."""
        known = embedding(ids.masked_fill(ids == self.index, 0), self.weight)
        return torch.where((ids == self.index).unsqueeze(-1), self.learned.to(known.dtype), known)


def save_token(folder: Path, identifier: str, encoders: Mapping[str, nn.Module]) -> None:
    """Write the learned rows as a textual inversion that diffusers loads: safetensors, each (1, D)."""
    from safetensors.torch import save_file

    rows = {name: encoder.get_input_embeddings().learned for name, encoder in encoders.items()}  # type: ignore[operator]
    keys = _SDXL_KEYS if len(rows) > 1 else {name: learned_token(identifier) for name in rows}
    save_file(
        {keys[name]: row.detach().float().cpu()[None].contiguous() for name, row in rows.items()}, folder / WEIGHTS
    )
