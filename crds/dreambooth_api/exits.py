"""Exit codes of the trainer's processes: the class of an end, for the Job's `podFailurePolicy`."""

from enum import IntEnum


class ExitCode(IntEnum):
    """How a trainer process ended.

    64-69: the user's to mend, never retried; 75-76: passing, retried; 77: not a failure.
    """

    OK = 0
    SPEC = 64
    DATA = 65
    BASE_MODEL = 66
    NON_FINITE = 67
    GPU_OUT_OF_MEMORY = 68
    CHECKPOINTS_CORRUPT = 69
    STORE_UNAVAILABLE = 75
    PEER_LOST = 76
    SAVED_ON_SIGTERM = 77


PERMANENT = (
    ExitCode.SPEC,
    ExitCode.DATA,
    ExitCode.BASE_MODEL,
    ExitCode.NON_FINITE,
    ExitCode.GPU_OUT_OF_MEMORY,
    ExitCode.CHECKPOINTS_CORRUPT,
)
"""Codes that a retry cannot mend."""
