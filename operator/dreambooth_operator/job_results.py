"""What a job's pods and Jobs say about how it stands. Pure."""

from dreambooth_api import names
from dreambooth_api.job import DreamBoothJobSpec, DreamBoothJobStatus, PriorStatus
from dreambooth_api.reasons import Phase, Reason
from dreambooth_api.result import PrepareResult, TrainResult, load_result
from dreambooth_operator import causes, clock, drift
from dreambooth_operator.manifests_job import COMPLETION_INDEX
from dreambooth_operator.views import Body, JobView, Problem

# A Job without pods for so long is not let make any, seconds.
NO_PODS = 15.0
# How long the pods' own words may lag behind the Job controller's verdict, seconds.
LAG = 10.0
# How long rank 0 may say nothing, seconds: until the second asking in vain, of one in ten seconds by timers that are
# not exact.
SILENCE = 18.0
WAIT = Problem(Reason.RUNNING, "the pods' last words are on their way")


def rank(pod: Body) -> int:
    """The pod's index in its Indexed Job; 0 for a pod of a plain Job."""
    metadata = pod["metadata"]
    found = metadata.get("annotations", {}).get(COMPLETION_INDEX, metadata.get("labels", {}).get(COMPLETION_INDEX, 0))
    return int(found)


def train_result(view: JobView) -> TrainResult | None:
    """What rank 0 said when it was done."""
    for pod in view.train_pods:
        ended = causes.terminated(pod)
        if rank(pod) == 0 and ended and ended.get("exitCode") == 0:
            result = load_result(ended.get("message") or "")
            if isinstance(result, TrainResult):
                return result
    return None


def prior(view: JobView) -> PriorStatus | None:
    """The class images that the prepare pod reported."""
    for pod in view.prepare_pods:
        result = load_result((causes.terminated(pod) or {}).get("message") or "")
        if isinstance(result, PrepareResult) and result.prior:
            return result.prior
    return None


def training_phase(view: JobView, old: DreamBoothJobStatus) -> Phase:
    """Training, or what rank 0 says it is at; a phase once reached is not left for want of an answer."""
    said = view.report.phase if view.report else old.phase
    return said if said in (Phase.SCORING, Phase.PUBLISHING) else Phase.TRAINING


def restarts(view: JobView, old: DreamBoothJobStatus) -> int:
    """Training pods that took another's place: those seen to, and those still to be seen beside their predecessors."""
    indexes = [rank(pod) for pod in view.train_pods]
    return max(old.restarts, view.restarts, len(indexes) - len(set(indexes)))


def suspended(job: Body | None) -> bool:
    """Whether a Job is told to have no pods."""
    return bool(job and job.get("spec", {}).get("suspend"))


def held(job: Body | None) -> bool:
    """Whether somebody else told a Job to have no pods: that one resumes it, and nobody else."""
    return suspended(job) and names.ANNOTATION_SUSPENDED not in ((job or {})["metadata"].get("annotations") or {})


def queue_of(job: Body) -> str | None:
    """The queue that a Job stands in, or went through."""
    return (job["metadata"].get("labels") or {}).get(names.LABEL_QUEUE)


def waiting(job: Body) -> Problem:
    """Why a Job that is held has no pods."""
    name, queue = job["metadata"]["name"], queue_of(job)
    if queue is None:
        return Problem(Reason.QUEUED, f"somebody suspended the Job {name}: it goes on when they resume it")
    how = "see `kubectl get workloads` and `kubectl describe localqueue`"
    return Problem(Reason.QUEUED, f"the Job {name} waits in the queue {queue} until Kueue admits it: {how}")


def over_and_done(pod: Body) -> bool:
    """Whether a pod holds no resources any more."""
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def outdated(job: Body, wanted: Body) -> bool:
    """Whether a Job was made from another manifest."""
    return drift.stamp_of(job) != drift.stamp_of(wanted)


