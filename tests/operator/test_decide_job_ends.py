"""What goes wrong with a job, and how it is told."""

import pytest

from dreambooth_api.job import Progress
from dreambooth_api.reasons import Phase, Reason
from dreambooth_api.result import Fault, Report, dump_result
from dreambooth_operator.decide_job import decide_job, refused
from dreambooth_operator.views import ChildRef, Problem
from tests.operator.life import TRAINED, condition, failed


def test_a_spec_that_is_not_understood_fails_at_the_door(make, settings):
    body = make.job({"training": {"steps": -1}})
    decision = decide_job(make.view(body), settings)
    assert failed(decision) == ("True", Reason.INVALID_SPEC)
    assert "training.steps" in condition(decision, "Failed")["message"]
    assert decision.apply == ()


def test_ranks_that_hang_after_the_end_are_stopped(make, settings):
    status = {"phase": "Succeeded", "completionTime": make.ago(30)}
    child = make.kubernetes_job("robot-train")
    assert decide_job(make.view(make.job(status=status), child), settings).suspend == ()
    status["completionTime"] = make.ago(61)
    assert decide_job(make.view(make.job(status=status), child), settings).suspend == (("robot-train", True),)


def test_a_missing_input_is_told_at_once_and_given_up_after_the_deadline(make, settings):
    missing = Problem(Reason.SECRET_NOT_FOUND, "there is no Secret dreambooth-store")
    decision = decide_job(make.view(make.job(), missing=missing), settings)
    assert failed(decision) == ("False", Reason.SECRET_NOT_FOUND)
    assert decision.status["phase"] == Phase.PENDING
    assert decision.apply == ()
    late = {**decision.status, "startTime": make.ago(3601)}
    decision = decide_job(make.view(make.job(status=late), missing=missing), settings)
    assert failed(decision) == ("True", Reason.SECRET_NOT_FOUND)
    assert "startDeadlineSeconds=3600" in condition(decision, "Failed")["message"]


def test_an_input_that_appears_lets_the_job_go_on(make, settings):
    decision = decide_job(make.view(make.job(), missing=Problem(Reason.SECRET_NOT_FOUND, "m")), settings)
    decision = decide_job(make.view(make.job(status=decision.status)), settings)
    assert failed(decision) == ("False", Reason.RUNNING)
    assert decision.status["phase"] == Phase.PREPARING


def test_pods_that_cannot_start_are_told_then_given_up_and_free_what_they_hold(life, make):
    life.step()
    pod = make.pod("p", phase="Pending", age=20, waiting={"reason": "ImagePullBackOff", "message": "not found"})
    decision = life.step(prepare_pods=(pod,))
    assert failed(decision) == ("False", Reason.IMAGE_PULL_FAILED)
    pod["metadata"]["creationTimestamp"] = make.ago(3601)
    decision = life.step(prepare_pods=(pod,))
    assert failed(decision) == ("True", Reason.IMAGE_PULL_FAILED)
    assert decision.suspend == (("robot-prepare", True),)


def test_pods_that_hang_for_an_unknown_cause_are_given_up_too(life, make):
    life.step()
    pod = make.pod("p", phase="Pending", age=3601, waiting={"reason": "ContainerCreating"})
    assert failed(life.step(prepare_pods=(pod,))) == ("True", Reason.START_DEADLINE_EXCEEDED)


def test_a_job_that_is_not_let_make_pods(life, make):
    life.step()
    ref = ChildRef("Job", "robot-prepare")
    job = {**life.view.children[ref], "status": {"startTime": make.ago(20)}}
    children = {**life.view.children, ref: job}
    assert failed(life.step(children=children)) == ("False", Reason.UNSCHEDULABLE)
    job["status"]["startTime"] = make.ago(3601)
    assert failed(life.step(children=children)) == ("True", Reason.UNSCHEDULABLE)


@pytest.mark.parametrize("reason", [Reason.DATASET_INVALID, Reason.DATASET_NOT_FOUND, Reason.BASE_MODEL_NOT_FOUND])
def test_what_prepare_found_fails_the_job(life, make, reason):
    life.step()
    life.finish("robot-prepare", "Failed", "PodFailurePolicy")
    pod = make.ended(65, dump_result(Fault(reason=reason, message="why")), name="p")
    decision = life.step(prepare_pods=(pod,))
    assert failed(decision) == ("True", reason)
    assert condition(decision, "Complete")["status"] == "False"
    assert life.told == ["Preparing", reason]
    assert decision.apply == ()


def test_the_verdict_waits_for_the_pods_words(life, make):
    life.step()
    life.finish("robot-prepare", "Failed", "PodFailurePolicy")
    ref = ChildRef("Job", "robot-prepare")
    life.view.children[ref]["status"]["conditions"][0]["lastTransitionTime"] = make.ago(1)
    decision = life.step()
    assert decision.status is None
    assert decision.again == 1.0


