"""How this machine reaches a Service: by its cluster IP where the cluster runs here, else by a port-forward."""

import os
import socket
import subprocess
import time

from dreambooth_demo.kube import Kube, KubeError
from dreambooth_demo.platform import NAMESPACE, RELEASE


def service_url(kube: Kube, namespace: str, name: str, port: int | None = None) -> str:
    """`http://host:port` of a Service's port, or of its first.

    Where cluster IPs are out of reach it starts a port-forward that outlives this process.
    """
    service = kube.get("service", name, namespace)
    if service is None:
        raise KubeError(f"Service {namespace}/{name} does not exist")
    address, port = service["spec"]["clusterIP"], port or service["spec"]["ports"][0]["port"]
    if connects(address, port):
        return f"http://{address}" + ("" if port == 80 else f":{port}")
    return f"http://127.0.0.1:{_forward(kube, namespace, name, port)}"


def model_url(kube: Kube, namespace: str, model: str) -> str:
    """Where this machine reaches a model: at the gateway. `…/v1` is for OpenAI's clients, `…/` its page."""
    return f"{service_url(kube, NAMESPACE, f'{RELEASE}-gateway')}/{namespace}/{model}"


def connects(address: str, port: int, seconds: float = 2) -> bool:
    """Whether a TCP connection comes about."""
    try:
        with socket.create_connection((address, port), timeout=seconds):
            return True
    except OSError:
        return False


def _forward(kube: Kube, namespace: str, name: str, port: int) -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        local = free.getsockname()[1]
    subprocess.Popen(
        ["kubectl", "port-forward", "-n", namespace, f"service/{name}", f"{local}:{port}"],
        env={**os.environ, "KUBECONFIG": str(kube.kubeconfig)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    for _ in range(100):
        if connects("127.0.0.1", local, 0.2):
            return local
        time.sleep(0.1)
    raise KubeError(f"kubectl port-forward to {namespace}/{name} did not come up")
