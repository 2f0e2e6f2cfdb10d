"""A pool's life, one decision at a time."""

from dataclasses import replace

import pytest

from dreambooth_api import names
from dreambooth_api.pool import ServingPoolStatus
from dreambooth_api.reasons import Reason
from dreambooth_operator import pool_status
from dreambooth_operator import status as statuses
from dreambooth_operator.decide_pool import decide_pool
from dreambooth_operator.views import NOTHING, ChildRef, Problem
from tests.operator.serving_life import IDLE, Serving


@pytest.fixture
def life(make, gatewayed):
    return Serving(decide_pool, make.pool_view(make.pool()), gatewayed)


def refusal(make, settings, spec=None, **fields):
    """Reason and message of a pool that is not made."""
    decision = decide_pool(make.pool_view(make.pool(spec), **fields), settings)
    assert decision.apply == ()
    (condition,) = decision.status["conditions"]
    assert condition["status"] == "False"
    return condition["reason"], condition["message"]


def test_it_gets_its_children_and_is_ready(life):
    first = life.step(subjects=3)
    assert [m["kind"] for m in first.apply] == ["Deployment", "HorizontalPodAutoscaler", "PodDisruptionBudget"]
    assert {m["metadata"]["name"] for m in first.apply} == {"default-pool"}
    assert all(m["metadata"]["ownerReferences"][0]["uid"] == "pool-uid" for m in first.apply)
    assert life.condition("Ready") == ("False", "RollingOut")
    life.run()
    assert life.condition("Ready") == ("True", "Available")
    assert (life.status["readyReplicas"], life.status["subjects"]) == (1, 3)
    assert life.status["selector"] == "dreambooth.dev/pool=default,dreambooth.dev/component=server"


def test_a_new_spec_rolls_out_while_the_old_pods_serve(life):
    life.run()
    life.set(adapters={"maxRank": 128})
    life.works = False
    decision = life.step()
    assert [m["kind"] for m in decision.apply] == ["Deployment"]
    life.works = True
    life.run()
    assert life.condition("Ready") == ("True", "Available")


def test_one_replica_at_most_needs_no_budget(life):
    life.run()
    life.set(maxReplicas=1)
    decision = life.step()
    assert decision.delete == (ChildRef("PodDisruptionBudget", "default-pool"),)


def test_why_it_is_not_ready(life):
    life.works = False
    life.run()
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "m"}}
    pod = life._pod("default-pool-0", life.deployment("default-pool")["spec"]["template"]["metadata"], 0)
    pod["status"] |= {"conditions": [], "containerStatuses": [{"state": waiting}]}
    life.step(pods=(pod,))
    assert life.condition("Ready") == ("False", "ImagePullFailed")


def test_its_phase_is_what_its_conditions_say(life):
    def phase():
        return pool_status.phase(statuses.read(ServingPoolStatus, life.view.body))

    assert phase() == "Pending"
    life.step()
    assert phase() == "Progressing"
    life.run()
    assert phase() == "Ready"
    life.set(template={"hostNetwork": True})
    life.run()
    assert phase() == "Degraded"
    life.set(template={}, minReplicas=0, idleSeconds=1)
    life.run()
    life.run(2, demand=IDLE)
    assert phase() == "Idle"


def test_what_it_cannot_be(make, settings, gatewayed):
    reason, message = refusal(make, settings)
    assert reason == Reason.INVALID_SPEC
    assert "gateway" in message
    reason, message = refusal(make, gatewayed, {"template": {"hostNetwork": True}})
    assert reason == Reason.INVALID_SPEC
    assert "spec.template.hostNetwork" in message
    assert refusal(make, gatewayed, {"minReplicas": "many"})[0] == Reason.INVALID_SPEC
    missing = Problem(Reason.SECRET_NOT_FOUND, "m")
    assert refusal(make, gatewayed, missing=missing) == ("SecretNotFound", "m")
    foreign = frozenset({ChildRef("Deployment", "default-pool")})
    assert refusal(make, gatewayed, foreign=foreign)[0] == Reason.NAME_CONFLICT


def test_one_that_is_being_deleted_is_left_alone(make, gatewayed):
    assert decide_pool(make.pool_view(make.pool(deletionTimestamp=make.ago(1))), gatewayed) == NOTHING


def test_its_downloads_outlive_its_pods(make, gatewayed):
    def claims(settings, spec=None):
        template = decide_pool(make.pool_view(make.pool(spec)), settings).apply[0]["spec"]["template"]["spec"]
        (container,) = template["containers"]
        found = [v["persistentVolumeClaim"]["claimName"] for v in template["volumes"] if "persistentVolumeClaim" in v]
        assert any(entry["name"] == names.ENV_CACHE_DIR for entry in container["env"]) == bool(found)
        return found

    assert claims(gatewayed) == []
    assert claims(gatewayed, {"cacheClaim": "own"}) == ["own"]
    assert claims(replace(gatewayed, cached_namespaces=frozenset({"team"}))) == ["dreambooth-cache"]
    assert refusal(make, gatewayed, {"cacheClaim": {"hostPath": {"path": "/"}}})[0] == Reason.INVALID_SPEC


def test_its_pods_are_told_the_base_and_admitted_under_restricted(make, gatewayed, admitted):
    base = {"uri": "pvc://models/sd", "revision": "--host", "secretRef": {"name": "hf"}}
    adapters, spec = {"maxRank": 8, "onDevice": 2, "inMemory": 30}, {"baseModel": base, "gpus": 1, "compile": True}
    decision = decide_pool(make.pool_view(make.pool({**spec, "adapters": adapters})), gatewayed)
    template = decision.apply[0]["spec"]["template"]
    (container,) = template["spec"]["containers"]
    assert container["command"] == [
        "python", "-m", "dreambooth_server", "--pool", "--base", "pvc://models/sd", "--base-revision=--host",
        "--max-rank", "8", "--adapters-on-device", "2", "--adapters-in-memory", "30", "--compile", "--port", "8080",
    ]  # fmt: skip
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 1}
    assert any(entry["name"] == "HF_TOKEN" for entry in container["env"])
    assert any(mount["mountPath"] == "/mnt/pvc/models" and mount["readOnly"] for mount in container["volumeMounts"])
    assert template["metadata"]["labels"][names.LABEL_POOL] == "default"
    assert "replicas" not in decision.apply[0]["spec"]
    assert admitted(template) == []
