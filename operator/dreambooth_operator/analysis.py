"""Whether a canary does badly. Pure.

The 95th percentile is read from a histogram as Prometheus' `histogram_quantile` does: by straight lines within a
bucket; what is beyond the last bound counts as the last bound.
"""

from enum import StrEnum
from typing import NamedTuple

from dreambooth_api.routes import BOUNDS, Traffic
from dreambooth_api.serving import Analysis

# Of fewer requests nothing is said before the step is over: one that failed would be all of them.
FEW = 10


class Fault(StrEnum):
    """What a canary did badly at."""

    ERRORS = "errors"
    DURATION = "duration"


class Verdict(NamedTuple):
    """What is wrong with an artifact, and the numbers that show it."""

    fault: Fault
    text: str


def quantile(durations: list[int], share: float) -> float | None:
    """The duration below which `share` of the requests are, seconds; None without requests."""
    total = sum(durations)
    if not total:
        return None
    rank, below, lower = share * total, 0, 0.0
    for count, bound in zip(durations, BOUNDS, strict=False):
        if count and below + count >= rank:
            return lower + (bound - lower) * (rank - below) / count
        below, lower = below + count, bound
    return BOUNDS[-1]


def failure(seen: Traffic, analysis: Analysis, over: bool) -> Verdict | None:
    """What is wrong with an artifact that did so at one step; None when nothing is. `over`: the step is, so that also
    few requests count."""
    if not seen.requests or (seen.requests < FEW and not over):
        return None
    rate = seen.errors / seen.requests
    if rate > analysis.max_error_rate:
        counted = f"{seen.errors} of {seen.requests} requests failed ({100 * rate:.1f} %)"
        return Verdict(Fault.ERRORS, f"{counted}; maxErrorRate allows {100 * analysis.max_error_rate:g} %")
    p95 = quantile(seen.durations, 0.95)
    if analysis.max_p95_seconds is not None and p95 is not None and p95 > analysis.max_p95_seconds:
        took = f"p95 of {seen.requests} requests is {p95:.2f} s"
        return Verdict(Fault.DURATION, f"{took}; maxP95Seconds allows {analysis.max_p95_seconds:g} s")
    return None
