"""Why pods do not run, and why they ended: from what Kubernetes and our own processes say, to a reason. Pure."""

from collections.abc import Iterable
from datetime import datetime

from dreambooth_api.exits import PERMANENT, ExitCode
from dreambooth_api.reasons import Reason
from dreambooth_api.result import Fault, load_result
from dreambooth_operator import clock
from dreambooth_operator.views import Body, Problem

PULL_REASONS = ("ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable")
OOM_EXIT = 137
# What an exit code means where no termination message says more.
BY_EXIT: dict[int | None, Reason] = {
    ExitCode.SPEC: Reason.INVALID_SPEC,
    ExitCode.DATA: Reason.DATASET_INVALID,
    ExitCode.BASE_MODEL: Reason.BASE_MODEL_INVALID,
    ExitCode.NON_FINITE: Reason.NON_FINITE_LOSS,
    ExitCode.GPU_OUT_OF_MEMORY: Reason.GPU_OUT_OF_MEMORY,
    ExitCode.CHECKPOINTS_CORRUPT: Reason.CHECKPOINTS_CORRUPT,
    ExitCode.STORE_UNAVAILABLE: Reason.STORE_UNAVAILABLE,
    ExitCode.SAVED_ON_SIGTERM: Reason.PREEMPTED,
}
BY_DISRUPTION = {
    "PreemptionByScheduler": Reason.PREEMPTED,
    "EvictionByEvictionAPI": Reason.PREEMPTED,
    "TerminationByKubelet": Reason.PREEMPTED,
    "DeletionByTaintManager": Reason.NODE_LOST,
    "DeletionByPodGC": Reason.NODE_LOST,
}
# How long after its last moment a pod may still be there before its node is taken for lost, seconds.
OVERDUE = 15.0
# How far apart the ends of one gang's pods may be, seconds.
INCIDENT = 120.0
# Of several failed pods of a gang, the one with the lowest rank is the culprit; the others lost their peer.
CULPRIT, COUNTED, DISRUPTED, BEREAVED = range(4)


def container_status(pod: Body) -> Body:
    """The status of the pod's one container; empty before there is one."""
    statuses = pod.get("status", {}).get("containerStatuses") or [{}]
    return statuses[0]


def condition(body: Body, kind: str) -> Body:
    """A condition of a pod or Job by its type; empty when it is absent."""
    return next((c for c in body.get("status", {}).get("conditions") or [] if c.get("type") == kind), {})


def terminated(pod: Body) -> Body | None:
    """How the pod's container ended last, now or before its present run."""
    status = container_status(pod)
    return status.get("state", {}).get("terminated") or status.get("lastState", {}).get("terminated")


def waiting_problem(pod: Body) -> Problem | None:
    """What keeps a pod from starting; None when nothing is known to."""
    scheduled = condition(pod, "PodScheduled")
    if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
        return Problem(Reason.UNSCHEDULABLE, f"pod {_name(pod)}: {scheduled.get('message', 'no node takes it')}")
    waiting = container_status(pod).get("state", {}).get("waiting") or {}
    reason, message = waiting.get("reason", ""), waiting.get("message", "")
    if reason in PULL_REASONS:
        return Problem(Reason.IMAGE_PULL_FAILED, f"pod {_name(pod)}: {reason}: {message}".rstrip(": "))
    if reason == "CreateContainerConfigError":
        kind = Reason.SECRET_NOT_FOUND if "secret" in message.lower() else Reason.INVALID_SPEC
        return Problem(kind, f"pod {_name(pod)}: {message}")
    if reason in ("CreateContainerError", "RunContainerError", "StartError"):
        return Problem(Reason.UNAVAILABLE, f"pod {_name(pod)}: {reason}: {message}")
    return None


def end_problem(pod: Body) -> tuple[int, Problem] | None:
    """Why a pod failed, with its rank among the causes; None when it has not failed."""
    status = pod.get("status", {})
    ended = terminated(pod) or {}
    disruption = condition(pod, "DisruptionTarget")
    if status.get("phase") != "Failed" and not ended.get("exitCode"):
        return None
    code, result = ended.get("exitCode"), load_result(ended.get("message") or "")
    if code == ExitCode.PEER_LOST:
        return BEREAVED, Problem(Reason.POD_FAILED, f"pod {_name(pod)} lost its peers")
    if isinstance(result, Fault):
        rank = CULPRIT if code in tuple(PERMANENT) else COUNTED
        return rank, Problem(result.reason, result.message)
    if ended.get("reason") == "OOMKilled":
        return CULPRIT, Problem(Reason.OUT_OF_MEMORY, _out_of_memory(pod))
    if disruption.get("status") == "True":
        reason = BY_DISRUPTION.get(disruption.get("reason", ""), Reason.PREEMPTED)
        return DISRUPTED, Problem(reason, f"pod {_name(pod)}: {disruption.get('message', 'it was disrupted')}")
    if status.get("reason") == "Evicted":
        return DISRUPTED, Problem(Reason.PREEMPTED, f"pod {_name(pod)}: {status.get('message', 'it was evicted')}")
    if code == ExitCode.SAVED_ON_SIGTERM:
        return DISRUPTED, Problem(Reason.PREEMPTED, f"pod {_name(pod)} was told to stop and saved its state")
    rank = CULPRIT if code in tuple(PERMANENT) else COUNTED
    return rank, Problem(BY_EXIT.get(code, Reason.POD_FAILED), _exit_message(pod, ended))


