"""GPU time of training pods: what was useful, and what a failure wasted. Pure.

A pod that ended well, or saved its state when it was told to stop, wasted nothing. Of one that failed, or vanished, the
time since the last checkpoint is lost: its successor does it again.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from dreambooth_api.exits import ExitCode
from dreambooth_operator import causes, clock
from dreambooth_operator.views import Body


class Spent(NamedTuple):
    """Seconds of pods, to be multiplied by the GPUs of each."""

    useful: float = 0.0
    wasted: float = 0.0


def settle(alive: dict[str, datetime], pods: Iterable[Body], saved: str | None, now: datetime) -> Spent:
    """What the pods that ended since the last call have spent.

    `alive`: pods seen running, by uid, with their begin; it is brought up to date. What was never seen running is not
    counted: another replica, or this one before its restart, has done so. `saved`: when the last checkpoint was made.
    """
    useful = wasted = 0.0
    gone = dict(alive)
    for pod in pods:
        uid = pod["metadata"]["uid"]
        running = causes.container_status(pod).get("state", {}).get("running")
        ended = causes.container_status(pod).get("state", {}).get("terminated")
        if running:
            alive.setdefault(uid, clock.parse(running.get("startedAt")) or now)
            gone.pop(uid, None)
        elif ended and uid in alive:
            gone.pop(uid, None)
            well = ended.get("exitCode") in (0, ExitCode.SAVED_ON_SIGTERM)
            spent = _split(alive.pop(uid), clock.parse(ended.get("finishedAt")) or now, saved, well)
            useful, wasted = useful + spent.useful, wasted + spent.wasted
    for uid, begun in gone.items():
        del alive[uid]
        spent = _split(begun, now, saved, False)
        useful, wasted = useful + spent.useful, wasted + spent.wasted
    return Spent(useful, wasted)


def _split(begun: datetime, ended: datetime, saved: str | None, well: bool) -> Spent:
    whole = max(0.0, (ended - begun).total_seconds())
    if well:
        return Spent(useful=whole)
    kept = clock.parse(saved)
    useful = min(whole, max(0.0, (kept - begun).total_seconds())) if kept else 0.0
    return Spent(useful, whole - useful)
