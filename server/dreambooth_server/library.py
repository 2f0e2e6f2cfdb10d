"""A pool's subjects: whatever is asked for is fetched, verified and kept, beside what is being drawn.

A subject that cannot be had fails by itself, with a reason; the others go on. The store is asked only for what is
neither on the device, nor in memory, nor on this node's disk.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import PurePosixPath

from pydantic import ValidationError

from dreambooth_api.adapters import AdapterPhase, AdapterRequest, AdapterState
from dreambooth_api.job import MethodType
from dreambooth_api.names import HEADER_ARTIFACT, HEADER_DIGEST, HEADER_MODEL
from dreambooth_api.reasons import Reason
from dreambooth_server.artifacts import Artifact, fetch_artifact, kept_artifact
from dreambooth_server.catalog import Wanted
from dreambooth_server.engine import PoolEngine
from dreambooth_server.errors import ApiError
from dreambooth_server.faults import LoadFault
from dreambooth_server.metrics import SHARED, Metrics
from dreambooth_server.settings import BASE_MODEL, Places, SubjectSource
from dreambooth_server.shelf import Tier

log = logging.getLogger(__name__)
_FETCHERS = 4
# After so long a subject that failed is tried again when it is asked for, seconds.
_STORE_PAUSE, _PAUSE = 2.0, 60.0


class Library:
    """Subjects by digest. Its methods belong to the event loop's thread."""

    def __init__(self, engine: PoolEngine, base_digest: str, places: Places, metrics: Metrics) -> None:
        self._engine, self._base_digest, self._places, self._metrics = engine, base_digest, places, metrics
        self._fetched: dict[str, Future[Artifact]] = {}
        self._failed: dict[str, tuple[float, LoadFault]] = {}
        self._lock = threading.Lock()
        self._workers = ThreadPoolExecutor(_FETCHERS, "fetching")
        metrics.adapters.labels(Tier.DISK).set_function(lambda: len(engine.artifacts))

    def state(self, asked: AdapterRequest) -> AdapterState:
        """How far the subject is; one that is not there is fetched from now on."""
        future = self._ask(asked)
        if not future.done():
            return AdapterState(digest=asked.digest, phase=AdapterPhase.FETCHING)
        if (fault := future.exception()) is None:
            return AdapterState(digest=asked.digest, phase=AdapterPhase.READY)
        assert isinstance(fault, LoadFault)
        return AdapterState(
            digest=asked.digest, phase=AdapterPhase.FAILED, reason=fault.reason, message=str(fault)[:1000]
        )

    async def find(self, headers: Mapping[str, str], model: str | None) -> Wanted:
        """The subject that the gateway's headers name, once it is at hand. Raises ApiError."""
        asked = _asked(headers)
        future = self._ask(asked, reread=True)
        try:
            artifact = await asyncio.shield(asyncio.wrap_future(future))
        except LoadFault as e:
            raise _refusal(e) from e
        key = BASE_MODEL if model == BASE_MODEL else asked.digest
        return Wanted(key, replace(artifact, name=asked.name))

    def label(self, wanted: Wanted) -> str:
        return BASE_MODEL if wanted.model == BASE_MODEL else SHARED

    def close(self) -> None:
        """Fetch no more."""
        self._workers.shutdown(wait=False, cancel_futures=True)

    def _ask(self, asked: AdapterRequest, reread: bool = False) -> "Future[Artifact]":
        """The fetch of the subject, begun if need be; `reread`: also when its weights are on disk only."""
        future = self._fetched.get(asked.digest)
        if future is None or (future.done() and self._again(future, asked, reread)):
            future = self._workers.submit(self._fetch, asked)
            self._fetched[asked.digest] = future
        return future

    def _again(self, future: "Future[Artifact]", asked: AdapterRequest, reread: bool) -> bool:
        if future.cancelled():
            return True
        if future.exception() is None:
            return reread and not self._engine.at_hand(asked.digest)
        when, fault = self._failed[asked.digest]
        return time.monotonic() - when > (_STORE_PAUSE if fault.reason is Reason.STORE_UNAVAILABLE else _PAUSE)

    def _fetch(self, asked: AdapterRequest) -> Artifact:
        """In a worker: verified on disk, fitted to the base, in memory. Raises LoadFault."""
        begun = time.perf_counter()
        source = SubjectSource(asked.uri, asked.digest, asked.name)
        try:
            kept = kept_artifact(source, self._places)
            artifact = kept or fetch_artifact(source, self._places)
            self._check(artifact)
            self._engine.add(asked.digest, artifact)
        except LoadFault as e:
            self._failed[asked.digest] = (time.monotonic(), e)
            log.warning("subject %s: %s: %s", asked.name, e.reason, e)
            raise
        except Exception as e:  # A worker's edge: whatever is wrong with one subject is that subject's.
            log.exception("subject %s", asked.name)
            fault = LoadFault(Reason.ARTIFACT_INVALID, f"{asked.uri}: {type(e).__name__}: {e}")
            self._failed[asked.digest] = (time.monotonic(), fault)
            raise fault from e
        tier = Tier.DISK if kept else Tier.STORE
        self._metrics.swap_seconds.labels(tier).observe(time.perf_counter() - begun)
        return artifact

    def _check(self, artifact: Artifact) -> None:
        """Raises LoadFault when this pool cannot draw it."""
        if artifact.card.method is not MethodType.LORA:
            message = (
                f"{artifact.name} is a {artifact.card.method} model: a pool draws LoRA, set serving.mode: Dedicated"
            )
            raise LoadFault(Reason.ARTIFACT_INVALID, message)
        base = artifact.card.base
        if base.digest != self._base_digest:
            message = (
                f"{artifact.name} completes another base ({base.uri}, {base.digest}) than this pool's "
                f"({self._base_digest}): name a pool of its base in serving.pool, or set serving.mode: Dedicated"
            )
            raise LoadFault(Reason.ARTIFACT_INVALID, message)


def _asked(headers: Mapping[str, str]) -> AdapterRequest:
    """What the gateway's headers name. Raises ApiError 400."""
    named = [headers.get(header) for header in (HEADER_MODEL, HEADER_ARTIFACT, HEADER_DIGEST)]
    if not all(named):
        message = (
            f"A pool draws what {HEADER_MODEL}, {HEADER_ARTIFACT} and {HEADER_DIGEST} name: ask through the gateway."
        )
        raise ApiError(400, message, "missing_header")
    model, uri, digest = named
    try:
        return AdapterRequest(name=PurePosixPath(str(model)).name, uri=str(uri), digest=str(digest))
    except ValidationError as e:
        raise ApiError(400, f"The gateway's headers name no artifact: {e.errors()[0]['msg']}", "invalid_header") from e


def _refusal(fault: LoadFault) -> ApiError:
    """What a client is told who asks for a subject that failed."""
    if fault.reason is Reason.STORE_UNAVAILABLE:
        return ApiError(
            503, f"The subject cannot be fetched now: {fault}", "store_unavailable", headers={"Retry-After": "5"}
        )
    status = 404 if fault.reason is Reason.ARTIFACT_NOT_FOUND else 422
    return ApiError(status, f"The subject cannot be drawn: {fault}", fault.reason, "model")