def failure(pods: Iterable[Body]) -> Problem | None:
    """The cause behind failed pods: the culprit's before its peers', the newest first."""
    ends = [(end, _ended_at(pod)) for pod in pods if (end := end_problem(pod))]
    if not ends:
        return None
    newest = max((moment for _, when in ends if (moment := clock.parse(when))), default=None)
    # Only the last incident: what went wrong hours ago is not why it ended now.
    recent = [e for e in ends if newest is None or clock.age(e[1], newest) <= INCIDENT] or ends
    best = min(rank for (rank, _), _ in recent)
    return max((when, problem) for (rank, problem), when in recent if rank == best)[1]


def job_failure(job: Body | None, pods: Iterable[Body]) -> Problem | None:
    """Why a Job is over, if it failed: its pods' cause where they tell one, else the Job controller's."""
    failed = condition(job or {}, "Failed") or condition(job or {}, "FailureTarget")
    if failed.get("status") != "True":
        return None
    reason, message = failed.get("reason", ""), failed.get("message", "")
    if reason == "DeadlineExceeded":
        return Problem(Reason.DEADLINE_EXCEEDED, "the job ran longer than activeDeadlineSeconds")
    cause = failure(pods)
    if cause and cause.reason != Reason.POD_FAILED:
        return cause
    if reason == "BackoffLimitExceeded":
        last = f": {cause.message}" if cause else ""
        return Problem(Reason.BACKOFF_LIMIT_EXCEEDED, f"pods failed more often than backoffLimit allows{last}")
    return Problem(Reason.BACKOFF_LIMIT_EXCEEDED, cause.message if cause else f"{reason}: {message}")


def lost(pod: Body, now: datetime) -> Problem | None:
    """Whether a pod that has not ended is being driven out, or its node does not answer any more."""
    if pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
        return None
    disruption = condition(pod, "DisruptionTarget")
    if disruption.get("status") == "True":
        reason = BY_DISRUPTION.get(disruption.get("reason", ""), Reason.PREEMPTED)
        return Problem(reason, f"pod {_name(pod)}: {disruption.get('message', 'it is being driven out')}")
    # The time by which a pod is to be gone, its grace included.
    if leaving(pod) and clock.age(pod["metadata"]["deletionTimestamp"], now) > OVERDUE:
        message = "was told to end and its node does not confirm it; if the node is gone, delete it, or taint it "
        return Problem(Reason.NODE_LOST, f"pod {_name(pod)} {message}node.kubernetes.io/out-of-service")
    # Trainers have no readiness probe: only the node's controller says this of a pod whose container runs.
    silent = (
        condition(pod, "Ready").get("status") == "False" and condition(pod, "ContainersReady").get("status") == "True"
    )
    if silent and running(pod):
        message = "its node does not answer any more; the pod is replaced once the cluster evicts it"
        return Problem(Reason.NODE_LOST, f"pod {_name(pod)}: {message}")
    return None


def complete(job: Body | None) -> bool:
    """Whether a Job succeeded."""
    return condition(job or {}, "Complete").get("status") == "True"


def finished(job: Body | None) -> bool:
    """Whether a Job is over, either way."""
    return complete(job) or condition(job or {}, "Failed").get("status") == "True"


def running(pod: Body) -> bool:
    """Whether the pod's container runs."""
    return "running" in container_status(pod).get("state", {}) and not leaving(pod)


def leaving(pod: Body) -> bool:
    """Whether the pod is being deleted."""
    return bool(pod["metadata"].get("deletionTimestamp"))


def started(pod: Body) -> bool:
    """Whether the pod's container ever ran."""
    return running(pod) or terminated(pod) is not None or pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def moments(pod: Body) -> tuple[str | None, ...]:
    """When a pod was made, and when it ended."""
    return pod["metadata"].get("creationTimestamp"), (terminated(pod) or {}).get("finishedAt")


def longest_wait(pods: Iterable[Body], now: datetime) -> float:
    """Seconds that the oldest pod that has not started has been waiting; 0 when all have."""
    waits = (clock.age(p["metadata"].get("creationTimestamp"), now) for p in pods if not started(p) and not leaving(p))
    return max(waits, default=0.0)


def _name(pod: Body) -> str:
    return pod["metadata"]["name"]


def _ended_at(pod: Body) -> str:
    return (terminated(pod) or {}).get("finishedAt") or pod["metadata"].get("creationTimestamp") or ""


def _out_of_memory(pod: Body) -> str:
    return f"pod {_name(pod)} was killed for using more memory than its limit: raise template.resources.limits.memory"


def _exit_message(pod: Body, ended: Body) -> str:
    code = ended.get("exitCode")
    if code is None:
        return f"pod {_name(pod)} failed: {pod.get('status', {}).get('message') or 'it left no exit code'}"
    tail = (ended.get("message") or "").strip().splitlines()
    said = f": {tail[-1][:500]}" if tail else ""
    killed = " (it was killed)" if code == OOM_EXIT else ""
    return f"pod {_name(pod)} ended with exit code {code}{killed}{said}"
