"""Between none and one: asleep while nobody asks, awake at once when somebody does."""

import pytest

from dreambooth_api.serving import Scaling
from dreambooth_operator import scaling
from dreambooth_operator.decide_model import decide_model
from dreambooth_operator.decide_pool import decide_pool
from dreambooth_operator.traffic import Demand
from tests.operator.serving_life import IDLE, A, B, Serving, artifact

ZERO = Scaling(min_replicas=0, idle_seconds=60)
BUSY = Demand(known=True, in_flight=1)
WAITED_FOR = Demand(known=True, waiting=1)


@pytest.mark.parametrize(
    ("current", "spec", "demand", "ready_for", "needed", "wanted"),
    [
        (3, ZERO, IDLE, 100, False, 0),
        (3, ZERO, BUSY, 100, False, 3),
        (3, ZERO, WAITED_FOR, 100, False, 3),
        (3, ZERO, Demand(known=False, idle=1e6), 100, False, 3),
        (3, ZERO, Demand(known=True, idle=59), 100, False, 3),
        (3, ZERO, IDLE, 10, False, 3),
        (3, ZERO, IDLE, 100, True, 3),
        (3, Scaling(min_replicas=1), IDLE, 1e6, False, 3),
        (0, ZERO, IDLE, 0, False, 0),
        (0, ZERO, WAITED_FOR, 0, False, 1),
        (0, ZERO, Demand(known=False, waiting=1), 0, False, 1),
        (0, ZERO, IDLE, 0, True, 1),
        (0, Scaling(min_replicas=2), IDLE, 0, False, 1),
    ],
)
def test_how_many(current, spec, demand, ready_for, needed, wanted):
    assert scaling.wanted(current, spec, demand, ready_for, needed)[0] == wanted


def test_it_is_looked_at_again_when_the_time_is_over():
    assert scaling.wanted(1, ZERO, Demand(known=True, idle=20), 100, False) == (1, 40)


@pytest.fixture
def sleeper(make, gatewayed):
    body = make.model({"artifact": artifact(A), "serving": {"minReplicas": 0, "idleSeconds": 60}})
    life = Serving(decide_model, make.model_view(body), gatewayed)
    life.run(demand=IDLE)
    return life


def test_a_model_sleeps_and_is_woken(sleeper):
    assert sleeper.replicas("robot-endpoint") == 1, "it is verified first"
    sleeper.run(61)
    assert sleeper.replicas("robot-endpoint") == 0
    assert (sleeper.status["phase"], sleeper.condition("Ready")) == ("Idle", ("True", "ScaledToZero"))
    assert sleeper.weights == {A: 100}, "the gateway holds its requests"
    decision = sleeper.step(1, demand=WAITED_FOR)
    assert decision.scale == (("robot-endpoint", 1),)
    assert sleeper.condition("Ready") == ("True", "ScaledToZero")
    sleeper.run()
    assert (sleeper.status["phase"], sleeper.condition("Ready")) == ("Ready", ("True", "Available"))
    assert sleeper.condition("Progressing") == ("False", "Available")


def test_a_replica_that_does_not_wake_is_told(sleeper):
    sleeper.run(61)
    sleeper.works = False
    sleeper.step(1, demand=WAITED_FOR)
    metadata = sleeper.deployment("robot-endpoint")["spec"]["template"]["metadata"]
    pod = sleeper._pod("robot-endpoint-0", metadata, 0)
    pod["status"] |= {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]}
    sleeper.step(pods=(pod,))
    assert sleeper.condition("Ready") == ("False", "Unschedulable")


def test_a_new_artifact_wakes_it_to_be_tried(sleeper):
    sleeper.run(61)
    sleeper.set(artifact=artifact(B))
    sleeper.run()
    assert sleeper.replicas("robot-endpoint") == 1
    assert sleeper.weights == {B: 100}
    sleeper.run(61)
    assert sleeper.replicas("robot-endpoint") == 0


def test_without_a_word_of_any_gateway_nothing_is_put_to_sleep(sleeper):
    sleeper.run(1e6, demand=Demand())
    assert sleeper.replicas("robot-endpoint") == 1


def test_more_than_none_wanted_wakes_it(sleeper):
    sleeper.run(61)
    sleeper.set(serving={"minReplicas": 1})
    sleeper.run()
    assert sleeper.replicas("robot-endpoint") == 1


def test_a_pool_sleeps_unless_somebody_asks_or_a_subject_is_to_be_verified(make, gatewayed):
    life = Serving(decide_pool, make.pool_view(make.pool({"minReplicas": 0, "idleSeconds": 60})), gatewayed)
    life.run(demand=IDLE, unverified=1)
    life.run(61)
    assert life.replicas("default-pool") == 1
    life.run(unverified=0)
    assert life.replicas("default-pool") == 0
    assert life.condition("Ready") == ("True", "ScaledToZero")
    life.run(demand=WAITED_FOR)
    assert life.replicas("default-pool") == 1
    assert life.condition("Ready") == ("True", "Available")
    life.run(61, demand=IDLE)
    assert life.replicas("default-pool") == 0
    life.run(unverified=1)
    assert life.replicas("default-pool") == 1
