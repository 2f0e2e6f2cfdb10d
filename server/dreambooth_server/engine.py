"""The seam between what waits and what draws: the queue knows `Engine`, and an engine knows nothing of HTTP."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

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


class Engine(Protocol):
    """Draws. Used by one thread at a time."""

    @property
    def abilities(self) -> Abilities: ...

    @property
    def artifacts(self) -> Mapping[str, Artifact]:
        """The subjects by name; the first is the default."""

    def count_tokens(self, prompt: str) -> int:
        """Tokens of `prompt`. May be called from any thread."""

    def draw(self, drawings: Sequence[Drawing], stop: Callable[[], bool] = ...) -> list[Image.Image]:
        """The pictures in the order of `drawings`, of any models and shapes. Raises Refused, Cancelled."""
