"""The life of a server process: answer at once, load beside that, drain on SIGTERM, end with a reason when it must."""

import asyncio
import logging
import os
import signal
import sys
import threading
from types import FrameType

import uvicorn

from dreambooth_api.reasons import Reason
from dreambooth_server.app import create_app
from dreambooth_server.faults import LoadFault, leave_message
from dreambooth_server.service import Service, State
from dreambooth_server.settings import Settings

log = logging.getLogger(__name__)


class _Server(uvicorn.Server):
    """uvicorn that, once told to end, first turns unready and keeps accepting for a while.

    Kubernetes sends SIGTERM while the Service still sends requests here: refusing them at once would lose some.
    """

    def __init__(self, config: uvicorn.Config, service: Service, drain_seconds: float) -> None:
        super().__init__(config)
        self._service, self._drain_seconds = service, drain_seconds

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        repeated = self._service.state is State.DRAINING
        self._service.state = State.DRAINING
        if repeated or not self._drain_seconds:
            super().handle_exit(sig, frame)
        else:
            log.info("draining for %.0f s", self._drain_seconds)
            threading.Timer(self._drain_seconds, super().handle_exit, (sig, None)).start()


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit status: 0, or the class of a LoadFault."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # Read when the libraries are loaded, which is later. Threads that spin while they wait slow everyone down
    # where cores are shared; transformers warns of image processors, which no part of this needs.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    service = Service(settings)
    config = uvicorn.Config(
        create_app(service),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=int(settings.grace_seconds),
    )
    # Before anything is loaded: a port that is taken ends the process at once (uvicorn says so and exits).
    listening = config.bind_socket()
    server = _Server(config, service, settings.drain_seconds)
    faults: list[LoadFault] = []
    threading.Thread(target=_load, args=(service, server, faults), name="loading", daemon=True).start()
    # uvicorn raises the signal again when it is done, which would end the process before its last words.
    before = {ending: signal.signal(ending, lambda *_: None) for ending in (signal.SIGTERM, signal.SIGINT)}
    try:
        asyncio.run(server.serve([listening]))
    finally:
        for ending, handler in before.items():
            signal.signal(ending, handler)
    if faults:
        print(f"{faults[0].reason}: {faults[0]}", file=sys.stderr)
        return faults[0].exit_code
    service.close()
    return 0


def _load(service: Service, server: uvicorn.Server, faults: list[LoadFault]) -> None:
    """The loading thread: either the service becomes ready, or the process ends and says why."""
    try:
        service.load()
    except LoadFault as fault:
        faults.append(fault)
    except Exception as e:  # The thread's edge: a server that can never be ready must not go on living.
        log.exception("loading failed")
        faults.append(LoadFault(Reason.ARTIFACT_INVALID, f"loading failed: {type(e).__name__}: {e}"))
    if faults:
        leave_message(faults[0])
        server.should_exit = True
