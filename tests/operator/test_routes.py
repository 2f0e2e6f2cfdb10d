"""Routes as the caches have them."""

import json
import time

import pytest

from dreambooth_api import names
from dreambooth_api.routes import GatewayReport, Load, Routes
from dreambooth_operator.caches import Caches
from dreambooth_operator.routes import Table
from dreambooth_operator.views import Key
from tests.operator.serving_life import A, B, artifact

OWN, CANARY, POOL = "model/team/robot", "canary/team/robot", "pool/team/default"


def revision(digest, weight, backend=OWN, ready=True, promoted=True):
    return {
        "digest": digest, "uri": f"s3://models/{digest[7]}", "weight": weight, "ready": ready, "promoted": promoted,
        "backend": backend,
    }  # fmt: skip


class World:
    """Caches, and what a gateway is told of them."""

    def __init__(self, make):
        self.make, self.caches, self.keys, self.version = make, Caches(), {}, 0
        self.gateways = self.count = 0
        self.table = Table(
            self.caches,
            lambda ns, secret: self.keys.get((ns, secret), {}),
            lambda: self.version,
            lambda: self.gateways,
        )

    def put(self, body, kind=None):
        self.count += 1
        body["metadata"]["resourceVersion"] = str(self.count)
        self.caches.put(kind or body["kind"], body)

    def model(self, *revisions, name="robot", serving=None, conditions=()):
        body = self.make.model({"artifact": artifact(A), "serving": serving or {}}, name=name, uid=f"{name}-uid")
        self.put(body | {"status": {"revisions": list(revisions), "conditions": list(conditions)}})

    def pod(self, name, component="server", ready=True, address="10.0.0.1", **labels):
        pod = self.make.pod(name)
        pod["metadata"]["labels"] = {names.LABEL_COMPONENT: component, **labels}
        pod["status"] |= {"podIP": address, "conditions": [{"type": "Ready", "status": str(ready)}]}
        self.put(pod, "Pod")

    @property
    def routes(self):
        return Routes.model_validate_json(self.table.current()[1])


@pytest.fixture
def world(make):
    return World(make)


def test_a_model_of_its_own_pods(world):
    world.model(revision(A, 100), serving={"targetInFlight": 3, "maxReplicas": 2})
    world.pod("one", **{names.LABEL_MODEL: "robot"})
    world.pod("starts", ready=False, **{names.LABEL_MODEL: "robot"})
    world.pod("trains", component="train", **{names.LABEL_JOB: "robot"})
    (route,) = world.routes.routes
    assert (route.mode, route.target_in_flight, route.max_replicas, route.access) == ("Dedicated", 3, 2, None)
    assert [(t.digest, t.weight, t.backend) for t in route.targets] == [(A, 100, OWN)]
    assert [(r.pod, r.address) for r in world.routes.backends[OWN]] == [("one", "10.0.0.1:8080")]


def test_a_canary_has_its_share_and_its_pods(world):
    world.model(revision(B, 10, CANARY, promoted=False), revision(A, 90))
    world.pod("new", component="canary", address="fd00::1", **{names.LABEL_MODEL: "robot"})
    (route,) = world.routes.routes
    assert {t.backend: t.weight for t in route.targets} == {CANARY: 10, OWN: 90}
    assert world.routes.backends[CANARY][0].address == "[fd00::1]:8080"
    assert world.routes.backends[OWN] == []


def test_a_shared_model_goes_by_its_pool(world):
    world.put(world.make.pool({"targetInFlight": 9, "maxReplicas": 7}))
    world.model(revision(B, 100, POOL), revision(A, 0, POOL), serving={"mode": "Shared", "pool": "default"})
    world.pod("one", **{names.LABEL_POOL: "default"})
    (route,) = world.routes.routes
    assert (route.mode, route.target_in_flight, route.max_replicas) == ("Shared", 9, 7)
    assert [(t.digest, t.weight) for t in route.targets] == [(B, 100), (A, 0)], "what is verified may be asked for"
    assert len(world.routes.backends[POOL]) == 1


