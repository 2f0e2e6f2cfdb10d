"""Observe, decide, apply, report: the one way in which anything is ever changed."""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import aiohttp

from dreambooth_api import names
from dreambooth_operator import decide_job, decide_model, decide_pool, gpu_time, metrics
from dreambooth_operator.caches import Caches
from dreambooth_operator.children import CONTEST, Children, Outdated, Refused, Seen, contested
from dreambooth_operator.cluster import ApiFault, Cluster
from dreambooth_operator.decide_job import POLL
from dreambooth_operator.events import event
from dreambooth_operator.fence import NotLeading
from dreambooth_operator.keys import Keys
from dreambooth_operator.lookups import Lookups
from dreambooth_operator.memory import Memories, Memory
from dreambooth_operator.nodes import Nodes
from dreambooth_operator.observe import observe_job, observe_model, observe_pool
from dreambooth_operator.queue import WorkQueue
from dreambooth_operator.settings import Settings
from dreambooth_operator.traffic import Gateways
from dreambooth_operator.views import Body, Decision, JobView, Key, Problem, View

# However quiet it is, everything is looked at again after this, seconds: without an API call where all is well.
RESYNC = 600.0
# What was decided on an outdated view is decided again, once the watches have caught up, seconds.
CATCH_UP = 0.5

logger = logging.getLogger(__name__)


