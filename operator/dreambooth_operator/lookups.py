"""What the caches do not know: asked of the API server, of a trainer's rank 0, of a pool's replica, and only as long as
the answer may change what is decided."""

import math
import time
from dataclasses import replace

import aiohttp

from dreambooth_api import names
from dreambooth_api.adapters import AdapterPhase, AdapterRequest, AdapterState
from dreambooth_api.parse import InvalidResource, parse_job
from dreambooth_api.reasons import Phase, Reason
from dreambooth_api.result import Report
from dreambooth_operator import adapters, causes, decide_model, decide_shared, inputs, job_results, progress
from dreambooth_operator.caches import Caches, keys_of, pool_of
from dreambooth_operator.cluster import Cluster
from dreambooth_operator.decide_job import POLL
from dreambooth_operator.keys import Keys
from dreambooth_operator.memory import Memory
from dreambooth_operator.nodes import Nodes
from dreambooth_operator.settings import Settings
from dreambooth_operator.views import JobView, ModelView, PoolView, Problem


class Lookups:
    """Completes views."""

    def __init__(
        self,
        cluster: Cluster,
        caches: Caches,
        settings: Settings,
        session: aiohttp.ClientSession,
        keys: Keys,
        nodes: Nodes,
    ) -> None:
        self._cluster, self._caches, self._settings = cluster, caches, settings
        self._session, self._keys, self._nodes = session, keys, nodes
        self._inputs = inputs.Inputs(cluster)

    async def of_job(self, view: JobView, memory: Memory) -> JobView:
        """With what is missing, what the trainer and its nodes say, and why pods are not let be made. Raises
        ApiFault."""
        nodes = {job_results.node(pod) for pod in (*view.prepare_pods, *view.train_pods) if causes.running(pod)}
        report = await self._report(view, memory)
        return replace(
            view,
            missing=await self._missing_for_job(view),
            report=report,
            answered=memory.answered,
            heartbeats=self._nodes.of(nodes),
            complaint=await inputs.complaint(self._cluster, view),
        )

    async def of_model(self, view: ModelView, memory: Memory) -> ModelView:
        """With what is missing, its keys too, and what the pool says of the artifact. Raises ApiFault."""
        started = view.deleted or view.children or pool_of(view.body)
        missing = None if started else await self._inputs.missing(view.namespace, iter([inputs.STORE]))
        return replace(
            view, missing=missing, locked=await self._locked(view), adapter=await self._adapter(view, memory)
        )

    async def of_pool(self, view: PoolView) -> PoolView:
        """With what is missing. Raises ApiFault."""
        if view.deleted or view.children:
            return view
        return replace(view, missing=await self._inputs.missing(view.namespace, inputs.pool_needs(view.body)))

    async def _missing_for_job(self, view: JobView) -> Problem | None:
        """Looked up only as long as nothing was started: afterwards the pods themselves say what they lack."""
        phase = (view.body.get("status") or {}).get("phase")
        begun = view.child("Job", names.prepare_job(view.name)) or view.child("Job", names.training(view.name))
        if view.deleted or begun or phase in {Phase.SUCCEEDED, Phase.FAILED}:
            return None
        try:
            spec = parse_job(view.body).spec
        except InvalidResource:
            return None
        if spec.suspend:
            return None
        return await self._inputs.missing(view.namespace, inputs.needs(spec))

    async def _report(self, view: JobView, memory: Memory) -> Report | None:
        """What the trainer says; None when none runs. It is asked ten seconds after it was asked last, or after what it
        said was written: then no two statuses that only tell progress are closer than that."""
        pods = [pod for pod in (*view.train_pods, *view.prepare_pods) if causes.running(pod)]
        leader = next((pod for pod in pods if job_results.rank(pod) == 0 and pod["status"].get("podIP")), None)
        if not leader or view.deleted:
            memory.report, memory.answered, memory.asked = None, None, -math.inf
        elif time.monotonic() - memory.asked >= POLL:
            memory.asked = time.monotonic()
            if report := await progress.ask(self._session, leader["status"]["podIP"]):
                memory.report, memory.answered = report, (leader["metadata"]["uid"], view.now)
        return memory.report

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
