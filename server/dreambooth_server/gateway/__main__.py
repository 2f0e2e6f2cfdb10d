"""In a pod:  python -m dreambooth_server.gateway --operator http://HOST:9402 --token-file PATH [--port 8080]"""

import argparse
import sys
from pathlib import Path

from dreambooth_api.names import GATEWAY_METRICS_PORT, GATEWAY_PORT
from dreambooth_server.gateway.process import run
from dreambooth_server.gateway.settings import Settings


def main(argv: list[str] | None = None) -> int:
    """Serve every subject that the operator knows; returns the exit status."""
    parser = argparse.ArgumentParser(prog="dreambooth_server.gateway", description="One stable URL for each subject.")
    parser.add_argument("--operator", required=True, metavar="URL", help="the operator's routes port, http://host:port")
    parser.add_argument("--token-file", required=True, type=Path, metavar="PATH", help="the operator's bearer token")
    parser.add_argument("--host", default="0.0.0.0")
    parser.add_argument("--port", type=int, default=GATEWAY_PORT)
    parser.add_argument("--metrics-port", type=int, default=GATEWAY_METRICS_PORT, help="of /metrics, for Prometheus")
    parser.add_argument("--queue", type=int, default=256, help="requests of one subject that may wait")
    parser.add_argument("--hold-seconds", type=float, default=120, help="how long a request may wait for a replica")
    parser.add_argument("--answer-seconds", type=float, default=600, help="how long a replica may take for an answer")
    parser.add_argument("--drain-seconds", type=float, default=5, help="accept requests for so long after SIGTERM")
    parser.add_argument("--grace-seconds", type=float, default=150, help="and let those in flight finish for so long")
    parser.add_argument("--log-prompts", action="store_true", help="write prompts into the audit log")
    parser.add_argument("--check-url", metavar="URL", help="who says whether a prompt may be drawn")
    parser.add_argument("--check-open", action="store_true", help="draw while the check does not answer")
    return run(Settings(**vars(parser.parse_args(argv))))


if __name__ == "__main__":
    sys.exit(main())
