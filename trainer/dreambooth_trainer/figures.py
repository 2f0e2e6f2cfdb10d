"""The numbers of a training that people watch, and the line that shows them."""

from dataclasses import dataclass

from dreambooth_trainer.device import Usage


@dataclass(frozen=True)
class Figures:
    """Of the steps since the last report; times in seconds, pictures over all ranks."""

    loss: float
    learning_rate: float
    images_per_second: float
    eta_seconds: int
    step_seconds: float
    # Of each step, waiting for its samples.
    data_wait_seconds: float
    usage: Usage
    # Since the newest checkpoint, or since the start when there is none yet.
    checkpoint_age: float
    resumes: int = 0


def line(figures: Figures) -> str:
    """What a log or a bar says beside the step."""
    wait = figures.data_wait_seconds / max(figures.step_seconds, 1e-9)
    usage = figures.usage
    parts = [
        f"loss {figures.loss:.4f}",
        f"lr {figures.learning_rate:.1e}",
        f"{figures.images_per_second:.1f} images/s",
        f"data wait {min(1.0, wait):.0%}",
        f"{'GPU' if usage.on_gpu else 'memory'} {usage.memory_bytes / 2**30:.1f} GiB",
        f"busy {usage.busy:.0%}" if usage.busy is not None else "",
        f"checkpoint {duration(figures.checkpoint_age)} ago",
        f"resumed {figures.resumes}×" if figures.resumes else "",
        f"ETA {duration(figures.eta_seconds)}",
    ]
    return "  ".join(part for part in parts if part)


def duration(seconds: float) -> str:
    """`1:02:03` or `2:03`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
