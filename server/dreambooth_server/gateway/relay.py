"""From a request to its answer, over as many replicas as it takes. What is retried, and why that is safe:

- what no replica has begun (429, 503 while loading, no connection): for as long as the request may be held;
- what a replica died over: twice. A drawing is a pure function of its request, so doing it again changes nothing; but
  a request that kills replicas must not be sent to all of them;
- what one revision failed at, where there is another: once, from that one. So a bad canary costs no client anything.
"""

import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from http import HTTPStatus

import aiohttp

from dreambooth_api.names import HEADER_ARTIFACT, HEADER_DIGEST, HEADER_MODEL
from dreambooth_server.errors import ApiError
from dreambooth_server.gateway.dispatch import Ask, Dispatcher, Lease
from dreambooth_server.gateway.metrics import Metrics
from dreambooth_server.gateway.replica import Answer, Busy, Died, Wanted, ask_replica
from dreambooth_server.gateway.settings import Settings
from dreambooth_server.gateway.tally import Tally

_RETRIES = 2
# A replica that ended a connection is left alone for so long, seconds.
_RECOVERY_SECONDS = 1.0


@dataclass
class Job:
    """One request on its way."""

    ask: Ask
    wanted: Wanted
    counted: bool = True
    """Whether it is a drawing, by which the operator judges an artifact."""
    held: float = 0.0
    """How long it waited for replicas, seconds."""
    failures: int = 0
    digests: list[str] = field(default_factory=list)
    """The artifacts that it was tried with; the last one answered."""


class Relay:
    """Asks replicas."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        dispatcher: Dispatcher,
        tally: Tally,
        metrics: Metrics,
        settings: Settings,
    ) -> None:
        self._session, self._dispatcher, self._tally = session, dispatcher, tally
        self._metrics, self._settings = metrics, settings

    @contextlib.asynccontextmanager
    async def answering(self, job: Job) -> AsyncIterator[Answer]:
        """The answer; its replica has the request in flight until the context ends. Raises ApiError."""
        while True:
            lease = await self._held(job)
            began = time.monotonic()
            # Of a client that goes away, and of a replica that is busy, nobody's quality can be told.
            verdict: bool | None = None
            try:
                answer = await self._ask(job, lease)
                if answer is not None and not self._elsewhere(job, lease, answer):
                    with contextlib.closing(answer):
                        yield answer
                        verdict = answer.failed
                    return
                verdict = None if answer is None else True
            except _Failure as failure:
                verdict = True
                if job.failures > _RETRIES or failure.final:
                    raise failure.error from failure
            finally:
                self._dispatcher.release(lease)
                if verdict is not None and job.counted:
                    seconds = time.monotonic() - began
                    self._tally.answered(job.ask.subject, lease.target.digest, seconds, verdict)
            self._metrics.retries.labels(*job.ask.subject).inc()

    async def _held(self, job: Job) -> Lease:
        began = time.monotonic()
        try:
            lease = await self._dispatcher.acquire(job.ask, max(0.0, self._settings.hold_seconds - job.held))
        finally:
            job.held += time.monotonic() - began
        job.digests.append(lease.target.digest)
        return lease

    async def _ask(self, job: Job, lease: Lease) -> Answer | None:
        """The replica's answer; None when it has begun nothing. Raises _Failure."""
        try:
            return await ask_replica(
                self._session, lease.replica.address, _addressed(job.wanted, lease), self._settings.answer_seconds
            )
        except Busy as busy:
            self._dispatcher.cool(lease, busy.seconds, busy.everybody)
            job.ask.avoid.add(lease.replica.address)
            return None
        except Died as e:
            self._dispatcher.cool(lease, _RECOVERY_SECONDS, everybody=True)
            self._shun(job, lease)
            job.failures += 1
            message = "The replicas that were to answer ended while they did."
            raise _Failure(ApiError(502, message, "replica_lost"), final=False) from e
        except TimeoutError as e:
            message = f"No answer within {self._settings.answer_seconds:.0f} s."
            raise _Failure(ApiError(504, message, "timeout"), final=True) from e

    def _elsewhere(self, job: Job, lease: Lease, answer: Answer) -> bool:
        """Whether another revision is to be asked than the one whose replica failed with `answer`."""
        if not answer.failed or job.failures >= _RETRIES:
            return False
        job.failures += 1
        # An answer of 500 is about the request; 502 to 504 are about what the replica needs, which another may have.
        return self._shun(job, lease) or answer.status > HTTPStatus.INTERNAL_SERVER_ERROR

    def _shun(self, job: Job, lease: Lease) -> bool:
        """Keep the request from the revision that failed it, if there is another (then true), or from the replica."""
        others = {t.digest for t in lease.route.targets if t.weight} - job.ask.shunned - {lease.target.digest}
        elsewhere = bool(others) and job.ask.pinned is None
        if elsewhere:
            job.ask.shunned.add(lease.target.digest)
        job.ask.avoid.add(lease.replica.address)
        return elsewhere


class _Failure(Exception):
    """No answer; `final`: nor from another replica."""

    def __init__(self, error: ApiError, final: bool) -> None:
        super().__init__(str(error))
        self.error, self.final = error, final


def _addressed(wanted: Wanted, lease: Lease) -> Wanted:
    """`wanted` with the headers by which a pool knows what to draw it with."""
    headers = {
        **wanted.headers,
        HEADER_MODEL: lease.route.name,
        HEADER_ARTIFACT: lease.target.uri,
        HEADER_DIGEST: lease.target.digest,
    }
    return Wanted(wanted.method, wanted.path, wanted.body, headers)