class Reconciler:
    """Reconciles objects by their keys."""

    def __init__(
        self,
        cluster: Cluster,
        caches: Caches,
        settings: Settings,
        queue: WorkQueue[Key],
        session: aiohttp.ClientSession,
        wrote: Callable[[Body], None],
        keys: Keys | None = None,
        nodes: Nodes | None = None,
    ) -> None:
        """`wrote` takes an object as the API server has it since a write of ours; `keys`: what gateways are told of API
        keys, too; `nodes`: whose heartbeats are watched."""
        self._cluster, self._caches, self._settings, self._queue = cluster, caches, settings, queue
        keys, nodes = keys or Keys(cluster, caches), nodes or Nodes(cluster)
        self._lookups = Lookups(cluster, caches, settings, session, keys, nodes)
        self._wrote, self._children = wrote, Children(cluster, wrote)
        self._memories = Memories()
        self._kinds = {names.JOB_KIND: self._job, names.MODEL_KIND: self._model, names.POOL_KIND: self._pool}
        # What gateways report, in this term.
        self.gateways = Gateways(time.monotonic())

    def forget(self, uid: str) -> None:
        """An object is gone; another one may have its name already."""
        self._memories.forget(uid)

    async def reconcile(self, key: Key) -> None:
        """Bring one object to where it should be. Raises ApiFault when the API server does not let it, for now."""
        body = self._caches.get(key.kind, key.namespace, key.name)
        if body is None:
            self._queue.forget(key)
            if key.kind == names.MODEL_KIND:
                self.gateways.forget(f"{key.namespace}/{key.name}")
            return
        with metrics.RECONCILES.labels(key.kind).time():
            try:
                await self._kinds[key.kind](body)
            except NotLeading:
                # Whoever leads now does it.
                return
            except Outdated:
                self._queue.add(key, after=CATCH_UP)
            except ApiFault as e:
                metrics.ERRORS.labels(key.kind, str(e.status)).inc()
                raise
            except Exception as e:
                metrics.ERRORS.labels(key.kind, type(e).__name__).inc()
                raise

    async def _job(self, body: Body) -> None:
        memory = self._memories.of(body["metadata"]["uid"])
        view = observe_job(self._caches, memory, body, datetime.now(UTC))
        _count_gpu_time(view, memory)
        view = await self._lookups.of_job(view, memory)
        decision = decide_job.decide_job(view, self._settings)

        def refused(problem: Problem, final: bool) -> Decision:
            return decide_job.refused(view, problem, final)

        await self._carry_out(names.JOB_KIND, view, memory, decision, refused)

    async def _model(self, body: Body) -> None:
        memory = self._memories.of(body["metadata"]["uid"])
        view = observe_model(self._caches, memory, body, datetime.now(UTC))
        view = await self._lookups.of_model(view, memory)
        subject, rollout = f"{view.namespace}/{view.name}", view.status.rollout
        total = self.gateways.seen(subject, rollout.digest if rollout else "")
        view = replace(
            view,
            demand=self.gateways.demand([subject], time.monotonic()),
            seen=memory.since_step(rollout, total),
        )
        decision = decide_model.decide_model(view, self._settings)
        await self._carry_out(
            names.MODEL_KIND, view, memory, decision, lambda problem, final: decide_model.refused(view, problem)
        )

    async def _pool(self, body: Body) -> None:
        memory = self._memories.of(body["metadata"]["uid"])
        view = observe_pool(self._caches, memory, body, datetime.now(UTC))
        view = await self._lookups.of_pool(view)
        models = self._caches.models_of_pool(view.namespace, view.name)
        subjects = (f"{view.namespace}/{model}" for model in models)
        view = replace(view, demand=self.gateways.demand(subjects, time.monotonic()))
        decision = decide_pool.decide_pool(view, self._settings)
        await self._carry_out(
            names.POOL_KIND, view, memory, decision, lambda problem, final: decide_pool.refused(view, problem)
        )

    async def _carry_out(
        self,
        kind: str,
        view: View,
        memory: Memory,
        decision: Decision,
        refused: Callable[[Problem, bool], Decision],
    ) -> None:
        """Replicas (whoever waits for one to be woken waits for nothing else), events, status, children: told again
        they are the same; and no child is made before its job's spec is frozen by the status. What was refused the last
        time is tried before anything else is said about it."""
        await self._scale(view, decision)
        seen = Seen.cached(view.body)
        if before := not memory.refused:
            seen = await self._report_status(kind, view, memory, decision)
        try:
            for manifest in decision.apply:
                if contested(view, memory, manifest):
                    decision = replace(decision, again=min(decision.again or CONTEST, CONTEST))
                else:
                    await self._children.apply(view, memory, manifest, seen)
            memory.refused = False
        except Refused as e:
            decision = refused(e.problem, e.final)
            if not memory.refused:
                logger.warning("%s %s/%s: %s", kind, view.namespace, view.name, e.problem.message)
            memory.refused = True
        if memory.refused or not before:
            await self._report_status(kind, view, memory, decision)
        for name, value in decision.suspend:
            await self._cluster.suspend(view.namespace, name, value)
        for ref in decision.delete:
            if live := view.children.get(ref):
                await self._children.check_pods(view, ref)
                await self._cluster.delete(ref.kind, view.namespace, ref.name, live["metadata"]["uid"])
        again = RESYNC if decision.again is None else decision.again
        if memory.report:
            # What else happens in between does not put the next asking off.
            again = min(again, max(0.1, memory.asked + POLL - time.monotonic()))
        self._queue.add(Key(kind, view.namespace, view.name), after=again)

    async def _scale(self, view: View, decision: Decision) -> None:
        for name, replicas in decision.scale:
            await self._cluster.scale(view.namespace, name, replicas)

    async def _report_status(self, kind: str, view: View, memory: Memory, decision: Decision) -> Seen:
        """Events, then the status, if it has changed: by taking that, the API server confirms that the object was still
        in the version that was looked at."""
        if decision.status is None:
            return Seen.cached(view.body)
        for told in decision.told:
            await self._cluster.tell(event(kind, view, told))
        try:
            live = await self._cluster.apply_status(kind, view.body, decision.status)
            self._wrote(live)
            if decision.fault:
                metrics.ROLLED_BACK[decision.fault].inc()
            seen = Seen.now(live)
            memory.asked = seen.at if memory.report else memory.asked
            return seen
        except ApiFault as e:
            # Changed, deleted, or deleted and made anew, meanwhile: what follows would rest on an outdated view, too.
            if e.status in (404, 409):
                raise Outdated from e
            raise


def _count_gpu_time(view: JobView, memory: Memory) -> None:
    gpus = ((view.body.get("spec") or {}).get("topology") or {}).get("gpusPerNode")
    if not isinstance(gpus, int) or gpus <= 0:
        return
    saved = ((view.body.get("status") or {}).get("checkpoint") or {}).get("time")
    spent = gpu_time.settle(memory.alive, view.train_pods, saved, view.now)
    metrics.USEFUL.inc(spent.useful * gpus)
    metrics.WASTED.inc(spent.wasted * gpus)
