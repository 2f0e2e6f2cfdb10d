"""Where things lie on the machine, and the cluster's fixed addresses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

NODE = "node1"
NODE_ADDRESS = "10.95.0.1"  # on our own bridge: unlike the machine's address it outlives a change of network
POD_RANGE = "10.244.0.0/16"
NODE_POD_RANGE = "10.244.0.0/24"
SERVICE_RANGE = "10.96.0.0/16"
API_SERVICE = "10.96.0.1"
DNS_SERVICE = "10.96.0.10"
API_PORT = 6443
ETCD_PORT = 23790  # not 2379: an etcd of the machine's own may be there
POD_BRIDGE = "dreambooth-pods"
SINK_BRIDGE = "dreambooth-sink"
CNI_NETWORK = "dreambooth-pods"
CGROUP = "dreambooth"


@dataclass(frozen=True)
class Places:
    """cache survives `down` (programs, images); state is the cluster; run holds sockets, whose paths must be short."""

    cache: Path
    state: Path
    run: Path = Path("/run/dreambooth")

    @property
    def programs(self) -> Path:
        return self.cache / "bin"

    @property
    def images(self) -> Path:
        return self.cache / "images"

    @property
    def logs(self) -> Path:
        """Logs of compiling and image builds; those of the cluster's daemons are in state/log."""
        return self.cache / "log"

    @property
    def kubeconfig(self) -> Path:
        return self.state / "admin.conf"

    @property
    def lock(self) -> Path:
        """Held while the cluster changes, whatever its cache and state. Beside the sockets: those are what two clusters
        would share."""
        return self.run.with_suffix(".lock")

    @property
    def compile_lock(self) -> Path:
        """Held while programs are compiled."""
        return self.cache / "compile.lock"

    @property
    def containerd_socket(self) -> Path:
        return self.run / "containerd.sock"


def places(environ: Mapping[str, str]) -> Places:
    """DREAMBOOTH_CACHE and DREAMBOOTH_STATE, or their defaults."""
    home = Path(environ.get("HOME", "/root"))
    cache = Path(environ.get("DREAMBOOTH_CACHE") or home / ".cache/dreambooth")
    state = Path(environ.get("DREAMBOOTH_STATE") or "/var/lib/dreambooth")
    return Places(cache.absolute(), state.absolute())