def over(view: JobView, spec: DreamBoothJobSpec) -> Problem | None:
    """Why the job cannot go on: a Job of it failed, or its time is up. WAIT: it failed, the pods' cause is to come."""
    jobs = (
        (view.child("Job", names.prepare_job(view.name)), view.prepare_pods),
        (view.child("Job", names.training(view.name)), view.train_pods),
    )
    for job, pods in jobs:
        if problem := causes.job_failure(job, pods):
            verdict = causes.condition(job or {}, "Failed") or causes.condition(job or {}, "FailureTarget")
            unheard = causes.failure(pods) is None and problem.reason == Reason.BACKOFF_LIMIT_EXCEEDED
            if unheard and clock.age(verdict.get("lastTransitionTime"), view.now) < LAG:
                return WAIT
            return problem
    if _without_result(view):
        return Problem(Reason.RESULT_LOST, "rank 0 ended well but left no result: see its log")
    deadline = spec.active_deadline_seconds
    if deadline and sum(_active_seconds(job, view) for job, _ in jobs) > deadline:
        return Problem(Reason.DEADLINE_EXCEEDED, f"the job ran longer than activeDeadlineSeconds={deadline}")
    return None


def _without_result(view: JobView) -> bool:
    """Rank 0's pod is there, ended with 0, and its message is no result: a restart would end the same way."""
    pods = [pod for pod in view.train_pods if rank(pod) == 0 and pod.get("status", {}).get("phase") == "Succeeded"]
    ended = [causes.terminated(pod) for pod in pods]
    return any(e and e.get("exitCode") == 0 and not load_result(e.get("message") or "") for e in ended)


def _active_seconds(job: Body | None, view: JobView) -> float:
    """How long a Job has been, or was, under way; a suspended one is not."""
    status = (job or {}).get("status", {})
    begun = clock.parse(status.get("startTime"))
    if begun is None or suspended(job):
        return 0.0
    return ((clock.parse(status.get("completionTime")) or view.now) - begun).total_seconds()


def obstacle(view: JobView, pods: tuple[Body, ...]) -> Problem | None:
    """What is in the way of the running Job; None when all is well."""
    alive = [pod for pod in pods if not over_and_done(pod) and not causes.leaving(pod)]
    known = (*map(causes.waiting_problem, alive), *(causes.lost(pod, view.now) for pod in pods), _refused_pods(view))
    if problem := next(filter(None, known), None):
        return problem
    failed = [pod for pod in pods if pod.get("status", {}).get("phase") == "Failed"]
    present = {rank(pod) for pod in pods if pod not in failed}
    if all(map(causes.running, alive)) and all(rank(pod) in present for pod in failed):
        return None
    # The pods that replace the failed ones are not all up yet.
    return causes.failure(failed)


def node(pod: Body) -> str:
    """The node that a pod is on; empty before it has one."""
    return pod.get("spec", {}).get("nodeName") or ""


def silent_node(view: JobView, pods: tuple[Body, ...]) -> Problem | None:
    """That the kubelet of a running pod's node has missed its heartbeats. Its pods may well go on, and nobody looks
    after them."""
    for pod in filter(causes.running, pods):
        heartbeat = view.heartbeats.get(node(pod))
        if heartbeat and heartbeat.silent >= heartbeat.allowed:
            where = f"pod {pod['metadata']['name']}: its node {node(pod)} has not been heard of"
            message = f"{where} for {heartbeat.allowed:.0f} s: the kubelet has stopped, or the node is gone"
            return Problem(Reason.NODE_LOST, f"{message}; the pod is replaced once the cluster evicts it")
    return None


def silence(view: JobView, pods: tuple[Body, ...]) -> Problem | None:
    """That rank 0 answered before and does not any more: of a network or a process that hangs nobody else speaks."""
    uid, when = view.answered or ("", view.now)
    leader = next((pod for pod in pods if pod["metadata"]["uid"] == uid and causes.running(pod)), None)
    if leader is None or (view.now - when).total_seconds() < SILENCE:
        return None
    name = leader["metadata"]["name"]
    silent = f"pod {name} has not answered since {clock.text(when)}"
    why = f"its node {node(leader)} or the network to it may be gone, or the training hangs (kubectl logs {name})"
    return Problem(Reason.UNRESPONSIVE, f"{silent}: {why}")


