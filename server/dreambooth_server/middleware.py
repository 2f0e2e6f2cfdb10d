"""Around every request: a bound on the body, and measurements of those for pictures."""

import contextlib
import logging
import time
from abc import ABC, abstractmethod
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dreambooth_server.errors import ApiError
from dreambooth_server.metrics import UNKNOWN, Metrics

log = logging.getLogger(__name__)
MAX_BODY_BYTES = 64 * 1024
GENERATIONS = "/v1/images/generations"


class BodyLimit:
    """Answers 413 to a body of more than `limit` bytes, whether its length is announced or not; others it hands on."""

    def __init__(self, app: ASGIApp, limit: int = MAX_BODY_BYTES) -> None:
        self._app, self._limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif (body := await self._read(scope, receive)) is None:
            message = f"The body has more than {self._limit} bytes."
            await ApiError(413, message, "body_too_large").answer()(scope, receive, send)
        else:
            await self._app(scope, _replayed(body, receive), send)

    async def _read(self, scope: Scope, receive: Receive) -> list[Message] | None:
        """The body's messages; None when it is too large."""
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > self._limit:
            return None
        messages: list[Message] = []
        while not messages or messages[-1].get("more_body", False):
            messages.append(await receive())
            if sum(len(message.get("body", b"")) for message in messages) > self._limit:
                return None
        return messages


def _replayed(messages: list[Message], receive: Receive) -> Receive:
    """First `messages`, then what else `receive` has: that the client went away."""
    waiting = iter(messages)

    async def replayed() -> Message:
        for message in waiting:
            return message
        return await receive()

    return replayed


class Noted(ABC):
    """Has each request for pictures noted once its answer is sent; others it hands on."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].endswith(GENERATIONS):
            await self._app(scope, receive, send)
            return
        state: dict[str, Any] = scope.setdefault("state", {})
        status = 500
        started = time.monotonic()

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            with self.during():
                await self._app(scope, receive, noting)
        finally:
            self.note(state, status, time.monotonic() - started)

    def during(self) -> contextlib.AbstractContextManager[Any]:
        """What lasts as long as a request."""
        return contextlib.nullcontext()

    @abstractmethod
    def note(self, state: dict[str, Any], status: int, seconds: float) -> None:
        """A request is over. `state`: what its handler noted in it; `status` is 500 where no answer was begun."""


class Measured(Noted):
    """Counts and times requests for pictures, under the model that the handler names in the request's state."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        super().__init__(app)
        self._metrics = metrics

    def during(self) -> contextlib.AbstractContextManager[Any]:
        return self._metrics.in_flight.track_inprogress()

    def note(self, state: dict[str, Any], status: int, seconds: float) -> None:
        model = state.get("model", UNKNOWN)
        self._metrics.requests.labels(model, str(status)).inc()
        self._metrics.request_seconds.labels(model).observe(seconds)
        log.info("model=%s status=%d seconds=%.3f", model, status, seconds)
