"""Tensors that follow from pictures and words alone, kept in the store under the hash of all that they follow from.

Rank 0 computes what is not there; every rank then takes what is in the store, so that all of them, and every run that
resumes, train on the same bits whatever machine computed them.
"""

from collections.abc import Callable

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from dreambooth_api.artifact import Manifest
from dreambooth_api.names import MANIFEST
from dreambooth_trainer.distributed import World
from dreambooth_trainer.manifests import CorruptFolder, dump, entry_of, get_manifest
from dreambooth_trainer.store import Missing, Store

FILE = "tensors.safetensors"
Tensors = dict[str, Tensor]


def cached(store: Store, world: World, compute: Callable[[], Tensors]) -> Tensors:
    """What is in the folder `store`, on the CPU; computed and put there by rank 0 if it is absent or spoilt.

    Called by every rank. Raises CorruptFolder when what was just written cannot be read.
    """
    if world.leads:
        try:
            found = _read(store)
        except CorruptFolder:
            _write(store, compute())
            found = _read(store)
    world.share(None)
    return found if world.leads else _read(store)


def _read(store: Store) -> Tensors:
    """Raises CorruptFolder."""
    manifest = get_manifest(store)
    if manifest is None or FILE not in manifest.files:
        raise CorruptFolder(f"{store.uri} is not whole")
    try:
        data = store.read(FILE)
        if entry_of(data) != manifest.files[FILE]:
            raise CorruptFolder(f"{store.uri}/{FILE} is not what its manifest says")
        return safetensors.torch.load(data)
    except (Missing, SafetensorError) as e:
        raise CorruptFolder(f"{store.uri}/{FILE}: {e}") from e


def _write(store: Store, tensors: Tensors) -> None:
    data = safetensors.torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    store.write(FILE, data)
    store.write(MANIFEST, dump(Manifest(files={FILE: entry_of(data)})))
