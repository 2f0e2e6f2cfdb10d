"""What is seen in the caches: whose children they are, and which pods count."""

from dreambooth_api import names
from dreambooth_operator.caches import Caches, slim, slim_job, slim_pod
from dreambooth_operator.memory import Memories, Memory
from dreambooth_operator.observe import observe_job, observe_model
from dreambooth_operator.views import ChildRef


def child(kind, name, owner_uid="job-uid", owner_kind=names.JOB_KIND, owner="robot", **metadata):
    owners = [{"kind": owner_kind, "name": owner, "uid": owner_uid}] if owner_uid else []
    return {"kind": kind, "metadata": {"name": name, "namespace": "team", "uid": f"{name}-uid",
                                       "ownerReferences": owners, **metadata}}  # fmt: skip


def caches_of(*bodies, pods=()):
    """Caches with `bodies` and `pods`."""
    caches = Caches()
    for body in bodies:
        caches.put(body["kind"], body)
    for pod in pods:
        caches.put("Pod", pod)
    return caches


def pod_of(make, job, **fields):
    pod = make.pod(**fields)
    pod["metadata"] |= {"labels": {names.LABEL_JOB: "robot"}, "ownerReferences": [{"uid": f"{job}-uid"}]}
    return pod


def test_children_are_ours_leaving_or_foreign(make):
    caches = caches_of(
        child("Job", "robot-prepare", owner_uid="an-earlier-uid"),
        child("Job", "robot-train"),
        child("Service", "robot-train", owner_uid=None),
    )
    view = observe_job(caches, Memory(), make.job(), make.view(make.job()).now)
    assert set(view.children) == {ChildRef("Job", "robot-train")}
    assert view.leaving == {ChildRef("Job", "robot-prepare")}
    assert view.foreign == {ChildRef("Service", "robot-train")}
    caches = caches_of(child("Job", "robot-train", deletionTimestamp=make.ago(1)))
    view = observe_job(caches, Memory(), make.job(), make.view(make.job()).now)
    assert view.leaving == {ChildRef("Job", "robot-train")}


def test_a_pod_counts_by_its_owner_and_not_by_its_label(make):
    caches = caches_of(
        child("Job", "robot-train"),
        pods=[pod_of(make, "robot-train"), pod_of(make, "somebody-elses", name="forged")],
    )
    view = observe_job(caches, Memory(), make.job(), make.view(make.job()).now)
    assert [pod["metadata"]["name"] for pod in view.train_pods] == ["robot-train-0-x"]


def test_restarts_are_counted_though_the_pods_are_gone(make):
    memory, now = Memory(), make.view(make.job()).now

    def restarts(*pods, **spec):
        caches = caches_of(child("Job", "robot-train"), pods=pods)
        return observe_job(caches, memory, make.job(spec, {"restarts": 2}), now).restarts

    first = pod_of(make, "robot-train", name="a")
    assert restarts(first) == 2
    assert restarts() == 2
    assert restarts(pod_of(make, "robot-train", name="b")) == 3
    assert restarts(pod_of(make, "robot-train", name="b")) == 3
    assert restarts(suspend=True) == 3
    assert restarts(pod_of(make, "robot-train", name="c")) == 3


def test_a_model_sees_its_job(make):
    job = make.job()
    caches = caches_of(job, child("Deployment", "robot-endpoint", "model-uid", names.MODEL_KIND))
    body = make.model({"jobRef": {"name": "robot"}})
    view = observe_model(caches, Memory(), body, make.view(job).now)
    assert view.job == job
    assert set(view.children) == {ChildRef("Deployment", "robot-endpoint")}


def test_before_the_watches_the_caches_are_empty():
    caches = Caches()
    assert caches.get("Job", "team", "x") is None
    assert list(caches.every_pod()) == []


def test_caches_hold_no_managed_fields_and_of_pods_and_jobs_only_what_is_read(make):
    body = make.job(managedFields=[{"big": 1}])
    assert "managedFields" not in slim(body)["metadata"]
    pod = make.pod() | {"spec": {"containers": [], "nodeName": "node-7"}}
    pod["metadata"]["annotations"] = {names.ANNOTATION_JOB: "{}", "a": "b"}
    assert slim_pod(pod)["metadata"]["annotations"] == {"a": "b"}
    assert set(slim_pod(pod)) == {"metadata", "spec", "status"}
    assert slim_pod(pod)["spec"] == {"nodeName": "node-7"}
    job = {**body, "spec": {"suspend": True, "template": {"spec": {}}}}
    assert slim_job(job)["spec"] == {"suspend": True}


def test_a_job_made_anew_has_a_memory_of_its_own():
    memories = Memories()
    memories.of("a").asked = 5
    memories.forget("a")
    assert memories.of("a").asked == float("-inf")
