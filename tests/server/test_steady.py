"""Layers that give each row the same bits in every batch, and what torch's own give within rounding."""

from typing import Any

import pytest
import torch
from torch import nn

from dreambooth_server.steady import make_steady

LAYERS: list[tuple[Any, tuple[int, ...]]] = [
    (lambda: nn.Conv2d(64, 96, 1), (64, 8, 8)),
    (lambda: nn.Conv2d(64, 96, 1, bias=False), (64, 5, 7)),
    (lambda: nn.Linear(64, 256), (64,)),
    (lambda: nn.Linear(96, 64, bias=False), (16, 96)),
]


@pytest.mark.parametrize(("make", "shape"), LAYERS)
@torch.inference_mode()
def test_a_row_has_the_same_bits_in_every_batch(make: Any, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer, rows = make(), torch.randn(16, *shape)
    plain = layer(rows)
    make_steady(nn.Sequential(layer), 16)
    alone = torch.cat([layer(rows[at : at + 2]) for at in range(0, 16, 2)])
    assert torch.allclose(alone, plain, atol=1e-5)
    for count in (3, 5, 8, 16):
        assert torch.equal(layer(rows[:count]), alone[:count])
        assert torch.equal(layer(rows[-count:]), alone[-count:])


def test_other_layers_stay_as_they_are() -> None:
    network = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 1, stride=2), nn.Conv2d(8, 8, 1, groups=2))
    before = [layer.forward for layer in network]
    make_steady(network, 4)
    assert [layer.forward for layer in network] == before
