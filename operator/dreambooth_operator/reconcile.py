"""Observe, decide, apply, report: the one way in which anything is ever changed."""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeVar

import aiohttp

from dreambooth_api import names
from dreambooth_api.adapters import AdapterPhase, AdapterRequest, AdapterState
from dreambooth_api.model import PersonalizedModelStatus
from dreambooth_api.parse import InvalidResource, parse_job
from dreambooth_api.reasons import Phase, Reason
from dreambooth_api.result import Report
from dreambooth_operator import (
    adapters,
    causes,
    decide_job,
    decide_model,
    decide_pool,
    decide_shared,
    gpu_time,
    inputs,
    job_results,
    metrics,
    progress,
)
from dreambooth_operator.caches import Caches, keys_of, pool_of
from dreambooth_operator.children import CONTEST, Children, Outdated, Refused, contested
from dreambooth_operator.cluster import ApiFault, Cluster
from dreambooth_operator.events import event
from dreambooth_operator.fence import NotLeading
from dreambooth_operator.keys import Keys
from dreambooth_operator.memory import Memories, Memory
from dreambooth_operator.observe import observe_job, observe_model, observe_pool
from dreambooth_operator.queue import WorkQueue
from dreambooth_operator.settings import Settings
from dreambooth_operator.status import read
from dreambooth_operator.traffic import Gateways
from dreambooth_operator.views import Body, Decision, JobView, Key, ModelView, PoolView, Problem, View

# However quiet it is, everything is looked at again after this, seconds: without an API call where all is well.
RESYNC = 600.0
POLL = 10.0
# What was decided on an outdated view is decided again, once the watches have caught up, seconds.
CATCH_UP = 0.5

logger = logging.getLogger(__name__)
V = TypeVar("V", bound=View)


