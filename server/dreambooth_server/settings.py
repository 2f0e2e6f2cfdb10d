"""What a server is told, in one place; the defaults suit one subject on one small machine."""

import os
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from dreambooth_api.names import ENV_CACHE_DIR, ENV_STORE_DIR, ENV_WORK_DIR, SERVER_PORT, STORE_DIR

BASE_MODEL = "base"
"""The `model` that draws with the plain base; no subject can have this name here."""


@dataclass(frozen=True)
class SubjectSource:
    """Where one subject comes from."""

    uri: str
    """Folder with `MANIFEST.json`: `s3://…`, `file://…`, or a path."""
    digest: str | None = None
    """`sha256:<hex>` it must have; None: the manifest's own word is taken."""
    name: str | None = None
    """The subject's name; None: the card's."""


@dataclass(frozen=True)
class Places:
    """Folders of this machine."""

    store: Path = field(default_factory=lambda: Path(os.environ.get(ENV_STORE_DIR, STORE_DIR)))
    """The files of the Secret `dreambooth-store`."""
    work: Path | None = field(default_factory=lambda: _path(os.environ.get(ENV_WORK_DIR)))
    """Downloads are kept below it; None: below the user's cache folder."""
    lasting: Path | None = field(default_factory=lambda: _path(os.environ.get(ENV_CACHE_DIR)))
    """A folder that outlives the pod and may be shared with others: downloads are kept there instead."""

    @property
    def lasts(self) -> bool:
        """Whether downloads are kept in `lasting`."""
        return self.lasting is not None and os.access(self.lasting, os.R_OK | os.W_OK | os.X_OK)

    @property
    def cache(self) -> Path:
        """Where verified downloads are kept."""
        if self.lasting is not None and self.lasts:
            return self.lasting
        return (self.work or Path.home() / ".cache" / "dreambooth") / "serving"


class Precision(StrEnum):
    """Number format of the weights; `auto`: half precision on a GPU, else fp32."""

    AUTO = "auto"
    BF16 = "bf16"
    FP16 = "fp16"
    FP32 = "fp32"


@dataclass(frozen=True)
class Room:
    """How much of its subjects a pool keeps at hand."""

    on_device: int
    """Adapters in the device's slots."""
    in_memory: int
    """Adapters in the host's memory."""
    max_rank: int
    """The highest rank: memory is set aside for it."""


@dataclass(frozen=True)
class Power:
    """How the networks are run."""

    batch: int = 8
    """Guided pictures that may share a forward pass, where that pays; 1: none do."""
    precision: Precision = Precision.AUTO
    compile: bool = False
    """Whether pictures of the usual size are drawn by compiled programs, which are made before the server is ready."""


@dataclass(frozen=True)
class Settings:
    """Everything one server process is told."""

    subjects: tuple[SubjectSource, ...] = ()
    """The first is the default. None: a pool, whose subjects come with the requests; then `base` is needed."""
    base: str | None = None
    """Where the base is now; None: where the card says. Its digest must be the card's in either case."""
    revision: str | None = None
    """Of a pool's base, when it comes from the hub."""
    room: Room | None = None
    """A pool's; None: room for exactly the subjects."""
    power: Power = field(default_factory=Power)
    host: str = "0.0.0.0"
    port: int = SERVER_PORT
    drain_seconds: float = 0.0
    """After SIGTERM: how long requests are still accepted while this pod is taken out of the Service, seconds."""
    grace_seconds: float = 60.0
    """How long requests in flight may take to finish after that, seconds."""
    waiting: int = 256
    """Requests that may wait; one more is answered with 429."""
    patience: float = 30.0
    """The longest wait that a request is taken on for, seconds, as far as can be told."""
    places: Places = field(default_factory=Places)


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None
