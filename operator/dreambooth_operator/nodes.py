"""When each node was last heard of: by the Lease in `kube-node-lease` that its kubelet renews four times in the Lease's
duration (40 s by default).

As in Kubernetes' node lifecycle controller the nodes' clocks are not trusted: what counts is when a renewal was *seen*.
The controller waits for 50 s and then marks the node's pods; whoever waits for a training is told sooner.
"""

import time
from collections.abc import Iterable
from typing import NamedTuple

from dreambooth_operator.cluster import Cluster
from dreambooth_operator.reflector import Reflector
from dreambooth_operator.views import Body, Heartbeat

NAMESPACE = "kube-node-lease"
# A node is silent when its kubelet has missed so many renewals, of four in a Lease's duration.
MISSED, RENEWALS = 2.5, 4
DEFAULT_DURATION = 40
# Every node's Lease changes each ten seconds: a watch that is silent for longer may have been dropped, and is opened
# anew before that is taken for the nodes' silence, seconds.
SILENCE = 12.0


class _Seen(NamedTuple):
    renewed: str
    at: float
    allowed: float


class Nodes:
    """Heartbeats, kept up to date by a reflector of its own; without one that runs, of no node anything is said."""

    def __init__(self, cluster: Cluster) -> None:
        self._seen: dict[str, _Seen] = {}
        self.reflector = Reflector(cluster, self, "Lease", NAMESPACE, "", SILENCE)

    def of(self, nodes: Iterable[str]) -> dict[str, Heartbeat]:
        """The last heartbeats of nodes; of one that has no Lease, none. While the API server could not be watched no
        node is silent: neither could the kubelets renew anything."""
        now, broken = time.monotonic(), self.reflector.broken
        found = {node: seen for node in nodes if (seen := self._seen.get(node))}
        return {node: Heartbeat(now - max(seen.at, broken), seen.allowed) for node, seen in found.items()}

    def changed(self, _kind: str, body: Body) -> None:
        """A Lease was seen; a change of anything but its renewal is no sign of life."""
        spec, name = body.get("spec") or {}, body["metadata"]["name"]
        known, renewed = self._seen.get(name), spec.get("renewTime") or ""
        if known is None or known.renewed != renewed:
            duration = spec.get("leaseDurationSeconds") or DEFAULT_DURATION
            self._seen[name] = _Seen(renewed, time.monotonic(), duration / RENEWALS * MISSED)

    def gone(self, _kind: str, _namespace: str, name: str, _uid: str = "") -> None:
        """The node is no more; what becomes of its pods, Kubernetes' garbage collector tells."""
        self._seen.pop(name, None)

    def replace(self, _kind: str, _namespace: str, present: set[tuple[str, str]]) -> None:
        """A list was complete."""
        for name in self._seen.keys() - {name for _, name in present}:
            del self._seen[name]
