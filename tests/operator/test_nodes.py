"""Nodes fall silent by what was seen of their Leases, and not because nothing could be seen."""

import asyncio
import contextlib
import time

import pytest

from dreambooth_operator import nodes
from dreambooth_operator.cluster import ApiFault
from dreambooth_operator.nodes import Nodes


def lease(name: str, renewed: str = "1", duration: int | None = 40, **metadata):
    spec = {"renewTime": renewed} | ({"leaseDurationSeconds": duration} if duration else {})
    return {"metadata": {"name": name, "namespace": nodes.NAMESPACE, "resourceVersion": "1", **metadata}, "spec": spec}


@pytest.fixture
def clock(monkeypatch):
    """The monotonic clock, to be set."""
    now = [1000.0]
    monkeypatch.setattr(nodes.time, "monotonic", lambda: now[0])
    return now


def test_a_node_is_as_silent_as_its_last_renewal_is_old(clock):
    watched = Nodes(None)
    watched.changed("Lease", lease("a"))
    clock[0] += 20
    # A label is no sign of life.
    watched.changed("Lease", lease("a", labels={"x": "y"}))
    assert watched.of(["a"]) == {"a": (20, 25)}
    watched.changed("Lease", lease("a", "2"))
    clock[0] += 3
    assert watched.of(["a"]) == {"a": (3, 25)}


@pytest.mark.parametrize(("duration", "allowed"), [(40, 25), (None, 25), (8, 5)])
def test_it_may_miss_two_renewals_and_a_half(clock, duration, allowed):
    watched = Nodes(None)
    watched.changed("Lease", lease("a", duration=duration))
    assert watched.of(["a"])["a"].allowed == allowed


def test_of_nodes_without_a_lease_nothing_is_said(clock):
    watched = Nodes(None)
    for name in "abc":
        watched.changed("Lease", lease(name))
    watched.gone("Lease", nodes.NAMESPACE, "a")
    watched.replace("Lease", nodes.NAMESPACE, {(nodes.NAMESPACE, "c")})
    assert list(watched.of(["", "a", "b", "c", "d"])) == ["c"]


async def test_while_the_api_server_is_away_no_node_is_silent(monkeypatch):
    class Away:
        """Lists one Lease, and is not reached after that."""

        async def list_page(self, *_):
            return {"items": [lease("a")], "metadata": {"resourceVersion": "1"}}

        async def watch(self, *_):
            yield None
            raise ApiFault(0, "away")

    watched = Nodes(Away())
    task = asyncio.create_task(watched.reflector.run())
    await asyncio.wait_for(watched.reflector.synced.wait(), 5)
    before = time.monotonic()
    while watched.reflector.broken < before:
        await asyncio.sleep(0.01)
    # Seen an hour ago; but there was nothing to be seen since.
    monkeypatch.setattr(watched, "_seen", {"a": watched._seen["a"]._replace(at=before - 3600)})
    assert watched.of(["a"])["a"].silent < 5
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