def pause(view: JobView, spec: DreamBoothJobSpec, start: float, poll: float) -> float:
    """Seconds after which time alone may have changed something: `poll` while pods run, end, or are fewer than there
    should be. All that wait for a node are looked at when `start`, what is left of their time, is up, not again and
    again."""
    jobs, pods = _unfinished(view), (*view.prepare_pods, *view.train_pods)
    left = [start]
    if spec.active_deadline_seconds:
        left.append(spec.active_deadline_seconds - sum(_active_seconds(job, view) for job in jobs))
    calm = jobs and not any(_lacks(view, job) for job in jobs)
    if not calm or any(causes.started(pod) or causes.leaving(pod) for pod in pods if not over_and_done(pod)):
        left.append(poll)
    # A node's silence is told when it is due, not at the asking after.
    beats = view.heartbeats.values()
    left += (beat.allowed - beat.silent for beat in beats if beat.silent < beat.allowed)
    return max(1.0, min(left))


def short(view: JobView) -> Body | None:
    """The unfinished Job that has had fewer pods than it should for longer than making one takes."""
    return next((job for job in _unfinished(view) if _short_for(view, job) > NO_PODS), None)


def _short_for(view: JobView, job: Body) -> float:
    """Seconds since anything happened to the pods of a Job that has too few; 0 when it has all."""
    if not _lacks(view, job):
        return 0.0
    moments = [_begun(job), *(moment for pod in _pods(view, job) for moment in causes.moments(pod) if moment)]
    return min(clock.age(moment, view.now) for moment in moments)


def _lacks(view: JobView, job: Body) -> bool:
    """Whether a Job has fewer pods than it should; those that are on their way out hold their place."""
    there = {rank(pod) for pod in _pods(view, job) if pod.get("status", {}).get("phase") != "Failed"}
    return len(there) < job.get("spec", {}).get("parallelism", 1)


def _refused_pods(view: JobView) -> Problem | None:
    if (job := short(view)) is None:
        return None
    if not view.complaint and _short_for(view, job) <= NO_PODS + _backoff(job):
        return None
    name = job["metadata"]["name"]
    said = view.complaint or f"a quota or an admission rule refuses them; see `kubectl describe job {name}`"
    return Problem(Reason.UNSCHEDULABLE, f"the Job {name} is not let make pods: {said}")


def _backoff(job: Body) -> float:
    """How long the Job controller waits before it replaces failed pods, seconds (kubernetes' pkg/controller/job)."""
    failed = job.get("status", {}).get("failed") or 0
    return min(10.0 * 2 ** (failed - 1), 600.0) if failed else 0.0


def _unfinished(view: JobView) -> list[Body]:
    jobs = (view.child("Job", names.training(view.name)), view.child("Job", names.prepare_job(view.name)))
    return [job for job in jobs if job and not causes.finished(job) and not suspended(job)]


def _begun(job: Body) -> str | None:
    """When a Job began; None just after it was resumed, when the Job controller has not begun its clock anew."""
    status = job.get("status", {})
    if status.get("startTime") or causes.condition(job, "Suspended"):
        return status.get("startTime")
    return job["metadata"].get("creationTimestamp")


def waited(view: JobView) -> float:
    """Seconds that pods have not started, or not even been made."""
    unmade = [_short_for(view, job) for job in filter(None, [short(view)])]
    return max([causes.longest_wait((*view.prepare_pods, *view.train_pods), view.now), *unmade])


def _pods(view: JobView, job: Body) -> tuple[Body, ...]:
    return view.train_pods if job["metadata"]["name"] == names.training(view.name) else view.prepare_pods


def gave_up(view: JobView, spec: DreamBoothJobSpec) -> Problem:
    """The cause of pods that did not start in time."""
    pods = (*view.prepare_pods, *view.train_pods)
    waiting = (causes.waiting_problem(pod) for pod in pods if not causes.leaving(pod))
    known = next((problem for problem in waiting if problem), None) or _refused_pods(view)
    late = f"not started within startDeadlineSeconds={spec.start_deadline_seconds}"
    if known is None:
        return Problem(Reason.START_DEADLINE_EXCEEDED, f"pods have {late}")
    return Problem(known.reason, f"{known.message} ({late})")


def name_taken(kind: str, name: str) -> Problem:
    """Somebody else has the name of a child."""
    message = f"the {kind} {name} exists and is not this job's: delete it, or give the job another name"
    return Problem(Reason.NAME_CONFLICT, message)
