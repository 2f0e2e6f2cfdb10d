"""What the engine is asked for: one picture, completely described; and how it may end without one."""

from dataclasses import dataclass
from enum import StrEnum


class Refused(Exception):
    """The pictures could not be drawn; the text may be shown to whoever asked."""


class Cancelled(Exception):
    """Nobody waits for the pictures any more."""


class Sampler(StrEnum):
    """Ways from noise to a picture, by the names that people know them by."""

    DPM = "dpm++"
    DDIM = "ddim"
    EULER = "euler"
    EULER_A = "euler_a"
    UNIPC = "unipc"


@dataclass(frozen=True)
class Drawing:
    """One picture. Two equal drawings give the same picture, whatever is drawn beside them."""

    model: str
    """The engine's name of a subject, or `base`."""
    prompt: str
    """Words as the text encoder gets them: the subject's identifier is filled in."""
    negative_prompt: str
    seed: int
    """Seed of the initial noise, 0 … 2⁶³-1."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    steps: int
    guidance_scale: float
    """Classifier-free guidance (Ho & Salimans, arXiv 2207.12598); at most 1: none, and half the work."""
    sampler: Sampler = Sampler.DPM

    @property
    def guided(self) -> bool:
        """Whether the negative prompt takes part."""
        return self.guidance_scale > 1

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.width, self.height

    @property
    def rows(self) -> int:
        """Rows of a U-Net's batch that it takes."""
        return 2 if self.guided else 1

    @property
    def step_cost(self) -> int:
        """Work of one step, in pixels that go through the U-Net."""
        return self.rows * self.width * self.height

    @property
    def cost(self) -> int:
        """Work of all steps, in the same unit."""
        return self.steps * self.step_cost
