"""Between none and one: asleep while nobody asks, awake at once when somebody does."""

import pytest

from dreambooth_api.serving import Scaling
from dreambooth_operator import scaling
from dreambooth_operator.decide_model import decide_model
from dreambooth_operator.decide_pool import decide_pool
from dreambooth_operator.traffic import Demand
from dreambooth_operator.views import ChildRef
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
    assert sleeper.condition("Progressing") == ("False", "Available"), "nothing is being rolled out"
    assert sleeper.weights == {A: 100}, "the gateway holds its requests"
    decision = sleeper.step(1, demand=WAITED_FOR)
    assert decision.scale == (("robot-endpoint", 1),)
    assert sleeper.condition("Ready") == ("True", "ScaledToZero")
    sleeper.run()
    assert (sleeper.status["phase"], sleeper.condition("Ready")) == ("Ready", ("True", "Available"))
    assert sleeper.condition("Progressing") == ("False", "Available")


def wake_in_vain(sleeper: Serving) -> None:
    """Somebody waits, and no node has room for the pod."""
    sleeper.works = False
    sleeper.step(1, demand=WAITED_FOR)
    metadata = sleeper.deployment("robot-endpoint")["spec"]["template"]["metadata"]
    pod = sleeper._pod("robot-endpoint-0", metadata, 0)
    pod["status"] |= {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]}
    sleeper.step(pods=(pod,))


def test_a_replica_that_does_not_wake_is_told(sleeper):
    sleeper.run(61)
    wake_in_vain(sleeper)
    assert sleeper.condition("Ready") == ("False", "Unschedulable")


def test_a_new_artifact_wakes_it_to_be_tried(sleeper):
    sleeper.run(61)
    sleeper.set(artifact=artifact(B))
    sleeper.run()
    assert sleeper.replicas("robot-endpoint") == 1
    assert sleeper.weights == {B: 100}
    sleeper.run(61)
    assert sleeper.replicas("robot-endpoint") == 0


NOT_ALLOWED = {"minReplicas": 0, "idleSeconds": 60, "template": {"hostNetwork": True}}
MENDED = {"minReplicas": 0, "idleSeconds": 60}
FOREIGN = frozenset({ChildRef("Service", "robot-endpoint")})


@pytest.fixture(params=["InvalidSpec", "NameConflict", "ArtifactNotFound"])
def held(request, sleeper):
    """A model that sleeps, then cannot be rolled out; how it is mended."""
    sleeper.run(61)
    good = sleeper.view.body["spec"]
    if request.param == "InvalidSpec":
        sleeper.set(serving=NOT_ALLOWED)
    elif request.param == "ArtifactNotFound":
        sleeper.set(artifact=None, jobRef={"name": "gone"})
    sleeper.run(1, foreign=FOREIGN if request.param == "NameConflict" else frozenset())
    assert sleeper.condition("Progressing") == ("False", request.param)

    def mend():
        sleeper.set(**{"jobRef": None, **good})
        return {"foreign": frozenset()}

    return sleeper, mend


def test_a_sleeper_that_cannot_be_rolled_out_is_woken_by_the_next_request(held):
    sleeper, mend = held
    assert (sleeper.status["phase"], sleeper.condition("Ready")) == ("Degraded", ("True", "ScaledToZero"))
    assert sleeper.step(1, demand=WAITED_FOR).scale == (("robot-endpoint", 1),)
    sleeper.step(1)
    assert sleeper.condition("Ready") == ("True", "ScaledToZero"), "the gateway holds the request meanwhile"
    sleeper.run()
    assert (sleeper.status["phase"], sleeper.condition("Ready")) == ("Degraded", ("True", "Available"))
    assert sleeper.serves("robot-endpoint") == A
    sleeper.run(**mend())
    assert (sleeper.status["phase"], sleeper.condition("Ready")) == ("Ready", ("True", "Available"))
    sleeper.run(61, demand=IDLE)
    assert sleeper.replicas("robot-endpoint") == 0


def test_mended_in_its_sleep_it_sleeps_on_and_is_woken_as_ever(held):
    sleeper, mend = held
    sleeper.run(1, **mend())
    assert (sleeper.status["phase"], sleeper.condition("Ready")) == ("Idle", ("True", "ScaledToZero"))
    assert sleeper.replicas("robot-endpoint") == 0
    sleeper.run(1, demand=WAITED_FOR)
    assert (sleeper.status["phase"], sleeper.condition("Ready")) == ("Ready", ("True", "Available"))


def test_mended_while_it_wakes_it_is_never_unready(held):
    sleeper, mend = held
    sleeper.step(1, demand=WAITED_FOR)
    sleeper.step(1, **mend())
    assert (sleeper.status["phase"], sleeper.condition("Ready")) == ("Idle", ("True", "ScaledToZero"))
    sleeper.run()
    assert (sleeper.status["phase"], sleeper.condition("Ready")) == ("Ready", ("True", "Available"))


def test_a_sleeper_whose_replica_does_not_wake_says_so_though_it_is_held(sleeper):
    sleeper.run(61)
    sleeper.set(serving=NOT_ALLOWED)
    wake_in_vain(sleeper)
    assert (sleeper.status["phase"], sleeper.condition("Ready")) == ("Pending", ("False", "InvalidSpec"))


def test_pods_of_its_own_are_woken_until_a_pool_draws_it(sleeper):
    """From `Dedicated` to a pool that is not there."""
    sleeper.run(61)
    sleeper.set(serving={"mode": "Shared", "pool": "none"})
    sleeper.run(1, demand=WAITED_FOR)
    assert sleeper.condition("Progressing") == ("False", "PoolNotFound")
    assert sleeper.condition("Ready") == ("True", "Available")
    assert sleeper.replicas("robot-endpoint") == 1


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


def test_a_pool_asleep_whose_new_spec_cannot_be_is_woken_with_the_old_one(make, gatewayed):
    life = Serving(decide_pool, make.pool_view(make.pool({"minReplicas": 0, "idleSeconds": 60})), gatewayed)
    life.run(demand=IDLE)
    life.run(61)
    life.set(template={"hostNetwork": True})
    life.run(1)
    assert life.condition("Ready") == ("True", "InvalidSpec")
    assert life.step(1, demand=WAITED_FOR).scale == (("default-pool", 1),)
    life.step(1)
    assert life.condition("Ready") == ("True", "InvalidSpec")
    life.run()
    assert (life.condition("Ready"), life.replicas("default-pool")) == (("True", "InvalidSpec"), 1)
    life.set(template={})
    life.run()
    assert life.condition("Ready") == ("True", "Available")
    life.run(61, demand=IDLE)
    assert life.replicas("default-pool") == 0
