"""A model's roll-out, one decision at a time."""

import pytest

from dreambooth_api import names
from dreambooth_api.reasons import ModelPhase, Reason
from dreambooth_api.result import Fault, dump_result
from dreambooth_operator.decide_model import decide_model, refused
from dreambooth_operator.views import NOTHING, ChildRef, Problem


def condition(decision, kind):
    found = next(c for c in decision.status["conditions"] if c["type"] == kind)
    return found["status"], found["reason"]


def deployed(view, settings, *, ready):
    """The children as they are after an apply, with as many replicas ready."""
    children = []
    for manifest in decide_model(view, settings).apply:
        child = {**manifest, "metadata": {**manifest["metadata"], "generation": 1, "uid": "u"}}
        if manifest["kind"] == "Deployment":
            counts = dict.fromkeys(("readyReplicas", "availableReplicas"), ready)
            child["spec"] = {**child["spec"], "replicas": 1}
            child["status"] = {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, **counts}
        children.append(child)
    return children


def server_pod(make, digest, ready=False, **state):
    pod = make.pod("robot-endpoint-x", **state)
    pod["metadata"]["annotations"] = {names.ANNOTATION_ARTIFACT: digest}
    pod["metadata"]["labels"] = {names.LABEL_COMPONENT: names.COMPONENT_SERVER}
    pod["status"]["conditions"] = [{"type": "Ready", "status": "True" if ready else "False"}]
    return pod


def test_a_new_model_gets_its_children(make, settings):
    decision = decide_model(make.model_view(make.model()), settings)
    assert [m["kind"] for m in decision.apply] == [
        "Service", "Deployment", "HorizontalPodAutoscaler", "PodDisruptionBudget"
    ]  # fmt: skip
    assert condition(decision, "Ready") == ("False", Reason.ROLLING_OUT)
    assert condition(decision, "Progressing") == ("True", Reason.ROLLING_OUT)
    assert decision.status["url"] == "http://robot-endpoint.team.svc/v1"
    assert [told.reason for told in decision.told] == ["RollingOut"]


def test_a_rolled_out_model_is_ready_and_then_nothing_is_written(make, settings):
    view = make.model_view(make.model())
    pods = (server_pod(make, make.digest, ready=True),)
    view = make.model_view(make.model(), *deployed(view, settings, ready=1), pods=pods)
    decision = decide_model(view, settings)
    assert decision.apply == ()
    assert condition(decision, "Ready") == ("True", Reason.AVAILABLE)
    assert decision.status["phase"] == ModelPhase.READY
    assert decision.status["replicas"] == 1
    assert decision.status["revisions"] == [{
        "digest": make.digest, "uri": "s3://dreambooth/models/team/robot/abab", "weight": 100, "ready": True,
        "promoted": True, "backend": "model/team/robot",
    }]  # fmt: skip
    again = make.model_view(make.model(status=decision.status), *view.children.values(), pods=pods)
    assert decide_model(again, settings) == NOTHING


def test_a_replica_that_the_autoscaler_added_is_left_to_it(make, settings):
    view = make.model_view(make.model())
    children = deployed(view, settings, ready=1)
    children[1]["spec"]["replicas"] = 3
    children[1]["status"] |= {"replicas": 3, "updatedReplicas": 3}
    stuck = server_pod(make, make.digest, waiting={"reason": "ImagePullBackOff"})
    decision = decide_model(make.model_view(make.model(), *children, pods=(stuck,)), settings)
    assert decision.apply == ()
    assert condition(decision, "Ready") == ("True", Reason.AVAILABLE)
    assert condition(decision, "Progressing") == ("False", Reason.IMAGE_PULL_FAILED)


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({"waiting": {"reason": "ImagePullBackOff", "message": "m"}}, Reason.IMAGE_PULL_FAILED),
        ({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}, Reason.OUT_OF_MEMORY),
        ({"terminated": {"exitCode": 1, "message": "boom"}}, Reason.UNAVAILABLE),
    ],
)
def test_why_it_is_not_ready(make, settings, state, reason):
    children = deployed(make.model_view(make.model()), settings, ready=0)
    view = make.model_view(make.model(), *children, pods=(server_pod(make, make.digest, **state),))
    decision = decide_model(view, settings)
    assert condition(decision, "Ready") == ("False", reason)
    assert condition(decision, "Progressing") == ("False", reason)


def test_the_servers_own_word_while_it_restarts(make, settings):
    message = dump_result(Fault(reason=Reason.ARTIFACT_INVALID, message="digest differs"))
    pod = server_pod(make, make.digest, waiting={"reason": "CrashLoopBackOff"})
    pod["status"]["containerStatuses"][0]["lastState"] = {"terminated": {"exitCode": 69, "message": message}}
    children = deployed(make.model_view(make.model()), settings, ready=0)
    decision = decide_model(make.model_view(make.model(), *children, pods=(pod,)), settings)
    assert condition(decision, "Ready") == ("False", Reason.ARTIFACT_INVALID)


