"""What is wrong with the cluster, in words; nothing said means that it serves."""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Any

from dreambooth_local.api import Api, Unreachable
from dreambooth_local.configs import DAEMONS
from dreambooth_local.places import API_SERVICE, DNS_SERVICE, NODE, Places
from dreambooth_local.processes import Daemons


def complaints(where: Places) -> list[str]:
    """Daemons, API server, node, DNS, metrics: the first kind that fails hides what depends on it."""
    daemons = Daemons(where.state)
    dead = [name for name in DAEMONS if daemons.pid(name) is None]
    if dead:
        return [f"not running: {', '.join(dead)}"]
    api = Api(where.state / "pki")
    if not api.answers():
        return ["the API server is not ready"]
    found = node_complaints(api)
    if not resolves("kubernetes.default.svc.cluster.local", API_SERVICE):
        found.append("the cluster's DNS does not answer")
    return found


def node_complaints(api: Api) -> list[str]:
    try:
        node = api.json(f"/api/v1/nodes/{NODE}")
    except Unreachable:
        return ["the node has not registered"]
    return [] if is_ready(node) else ["the node is not ready"]


def is_ready(node: dict[str, Any]) -> bool:
    conditions = node.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def measures(where: Places) -> bool:
    """True once metrics-server has figures of the node: from then on HPAs see CPU."""
    try:
        return bool(Api(where.state / "pki").json("/apis/metrics.k8s.io/v1beta1/nodes")["items"])
    except Unreachable:
        return False


def counts(where: Places) -> bool:
    """True once prometheus-adapter answers: from then on HPAs see what Prometheus counts."""
    return Api(where.state / "pki").answers("/apis/external.metrics.k8s.io/v1beta1")


def query(name: str) -> bytes:
    """A DNS question for the A record of `name` (RFC 1035, section 4)."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!6H", 0x4442, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", 1, 1)


def resolves(name: str, address: str, server: str = DNS_SERVICE, seconds: float = 1.0, port: int = 53) -> bool:
    """True when the DNS server answers `name` with `address`, which ends an A record's answer; asked up to three times,
    as a datagram may be lost."""
    for _ in range(3):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line, contextlib.suppress(OSError):
            line.settimeout(seconds)
            line.sendto(query(name), (server, port))
            return line.recv(512).endswith(socket.inet_aton(address))
    return False
