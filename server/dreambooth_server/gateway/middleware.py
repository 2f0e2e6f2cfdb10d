"""Around every request: the audit log and the series of those for pictures, and the farewell of a gateway that goes."""

import hashlib
import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dreambooth_server.gateway.metrics import UNKNOWN, Metrics
from dreambooth_server.gateway.table import Subject, Table
from dreambooth_server.middleware import Noted

audit = logging.getLogger("dreambooth.audit")


class Audited(Noted):
    """Logs and counts each request for pictures by what the handler noted in the request's state."""

    def __init__(self, app: ASGIApp, metrics: Metrics, table: Table, log_prompts: bool) -> None:
        super().__init__(app)
        self._metrics, self._table, self._log_prompts = metrics, table, log_prompts

    def note(self, state: dict[str, Any], status: int, seconds: float) -> None:
        subject: Subject | None = state.get("subject")
        counted = subject if subject in self._table.routes and subject is not None else UNKNOWN
        self._metrics.requests.labels(*counted, str(status)).inc()
        self._metrics.request_seconds.labels(*counted).observe(seconds)
        if "held" in state:
            self._metrics.hold_seconds.labels(*counted).observe(state["held"])
        audit.info("%s", json.dumps(self._line(state, subject, status, seconds)))

    def _line(self, state: dict[str, Any], subject: Subject | None, status: int, seconds: float) -> dict[str, Any]:
        namespace, model = subject or (None, None)
        prompt: str | None = state.get("prompt")
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "key": state.get("key"),
            "namespace": namespace,
            "model": model,
            "digest": state.get("digest"),
            "status": status,
            "seconds": round(seconds, 3),
            "prompt_sha256": None if prompt is None else hashlib.sha256(prompt.encode()).hexdigest(),
        }
        return {**line, "prompt": prompt} if self._log_prompts else line


class Farewell:
    """Once the gateway drains every answer ends its connection: the next request finds another gateway."""

    def __init__(self, app: ASGIApp, draining: Callable[[], bool]) -> None:
        self._app, self._draining = app, draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def parting(message: Message) -> None:
            if message["type"] == "http.response.start" and self._draining():
                message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        await self._app(scope, receive, parting if scope["type"] == "http" else send)
