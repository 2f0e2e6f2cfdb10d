"""A new artifact's way over a canary, one decision at a time."""

import pytest

from dreambooth_api.routes import BOUNDS, Traffic
from dreambooth_operator.decide_model import decide_model
from tests.operator.serving_life import A, B, C, Serving, artifact

ROLLOUT = {"strategy": "Canary", "steps": [10, 50], "stepSeconds": 60, "analysis": {"maxP95Seconds": 2}}


def seen(requests, errors=0, seconds=0.5):
    durations = [0] * (len(BOUNDS) + 1)
    durations[next(i for i, bound in enumerate((*BOUNDS, 1e9)) if seconds <= bound)] = requests
    return Traffic(requests=requests, errors=errors, durations=durations)


@pytest.fixture
def life(make, gatewayed):
    """A model that serves A with ten replicas and is told to serve B."""
    body = make.model({"artifact": artifact(A), "rollout": ROLLOUT, "serving": {"maxReplicas": 20}})
    life = Serving(decide_model, make.model_view(body), gatewayed)
    life.run()
    assert life.weights == {A: 100}, "the first artifact needs no canary"
    life.deployment("robot-endpoint")["spec"]["replicas"] = 10
    life.run()
    life.set(artifact=artifact(B))
    return life


def test_it_goes_by_its_weights_and_then_everywhere(life):
    life.run()
    assert life.weights == {B: 10, A: 90}
    assert (life.serves("robot-endpoint"), life.serves("robot-canary")) == (A, B)
    assert life.replicas("robot-canary") == 1
    assert life.condition("Ready") == ("True", "Available")
    assert life.condition("Progressing") == ("True", "RollingOut")
    life.run(30, seen=seen(100))
    assert life.weights == {B: 10, A: 90}
    life.run(31, seen=seen(100))
    assert life.weights == {B: 50, A: 50}
    assert life.replicas("robot-canary") == 5, "half of the requests take half as many replicas as the rest has"
    life.run(61)
    assert life.weights == {B: 100}
    assert life.serves("robot-endpoint") == B
    assert life.deployment("robot-canary") is None
    assert life.condition("Progressing") == ("False", "Available")
    assert life.rollout is None


def test_each_moment_has_replicas_for_all_requests(life):
    """The canary has no requests before its pods are ready, and it goes only after the others have its artifact."""
    life.step()
    assert life.weights == {A: 100}, "its pods are not there yet"
    life.run()
    life.run(61)
    life.works = False
    decision = life.step(61)
    assert not decision.delete
    life.step()
    assert life.serves("robot-endpoint") == B
    assert life.deployment("robot-canary") is not None
    assert life.weights == {B: 50, A: 50}


@pytest.mark.parametrize(
    ("traffic", "words", "fault"),
    [
        (seen(100, errors=7), "7 of 100 requests failed (7.0 %)", "errors"),
        (seen(100, seconds=8), "p95 of 100 requests is", "duration"),
    ],
)
def test_a_bad_one_is_rolled_back_at_once_and_not_tried_again(life, traffic, words, fault):
    life.run()
    decision = life.step(5, seen=traffic)
    assert (decision.fault, life.step().fault) == (fault, None), "it is counted once"
    assert [(ref.kind, ref.name) for ref in decision.delete] == [("Deployment", "robot-canary")]
    assert life.weights == {A: 100}
    assert life.condition("Progressing") == ("False", "AnalysisFailed")
    assert life.condition("Ready") == ("True", "Available")
    assert words in next(c["message"] for c in life.status["conditions"] if c["type"] == "Progressing")
    assert "AnalysisFailed" in life.told
    life.run(3600, seen=seen(0))
    assert life.deployment("robot-canary") is None
    assert life.serves("robot-endpoint") == A
    life.set(rollout={**ROLLOUT, "analysis": {"maxErrorRate": 1}})
    life.run()
    assert life.weights == {B: 10, A: 90}, "the spec has changed: it is tried again"


def test_few_requests_are_judged_when_the_step_is_over(life):
    life.run()
    life.run(30, seen=seen(3, errors=3))
    assert life.weights == {B: 10, A: 90}
    life.run(31, seen=seen(3, errors=3))
    assert life.condition("Progressing") == ("False", "AnalysisFailed")


def test_paused_it_stays_and_is_still_watched(life):
    life.set(rollout={**ROLLOUT, "paused": True})
    life.run()
    assert life.weights == {A: 100}
    life.set(rollout=ROLLOUT)
    life.run()
    life.set(rollout={**ROLLOUT, "paused": True})
    life.run(3600)
    assert life.weights == {B: 10, A: 90}
    assert life.condition("Progressing") == ("True", "Paused")
    life.run(5, seen=seen(100, errors=100))
    assert life.condition("Progressing") == ("False", "AnalysisFailed")


def test_rolling_promotes_it_at_once(life):
    life.run()
    life.set(rollout={"strategy": "Rolling"})
    life.run()
    assert life.weights == {B: 100}
    assert life.serves("robot-endpoint") == B
    assert life.deployment("robot-canary") is None


def test_an_earlier_artifact_takes_over_at_once(life):
    for seconds in (0, 61, 61):
        life.run(seconds)
    assert life.weights == {B: 100}
    earlier = next(r for r in life.status["revisions"] if r["digest"] == A)
    life.set(artifact={"uri": earlier["uri"], "digest": earlier["digest"]})
    life.run()
    assert life.weights == {A: 100}
    assert life.deployment("robot-canary") is None


def test_back_in_the_middle_of_it(life):
    life.run()
    life.set(artifact=artifact(A))
    life.run()
    assert life.weights == {A: 100}
    assert life.deployment("robot-canary") is None


def test_another_one_in_the_middle_of_it_begins_anew(life):
    life.run()
    life.run(61)
    life.set(artifact=artifact(C))
    life.step()
    assert life.weights == {A: 100}
    life.run()
    assert life.weights == {C: 10, A: 90}
    assert life.serves("robot-canary") == C


def test_a_canary_whose_pods_do_not_start_has_no_requests(life):
    life.step()
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "m"}}
    pod = life._pod("robot-canary-0", life.deployment("robot-canary")["spec"]["template"]["metadata"], 0)
    pod["status"] |= {"conditions": [], "containerStatuses": [{"state": waiting}]}
    life.step(pods=(*life.view.pods, pod))
    assert life.weights == {A: 100}
    assert life.condition("Progressing") == ("False", "ImagePullFailed")
    assert life.condition("Ready") == ("True", "Available")
