"""A job's life, one decision at a time."""

from dataclasses import replace

import pytest

from dreambooth_api import names
from dreambooth_api.job import ArtifactStatus, DreamBoothJobStatus, Progress, Scores
from dreambooth_api.parse import parse_job
from dreambooth_api.reasons import Phase, Reason
from dreambooth_api.result import Fault, PrepareResult, Report, TrainResult, dump_result
from dreambooth_operator import manifests_job
from dreambooth_operator.decide_job import decide_job, refused
from dreambooth_operator.views import NOTHING, ChildRef, Problem

TRAINED = TrainResult(
    progress=Progress(step=100, steps=100, percent=100, loss="0.0100"),
    scores=Scores(clip_i="0.900"),
    artifact=ArtifactStatus(uri="s3://dreambooth/models/x", digest="sha256:" + "ab" * 32, bytes=9),
)


def condition(decision, kind):
    return next(c for c in decision.status["conditions"] if c["type"] == kind)


def failed(decision):
    found = condition(decision, "Failed")
    return found["status"], found["reason"]


def kinds(decision):
    return [(m["kind"], m["metadata"]["name"]) for m in decision.apply]


def live(view, manifest, uid="u"):
    """The child as the API server shows it after an apply."""
    return {**manifest, "metadata": {**manifest["metadata"], "uid": uid}, "status": {"startTime": None}}


class Life:
    """A job whose children appear as they are applied and whose status is kept."""

    def __init__(self, make, settings, spec=None):
        self.make, self.settings = make, settings
        self.view = make.view(make.job(spec))
        self.told = []

    def step(self, **fields):
        """Change what is observed, decide, carry it out."""
        self.view = replace(self.view, **fields)
        decision = decide_job(self.view, self.settings)
        children = dict(self.view.children)
        for manifest in decision.apply:
            if manifest["kind"] == names.MODEL_KIND:
                self.view = replace(self.view, model=manifest)
            else:
                children[ChildRef(manifest["kind"], manifest["metadata"]["name"])] = live(self.view, manifest)
        for name, value in decision.suspend:
            ref = ChildRef("Job", name)
            children[ref] = {**children[ref], "spec": {**children[ref]["spec"], "suspend": value}}
        for ref in decision.delete:
            children.pop(ref)
        body = {**self.view.body, "status": decision.status} if decision.status else self.view.body
        self.view = replace(self.view, body=body, children=children)
        self.told += [told.reason for told in decision.told]
        return decision

    def finish(self, name, kind="Complete", reason="", message=""):
        """Let a child Job come to an end."""
        ref = ChildRef("Job", name)
        conditions = [
            {"type": kind, "status": "True", "reason": reason, "message": message,
             "lastTransitionTime": self.make.ago(60)}
        ]  # fmt: skip
        self.view = replace(
            self.view,
            children={**self.view.children, ref: {**self.view.children[ref], "status": {"conditions": conditions}}},
        )

    @property
    def phase(self):
        return self.view.body["status"]["phase"]


@pytest.fixture
def life(make, settings):
    return Life(make, settings)


@pytest.fixture
def training(life, make):
    """A job that trains with two pods."""
    life.step()
    life.finish("robot-prepare")
    prior = dump_result(PrepareResult.model_validate({
        "prior": {"uri": "s3://p", "images": 3, "reused": 1}, "datasetDigest": "d", "baseDigest": "d", "images": 4,
    }))  # fmt: skip
    life.step(prepare_pods=(make.ended(0, prior, name="robot-prepare-x"),))
    pods = (make.pod(), make.pod("robot-train-1-x", index=1))
    life.step(train_pods=pods)
    return life


def test_a_life_without_trouble(training, make):
    assert training.phase == Phase.TRAINING
    report = Report(phase=Phase.TRAINING, progress=Progress(step=5, steps=100, percent=5, loss="0.2"))
    decision = training.step(report=report)
    assert decision.status["progress"]["step"] == 5
    training.step(report=Report(phase=Phase.SCORING))
    training.step(train_pods=(make.ended(0, dump_result(TRAINED)), make.ended(0, name="b", index=1)), report=None)
    assert training.phase == Phase.PUBLISHING
    training.step()
    assert training.phase == Phase.SUCCEEDED
    status = training.view.body["status"]
    assert status["artifact"]["digest"] == make.digest
    assert status["scores"] == {"clipI": "0.900"}
    assert status["prior"] == {"uri": "s3://p", "images": 3, "reused": 1}
    assert training.told == ["Preparing", "Training", "Scoring", "Publishing", "Succeeded"]


