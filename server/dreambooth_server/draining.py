"""uvicorn as a pod needs it: once told to end it turns unready, goes on accepting for a while, and then finishes."""

import asyncio
import logging
import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

log = logging.getLogger(__name__)


class DrainingServer(uvicorn.Server):
    """Kubernetes sends SIGTERM while the Service still sends requests here: refusing them at once would lose some."""

    def __init__(self, config: uvicorn.Config, seconds: float, begin: Callable[[], None]) -> None:
        """`begin` is called at the first signal; then requests are accepted for `seconds` more."""
        super().__init__(config)
        self._seconds, self._begin, self._told = seconds, begin, False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        repeated, self._told = self._told, True
        self._begin()
        if repeated or not self._seconds:
            super().handle_exit(sig, frame)
        else:
            log.info("draining for %.0f s", self._seconds)
            threading.Timer(self._seconds, super().handle_exit, (sig, None)).start()


def pod_config(app: ASGIApp, host: str, port: int, grace_seconds: float) -> uvicorn.Config:
    """uvicorn's settings: who logs is the application, and requests in flight have `grace_seconds` to finish."""
    return uvicorn.Config(
        app, host=host, port=port, log_config=None, access_log=False, timeout_graceful_shutdown=int(grace_seconds)
    )


def serve_until_told(server: uvicorn.Server, listening: socket.socket) -> None:
    """Serve until SIGTERM, SIGINT or `should_exit`."""
    # asyncio does so only for sockets that were opened as TCP by name, which uvicorn's are not: an answer's body would
    # wait for the acknowledgement of its head, 40 ms.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # uvicorn raises the signal again when it is done, which would end the process before its last words.
    before = {ending: signal.signal(ending, lambda *_: None) for ending in (signal.SIGTERM, signal.SIGINT)}
    try:
        asyncio.run(server.serve([listening]))
    finally:
        for ending, handler in before.items():
            signal.signal(ending, handler)