def test_a_killed_rank_is_told_until_its_successor_runs(training, make):
    gone = make.ended(137, reason="OOMKilled", name="robot-train-1-x", index=1)
    decision = training.step(train_pods=(make.pod(), gone))
    assert failed(decision) == ("False", Reason.OUT_OF_MEMORY)
    new = make.pod("robot-train-1-y", index=1)
    decision = training.step(train_pods=(make.pod(), gone, new))
    assert failed(decision) == ("False", Reason.RUNNING)
    assert decision.status["restarts"] == 1
    assert "Restarted" in training.told


def test_restarts_never_become_fewer(training, make):
    training.step(restarts=3)
    assert training.step(restarts=0).status is None
    assert training.view.body["status"]["restarts"] == 3


def test_a_failed_training_is_stopped_and_keeps_what_is_known(training, make):
    training.step(report=Report(phase=Phase.TRAINING, progress=Progress(step=5, steps=100, percent=5)))
    training.finish("robot-train", "Failed", "PodFailurePolicy")
    pod = make.ended(67, dump_result(Fault(reason=Reason.NON_FINITE_LOSS, message="lower the rate")))
    decision = training.step(train_pods=(pod,))
    assert failed(decision) == ("True", Reason.NON_FINITE_LOSS)
    assert decision.status["progress"]["step"] == 5
    assert decision.status["completionTime"]


def test_below_the_gate_the_job_fails_with_its_scores(training, make):
    below = TRAINED.model_copy(update={"artifact": None, "below_gate": "clipI 0.5 < 0.75"})
    decision = training.step(train_pods=(make.ended(0, dump_result(below)),))
    assert failed(decision) == ("True", Reason.BELOW_GATE)
    assert condition(decision, "Failed")["message"] == "clipI 0.5 < 0.75"
    assert decision.status["scores"] == {"clipI": "0.900"}
    assert decision.apply == ()


def test_an_end_without_a_result_is_a_failure(training, make):
    assert failed(training.step(train_pods=(make.ended(0, ""),))) == ("True", Reason.RESULT_LOST)


def test_the_deadline_counts_the_time_of_both_jobs(make, settings):
    body = make.job({"activeDeadlineSeconds": 100}, {"phase": "Training"})
    prepare = make.kubernetes_job("robot-prepare", ("Complete", "", ""), age=200)
    prepare["status"]["completionTime"] = make.ago(140)
    view = make.view(body, prepare, make.kubernetes_job("robot-train", age=30), train_pods=(make.pod(),))
    assert failed(decide_job(view, settings)) == ("False", Reason.RUNNING)
    late = make.view(body, prepare, make.kubernetes_job("robot-train", age=50), train_pods=(make.pod(),))
    assert failed(decide_job(late, settings)) == ("True", Reason.DEADLINE_EXCEEDED)


def test_a_name_that_somebody_else_has_ends_the_job(make, settings):
    view = make.view(make.job(), foreign=frozenset({ChildRef("Job", "robot-prepare")}))
    assert failed(decide_job(view, settings)) == ("True", Reason.NAME_CONFLICT)


@pytest.mark.parametrize(("final", "status"), [(True, "True"), (False, "False")])
def test_what_the_api_server_refuses_is_told(make, final, status):
    problem = Problem(Reason.INVALID_SPEC, "Job robot-prepare: spec.template: Invalid value")
    assert failed(refused(make.view(make.job()), problem, final)) == (status, Reason.INVALID_SPEC)


def test_a_gang_that_is_short_of_a_pod_says_what_the_quota_said(training, make):
    ref = ChildRef("Job", "robot-train")
    job = {**training.view.children[ref], "status": {"startTime": make.ago(60)}}
    children = {**training.view.children, ref: job}
    alone = make.pod(age=40)
    decision = training.step(children=children, train_pods=(alone,), complaint="exceeded quota: gpus")
    assert failed(decision) == ("False", Reason.UNSCHEDULABLE)
    assert "exceeded quota: gpus" in condition(decision, "Failed")["message"]
    alone["metadata"]["creationTimestamp"] = make.ago(3601)
    job["status"]["startTime"] = make.ago(3601)
    assert failed(training.step(children=children, train_pods=(alone,))) == ("True", Reason.UNSCHEDULABLE)


def test_a_job_controller_that_waits_before_it_replaces_failed_pods_is_no_quota(training, make):
    ref = ChildRef("Job", "robot-train")
    job = {**training.view.children[ref], "status": {"startTime": make.ago(300), "failed": 3}}
    crashed = tuple(make.ended(1, name=f"robot-train-{i}-x", index=i, ended=35, age=90) for i in range(2))
    held = {**training.view.children, ref: job}
    assert failed(training.step(children=held, train_pods=crashed)) == ("False", Reason.POD_FAILED)
    # Ten seconds, then twice as long each time: after three failures 40 s.
    crashed = tuple(make.ended(1, name=f"robot-train-{i}-x", index=i, ended=65, age=120) for i in range(2))
    assert failed(training.step(children=held, train_pods=crashed)) == ("False", Reason.UNSCHEDULABLE)
