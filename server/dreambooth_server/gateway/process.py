"""The life of a gateway process: serve, and on SIGTERM let clients move on before it ends."""

import logging
import sys

from prometheus_client import start_http_server

from dreambooth_server.draining import DrainingServer, pod_config, serve_until_told
from dreambooth_server.gateway.app import create_app
from dreambooth_server.gateway.gateway import Gateway
from dreambooth_server.gateway.settings import Settings


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit status. Raises OSError for a metrics port that is taken."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    _log_requests()
    gateway = Gateway(settings)
    config = pod_config(create_app(gateway), settings.host, settings.port, settings.grace_seconds)
    # Before anything is served: a port that is taken ends the process at once.
    listening = config.bind_socket()
    # In a thread of its own, until the process ends: no request waits for a scrape.
    start_http_server(settings.metrics_port, settings.host, gateway.metrics.registry)
    serve_until_told(DrainingServer(config, settings.drain_seconds, gateway.drain), listening)
    return 0


def _log_requests() -> None:
    """The audit log goes to standard output, one JSON object a line, apart from what else is said."""
    audit = logging.getLogger("dreambooth.audit")
    lines = logging.StreamHandler(sys.stdout)
    lines.setFormatter(logging.Formatter("%(message)s"))
    audit.addHandler(lines)
    audit.propagate = False