def test_the_children_come_in_their_order(life):
    assert kinds(life.step()) == [("ConfigMap", "robot-job"), ("Job", "robot-prepare")]
    assert life.step().apply == ()
    life.finish("robot-prepare")
    assert kinds(life.step()) == [("Service", "robot-train"), ("Job", "robot-train")]


def test_the_steady_state_writes_nothing(training):
    decision = training.step()
    assert (decision.status, decision.apply, decision.told, decision.suspend, decision.delete) == (None, (), (), (), ())


def test_progress_that_says_nothing_new_is_not_written(training, make):
    heard = Progress(step=5, steps=100, percent=5, loss="0.2")
    training.step(report=Report(phase=Phase.TRAINING, progress=heard))
    later = heard.model_copy(update={"time": make.ago(0)})
    assert training.step(report=Report(phase=Phase.TRAINING, progress=later)).status is None


def test_the_run_links_to_where_people_reach_mlflow(training):
    report = Report.model_validate({"phase": "Training", "run": {"experiment": "team", "id": "r1"}})
    assert training.step(report=report).status["run"]["url"] == "http://mlflow/#/runs/r1"


def test_a_warning_of_the_trainer_is_told(training):
    report = Report(phase=Phase.TRAINING, warning="MLflow is away")
    assert failed(training.step(report=report)) == ("False", Reason.TRACKING_UNAVAILABLE)


def test_a_spec_that_is_not_understood_fails_at_the_door(make, settings):
    body = make.job({"training": {"steps": -1}})
    decision = decide_job(make.view(body), settings)
    assert failed(decision) == ("True", Reason.INVALID_SPEC)
    assert "training.steps" in condition(decision, "Failed")["message"]
    assert decision.apply == ()


def test_an_operator_of_another_release_does_not_end_what_runs(training):
    body = {**training.view.body, "spec": {**training.view.body["spec"], "method": {"type": "FromTheFuture"}}}
    decision = training.step(body=body)
    assert failed(decision) == ("False", Reason.INVALID_SPEC)
    assert decision.suspend == ()


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_finished_job_never_runs_again(make, settings, phase):
    body = make.job(status={"phase": phase, "completionTime": make.ago(5)})
    decision = decide_job(make.view(body), settings)
    assert (decision.apply, decision.status, decision.suspend) == ((), None, ())
    edited = {**body, "spec": {**body["spec"], "backoffLimit": 9}, "metadata": {**body["metadata"], "generation": 2}}
    assert decide_job(make.view(edited), settings).apply == ()


def test_children_go_after_the_ttl(make, settings):
    spec, status = {"ttlSecondsAfterFinished": 60}, {"phase": "Succeeded", "completionTime": make.ago(30)}
    child = make.kubernetes_job("robot-train", ("Complete", "", ""))
    early = decide_job(make.view(make.job(spec, status), child), settings)
    assert early.delete == ()
    assert 0 < early.again <= 30
    status["completionTime"] = make.ago(61)
    late = decide_job(make.view(make.job(spec, status), child), settings)
    assert late.delete == (ChildRef("Job", "robot-train"),)
    assert decide_job(make.view(make.job(spec, status)), settings).apply == ()


def test_ranks_that_hang_after_the_end_are_stopped(make, settings):
    status = {"phase": "Succeeded", "completionTime": make.ago(30)}
    child = make.kubernetes_job("robot-train")
    assert decide_job(make.view(make.job(status=status), child), settings).suspend == ()
    status["completionTime"] = make.ago(61)
    assert decide_job(make.view(make.job(status=status), child), settings).suspend == (("robot-train", True),)


def test_a_job_that_is_being_deleted_is_left_alone(make, settings):
    assert decide_job(make.view(make.job(deletionTimestamp=make.ago(1))), settings) == NOTHING


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


def test_a_result_that_nobody_saw_is_made_again(training):
    training.finish("robot-train")
    decision = training.step(train_pods=())
    assert decision.delete == (ChildRef("Job", "robot-train"),)
    assert kinds(training.step()) == [("Job", "robot-train")]


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


