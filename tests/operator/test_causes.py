"""Every way in which pods end or do not start has its reason."""

import pytest

from dreambooth_api.exits import ExitCode
from dreambooth_api.reasons import Reason
from dreambooth_api.result import Fault, dump_result
from dreambooth_operator import causes


def fault(reason):
    return dump_result(Fault(reason=reason, message="do this"))


@pytest.mark.parametrize("waiting", ["ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull"])
def test_an_image_that_cannot_be_pulled(make, waiting):
    pod = make.pod(phase="Pending", waiting={"reason": waiting, "message": "no such image"})
    assert causes.waiting_problem(pod).reason == Reason.IMAGE_PULL_FAILED
    assert "no such image" in causes.waiting_problem(pod).message


def test_an_unschedulable_pod_says_what_the_scheduler_said(make):
    pod = make.pod(phase="Pending", waiting={})
    pod["status"]["conditions"] = [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes: no gpu"}
    ]
    assert causes.waiting_problem(pod) == (Reason.UNSCHEDULABLE, "pod robot-train-0-x: 0/1 nodes: no gpu")


@pytest.mark.parametrize(
    ("message", "reason"),
    [('secret "x" not found', Reason.SECRET_NOT_FOUND), ("couldn't find key y", Reason.INVALID_SPEC)],
)
def test_a_container_that_cannot_be_configured(make, message, reason):
    pod = make.pod(phase="Pending", waiting={"reason": "CreateContainerConfigError", "message": message})
    assert causes.waiting_problem(pod).reason == reason


@pytest.mark.parametrize("waiting", [{}, {"reason": "ContainerCreating"}, {"reason": "PodInitializing"}])
def test_a_pod_that_is_on_its_way_has_no_problem(make, waiting):
    assert causes.waiting_problem(make.pod(phase="Pending", waiting=waiting)) is None


def test_a_running_or_succeeded_pod_did_not_fail(make):
    assert causes.end_problem(make.pod()) is None
    assert causes.end_problem(make.ended(0)) is None


@pytest.mark.parametrize(
    ("code", "message", "reason", "expected"),
    [
        (ExitCode.DATA, fault(Reason.DATASET_INVALID), "Error", Reason.DATASET_INVALID),
        (ExitCode.STORE_UNAVAILABLE, fault(Reason.STORE_UNAVAILABLE), "Error", Reason.STORE_UNAVAILABLE),
        (ExitCode.NON_FINITE, "", "Error", Reason.NON_FINITE_LOSS),
        (ExitCode.GPU_OUT_OF_MEMORY, "", "Error", Reason.GPU_OUT_OF_MEMORY),
        (ExitCode.SAVED_ON_SIGTERM, "", "Error", Reason.PREEMPTED),
        (137, "", "OOMKilled", Reason.OUT_OF_MEMORY),
        (137, "", "Error", Reason.POD_FAILED),
        (1, "Traceback\nValueError: x", "Error", Reason.POD_FAILED),
    ],
)
def test_how_a_container_ended(make, code, message, reason, expected):
    _, problem = causes.end_problem(make.ended(int(code), message, reason))
    assert problem.reason == expected


def test_without_a_message_the_last_line_of_the_log_is_told(make):
    _, problem = causes.end_problem(make.ended(1, "Traceback\nValueError: x"))
    assert problem.message.endswith("exit code 1: ValueError: x")


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("PreemptionByScheduler", Reason.PREEMPTED),
        ("EvictionByEvictionAPI", Reason.PREEMPTED),
        ("DeletionByTaintManager", Reason.NODE_LOST),
        ("DeletionByPodGC", Reason.NODE_LOST),
        ("SomethingNew", Reason.PREEMPTED),
    ],
)
def test_a_disruption(make, reason, expected):
    pod = make.ended(143)
    pod["status"]["conditions"] = [{"type": "DisruptionTarget", "status": "True", "reason": reason, "message": "m"}]
    assert causes.end_problem(pod)[1].reason == expected


def test_a_pod_lost_with_its_node_has_no_exit_code(make):
    pod = make.pod(phase="Failed", running={})
    pod["status"]["conditions"] = [{"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC"}]
    assert causes.end_problem(pod)[1].reason == Reason.NODE_LOST


def test_the_culprit_is_told_and_not_its_peers(make):
    peer = make.ended(int(ExitCode.PEER_LOST), name="a", ended=0)
    culprit = make.ended(137, reason="OOMKilled", name="b", ended=20)
    assert causes.failure([peer, culprit]).reason == Reason.OUT_OF_MEMORY


def test_an_incident_of_hours_ago_is_not_the_cause(make):
    old = make.ended(137, reason="OOMKilled", name="a", ended=7200)
    new = make.ended(int(ExitCode.STORE_UNAVAILABLE), fault(Reason.STORE_UNAVAILABLE), name="b")
    assert causes.failure([old, new]).reason == Reason.STORE_UNAVAILABLE


def test_a_jobs_failure_is_its_pods_cause(make):
    job = make.kubernetes_job("robot-train", ("Failed", "PodFailurePolicy", "Container failed with 67"))
    pods = [make.ended(int(ExitCode.NON_FINITE), fault(Reason.NON_FINITE_LOSS))]
    assert causes.job_failure(job, pods) == (Reason.NON_FINITE_LOSS, "do this")


@pytest.mark.parametrize(
    ("reason", "expected"),
    [("DeadlineExceeded", Reason.DEADLINE_EXCEEDED), ("BackoffLimitExceeded", Reason.BACKOFF_LIMIT_EXCEEDED)],
)
def test_a_jobs_failure_without_a_known_cause(make, reason, expected):
    job = make.kubernetes_job("robot-train", ("Failed", reason, "m"))
    assert causes.job_failure(job, [make.ended(1, "boom")]).reason == expected


def test_only_pods_that_have_not_started_wait(make):
    pods = [make.pod(age=100), make.pod(phase="Pending", age=50, waiting={})]
    assert causes.longest_wait(pods, make.view(make.job()).now) == 50


def test_a_pod_whose_node_went_silent_is_told(make):
    pod = make.pod()
    pod["status"]["conditions"] = [{"type": "Ready", "status": "False"}, {"type": "ContainersReady", "status": "True"}]
    now = make.view(make.job()).now
    assert causes.lost(pod, now).reason == Reason.NODE_LOST
    pod["status"]["conditions"][0]["status"] = "True"
    assert causes.lost(pod, now) is None


@pytest.mark.parametrize(("ago", "expected"), [(-30, None), (5, None), (20, Reason.NODE_LOST)])
def test_a_pod_that_should_be_gone_and_is_not_confirmed(make, ago, expected):
    pod = make.pod()
    pod["metadata"]["deletionTimestamp"] = make.ago(ago)
    found = causes.lost(pod, make.view(make.job()).now)
    assert (found and found.reason) == expected


def test_an_eviction_is_told_while_the_pod_still_ends(make):
    pod = make.pod()
    pod["metadata"]["deletionTimestamp"] = make.ago(-30)
    pod["status"]["conditions"] = [{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}]
    assert causes.lost(pod, make.view(make.job()).now).reason == Reason.PREEMPTED
