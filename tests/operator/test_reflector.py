"""How all is listed; what a write was answered with goes ahead of the watch, and never behind it."""

import asyncio

import pytest

from dreambooth_operator.cluster import ApiFault
from dreambooth_operator.reflector import Reflector


def service(version, name="robot-train"):
    return {"kind": "Service", "metadata": {"name": name, "namespace": "team", "resourceVersion": version}}


class Cluster:
    """Lists one object as of version 5, and then tells what is put into `events`."""

    def __init__(self):
        self.listing, self.events = asyncio.Event(), asyncio.Queue()

    async def list_page(self, *_):
        await self.listing.wait()
        return {"items": [service("4", "listed")], "metadata": {"resourceVersion": "5"}}

    async def watch(self, *_):
        while event := await self.events.get():
            yield event
        raise ApiFault(410, "too old")


class Sink:
    """The names that it knows."""

    def __init__(self):
        self.names = []

    def changed(self, kind, body):
        self.names.append(body["metadata"]["name"])

    def gone(self, kind, namespace, name, uid=""):
        self.names.remove(name)

    def replace(self, kind, namespace, present):
        self.names = [name for name in self.names if (namespace, name) in present]


@pytest.fixture
async def watched():
    """A reflector that runs, its API server and its sink."""
    cluster, sink = Cluster(), Sink()
    reflector = Reflector(cluster, sink, "Service", "team", "")
    task = asyncio.create_task(reflector.run())
    yield reflector, cluster, sink
    task.cancel()


async def settled():
    for _ in range(20):
        await asyncio.sleep(0)


async def test_what_was_written_is_known_before_the_watch_tells_of_it(watched):
    reflector, cluster, sink = watched
    cluster.listing.set()
    await reflector.synced.wait()
    reflector.wrote(service("6"))
    assert sink.names == ["listed", "robot-train"]


async def test_what_was_deleted_before_the_answer_came_does_not_come_back(watched):
    reflector, cluster, sink = watched
    cluster.listing.set()
    await reflector.synced.wait()
    for change, version in (("ADDED", "6"), ("DELETED", "7")):
        cluster.events.put_nowait({"type": change, "object": service(version)})
    await settled()
    reflector.wrote(service("6"))
    assert sink.names == ["listed"]


async def test_while_all_is_listed_the_list_alone_counts(watched):
    reflector, cluster, sink = watched
    await settled()
    reflector.wrote(service("6"))
    assert sink.names == []
    cluster.listing.set()
    await reflector.synced.wait()
    cluster.listing.clear()
    cluster.events.put_nowait(None)
    # The watch has ended with 410, and the reflector lists anew.
    while reflector.broken == float("-inf"):
        await asyncio.sleep(0)
    reflector.wrote(service("6"))
    assert sink.names == ["listed"]


class Pages(Cluster):
    """Three pages of one object each; the last one may expire."""

    def __init__(self, expired=False):
        super().__init__()
        self.asked, self.expired = [], expired

    async def list_page(self, kind, namespace, selector, limit, token):
        self.asked.append(token)
        if token == "2" and self.expired:
            raise ApiFault(410, "expired")
        following = {"": "1", "1": "2", "2": ""}[token]
        return {"items": [service("4", f"page-{token}")], "metadata": {"resourceVersion": "5", "continue": following}}


async def test_a_page_is_asked_for_before_the_one_before_it_is_taken_in():
    cluster, sink, asked = Pages(), Sink(), []
    sink.changed = lambda kind, body: asked.append((body["metadata"]["name"], list(cluster.asked)))
    reflector = Reflector(cluster, sink, "Service", "team", "")
    task = asyncio.create_task(reflector.run())
    await reflector.synced.wait()
    task.cancel()
    assert asked == [("page-", ["", "1"]), ("page-1", ["", "1", "2"]), ("page-2", ["", "1", "2"])]


async def test_of_a_list_that_expired_half_way_nothing_is_gone():
    cluster, sink = Pages(expired=True), Sink()
    sink.names = ["known"]
    reflector = Reflector(cluster, sink, "Service", "team", "")
    task = asyncio.create_task(reflector.run())
    while reflector.broken == float("-inf"):
        await asyncio.sleep(0)
    task.cancel()
    assert sink.names == ["known", "page-", "page-1"]
    assert not reflector.synced.is_set()