def test_suspend_and_resume(training):
    running = training.view.body
    decision = training.step(body={**running, "spec": {**running["spec"], "suspend": True}})
    assert decision.suspend == (("robot-train", True),)
    assert training.phase == Phase.SUSPENDED
    assert "startTime" not in training.view.body["status"]
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


def test_a_foreign_model_is_found_before_anything_is_started(make, settings):
    decision = decide_job(make.view(make.job(), model=make.model()), settings)
    assert failed(decision) == ("False", Reason.NAME_CONFLICT)
    assert decision.apply == ()


def test_a_foreign_model_is_not_overwritten(training, make):
    decision = training.step(model=make.model(), train_pods=(make.ended(0, dump_result(TRAINED)),))
    assert failed(decision) == ("True", Reason.NAME_CONFLICT)
    assert decision.apply == ()
    # The work is not lost: `jobRef` serves it.
    assert decision.status["artifact"]["uri"] == "s3://dreambooth/models/x"


def test_a_model_of_an_earlier_job_gets_the_new_version(training, make):
    earlier = make.model(labels={names.LABEL_MANAGED_BY: names.MANAGER, names.LABEL_JOB: "before"})
    earlier["spec"]["artifact"]["digest"] = "sha256:" + "cd" * 32
    decision = training.step(model=earlier, train_pods=(make.ended(0, dump_result(TRAINED)),))
    assert kinds(decision) == [(names.MODEL_KIND, "robot")]
    assert training.phase == Phase.PUBLISHING
    training.step()
    assert training.phase == Phase.SUCCEEDED


def test_a_published_result_is_not_lost_with_the_pods(training, make):
    training.step(train_pods=(make.ended(0, dump_result(TRAINED)),))
    training.step(train_pods=(), model=None, children={})
    assert training.phase == Phase.PUBLISHING
    training.step()
    assert training.phase == Phase.SUCCEEDED


def test_a_name_that_somebody_else_has_ends_the_job(make, settings):
    view = make.view(make.job(), foreign=frozenset({ChildRef("ConfigMap", "robot-job")}))
    assert failed(decide_job(view, settings)) == ("True", Reason.NAME_CONFLICT)


def test_children_of_an_earlier_job_of_the_name_are_waited_for(make, settings):
    view = make.view(make.job(), leaving=frozenset({ChildRef("ConfigMap", "robot-job")}))
    decision = decide_job(view, settings)
    assert kinds(decision) == [("Job", "robot-prepare")]
    assert decision.again == 1.0


@pytest.mark.parametrize(("final", "status"), [(True, "True"), (False, "False")])
def test_what_the_api_server_refuses_is_told(make, settings, final, status):
    problem = Problem(Reason.INVALID_SPEC, "Job robot-prepare: spec.template: Invalid value")
    assert failed(refused(make.view(make.job()), settings, problem, final)) == (status, Reason.INVALID_SPEC)


def test_a_status_of_another_release_is_read_as_far_as_it_goes(make, settings):
    status = {"phase": "Succeeded", "restarts": "many", "completionTime": make.ago(5), "future": {"a": 1}}
    assert decide_job(make.view(make.job(status=status)), settings).apply == ()


def test_deciding_changes_nothing_observed(training, settings):
    before = repr(training.view)
    decide_job(training.view, settings)
    assert repr(training.view) == before


def test_transition_times_stay_while_the_status_does(training, make):
    old = training.view.body["status"]["conditions"]
    old[1]["lastTransitionTime"] = make.ago(999)
    decision = training.step(report=Report(phase=Phase.TRAINING, warning="MLflow is away"))
    assert condition(decision, "Failed")["lastTransitionTime"] == make.ago(999)
    assert DreamBoothJobStatus.model_validate(decision.status).conditions


def test_the_config_map_follows_the_generation(training, settings):
    body = {**training.view.body, "metadata": {**training.view.body["metadata"], "generation": 2}}
    decision = training.step(body=body)
    assert kinds(decision) == [("ConfigMap", "robot-job")]
    expected = manifests_job.config_map(body, parse_job(body).spec)
    assert decision.apply[0]["data"] == expected["data"]
