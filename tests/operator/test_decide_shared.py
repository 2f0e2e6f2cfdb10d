"""A model that a pool draws, one decision at a time."""

import pytest

from dreambooth_api import names
from dreambooth_api.adapters import AdapterPhase, AdapterState
from dreambooth_api.reasons import Reason
from dreambooth_api.routes import BOUNDS, Traffic
from dreambooth_operator import observe
from dreambooth_operator.decide_model import decide_model, unverified
from dreambooth_operator.views import Problem
from tests.operator.serving_life import A, B, Serving, artifact

SHARED = {"mode": "Shared", "pool": "default"}
READY_POOL = {"conditions": [{"type": "Ready", "status": "True", "reason": "Available",
                              "lastTransitionTime": "2026-11-24T12:00:00Z"}]}  # fmt: skip


def said(digest, phase=AdapterPhase.READY, reason=None, message=""):
    return AdapterState(digest=digest, phase=phase, reason=reason, message=message)


@pytest.fixture
def life(make, gatewayed):
    """A model of A on a pool that is ready."""
    body = make.model({"artifact": artifact(A), "serving": SHARED})
    return Serving(decide_model, make.model_view(body, pool=make.pool(status=READY_POOL)), gatewayed)


def test_without_its_pool_it_says_so(life):
    life.run(pool=None)
    assert life.condition("Ready") == ("False", "PoolNotFound")
    assert "default" in life.status["conditions"][0]["message"]
    assert not life.view.children


def test_it_is_ready_once_a_replica_has_verified_it_and_needs_no_child(life, gatewayed):
    assert unverified(life.view, gatewayed).digest == A
    life.run()
    assert life.condition("Ready") == ("False", "RollingOut")
    decision = life.step(adapter=said(A, AdapterPhase.FETCHING))
    assert decision.again == 1
    life.run(adapter=said(A))
    assert life.condition("Ready") == ("True", "Available")
    assert (life.status["phase"], life.status["url"]) == ("Ready", "http://gateway/team/robot/v1")
    (revision,) = life.status["revisions"]
    assert (revision["weight"], revision["ready"], revision["backend"]) == (100, True, "pool/team/default")
    assert not life.view.children
    assert unverified(life.view, gatewayed) is None, "it is not asked for again, by no operator"
    life.run(adapter=None)
    assert life.condition("Ready") == ("True", "Available")


@pytest.mark.parametrize("reason", [Reason.ARTIFACT_INVALID, Reason.STORE_UNAVAILABLE, None])
def test_what_the_replica_found_is_told(life, reason):
    life.run(adapter=said(A, AdapterPhase.FAILED, reason, "rank 128 exceeds the pool's 64"))
    assert life.condition("Ready") == ("False", reason or Reason.ARTIFACT_INVALID)
    assert "rank 128" in life.status["conditions"][0]["message"]


def test_until_the_store_is_back_its_pool_must_not_sleep(life):
    """Nobody asks for a model without a target: only its pool can find out that it is good."""
    life.run(adapter=said(A, AdapterPhase.FAILED, Reason.STORE_UNAVAILABLE, "no answer"))
    assert life.status["phase"] in observe.UNVERIFIED
    life.run(adapter=said(A, AdapterPhase.FAILED, Reason.ARTIFACT_INVALID, "digest differs"))
    assert life.status["phase"] not in observe.UNVERIFIED


def test_a_bad_new_artifact_leaves_the_old_one_drawn(life):
    life.run(adapter=said(A))
    life.set(artifact=artifact(B))
    life.run(adapter=said(B, AdapterPhase.FAILED, Reason.ARTIFACT_INVALID, "digest differs"))
    assert life.weights == {A: 100}
    assert life.condition("Ready") == ("True", "Available")
    assert life.condition("Progressing") == ("False", "ArtifactInvalid")
    assert life.status["phase"] == "Degraded"


def test_a_pool_that_serves_nobody_makes_it_unready_one_that_sleeps_does_not(life, make):
    life.run(adapter=said(A))
    bad = {"conditions": [{**READY_POOL["conditions"][0], "status": "False", "reason": "Unschedulable"}]}
    life.run(pool=make.pool(status=bad))
    assert life.condition("Ready") == ("False", "Unschedulable")
    assert life.weights == {A: 100}
    asleep = {"conditions": [{**READY_POOL["conditions"][0], "reason": "ScaledToZero"}]}
    life.run(pool=make.pool(status=asleep))
    assert life.condition("Ready") == ("True", "Available")


def test_a_canary_on_a_pool_is_weights_alone(life):
    life.set(rollout={"strategy": "Canary", "steps": [10], "stepSeconds": 60})
    life.run(adapter=said(A))
    life.set(artifact=artifact(B))
    life.run(adapter=None)
    assert life.weights == {A: 100}
    life.run(adapter=said(B))
    assert life.weights == {B: 10, A: 90}
    life.run(61)
    assert life.weights == {B: 100}
    assert not life.view.children


def test_a_canary_on_a_pool_that_is_rolled_back_says_for_what(life):
    life.set(rollout={"strategy": "Canary", "steps": [10], "stepSeconds": 60})
    life.run(adapter=said(A))
    life.set(artifact=artifact(B))
    life.run(adapter=said(B))
    bad = Traffic(requests=20, errors=20, durations=[20] + [0] * len(BOUNDS))
    assert life.step(5, seen=bad).fault == "errors"
    assert life.weights == {A: 100}


def test_from_pods_of_its_own_to_a_pool_and_back(make, gatewayed):
    """What draws it goes only after the next one does."""
    view = make.model_view(make.model({"artifact": artifact(A)}), pool=make.pool(status=READY_POOL))
    life = Serving(decide_model, view, gatewayed)
    life.run()
    life.set(serving=SHARED)
    life.run()
    assert life.deployment("robot-endpoint") is not None
    assert life.status["revisions"][0]["backend"] == "model/team/robot"
    life.run(adapter=said(A))
    assert not life.view.children
    assert life.status["revisions"][0]["backend"] == "pool/team/default"
    life.set(serving={"mode": "Dedicated"})
    life.works = False
    life.step()
    assert life.status["revisions"][0]["backend"] == "pool/team/default"
    assert life.weights == {A: 100}
    life.works = True
    life.run()
    assert life.status["revisions"][0]["backend"] == "model/team/robot"
    assert life.condition("Ready") == ("True", "Available")


def test_another_pool_draws_it_only_when_it_has_verified_it(life, gatewayed):
    life.run(adapter=said(A))
    life.set(serving={"mode": "Shared", "pool": "other"})
    assert unverified(life.view, gatewayed).digest == A
    life.run(adapter=None)
    assert life.status["revisions"][0]["backend"] == "pool/team/default"
    life.run(adapter=said(A))
    assert life.status["revisions"][0]["backend"] == names.pool_backend("team", "other")


def test_without_the_secret_of_its_keys_nobody_can_ask(life):
    life.run(adapter=said(A))
    life.run(60, locked=Problem(Reason.SECRET_NOT_FOUND, "there is no Secret keys"))
    assert life.condition("Ready") == ("False", "SecretNotFound")
    before = life.status
    life.run(60)
    assert life.status == before, "it is told once"
    life.run(locked=None)
    assert life.condition("Ready") == ("True", "Available")
