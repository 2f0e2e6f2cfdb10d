"""How long passing faults are borne: growing pauses with a word each, then the fault itself."""

import errno
from collections.abc import Callable
from typing import TypeVar

import tenacity

T = TypeVar("T")
# A disk that is full now may have room again soon: another pod's files go, a quota is raised.
_FULL = (errno.ENOSPC, errno.EDQUOT)
_FULL_WORDS = ("No space left on device", "Disk quota exceeded")


def patiently(
    operation: Callable[[], T],
    may_pass: Callable[[BaseException], bool],
    patience: float,
    what: str,
    say: Callable[[str], None] = print,
) -> T:
    """`operation`, tried again for `patience` seconds while `may_pass(fault)`; `what` names it in a word to `say`.

    Pauses are random and grow to 20 s (full jitter), so that many pods do not come back at once. Raises the last fault.
    """

    def speak(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        say(f"{what}: {type(error).__name__}, trying again (attempt {state.attempt_number})")

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(may_pass),
        wait=tenacity.wait_random_exponential(multiplier=0.5, max=20),
        stop=tenacity.stop_after_delay(patience),
        before_sleep=speak,
        reraise=True,
    )
    return retrying(operation)


def is_disk_full(error: BaseException) -> bool:
    """Whether `error` says that a disk or a quota is full; safetensors says it in words only."""
    return getattr(error, "errno", None) in _FULL or any(word in str(error) for word in _FULL_WORDS)
