"""The seam between what waits and what draws: the queue knows `Engine`, and an engine knows nothing of HTTP."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image

from dreambooth_server.artifacts import Artifact
from dreambooth_server.drawing import Drawing


@dataclass(frozen=True)
class Abilities:
    """What the loaded base can do."""

    resolution: int
    """The side of a picture that it was made for, pixels."""
    multiple: int
    """Sides are multiples of it, pixels."""
    prompt_tokens: int
    """Words' tokens that the text encoder reads, without those for begin and end."""
    device: str


class Running(Protocol):
    """A picture on its way."""

    drawing: Drawing
    done: int
    """Steps."""
    fault: Exception | None
    """Why it goes no further."""

    @property
    def finished(self) -> bool:
        """Whether only decoding is left."""


class Engine(Protocol):
    """Draws, step by step. Used by one thread at a time, but for what a docstring says."""

    @property
    def abilities(self) -> Abilities: ...

    @property
    def artifacts(self) -> Mapping[str, Artifact]:
        """The subjects by the engine's name for them; the first is the default."""

    def count_tokens(self, prompt: str) -> int:
        """Tokens of `prompt`. May be called from any thread."""

    def joins(self, drawing: Drawing, running: Sequence[Any]) -> bool:
        """Whether `drawing` can begin now, beside those that run; where none runs, it can."""

    def begin(self, drawing: Drawing) -> Running:
        """Noise, words, and the subject's weights on the device. Raises Refused."""

    def step(self, running: Sequence[Any]) -> None:
        """One step of each; one that cannot go on gets a fault."""

    def finish(self, run: Any) -> Image.Image:
        """The picture of one that has no step left. Raises Refused."""

    def end(self, run: Any) -> None:
        """Every run's last word, whether it was finished or not: what it held is free."""

    def warm_up(self) -> None:
        """Whenever nothing is being drawn: what would hold pictures up later. Does nothing the second time."""


class PoolEngine(Engine, Protocol):
    """An engine whose subjects come and go."""

    def add(self, key: str, artifact: Artifact) -> None:
        """Know a subject as `key`, its weights in memory at least. From any thread. Raises LoadFault."""

    def at_hand(self, key: str) -> bool:
        """Whether the subject can be drawn without reading anything. From any thread."""
