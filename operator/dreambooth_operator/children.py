"""A decision's children, over the wire: made once, never taken over from somebody else, never for an owner that is
otherwise by now."""

import math
import time
from collections.abc import Callable
from typing import NamedTuple

from dreambooth_api import names
from dreambooth_api.reasons import Phase, Reason
from dreambooth_operator import drift, job_results
from dreambooth_operator.caches import SELECTOR
from dreambooth_operator.cluster import ApiFault, Cluster
from dreambooth_operator.memory import Memory
from dreambooth_operator.views import Body, ChildRef, JobView, Problem, View

# Somebody who undoes what was just applied is answered no more often than this, seconds.
CONTEST = 10.0
# The API server refuses for good: what is wrong is in the object that it was asked to take.
FOR_GOOD = (400, 422)
NOT_NOW = (403,)
TAKEN = 409
# An owner that was seen so lately need not be read anew before a child is made for it, seconds.
FRESH = 1.0


class Refused(Exception):
    """The API server does not take a child: for good, or for now."""

    def __init__(self, problem: Problem, final: bool) -> None:
        super().__init__(problem.message)
        self.problem, self.final = problem, final


class Outdated(Exception):
    """The object is no longer what was looked at; or it is not there any more."""


class Seen(NamedTuple):
    """In which version the API server last showed an owner, and when, on the monotonic clock."""

    version: str
    at: float

    @classmethod
    def now(cls, body: Body) -> "Seen":
        """Of an answer that has just come."""
        return cls(body["metadata"].get("resourceVersion", ""), time.monotonic())

    @classmethod
    def cached(cls, body: Body) -> "Seen":
        """Of what a watch told at some time."""
        return cls(body["metadata"].get("resourceVersion", ""), -math.inf)


class Children:
    """Makes, applies and checks children."""

    def __init__(self, cluster: Cluster, wrote: Callable[[Body], None]) -> None:
        """`wrote` takes a child as the API server has it since it was made or applied."""
        self._cluster, self._wrote = cluster, wrote

    async def apply(self, view: View, memory: Memory, manifest: Body, owner: Seen) -> None:
        """Make or apply a child. Raises Refused, Outdated, or ApiFault when trying again may help."""
        ref = ChildRef(manifest["kind"], manifest["metadata"]["name"])
        try:
            if ref.kind in (names.MODEL_KIND, "Job") and time.monotonic() - owner.at > FRESH:
                await self._check_owner(view, owner.version)
            if ref in view.children or ref.kind == names.MODEL_KIND:
                live = await self._apply(manifest)
            else:
                live = await self._make(view, ref, manifest)
        except ApiFault as e:
            if e.status in FOR_GOOD:
                raise Refused(Problem(Reason.INVALID_SPEC, f"{ref.kind} {ref.name}: {e.message}"), True) from e
            if e.status in NOT_NOW:
                raise Refused(Problem(Reason.UNSCHEDULABLE, f"{ref.kind} {ref.name}: {e.message}"), False) from e
            raise
        memory.settled = {entry for entry in memory.settled if entry[0] != ref}
        memory.settled.add((ref, drift.digest(manifest), drift.version(live)))
        memory.applied[ref] = (drift.digest(manifest), time.monotonic())

    async def _make(self, view: View, ref: ChildRef, manifest: Body) -> Body:
        """A child that the cache does not show. A job's are created: that the name is taken the API server itself says,
        and no Job is ever made twice. A model's are applied from the first, because they lose fields later (a later
        apply takes away only what an apply has set): so it is looked first whether they are there."""
        if isinstance(view, JobView):
            try:
                live = await self._cluster.create(manifest)
            except ApiFault as e:
                # 409 is also said of a quota that many want to write at once.
                if e.status != TAKEN or not (found := await self._ours(view, ref)):
                    raise
                # A Job's template cannot change.
                return found if ref.kind == "Job" else await self._apply(manifest)
            self._wrote(live)
            return live
        await self._ours(view, ref)
        return await self._apply(manifest)

    async def _apply(self, manifest: Body) -> Body:
        live = await self._cluster.apply(manifest)
        self._wrote(live)
        return live

    async def _ours(self, view: View, ref: ChildRef) -> Body | None:
        """The metadata of the child that is there already, or None. Raises Refused when what is there is somebody
        else's: an apply would take it over, and our owner reference would delete it with us; Outdated when it is on
        its way out."""
        found = await self._cluster.find(ref.kind, view.namespace, ref.name)
        if found is None:
            return None
        owners = found["metadata"].get("ownerReferences") or []
        if any(owner.get("uid") == view.uid for owner in owners):
            if found["metadata"].get("deletionTimestamp"):
                raise Outdated
            return found
        if any((owner.get("kind"), owner.get("name")) == (view.body.get("kind"), view.name) for owner in owners):
            # Of an earlier owner of the name: the garbage collector is on its way.
            raise Outdated
        raise Refused(job_results.name_taken(ref.kind, ref.name), True)

    async def _check_owner(self, view: View, known: str) -> None:
        """A training is not begun, and a model not rolled out, for an object that is otherwise by now: this replica's
        watch may have been cut off from what another one did. Raises Outdated, ApiFault."""
        found = await self._cluster.find(view.body["kind"], view.namespace, view.name)
        if found is None or (known and found["metadata"].get("resourceVersion") != known):
            raise Outdated

    async def check_pods(self, view: View, ref: ChildRef) -> None:
        """A Job of an unfinished job goes because none of its pods tells anything any more: it must be true of the
        cluster, not only of a watch that lags behind. Raises Outdated, ApiFault."""
        phase = (view.body.get("status") or {}).get("phase")
        if not isinstance(view, JobView) or ref.kind != "Job" or phase in {Phase.SUCCEEDED, Phase.FAILED}:
            return
        selector = f"{SELECTOR},{names.LABEL_JOB}={view.name}"
        page = await self._cluster.list_page("Pod", view.namespace, selector, 500, "")
        known = {pod["metadata"]["uid"] for pod in (*view.train_pods, *view.prepare_pods)}
        uid = view.children[ref]["metadata"]["uid"]
        for pod in page["items"]:
            owners = pod["metadata"].get("ownerReferences") or []
            if pod["metadata"]["uid"] not in known and any(owner.get("uid") == uid for owner in owners):
                raise Outdated


def contested(view: View, memory: Memory, manifest: Body) -> bool:
    """Whether an existing child was made just so a moment ago, and is otherwise again: another controller, or another
    operator by mistake, wants it differently. Without a pause the two would keep the API server busy."""
    ref = ChildRef(manifest["kind"], manifest["metadata"]["name"])
    digest, when = memory.applied.get(ref, ("", 0.0))
    return ref in view.children and digest == drift.digest(manifest) and time.monotonic() - when < CONTEST