def test_a_bad_new_artifact_leaves_the_old_one_serving(make, settings):
    old = {"revisions": [{"digest": "sha256:" + "cd" * 32, "weight": 100, "ready": True}]}
    children = deployed(make.model_view(make.model()), settings, ready=1)
    children[1]["status"] |= {"replicas": 2, "updatedReplicas": 1}
    bad = server_pod(make, make.digest, terminated={"exitCode": 1})
    decision = decide_model(make.model_view(make.model(status=old), *children, pods=(bad,)), settings)
    assert condition(decision, "Ready") == ("True", Reason.ROLLING_OUT)
    assert condition(decision, "Progressing") == ("False", Reason.UNAVAILABLE)
    assert decision.status["phase"] == ModelPhase.DEGRADED
    assert [r["weight"] for r in decision.status["revisions"]] == [0, 100]


def test_a_new_artifact_changes_the_deployment_alone(make, settings):
    children = deployed(make.model_view(make.model()), settings, ready=1)
    newer = make.model({"artifact": {"uri": "s3://bucket/x", "digest": "sha256:" + "cd" * 32}})
    assert [m["kind"] for m in decide_model(make.model_view(newer, *children), settings).apply] == ["Deployment"]


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ({"serving": {"mode": "Shared"}}, "spec.serving.mode Shared"),
        ({"serving": {"minReplicas": 0}}, "spec.serving.minReplicas 0"),
        ({"serving": {"access": {"secret": "keys"}}}, "spec.serving.access"),
        ({"rollout": {"strategy": "Canary"}}, "spec.rollout.strategy Canary"),
    ],
)
def test_what_needs_a_gateway_says_so_where_there_is_none(make, settings, spec, named):
    body = make.model()
    body["spec"] |= spec
    decision = decide_model(make.model_view(body), settings)
    assert condition(decision, "Ready") == ("False", Reason.INVALID_SPEC)
    assert named in decision.status["conditions"][0]["message"]
    assert decision.apply == ()


def test_without_a_second_replica_there_is_no_budget(make, settings):
    body = make.model()
    body["spec"]["serving"] = {"maxReplicas": 1}
    assert "PodDisruptionBudget" not in {m["kind"] for m in decide_model(make.model_view(body), settings).apply}
    children = deployed(make.model_view(make.model()), settings, ready=1)
    assert decide_model(make.model_view(body, *children), settings).delete == (
        ChildRef("PodDisruptionBudget", "robot-endpoint"),
    )


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (None, Reason.ARTIFACT_NOT_FOUND),
        ({"phase": "Training"}, Reason.JOB_NOT_FINISHED),
        ({"artifact": {"uri": "nowhere", "digest": "md5:1"}}, Reason.ARTIFACT_INVALID),
    ],
)
def test_a_job_that_has_nothing_to_serve(make, settings, status, reason):
    job = make.job(status=status) if status else None
    decision = decide_model(make.model_view(make.model({"jobRef": {"name": "robot"}}), job=job), settings)
    assert condition(decision, "Ready") == ("False", reason)


def test_what_a_job_published(make, settings):
    job = make.job(status={"artifact": {"uri": "s3://bucket/x", "digest": make.digest}})
    decision = decide_model(make.model_view(make.model({"jobRef": {"name": "robot"}}), job=job), settings)
    assert any(make.digest in m["spec"]["template"]["spec"]["containers"][0]["command"]
               for m in decision.apply if m["kind"] == "Deployment")  # fmt: skip


def test_a_missing_store_is_told(make, settings):
    missing = Problem(Reason.SECRET_NOT_FOUND, "m")
    decision = decide_model(make.model_view(make.model(), missing=missing), settings)
    assert condition(decision, "Ready") == ("False", Reason.SECRET_NOT_FOUND)
    assert decision.again


def test_a_spec_that_is_not_understood(make, settings):
    decision = decide_model(make.model_view(make.model({"serving": {}})), settings)
    assert condition(decision, "Ready") == ("False", Reason.INVALID_SPEC)


def test_a_name_that_somebody_else_has(make, settings):
    view = make.model_view(make.model(), foreign=frozenset({ChildRef("Service", "robot-endpoint")}))
    assert condition(decide_model(view, settings), "Ready") == ("False", Reason.NAME_CONFLICT)


def test_a_model_that_is_being_deleted_is_left_alone(make, settings):
    assert decide_model(make.model_view(make.model(deletionTimestamp=make.ago(1))), settings) == NOTHING


def test_what_the_api_server_refuses_is_told(make):
    decision = refused(make.model_view(make.model()), Problem(Reason.INVALID_SPEC, "Deployment: Invalid value"))
    assert condition(decision, "Ready") == ("False", Reason.INVALID_SPEC)


def test_a_model_of_a_job_finds_the_jobs_base(make, settings):
    base = {"uri": "pvc://models/sd", "secretRef": {"name": "hf"}}
    artifact = {"uri": "s3://dreambooth/models/x", "digest": make.digest, "bytes": 1}
    job = make.job({"baseModel": base}, {"phase": "Succeeded", "artifact": artifact})
    decision = decide_model(make.model_view(make.model({"jobRef": {"name": "robot"}}), job=job), settings)
    (deployment,) = [m for m in decision.apply if m["kind"] == "Deployment"]
    pod = deployment["spec"]["template"]["spec"]
    mounts = pod["containers"][0]["volumeMounts"]
    (mount,) = [m for m in mounts if m["mountPath"] == "/mnt/pvc/models"]
    assert mount["readOnly"] is True
    (volume,) = [v for v in pod["volumes"] if v["name"] == mount["name"]]
    assert volume["persistentVolumeClaim"] == {"claimName": "models", "readOnly": True}
    assert any(entry["name"] == "HF_TOKEN" for entry in pod["containers"][0]["env"])
