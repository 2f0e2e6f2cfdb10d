"""Which cluster: the one that KUBECONFIG names, else the local one, else none and why not."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from dreambooth_demo.kube import Kube, KubeError
from dreambooth_demo.steps import Steps
from dreambooth_local.capability import capable
from dreambooth_local.places import places


def find_cluster(steps: Steps, environment: Mapping[str, str]) -> tuple[Kube | None, list[str]]:
    """The cluster to use, brought up if it is the local one; or None and what stands in the way of a local one."""
    if given := environment.get("KUBECONFIG"):
        steps.say(f"using the cluster of KUBECONFIG={given}")
        return Kube(Path(given.split(":")[0])), []
    if reasons := capable():
        return None, reasons
    with steps.step("cluster and images", "local Kubernetes"):
        if subprocess.run([sys.executable, "-m", "dreambooth_local", "up"], check=False).returncode:
            raise KubeError("the local cluster did not come up; its logs are named above")
    return Kube(places(environment).kubeconfig, local=True), []
