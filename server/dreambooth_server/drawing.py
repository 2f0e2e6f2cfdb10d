"""What the engine is asked for: one picture, completely described; and how it may end without one."""

from dataclasses import dataclass


class Refused(Exception):
    """The pictures could not be drawn; the text may be shown to whoever asked."""


class Cancelled(Exception):
    """Nobody waits for the pictures any more."""


@dataclass(frozen=True)
class Drawing:
    """One picture. Two equal drawings give the same picture."""

    model: str
    """A subject's name, or `base`."""
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

    @property
    def guided(self) -> bool:
        """Whether the negative prompt takes part."""
        return self.guidance_scale > 1

    @property
    def shape(self) -> tuple[str, int, int, int, bool]:
        """Drawings of one shape can share a batch."""
        return self.model, self.width, self.height, self.steps, self.guided
