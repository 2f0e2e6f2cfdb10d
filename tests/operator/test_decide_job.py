"""A job's life, one decision at a time."""

from datetime import timedelta

import pytest

from dreambooth_api import names
from dreambooth_api.job import DreamBoothJobStatus, Progress
from dreambooth_api.reasons import Phase, Reason
from dreambooth_api.result import Report, dump_result
from dreambooth_operator import manifests_job
from dreambooth_operator.decide_job import POLL, decide_job
from dreambooth_operator.views import NOTHING, ChildRef, Heartbeat
from tests.operator.life import TRAINED, condition, failed, kinds


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
    assert kinds(life.step()) == [("Job", "robot-prepare")]
    assert life.step().apply == ()
    life.finish("robot-prepare")
    assert kinds(life.step()) == [("Service", "robot-train"), ("Job", "robot-train")]


def test_the_steady_state_writes_nothing(training):
    decision = training.step()
    assert (decision.status, decision.apply, decision.told, decision.suspend, decision.delete) == (None, (), (), (), ())


def test_of_a_job_that_is_there_no_manifest_is_made(training, monkeypatch):
    monkeypatch.setattr(manifests_job, "train_job", None)
    assert training.step().apply == ()


def test_pods_that_wait_for_a_node_are_looked_at_when_their_time_is_up(life, make):
    life.step()
    waiting = {"phase": "Pending", "waiting": {}, "age": 100, "name": "robot-prepare-x"}
    one = make.pod(index=0, **waiting)
    two = make.pod(index=1, **{**waiting, "name": "robot-prepare-y"})
    assert life.step(prepare_pods=(one,)).again == 10
    assert life.step(prepare_pods=(one, two)).again == 3500
    assert life.step(prepare_pods=(one, make.pod(index=1, name="robot-prepare-y"))).again == 10
    life.view.body["spec"]["activeDeadlineSeconds"] = 60
    assert life.step(prepare_pods=(one, two)).again == 60


def test_progress_that_says_nothing_new_is_not_written(training, make):
    heard = Progress(step=5, steps=100, percent=5, loss="0.2")
    training.step(report=Report(phase=Phase.TRAINING, progress=heard))
    later = heard.model_copy(update={"time": make.ago(0)})
    assert training.step(report=Report(phase=Phase.TRAINING, progress=later)).status is None


def test_the_run_links_to_where_people_reach_mlflow(training):
    report = Report.model_validate({"phase": "Training", "run": {"experiment": "team", "id": "r1"}})
    assert training.step(report=report).status["run"]["url"] == "http://mlflow/#/runs/r1"


def test_a_store_that_is_away_is_told_while_training_goes_on(training):
    report = Report(phase=Phase.TRAINING, warning="it fails for now", warning_reason=Reason.STORE_UNAVAILABLE)
    decision = training.step(report=report)
    assert condition(decision, "Failed")["status"] == "False"
    assert condition(decision, "Failed")["reason"] == Reason.STORE_UNAVAILABLE


def test_a_rank_0_that_answers_no_more_is_told(training, make):
    progress = Progress(step=5, steps=100, percent=5, loss="0.2")
    report = Report(phase=Phase.TRAINING, progress=progress)
    uid, now = training.view.train_pods[0]["metadata"]["uid"], training.view.now
    training.step(report=report, answered=(uid, now - timedelta(seconds=17)))
    decision = training.step(report=report, answered=(uid, now - timedelta(seconds=18)))
    assert failed(decision) == ("False", Reason.UNRESPONSIVE)
    assert [told.reason for told in decision.told] == [Reason.UNRESPONSIVE]
    assert decision.status["progress"]["step"] == 5
    assert decision.again == POLL
    # Not written again while nothing else is known, and over with the next answer.
    assert training.step(report=report, answered=(uid, now - timedelta(seconds=18))).status is None
    assert failed(training.step(report=report, answered=(uid, now))) == ("False", Reason.RUNNING)


def test_nothing_is_said_of_a_rank_0_that_never_answered_or_of_one_that_is_gone(training, make):
    long_ago = training.view.now - timedelta(seconds=60)
    assert training.step(answered=None).status is None
    assert training.step(answered=("another-uid", long_ago)).status is None
    other = make.pod("robot-train-1-x", index=1)
    decision = training.step(train_pods=(make.ended(77), other), answered=("robot-train-0-x-uid", long_ago))
    assert failed(decision)[1] != Reason.UNRESPONSIVE


def test_a_node_that_is_silent_is_told_when_it_is_due(training, make):
    pods = tuple(make.pod(f"robot-train-{index}-x", index=index, node=f"node-{index}") for index in (0, 1))
    beats = {"node-0": Heartbeat(3.0, 25.0), "node-1": Heartbeat(21.0, 25.0)}
    decision = training.step(train_pods=pods, heartbeats=beats)
    assert (decision.told, decision.again) == ((), 4.0)
    beats["node-1"] = Heartbeat(25.0, 25.0)
    decision = training.step(train_pods=pods, heartbeats=beats)
    assert failed(decision) == ("False", Reason.NODE_LOST)
    assert "node-1" in condition(decision, "Failed")["message"]
    assert [told.reason for told in decision.told] == [Reason.NODE_LOST]
    assert decision.again == POLL
    # Longer of the same is nothing new, and over with the next heartbeat.
    beats["node-1"] = Heartbeat(35.0, 25.0)
    assert training.step(train_pods=pods, heartbeats=beats).status is None
    beats["node-1"] = Heartbeat(1.0, 25.0)
    assert failed(training.step(train_pods=pods, heartbeats=beats)) == ("False", Reason.RUNNING)


def test_of_the_node_of_a_pod_that_has_ended_nothing_is_said(training, make):
    ended = make.ended(0, name="robot-train-1-x", index=1, node="node-1")
    pods = (make.pod("robot-train-0-x", node="node-0"), ended)
    beats = {"node-0": Heartbeat(3.0, 25.0), "node-1": Heartbeat(60.0, 25.0)}
    assert training.step(train_pods=pods, heartbeats=beats).told == ()


def test_a_warning_of_the_trainer_is_told(training):
    report = Report(phase=Phase.TRAINING, warning="MLflow is away")
    assert failed(training.step(report=report)) == ("False", Reason.TRACKING_UNAVAILABLE)


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


def test_a_job_that_is_being_deleted_is_left_alone(make, settings):
    assert decide_job(make.view(make.job(deletionTimestamp=make.ago(1))), settings) == NOTHING


def test_a_result_that_nobody_saw_is_made_again(training):
    training.finish("robot-train")
    decision = training.step(train_pods=())
    assert decision.delete == (ChildRef("Job", "robot-train"),)
    assert kinds(training.step()) == [("Job", "robot-train")]


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


def test_children_of_an_earlier_job_of_the_name_are_waited_for(make, settings):
    view = make.view(make.job(), leaving=frozenset({ChildRef("Job", "robot-prepare")}))
    decision = decide_job(view, settings)
    assert kinds(decision) == []
    assert decision.again == 1.0


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


def test_what_runs_goes_on_by_the_spec_that_its_job_was_made_from(training):
    body = training.view.body
    edited = {**body["spec"], "validation": {"everySteps": 7}}
    decision = training.step(body={**body, "metadata": {**body["metadata"], "generation": 2}, "spec": edited})
    assert (decision.apply, decision.delete) == ((), ())
