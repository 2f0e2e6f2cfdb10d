"""The life of a server process: answer at once, load beside that, drain on SIGTERM, end with a reason when it must."""

import logging
import os
import sys
import threading

import uvicorn

from dreambooth_api.reasons import Reason
from dreambooth_server.app import create_app
from dreambooth_server.draining import DrainingServer, pod_config, serve_until_told
from dreambooth_server.faults import LoadFault, leave_message
from dreambooth_server.service import Service
from dreambooth_server.settings import Settings

log = logging.getLogger(__name__)


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit status: 0, or the class of a LoadFault."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # Read when the libraries are loaded, which is later. Threads that spin while they wait slow everyone down
    # where cores are shared; transformers warns of image processors, which no part of this needs.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    service = Service(settings)
    config = pod_config(create_app(service), settings.host, settings.port, settings.grace_seconds)
    # Before anything is loaded: a port that is taken ends the process at once (uvicorn says so and exits).
    listening = config.bind_socket()
    server = DrainingServer(config, settings.drain_seconds, service.drain)
    faults: list[LoadFault] = []
    threading.Thread(target=_load, args=(service, server, faults), name="loading", daemon=True).start()
    serve_until_told(server, listening)
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
