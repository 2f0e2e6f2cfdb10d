"""Observing: an object and its surroundings from the caches and the memory. No I/O, nothing is decided."""

from datetime import datetime

from dreambooth_api import names
from dreambooth_api.model import PersonalizedModelStatus
from dreambooth_api.reasons import ModelPhase
from dreambooth_operator import job_results
from dreambooth_operator.caches import Caches, named, pool_of
from dreambooth_operator.memory import Memory
from dreambooth_operator.status import read
from dreambooth_operator.views import Body, ChildRef, JobView, ModelView, PoolView

# A model that has not been looked at yet may need verifying, too.
UNVERIFIED = frozenset({"", ModelPhase.PROGRESSING.value})


def observe_job(caches: Caches, memory: Memory, body: Body, now: datetime) -> JobView:
    """A job as the caches have it; inputs and report are looked up by the caller."""
    namespace, name = body["metadata"]["namespace"], body["metadata"]["name"]
    refs = (
        ChildRef("Job", names.prepare_job(name)),
        ChildRef("Service", names.training(name)),
        ChildRef("Job", names.training(name)),
    )
    children, leaving, foreign = _children(caches, body, names.JOB_KIND, refs)
    pods = caches.pods(namespace, names.LABEL_JOB, name)
    prepare, train = (_pods_of(pods, children.get(ref)) for ref in (refs[0], refs[2]))
    publish = named(body, "publish")
    return JobView(
        body=body,
        now=now,
        children=children,
        leaving=leaving,
        foreign=foreign,
        settled=frozenset(memory.settled),
        prepare_pods=prepare,
        train_pods=train,
        model=caches.get(names.MODEL_KIND, namespace, publish) if publish else None,
        restarts=_restarts(memory, body, children.get(refs[2]), train),
    )


def observe_model(caches: Caches, memory: Memory, body: Body, now: datetime) -> ModelView:
    """A model as the caches have it; inputs are looked up by the caller."""
    namespace, name = body["metadata"]["namespace"], body["metadata"]["name"]
    endpoint = names.endpoint(name)
    kinds = ("Service", "Deployment", "HorizontalPodAutoscaler", "PodDisruptionBudget")
    refs = (*(ChildRef(kind, endpoint) for kind in kinds), ChildRef("Deployment", names.canary(name)))
    children, leaving, foreign = _children(caches, body, names.MODEL_KIND, refs)
    job, pool = named(body, "jobRef"), pool_of(body)
    return ModelView(
        body=body,
        now=now,
        children=children,
        leaving=leaving,
        foreign=foreign,
        settled=frozenset(memory.settled),
        status=read(PersonalizedModelStatus, body),
        pods=tuple(caches.pods(namespace, names.LABEL_MODEL, name)),
        job=caches.get(names.JOB_KIND, namespace, job) if job else None,
        pool=caches.get(names.POOL_KIND, namespace, pool) if pool else None,
    )


def observe_pool(caches: Caches, memory: Memory, body: Body, now: datetime) -> PoolView:
    """A pool as the caches have it; inputs and what is asked of it are looked up by the caller."""
    namespace, name = body["metadata"]["namespace"], body["metadata"]["name"]
    kinds = ("Deployment", "HorizontalPodAutoscaler", "PodDisruptionBudget")
    children, leaving, foreign = _children(
        caches, body, names.POOL_KIND, tuple(ChildRef(kind, names.pool(name)) for kind in kinds)
    )
    subjects = caches.models_of_pool(namespace, name)
    entries = (caches.entry(names.MODEL_KIND, namespace, subject) for subject in subjects)
    return PoolView(
        body=body,
        now=now,
        children=children,
        leaving=leaving,
        foreign=foreign,
        settled=frozenset(memory.settled),
        pods=tuple(caches.pods(namespace, names.LABEL_POOL, name)),
        subjects=len(subjects),
        unverified=sum(1 for entry in entries if entry and entry.phase in UNVERIFIED),
    )


def _children(
    caches: Caches, body: Body, kind: str, refs: tuple[ChildRef, ...]
) -> tuple[dict[ChildRef, Body], frozenset[ChildRef], frozenset[ChildRef]]:
    """Ours; those on their way out (an earlier owner's of the same name are, too); and those of somebody else."""
    ours, leaving, foreign = {}, set(), set()
    for ref in refs:
        live = caches.get(ref.kind, body["metadata"]["namespace"], ref.name)
        if live is None:
            continue
        owners = live["metadata"].get("ownerReferences") or []
        if any(owner.get("uid") == body["metadata"]["uid"] for owner in owners):
            if live["metadata"].get("deletionTimestamp"):
                leaving.add(ref)
            else:
                ours[ref] = live
        elif any((owner.get("kind"), owner.get("name")) == (kind, body["metadata"]["name"]) for owner in owners):
            leaving.add(ref)
        else:
            foreign.add(ref)
    return ours, frozenset(leaving), frozenset(foreign)


def _pods_of(pods: list[Body], job: Body | None) -> tuple[Body, ...]:
    """A Job's pods by their owner: a label anyone may write."""
    if job is None:
        return ()
    uid = job["metadata"]["uid"]
    owned = ((pod, pod["metadata"].get("ownerReferences") or []) for pod in pods)
    return tuple(pod for pod, owners in owned if any(owner.get("uid") == uid for owner in owners))


def _restarts(memory: Memory, body: Body, job: Body | None, pods: tuple[Body, ...]) -> int:
    if (body.get("spec") or {}).get("suspend") or job_results.suspended(job):
        # Pods that a suspension ends are replaced when it is over; that is no restart.
        memory.pods.clear()
        return memory.restarts or 0
    seen = {pod["metadata"]["uid"]: job_results.rank(pod) for pod in pods}
    return memory.count_restarts(seen, (body.get("status") or {}).get("restarts", 0))