def test_a_model_that_serves_nothing_says_why(world):
    world.model(conditions=[{"type": "Ready", "status": "False", "reason": "PoolNotFound", "message": "no pool",
                             "lastTransitionTime": "2026-11-24T12:00:00Z"}])  # fmt: skip
    (route,) = world.routes.routes
    assert (route.targets, route.reason) == ([], "PoolNotFound: no pool")


def test_keys_open_and_what_is_not_known_opens_nothing(world):
    world.model(revision(A, 100), serving={"access": {"secret": "keys", "requestsPerMinute": 60}})
    (route,) = world.routes.routes
    assert route.access.keys == {}
    world.keys["team", "keys"], world.version = {"anna": "ab" * 32}, 1
    (route,) = world.routes.routes
    assert (route.access.keys, route.access.requests_per_minute) == ({"anna": "ab" * 32}, 60)


def test_a_spec_that_is_not_understood_opens_nothing_either(world):
    world.model(revision(A, 100), serving={"minReplicas": "many", "access": {"secret": "keys"}})
    (route,) = world.routes.routes
    assert route.targets == []
    assert route.access.keys == {}


def test_what_does_not_change_a_route_does_not_change_the_revision(world):
    world.model(revision(A, 100))
    revision_before, _ = world.table.current()
    world.pod("trains", component="train", **{names.LABEL_JOB: "robot"})
    world.pod("starts", ready=False, **{names.LABEL_MODEL: "robot"})
    assert world.table.current()[0] == revision_before
    world.pod("starts", ready=True, **{names.LABEL_MODEL: "robot"})
    revision_after, body = world.table.current()
    assert revision_after != revision_before
    assert json.loads(body)["revision"] == revision_after


def test_every_gateway_is_told_when_another_one_comes(world):
    world.model(revision(A, 100))
    assert world.routes.gateways == 1, "who asks is one"
    before, _ = world.table.current()
    world.gateways = 1
    assert world.table.current()[0] == before
    world.gateways = 2
    assert world.table.current()[0] != before
    assert (world.routes.gateways, len(world.routes.routes)) == (2, 1)


def test_what_is_gone_has_no_route(world):
    world.model(revision(A, 100))
    world.pod("one", **{names.LABEL_MODEL: "robot"})
    assert len(world.routes.routes) == 1
    world.caches.drop("Pod", "team", "one")
    assert world.routes.backends == {OWN: []}
    world.caches.drop(names.MODEL_KIND, "team", "robot")
    assert (world.routes.routes, world.routes.backends) == ([], {})


def test_a_thousand_models_cost_little_when_one_changes(world):
    """Processor time; `-s` shows it. The bounds leave room for a machine that is busy."""

    def spent():
        begun = time.process_time()
        world.table.current()
        return 1000 * (time.process_time() - begun)

    shared = {"mode": "Shared", "pool": "default"}
    for number in range(1000):
        world.model(revision(A, 100, POOL), name=f"subject-{number}", serving=shared)
    first = spent()
    world.model(revision(B, 100, POOL), name="subject-7", serving=shared)
    changed, unchanged = spent(), spent()
    size = len(world.table.current()[1])
    print(
        f"routes of 1,000 models: {first:.1f} ms, one changed {changed:.1f} ms, none {unchanged:.4f} ms, {size} bytes"
    )
    assert changed < first / 4
    assert unchanged < changed / 4


def test_who_is_waited_for_while_asleep(world):
    world.model(revision(A, 100))
    world.model(revision(A, 100, POOL), name="cat", serving={"mode": "Shared", "pool": "default"})
    world.model(revision(A, 100, "model/team/dog"), name="dog")
    world.pod("one", **{names.LABEL_MODEL: "dog"})
    loads = {f"team/{name}": Load(in_flight=0, waiting=1, idle_seconds=0) for name in ("robot", "cat", "dog", "none")}
    loads["team/idle"] = Load(in_flight=0, waiting=0, idle_seconds=9)
    found = world.table.sleeping(GatewayReport(gateway="g", loads=loads))
    assert found == {Key(names.MODEL_KIND, "team", "robot"), Key(names.POOL_KIND, "team", "default")}