class Reconciler:
    """Reconciles objects by their keys."""

    def __init__(
        self,
        cluster: Cluster,
        caches: Caches,
        settings: Settings,
        queue: WorkQueue[Key],
        session: aiohttp.ClientSession,
        keys: Keys | None = None,
    ) -> None:
        """`keys`: what gateways are told of API keys, too."""
        self._cluster, self._caches, self._settings, self._queue = cluster, caches, settings, queue
        self._session = session
        self._children = Children(cluster)
        self._memories = Memories()
        self._keys = keys or Keys(cluster, caches)
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
        view = replace(view, missing=await self._missing_for_job(view), report=await self._report(view, memory))
        view = replace(view, complaint=await inputs.complaint(self._cluster, view))
        decision = decide_job.decide_job(view, self._settings)

        def refused(problem: Problem, final: bool) -> Decision:
            return decide_job.refused(view, self._settings, problem, final)

        await self._carry_out(names.JOB_KIND, view, memory, decision, refused)

    async def _model(self, body: Body) -> None:
        memory = self._memories.of(body["metadata"]["uid"])
        view = observe_model(self._caches, memory, body, datetime.now(UTC))
        rollout = read(PersonalizedModelStatus, view.body).rollout
        subject = f"{view.namespace}/{view.name}"
        total = self.gateways.seen(subject, rollout.digest if rollout else "")
        view = replace(
            view,
            missing=await self._missing_for_model(view),
            locked=await self._locked(view),
            adapter=await self._adapter(view, memory),
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
        models = self._caches.models_of_pool(view.namespace, view.name)
        subjects = (f"{view.namespace}/{model}" for model in models)
        view = replace(
            view,
            missing=await self._missing_for_pool(view),
            demand=self.gateways.demand(subjects, time.monotonic()),
        )
        decision = decide_pool.decide_pool(view, self._settings)
        await self._carry_out(
            names.POOL_KIND, view, memory, decision, lambda problem, final: decide_pool.refused(view, problem)
        )

    async def _missing_for_job(self, view: JobView) -> Problem | None:
        """Looked up only as long as nothing was started: afterwards the pods themselves say what they lack."""
        phase = (view.body.get("status") or {}).get("phase")
        begun = view.child("Job", names.prepare_job(view.name)) or view.child("Job", names.training(view.name))
        if view.deleted or begun or phase in {Phase.SUCCEEDED, Phase.FAILED}:
            return None
        try:
            spec = parse_job({key: view.body.get(key) for key in ("metadata", "spec")}).spec
        except InvalidResource:
            return None
        if spec.suspend:
            return None
        return await inputs.missing(self._cluster, view.namespace, inputs.needs(spec))

    async def _missing_for_model(self, view: ModelView) -> Problem | None:
        if view.deleted or view.children or pool_of(view.body):
            return None
        return await inputs.missing(self._cluster, view.namespace, iter([inputs.STORE]))

    async def _missing_for_pool(self, view: PoolView) -> Problem | None:
        if view.deleted or view.children:
            return None
        return await inputs.missing(self._cluster, view.namespace, inputs.pool_needs(view.body))

    async def _locked(self, view: ModelView) -> Problem | None:
        """Why nobody can ask a model that keys open."""
        secret = keys_of(view.body)
        if not secret or view.deleted or not self._settings.gateway_url:
            return None
        if await self._keys.of(view.namespace, secret):
            return None
        message = f"spec.serving.access.secret: there is no Secret {secret} with a key in it in this namespace: "
        return Problem(Reason.SECRET_NOT_FOUND, f"{message}until there is, nobody can ask this model")

    async def _adapter(self, view: ModelView, memory: Memory) -> AdapterState | None:
        """What the pool says of the artifact; None while no replica is ready. It is asked until it is settled; that the
        store was away settles nothing."""
        artifact = decide_model.unverified(view, self._settings) if view.pool else None
        if artifact is None or view.pool is None:
            return None
        pool = view.pool["metadata"]
        of = (artifact.digest, artifact.uri, view.generation, pool["uid"], pool.get("generation"))
        if memory.adapter_of != of:
            memory.adapter, memory.adapter_of, memory.adapter_asked = None, of, -math.inf
        known = memory.adapter
        failed = known is not None and known.phase == AdapterPhase.FAILED
        if known and (known.phase == AdapterPhase.READY or (failed and known.reason != Reason.STORE_UNAVAILABLE)):
            return known
        pause = decide_shared.RECHECK if failed else decide_shared.ASK
        # Timers are never early by more than this.
        if time.monotonic() - memory.adapter_asked < pause - 0.1:
            return known
        address = adapters.replica(self._caches.pods(view.namespace, names.LABEL_POOL, pool["name"]), view.name)
        if address:
            memory.adapter_asked = time.monotonic()
            request = AdapterRequest(name=view.name, uri=artifact.uri, digest=artifact.digest)
            memory.adapter = await adapters.ask(self._session, address, request)
        return memory.adapter

    async def _report(self, view: JobView, memory: Memory) -> Report | None:
        """What the trainer says; None when none runs. It is asked ten seconds after it was asked last, or after what it
        said was written: then no two statuses that only tell progress are closer than that."""
        pods = [pod for pod in (*view.train_pods, *view.prepare_pods) if causes.running(pod)]
        address = next((pod["status"].get("podIP") for pod in pods if job_results.rank(pod) == 0), None)
        if not address or view.deleted:
            memory.report, memory.asked = None, -math.inf
        elif time.monotonic() - memory.asked >= POLL:
            memory.asked = time.monotonic()
            memory.report = await progress.ask(self._session, address) or memory.report
        return memory.report

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
        seen = -math.inf
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

    async def _report_status(self, kind: str, view: View, memory: Memory, decision: Decision) -> float:
        """Events, then the status; returns when the API server confirmed, by taking the status for it, that the object
        is still in the version that was looked at: on the monotonic clock, -inf if nothing had to be written."""
        if decision.status is None:
            return -math.inf
        for told in decision.told:
            await self._cluster.tell(event(kind, view, told))
        try:
            memory.written = await self._cluster.apply_status(kind, view.body, decision.status)
            if decision.fault:
                metrics.ROLLED_BACK[decision.fault].inc()
            now = time.monotonic()
            memory.asked = now if memory.report else memory.asked
            return now
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
