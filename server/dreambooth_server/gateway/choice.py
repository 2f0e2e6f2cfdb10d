"""Which artifact a request is drawn from, and on which replica: pure rules."""

import hashlib
from collections.abc import Callable, Sequence

from dreambooth_api.routes import Replica, Target

SPARE = 2
"""A replica is full with so many times the requests that it is meant to carry: it can batch what it has at hand."""


def ranked(digest: str, replicas: Sequence[Replica]) -> list[Replica]:
    """`replicas` in the order in which they are to have the adapter `digest` at hand.

    Rendezvous hashing (Thaler & Ravishankar, "Using name-based mappings to increase hit rates", 1998): every gateway
    finds the same order, and a replica that comes or goes moves the subjects that it wins or had, no others.
    """

    def weight(replica: Replica) -> bytes:
        return hashlib.blake2b(f"{digest} {replica.pod}".encode(), digest_size=8).digest()

    return sorted(replicas, key=weight, reverse=True)


def pick_shared(
    digest: str, replicas: Sequence[Replica], target: int, load: Callable[[Replica], int]
) -> Replica | None:
    """The replica that has the adapter at hand, unless it has `target` requests already: then the least loaded.

    None when all are full. `load` counts a replica's requests in flight.
    """
    order = ranked(digest, replicas)
    if order and load(order[0]) < target:
        return order[0]
    return _least(order, target, load)


def pick_dedicated(replicas: Sequence[Replica], target: int, load: Callable[[Replica], int]) -> Replica | None:
    """The least loaded replica; None when all are full."""
    return _least(replicas, target, load)


def _least(replicas: Sequence[Replica], target: int, load: Callable[[Replica], int]) -> Replica | None:
    room = [replica for replica in replicas if load(replica) < SPARE * target]
    return min(room, key=load, default=None)


class Shares:
    """Divides a subject's requests by the weights of its targets, exactly: smooth weighted round-robin."""

    def __init__(self) -> None:
        self._credit: dict[str, int] = {}

    def pick(self, targets: Sequence[Target]) -> Target:
        """The next request's target; `targets` has one of a weight above 0 at least, or the first is taken."""
        self._credit = {target.digest: self._credit.get(target.digest, 0) + target.weight for target in targets}
        chosen = max(targets, key=lambda target: (target.weight > 0, self._credit[target.digest]))
        self._credit[chosen.digest] -= sum(target.weight for target in targets)
        return chosen
