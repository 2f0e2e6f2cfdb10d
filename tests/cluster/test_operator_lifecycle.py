"""The operator on a real cluster: what becomes of a job, and what is left when it is gone.

The pods run the real trainer image under Pod Security restricted; in the place of the trainer stands
`stand_in_trainer.py`, which ends as a test tells it, in seconds.
"""

import time
from pathlib import Path
from typing import Any

import pytest

from dreambooth_api import names
from dreambooth_demo.platform import NAMESPACE, RELEASE
from tests.cluster.stopping import kubelet, stopped
from tests.cluster.waiting import SOON, wait
from tests.operator.stage import world

STAND_IN = Path(__file__).parent / "stand_in_trainer.py"
CHILDREN = "jobs,pods,services,deployments,horizontalpodautoscalers"
OPERATOR = f"deployment/{RELEASE}-operator"


def job(name: str, prepare: str = "ok", train: str = "ok", **spec: Any) -> dict[str, Any]:
    """A job whose processes play `prepare` and `train`."""
    env = {"PYTHONPATH": "/mnt/configmap/stand-in", "PREPARE": prepare, "TRAIN": train}
    template = {
        "env": [{"name": key, "value": value} for key, value in env.items()],
        "resources": {"requests": {"cpu": "20m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
        **spec.pop("template", {}),
    }
    topology = {"nodes": 2, "gpusPerNode": 0, **spec.pop("topology", {}), "template": template}
    return world.job(name, **{"subject": pictures("configMap://stand-in"), **spec, "topology": topology})


def pictures(uri: str) -> dict[str, Any]:
    """A subject with pictures from `uri`."""
    return {"images": {"uri": uri}, "className": "robot"}


@pytest.fixture
def stage(cluster):
    """The test's cluster, with the stand-in in its namespace."""
    cluster.apply({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "stand-in"},
        "data": {"dreambooth_trainer.py": STAND_IN.read_text()},
    })  # fmt: skip
    return cluster


def status(stage: Any, name: str) -> dict[str, Any]:
    """A job's status; empty before there is one."""
    return (stage.get("dreamboothjob", name) or {}).get("status") or {}


def condition(stage: Any, name: str, kind: str = "Failed", of: str = "dreamboothjob") -> tuple[str, str]:
    """Status and reason of a condition."""
    found = ((stage.get(of, name) or {}).get("status") or {}).get("conditions", [])
    return next(((c["status"], c["reason"]) for c in found if c["type"] == kind), ("", ""))


def wait_for_phase(stage: Any, name: str, phase: str, seconds: float = SOON) -> None:
    wait(lambda: status(stage, name).get("phase") == phase or None, seconds)


def told(stage: Any, name: str) -> list[str]:
    """Reasons of the events about a job or model."""
    events = stage.list("events", f"--field-selector=involvedObject.name={name}")
    mine = [e for e in events if e["involvedObject"]["kind"] in (names.JOB_KIND, names.MODEL_KIND)]
    return [event["reason"] for event in mine]


def left_of(stage: Any, name: str) -> list[str]:
    """Everything that carries the job's label."""
    found = stage.list(CHILDREN, "-l", f"{names.LABEL_JOB}={name}")
    return [f"{item['kind']}/{item['metadata']['name']}" for item in found]


def patch(stage: Any, name: str, spec: str) -> None:
    stage.kubectl("patch", "dreamboothjob", name, "--type=merge", "-p", f'{{"spec": {spec}}}')


def rank_0(stage: Any, name: str) -> dict[str, Any]:
    selector = f"{names.LABEL_JOB}={name},batch.kubernetes.io/job-completion-index=0"
    pods = [p for p in stage.list("pods", "-l", selector) if p["status"]["phase"] == "Running"]
    return pods[0] if pods else {}


def test_a_job_tells_its_story_and_publishes(stage):
    stage.apply(job("story"))
    wait_for_phase(stage, "story", "Succeeded")
    assert condition(stage, "story", "Complete") == ("True", "Completed")
    assert {"Preparing", "Training", "Publishing", "Succeeded"} <= set(told(stage, "story"))
    found = status(stage, "story")
    assert found["scores"] == {"clipI": "0.900"}
    assert found["prior"]["images"] == 3
    model = stage.get("personalizedmodel", "story")
    assert model["spec"]["artifact"]["digest"] == found["artifact"]["digest"]
    wait(lambda: stage.get("deployment", "story-endpoint"))
    wait(lambda: stage.get("hpa", "story-endpoint"))
    assert not model["metadata"].get("ownerReferences")

    # Children that are deleted by hand are not made again, and the status stays.
    stage.kubectl("delete", "jobs,services", "-l", f"{names.LABEL_JOB}=story")
    version = stage.get("dreamboothjob", "story")["metadata"]["resourceVersion"]
    patch(stage, "story", '{"backoffLimit": 9}')
    time.sleep(8)
    assert left_of(stage, "story") == []
    assert status(stage, "story") == found
    assert int(stage.get("dreamboothjob", "story")["metadata"]["resourceVersion"]) > int(version)

    # Without the job the model serves on; without the model its endpoint goes.
    stage.kubectl("delete", "dreamboothjob", "story")
    assert stage.get("personalizedmodel", "story")
    stage.kubectl("delete", "personalizedmodel", "story")
    wait(lambda: not stage.list("deployments,services,hpa", "-l", f"{names.LABEL_MODEL}=story"))


def test_progress_suspension_and_a_killed_pod(stage):
    stage.apply(job("long", train="run"))
    wait_for_phase(stage, "long", "Training")
    wait(lambda: status(stage, "long").get("progress", {}).get("step"))
    assert status(stage, "long")["run"]["id"] == "r1"

    killed = wait(lambda: rank_0(stage, "long"))["metadata"]["name"]
    stage.kubectl("delete", "pod", killed, "--wait=false")
    wait(lambda: status(stage, "long").get("restarts") == 1)
    wait(lambda: rank_0(stage, "long") and condition(stage, "long") == ("False", "Running"))

    patch(stage, "long", '{"suspend": true}')
    wait_for_phase(stage, "long", "Suspended")
    wait(lambda: not [p for p in stage.list("pods", "-l", f"{names.LABEL_COMPONENT}=train")])
    # Nothing happens, so nothing is written.
    version = stage.get("dreamboothjob", "long")["metadata"]["resourceVersion"]
    time.sleep(12)
    assert stage.get("dreamboothjob", "long")["metadata"]["resourceVersion"] == version
    patch(stage, "long", '{"suspend": false}')
    wait_for_phase(stage, "long", "Training")
    wait(lambda: rank_0(stage, "long"))
    assert status(stage, "long")["restarts"] == 1

    with pytest.raises(Exception, match="immutable"):
        patch(stage, "long", '{"training": {"seed": 5}}')

    # Deleted in the middle of it all, it leaves nothing behind.
    stage.kubectl("delete", "dreamboothjob", "long", "--timeout=30s")
    wait(lambda: left_of(stage, "long") == [], 90)
    assert stage.get("configmap", "stand-in")


def test_after_its_ttl_the_children_go_and_the_job_stays(stage):
    stage.apply(job("brief", prepare="fault:DatasetInvalid:65", ttlSecondsAfterFinished=3))
    wait_for_phase(stage, "brief", "Failed")
    wait(lambda: left_of(stage, "brief") == [])
    time.sleep(3)
    assert left_of(stage, "brief") == []
    assert condition(stage, "brief") == ("True", "DatasetInvalid")


FAILURES = {
    "no-pictures": (job("no-pictures", subject=pictures("configMap://none")), "DatasetNotFound"),
    "no-claim": (job("no-claim", subject=pictures("pvc://none/x")), "DatasetNotFound"),
    "no-base": (job("no-base", baseModel={"uri": "pvc://none/sd"}), "BaseModelNotFound"),
    "no-token": (job("no-token", baseModel={"uri": "hf://a/b", "secretRef": {"name": "none"}}), "SecretNotFound"),
    "no-gpu": (job("no-gpu", topology={"gpusPerNode": 1}), "Unschedulable"),
    "bad-data": (job("bad-data", prepare="fault:DatasetInvalid:65"), "DatasetInvalid"),
    "not-finite": (job("not-finite", train="fault:NonFiniteLoss:67@1"), "NonFiniteLoss"),
    "hungry": (job("hungry", train="hog@0", backoffLimit=0), "OutOfMemory"),
    "crashing": (job("crashing", train="exit:1@1", backoffLimit=0), "BackoffLimitExceeded"),
    "late": (job("late", train="run", activeDeadlineSeconds=12), "DeadlineExceeded"),
    "bad-pod": (job("bad-pod", template={"affinity": {"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}}), "InvalidSpec"),
}  # fmt: skip
# What the user may yet mend is told at once, and fails when the start deadline has passed.
PASSING = {"no-pictures", "no-claim", "no-base", "no-token", "no-gpu"}


def test_every_failure_has_its_reason_in_conditions_and_an_event(stage):
    for manifest, _ in FAILURES.values():
        manifest["spec"]["startDeadlineSeconds"] = 25
    stage.apply(*(manifest for manifest, _ in FAILURES.values()))
    for name in PASSING:
        wait(lambda name=name: condition(stage, name) == ("False", FAILURES[name][1]) or None, 30)
    for name, (_, reason) in FAILURES.items():
        wait(lambda name=name, reason=reason: condition(stage, name) == ("True", reason) or None, 90)
        assert reason in told(stage, name)
        assert condition(stage, name, "Complete") == ("False", reason)
        assert stage.get("personalizedmodel", name) is None
    # What failed holds no resources.
    wait(lambda: not [p for p in stage.list("pods") if p["status"]["phase"] in ("Running", "Pending")], 60)


def test_a_missing_store_is_told_and_waited_for(stage):
    secret = stage.get("secret", names.STORE_SECRET)
    stage.kubectl("delete", "secret", names.STORE_SECRET)
    stage.apply(job("waits"))
    wait(lambda: condition(stage, "waits") == ("False", "SecretNotFound"))
    assert stage.list("pods") == []
    stage.apply(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": names.STORE_SECRET}, "data": secret["data"]}
    )
    wait_for_phase(stage, "waits", "Succeeded")


def test_what_belongs_to_others_is_left_alone(stage):
    stage.apply(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "taken-train"},
            "spec": {"selector": {"mine": "1"}, "ports": [{"port": 1}]},
        },
        {
            "apiVersion": names.API_VERSION,
            "kind": names.MODEL_KIND,
            "metadata": {"name": "handmade"},
            "spec": {"artifact": {"uri": "s3://dreambooth/models/mine", "digest": "sha256:" + "cd" * 32}},
        },
    )
    stage.apply(job("taken"), job("other", publish={"name": "handmade"}))
    wait(lambda: condition(stage, "taken") == ("True", "NameConflict"))
    wait(lambda: condition(stage, "other") == ("False", "NameConflict"))
    stage.kubectl("delete", "dreamboothjob", "taken", "other")
    time.sleep(3)
    assert stage.get("service", "taken-train")["spec"]["selector"] == {"mine": "1"}
    assert stage.get("personalizedmodel", "handmade")["spec"]["artifact"]["uri"].endswith("/mine")


def test_an_edited_endpoint_is_put_right_and_a_scaled_one_is_not(stage):
    stage.apply({
        "apiVersion": names.API_VERSION, "kind": names.MODEL_KIND, "metadata": {"name": "edited"},
        "spec": {"artifact": {"uri": "s3://dreambooth/models/none", "digest": "sha256:" + "cd" * 32},
                 "serving": {"minReplicas": 2}},
    })  # fmt: skip
    wait(lambda: stage.get("deployment", "edited-endpoint"))
    stage.kubectl("delete", "service", "edited-endpoint")
    wait(lambda: stage.get("service", "edited-endpoint"))
    stage.kubectl("set", "env", "deployment/edited-endpoint", "HOME=/elsewhere")

    def home() -> str:
        container = stage.get("deployment", "edited-endpoint")["spec"]["template"]["spec"]["containers"][0]
        return next(entry["value"] for entry in container["env"] if entry["name"] == "HOME")

    wait(lambda: home() == names.WORK_DIR)
    # The autoscaler's number, and nobody takes it back.
    wait(lambda: stage.get("deployment", "edited-endpoint")["spec"]["replicas"] == 2)
    time.sleep(5)
    assert stage.get("deployment", "edited-endpoint")["spec"]["replicas"] == 2


def test_a_shared_model_says_that_its_pool_is_not_there(stage):
    stage.apply({
        "apiVersion": names.API_VERSION, "kind": names.MODEL_KIND, "metadata": {"name": "shared"},
        "spec": {"artifact": {"uri": "s3://dreambooth/models/none", "digest": "sha256:" + "cd" * 32},
                 "serving": {"mode": "Shared"}},
    })  # fmt: skip
    wait(lambda: condition(stage, "shared", "Ready", "personalizedmodel") == ("False", "PoolNotFound"))
    assert "PoolNotFound" in told(stage, "shared")


def test_a_kubelet_that_stops_is_told_while_the_training_goes_on(stage):
    silent = kubelet() if stage.kube.local else None
    if silent is None:
        pytest.skip("only the local cluster's kubelet is the tests' to stop")
    stage.apply(job("lonely", train="run"))
    wait(lambda: status(stage, "lonely").get("progress", {}).get("step"))
    # Not for so long that Kubernetes calls the node lost.
    with stopped(silent):
        wait(lambda: condition(stage, "lonely") == ("False", "NodeLost"), 40)
        (node,) = stage.kube.list("nodes")
        conditions = {c["type"]: c["status"] for c in node["status"]["conditions"]}
        assert conditions["Ready"] == "True", "Kubernetes does not know yet"
    wait(lambda: condition(stage, "lonely") == ("False", "Running"))
    assert status(stage, "lonely").get("restarts", 0) == 0
    assert told(stage, "lonely").count("NodeLost") == 1
    stage.kubectl("delete", "dreamboothjob", "lonely")


@pytest.fixture
def replicated(stage):
    """The stage with a second replica of the operator, until the test is over."""

    def scale(replicas: str) -> None:
        stage.kube.kubectl("scale", "-n", NAMESPACE, OPERATOR, f"--replicas={replicas}")
        stage.kube.kubectl("rollout", "status", "-n", NAMESPACE, OPERATOR, "--timeout=90s")

    before = stage.kube.kubectl("get", "-n", NAMESPACE, OPERATOR, "-o", "jsonpath={.spec.replicas}")
    scale("2")
    yield stage
    scale(before)


def leader(stage: Any) -> str:
    """The pod that holds the operator's Lease; empty while none does."""
    lease = stage.kube.get("lease", f"{RELEASE}-operator", NAMESPACE) or {"spec": {}}
    return (lease["spec"].get("holderIdentity") or "").rpartition("_")[0]


def test_a_second_replica_takes_over_when_the_leaders_pod_is_deleted(replicated):
    first = wait(lambda: leader(replicated))
    replicated.kube.kubectl("delete", "pod", first, "-n", NAMESPACE, "--wait=false")
    replicated.apply(job("handed-over"))
    assert wait(lambda: leader(replicated) not in ("", first) and leader(replicated), 20)
    wait_for_phase(replicated, "handed-over", "Succeeded")
    # Each child was made once, by whoever: the Job controller tells of each pod that it makes, two of each Job.
    events = replicated.list("events", "--field-selector=involvedObject.kind=Job,reason=SuccessfulCreate")
    made = sorted((event["involvedObject"]["name"], event["involvedObject"]["uid"]) for event in events)
    assert [name for name, _ in made] == ["handed-over-prepare"] * 2 + ["handed-over-train"] * 2
    assert len(set(made)) == 2
    steps = ["Preparing", "Training", "Scoring", "Publishing", "Succeeded"]
    told_of = [reason for reason in told(replicated, "handed-over") if reason in steps]
    assert sorted(set(told_of)) == sorted(told_of)
    assert status(replicated, "handed-over").get("restarts", 0) == 0
