"""Jobs without pods: because the user wants it so, or a queue."""

from dataclasses import replace

from dreambooth_api import names
from dreambooth_api.reasons import Phase, Reason
from dreambooth_operator.decide_job import decide_job
from dreambooth_operator.views import NOTHING, ChildRef
from tests.operator.life import failed


def test_suspend_and_resume(training):
    running = training.view.body
    decision = training.step(body={**running, "spec": {**running["spec"], "suspend": True}})
    assert decision.suspend == (("robot-train", True),)
    assert training.phase == Phase.SUSPENDED
    # What has begun stays frozen.
    assert training.view.body["status"]["startTime"]
    assert training.step(train_pods=()) == NOTHING
    body = training.view.body
    decision = training.step(body={**body, "spec": {**body["spec"], "suspend": False}})
    assert decision.suspend == (("robot-train", False),)
    assert decision.apply == ()
    assert training.phase == Phase.TRAINING


def test_a_job_that_begins_suspended_has_no_children(make, settings):
    decision = decide_job(make.view(make.job({"suspend": True})), settings)
    assert decision.status["phase"] == Phase.SUSPENDED
    assert decision.apply == ()
    # Nothing has begun: the API server lets all of it be edited.
    assert "startTime" not in decision.status


def queued(life, make):
    """Let the job be Kueue's, from the beginning."""
    life.view = make.view(make.job(labels={names.LABEL_QUEUE: "team", names.LABELS_FOR_QUEUE[1]: "high"}))
    return life.step()


def admit(life, name, value=False):
    """What Kueue does with a Job: it resumes, or suspends, it."""
    ref = ChildRef("Job", name)
    job = life.view.children[ref]
    children = {**life.view.children, ref: {**job, "spec": {**job["spec"], "suspend": value}}}
    life.view = replace(life.view, children=children)


def test_a_queued_job_is_made_suspended_and_left_to_kueue(life, make):
    (job,) = [m for m in queued(life, make).apply if m["kind"] == "Job"]
    assert job["spec"]["suspend"] is True
    assert job["metadata"]["labels"].items() >= {names.LABEL_QUEUE: "team", names.LABELS_FOR_QUEUE[1]: "high"}.items()
    decision = life.step()
    assert failed(decision) == ("False", Reason.QUEUED)
    assert decision.suspend == ()
    assert life.phase == Phase.SUSPENDED
    assert life.step() == NOTHING
    admit(life, "robot-prepare")
    life.step()
    assert life.phase == Phase.PREPARING
    assert life.told == ["Preparing", "Queued", "Preparing"]


def test_what_kueue_preempts_is_not_resumed_by_us(life, make):
    queued(life, make)
    admit(life, "robot-prepare")
    life.finish("robot-prepare")
    life.step()
    admit(life, "robot-train")
    life.step(train_pods=(make.pod(),))
    assert life.phase == Phase.TRAINING
    admit(life, "robot-train", value=True)
    decision = life.step(train_pods=())
    assert life.phase == Phase.SUSPENDED
    assert decision.suspend == decision.delete == ()
    admit(life, "robot-train")
    life.step(train_pods=(make.pod(),))
    assert life.phase == Phase.TRAINING


def test_a_queued_job_that_its_user_suspends_leaves_the_queue(life, make):
    """Kueue would resume it: its workload is admitted."""
    queued(life, make)
    body = life.view.body
    decision = life.step(body={**body, "spec": {**body["spec"], "suspend": True}})
    assert decision.delete == (ChildRef("Job", "robot-prepare"),)
    assert decision.suspend == ()


def test_another_queue_is_taken_up_while_waiting(life, make):
    queued(life, make)
    body = life.view.body
    metadata = {**body["metadata"], "labels": {names.LABEL_QUEUE: "other"}}
    assert life.step(body={**body, "metadata": metadata}).delete == (ChildRef("Job", "robot-prepare"),)
    (job,) = [m for m in life.step().apply if m["kind"] == "Job"]
    assert job["metadata"]["labels"][names.LABEL_QUEUE] == "other"


def test_waiting_in_a_queue_is_no_late_start(life, make):
    queued(life, make)
    ref = ChildRef("Job", "robot-prepare")
    job = life.view.children[ref]
    old = {**job, "metadata": {**job["metadata"], "creationTimestamp": make.ago(9999)}}
    old["status"] = {"conditions": [{"type": "Suspended", "status": "True", "lastTransitionTime": make.ago(9999)}]}
    assert failed(life.step(children={**life.view.children, ref: old})) == ("False", Reason.QUEUED)
    # Resumed, and the Job controller has not begun its clock yet.
    admit(life, "robot-prepare")
    assert failed(life.step()) == ("False", Reason.RUNNING)


def test_a_job_that_somebody_else_suspended_is_theirs_to_resume(training):
    admit(training, "robot-train", value=True)
    decision = training.step(train_pods=())
    assert failed(decision) == ("False", Reason.QUEUED)
    assert decision.suspend == ()


def test_another_topology_while_suspended_is_taken_up_on_resume(training):
    body = training.view.body
    training.step(body={**body, "spec": {**body["spec"], "suspend": True}})
    body = training.view.body
    spec = {**body["spec"], "topology": {"nodes": 4, "gpusPerNode": 0}}
    decision = training.step(body={**body, "spec": spec}, train_pods=())
    assert decision.delete == (ChildRef("Job", "robot-train"),)
    body = training.view.body
    decision = training.step(body={**body, "spec": {**body["spec"], "suspend": False}})
    (job,) = [m for m in decision.apply if m["kind"] == "Job"]
    assert job["spec"]["completions"] == 4
