"""Places for adapters on the device: each row of a batch is drawn with the adapter of its own slot.

A layer that some adapter changes gets buffers for all slots at a fixed rank; putting an adapter into a slot copies into
them, so that nothing is allocated and no module is exchanged. Slot 0 is the plain base. (What
diffusers calls hotswap exchanges one adapter for a whole batch, and leaves text encoders out.)
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from dreambooth_server.weights import Adapter, Update

BASE_SLOT = 0
# What adapters change unless their job says otherwise: room for it is made at the start.
_USUAL = (".to_q", ".to_k", ".to_v", ".to_out.0", ".q_proj", ".k_proj", ".v_proj", ".out_proj")


class Slots:
    """The adapters on the device. Used by one thread."""

    def __init__(self, networks: Mapping[str, Any], count: int, rank: int) -> None:
        """`networks`: by the prefix of their layers' names; `count` adapters of at most `rank`."""
        self.count = count
        self._rank = rank
        self._modules = {f"{prefix}.{name}": m for prefix, net in networks.items() for name, m in net.named_modules()}
        self._layers: dict[str, _Layer] = {}
        self._chosen = _Chosen()
        self._settled: str | None = None

    def reserve(self, gains: bool = False) -> None:
        """Set memory aside for the layers that adapters usually change; with `gains` also for what DoRA has more."""
        for name, module in self._modules.items():
            if name.endswith(_USUAL) and isinstance(module, nn.Linear):
                layer = self._layer(name)
                if gains:
                    layer.gains()

    def settle(self, prefix: str) -> None:
        """From now on what is computed of one network does not change: each row goes through a slot, the base's too,
        and no adapter adds to the layers that there is room for."""
        self._settled = f"{prefix}."

    def check(self, adapter: Adapter) -> None:
        """Raises ValueError when `adapter` needs more than there is room for after `settle`. From any thread."""
        for name, update in adapter.updates.items():
            if self._settled is None or not name.startswith(self._settled):
                continue
            layer = self._layers.get(name)
            if layer is None or (layer.gain is None and update.gain is not None):
                what = "an adapter" if layer is None else "DoRA"
                raise ValueError(
                    f"{name}: {what} of this layer has no place in the programs that were compiled: train it with "
                    "method.lora.targets as they are by default, set compile of the pool to false, or serve it with "
                    "mode: Dedicated"
                )

    def put(self, slot: int, adapter: Adapter) -> None:
        """Have `adapter` in `slot`, in place of what was there."""
        for name in adapter.updates:
            self._layer(name)
        for name, layer in self._layers.items():
            layer.write(slot, adapter.updates.get(name))

    @contextmanager
    def disturbed(self) -> Iterator[None]:
        """Within, slots that hold nothing hold small random numbers, as adapters do."""
        for layer in self._layers.values():
            layer.scatter(0.01)
        try:
            yield
        finally:
            for layer in self._layers.values():
                layer.scatter(0.0)

    @contextmanager
    def chosen(self, slots: Sequence[int]) -> Iterator[None]:
        """Within, row i of a batch is drawn with the adapter in `slots[i]`."""
        if self._layers and (self._settled or any(slot != BASE_SLOT for slot in slots)):
            device = next(iter(self._layers.values())).down.device
            self._chosen.rows = torch.tensor(slots, device=device)
        try:
            yield
        finally:
            self._chosen.rows = None

    def _layer(self, name: str) -> "_Layer":
        if name not in self._layers:
            self._layers[name] = _Layer(self._modules[name], self.count + 1, self._rank, self._chosen)
        return self._layers[name]


@dataclass
class _Chosen:
    """What layers ask for at each forward pass."""

    rows: torch.Tensor | None = None
    """(B,): the slot of each row; None: the plain base for all."""


class _Layer:
    """All slots' low-rank updates of one layer, added to what the layer gives (Hu et al., arXiv 2106.09685)."""

    def __init__(self, module: nn.Linear | nn.Conv2d, slots: int, rank: int, chosen: _Chosen) -> None:
        weight = module.weight
        self._module, self._chosen = module, chosen
        self.down = weight.new_zeros((slots, rank, *weight.shape[1:]))
        self.up = weight.new_zeros((slots, rank, weight.shape[0]))
        # Of DoRA (arXiv 2402.09353): what the base's own output gains; made when the first adapter has it.
        self.gain: torch.Tensor | None = None
        self.filled: set[int] = set()
        """Slots whose adapters change the layer."""
        module.register_forward_hook(self._hook)

    @torch.no_grad()
    def write(self, slot: int, update: Update | None) -> None:
        """The update of the adapter in `slot`; None: it leaves the layer alone."""
        if update is None and slot not in self.filled:
            return
        self.down[slot].zero_()
        self.up[slot].zero_()
        if self.gain is not None:
            self.gain[slot].zero_()
        self.filled.discard(slot)
        if update is None:
            return
        rank = len(update.down)
        self.down[slot, :rank].copy_(update.down, non_blocking=True)
        self.up[slot, :rank].copy_(update.up, non_blocking=True)
        if update.gain is not None:
            self.gains()[slot].copy_(update.gain)
        self.filled.add(slot)

    def gains(self) -> torch.Tensor:
        """(slots, out): room for DoRA's, made when it is first needed."""
        if self.gain is None:
            self.gain = self.up.new_zeros((len(self.up), self.up.shape[2]))
        return self.gain

    @torch.no_grad()
    def scatter(self, deviation: float) -> None:
        """Random numbers, or with 0 none, in the slots whose adapters leave the layer alone."""
        if not (empty := sorted(set(range(BASE_SLOT + 1, len(self.down))) - self.filled)):
            return
        for each in (self.down, self.up, *([] if self.gain is None else [self.gain])):
            each[empty] = torch.empty_like(each[empty]).normal_(std=deviation) if deviation else 0.0

    def _hook(self, module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        rows = self._chosen.rows
        if rows is None:
            return output
        image = isinstance(self._module, nn.Conv2d)
        # (B, places, width), whatever the layer's own shape is.
        given = output.flatten(2).mT if image else output.reshape(len(output), -1, output.shape[-1])
        hidden = self._convolved(args[0], rows) if image else self._lowered(args[0], rows)
        changed = given + torch.bmm(hidden, self.up[rows])
        if self.gain is not None:
            plain = given if self._module.bias is None else given - self._module.bias
            changed = changed + self.gain[rows].unsqueeze(1) * plain
        return changed.mT.reshape(output.shape) if image else changed.reshape(output.shape)

    def _lowered(self, given: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """(B, places, rank)."""
        return torch.bmm(given.reshape(len(given), -1, given.shape[-1]), self.down[rows].mT)

    def _convolved(self, given: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """(B, places, rank). Row by row: each has a kernel of its own."""
        module: Any = self._module
        shape, kernels = (module.stride, module.padding, module.dilation, module.groups), self.down[rows]
        lowered = [functional.conv2d(given[i : i + 1], kernels[i], None, *shape) for i in range(len(kernels))]
        return torch.cat(lowered).flatten(2).mT
