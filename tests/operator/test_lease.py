"""Who leads: over an API server in memory that keeps one Lease and its versions, as the real one does."""

import asyncio
import copy
import time

import pytest

from dreambooth_operator.cluster import ApiFault
from dreambooth_operator.fence import Fence, NotLeading
from dreambooth_operator.lease import Lease


class Leases:
    """One Lease with optimistic concurrency; `down` refuses everything."""

    def __init__(self):
        self.lease, self.version, self.down = None, 0, False

    async def read_lease(self, namespace, name):
        if self.down:
            raise ApiFault(0, "away")
        return copy.deepcopy(self.lease)

    async def write_lease(self, lease):
        if self.down:
            raise ApiFault(0, "away")
        found = self.lease["metadata"]["resourceVersion"] if self.lease else None
        if lease["metadata"].get("resourceVersion") != found:
            raise ApiFault(409, "changed")
        self.version += 1
        self.lease = copy.deepcopy(lease)
        self.lease["metadata"]["resourceVersion"] = str(self.version)
        return copy.deepcopy(self.lease)


def replica(leases, name, **times):
    return Lease(leases, Fence(), "ns", "lease", name, **{"duration": 3, "renew": 0.1, "look": 0.05, **times})


async def test_one_leads_and_the_other_waits():
    leases = Leases()
    first, second = replica(leases, "a"), replica(leases, "b")
    await first.acquire()
    keeping = asyncio.create_task(first.keep())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(second.acquire(), 0.5)
    with pytest.raises(NotLeading):
        second.fence.budget(1)
    assert first.fence.budget(1) > 0
    keeping.cancel()


async def test_a_lease_given_back_is_taken_at_once():
    leases = Leases()
    first, second = replica(leases, "a", duration=600), replica(leases, "b", duration=600)
    await first.acquire()
    waiting = asyncio.create_task(second.acquire())
    await asyncio.sleep(0.2)
    await first.release()
    with pytest.raises(NotLeading):
        first.fence.budget(1)
    # And not when it would have expired.
    await asyncio.wait_for(waiting, 60)
    assert leases.lease["spec"]["leaseTransitions"] == 2


async def test_after_a_kill_the_lease_must_be_seen_to_expire():
    leases = Leases()
    first, second = replica(leases, "a"), replica(leases, "b")
    await first.acquire()
    begun = time.monotonic()
    await second.acquire()
    assert 3 <= time.monotonic() - begun < 6


async def test_who_cannot_renew_stops_before_another_may_begin():
    leases = Leases()
    first = replica(leases, "a")
    await first.acquire()
    begun = time.monotonic()
    leases.down = True
    await first.keep()
    assert time.monotonic() - begun < 3 - 0.5
    with pytest.raises(NotLeading):
        first.fence.budget(1)


async def test_an_answer_that_was_lost_does_not_cost_the_lease():
    """The renewal was carried out, its answer not heard: the next one conflicts with it."""
    leases = Leases()
    first = replica(leases, "a")
    await first.acquire()
    leases.version += 1
    leases.lease["metadata"]["resourceVersion"] = str(leases.version)
    keeping = asyncio.create_task(first.keep())
    await asyncio.sleep(0.5)
    assert not keeping.done()
    keeping.cancel()


async def test_who_finds_another_in_its_place_stops_at_once():
    leases = Leases()
    first = replica(leases, "a")
    await first.acquire()
    leases.version += 1
    leases.lease["metadata"]["resourceVersion"] = str(leases.version)
    leases.lease["spec"]["holderIdentity"] = "b"
    await asyncio.wait_for(first.keep(), 1)
