"""A real API server of one's own: etcd and kube-apiserver on free loopback ports, without controllers or nodes."""

import asyncio
import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
# The operator's account, as the chart calls it in a release `dreambooth`.
ACCOUNT = "system:serviceaccount:dreambooth-system:dreambooth-operator"
# Those of `system:masters` may do everything; the others what Roles give them.
USERS = {
    "admin": "system:masters",
    "operator": "system:masters",
    "stranger": "system:masters",
    ACCOUNT: "",
    "alice": "",
}
TOKENS = {name: f"{name.rsplit(':', 1)[-1]}-{number}-token" for number, name in enumerate(USERS)}
# Of the operator's requests, what and not how much: `Audit` counts them.
AUDIT = """
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
- {level: Metadata, users: [operator, "system:serviceaccount:dreambooth-system:dreambooth-operator"]}
- {level: None}
"""


def program(name: str) -> str:
    """A program of the PATH, or one that `make up` builds. Raises RuntimeError when there is none."""
    cached = Path(os.environ.get("DREAMBOOTH_CACHE", "~/.cache/dreambooth")).expanduser() / "bin"
    found = shutil.which(name, path=cached) or shutil.which(name)
    if not found:
        raise RuntimeError(f"{name} is neither on the PATH nor in {cached}: `make up` builds it")
    return found


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@dataclass
class ApiServer:
    """Where it is, and how it is reached."""

    url: str
    folder: Path
    pids: dict[str, int]

    def token(self, user: str = "admin") -> str:
        """The bearer token of a user."""
        return TOKENS[user]

    def kubeconfig(self, url: str = "", user: str = "operator") -> Path:
        """A kubeconfig for the API server, or for what stands before it at `url`."""
        server = url or self.url
        path = self.folder / f"{user}-{server.rsplit(':', 1)[-1]}.conf"
        cluster = {"server": server} | ({"insecure-skip-tls-verify": True} if server.startswith("https") else {})
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": user, "user": {"token": TOKENS[user]}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": user}}],
        }
        path.write_text(yaml.safe_dump(config))
        return path

    def audited(self) -> str:
        """The audit log of the operator's users: a JSON object a line."""
        return (self.folder / "audit.log").read_text()

    def requests(self, since: int = 0) -> list[dict[str, Any]]:
        """The operator's requests of the audit log, as far as they are written, from number `since` on."""
        whole = self.audited().rpartition("\n")[0].splitlines()
        return [json.loads(line) for line in whole[since:]]

    @contextlib.contextmanager
    def collecting_garbage(self, seconds: float = 120.0) -> Iterator[None]:
        """With Kubernetes' own garbage collector (and no other controller) at work. Raises RuntimeError when it does
        not begin in time, or ended before it was told to."""
        command = [program("kube-controller-manager"), f"--kubeconfig={self.kubeconfig(user='admin')}",
                   "--controllers=garbage-collector-controller", "--leader-elect=false", "--secure-port=0",
                   "--concurrent-gc-syncs=4"]  # fmt: skip
        path, deadline = self.folder / "controllers.log", time.monotonic() + seconds
        with path.open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)
            try:
                while "Proceeding to collect garbage" not in path.read_text():
                    if process.poll() is not None or time.monotonic() > deadline:
                        raise RuntimeError(f"no garbage collector: {path.read_text()[-2000:]}")
                    time.sleep(0.1)
                yield
                if process.poll() is not None:
                    raise RuntimeError(f"the garbage collector ended: {path.read_text()[-2000:]}")
            finally:
                process.kill()
                process.wait()


@contextlib.contextmanager
def running(*options: str, audit: bool = True) -> Iterator[ApiServer]:
    """An API server with our CRDs, and with further `options` of its own, until the block ends."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="apiserver-")))
        etcd, port = free_port(), free_port()
        key = folder / "accounts.key"
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
        (folder / "tokens.csv").write_text("".join(f'{TOKENS[u]},{u},{u},"{groups}"\n' for u, groups in USERS.items()))
        (folder / "audit.yaml").write_text(AUDIT)
        (folder / "audit.log").touch()
        url, pids = f"https://127.0.0.1:{port}", {}
        for name, command in _commands(folder, etcd, port, audit, options).items():
            log = stack.enter_context((folder / f"{name}.log").open("wb"))
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
            stack.callback(_stop, process)
            pids[name] = process.pid
        server = ApiServer(url, folder, pids)
        _wait(server)
        _install(server)
        yield server


def _commands(folder: Path, etcd: int, port: int, audit: bool, options: Sequence[str]) -> dict[str, list[str]]:
    address = f"http://127.0.0.1:{etcd}"
    audited = [f"--audit-policy-file={folder}/audit.yaml", f"--audit-log-path={folder}/audit.log"] if audit else []
    return {
        "etcd": [
            program("etcd"), f"--data-dir={folder}/etcd", f"--listen-client-urls={address}",
            f"--advertise-client-urls={address}", f"--listen-peer-urls=http://127.0.0.1:{free_port()}",
            "--unsafe-no-fsync", "--log-level=error", "--quota-backend-bytes=8000000000",
        ],
        "kube-apiserver": [
            program("kube-apiserver"), f"--etcd-servers={address}", f"--secure-port={port}", "--bind-address=127.0.0.1",
            f"--cert-dir={folder}", f"--token-auth-file={folder}/tokens.csv", "--authorization-mode=RBAC",
            # Pods may be made without a controller that makes accounts.
            "--disable-admission-plugins=ServiceAccount", "--service-cluster-ip-range=10.97.0.0/16",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={folder}/accounts.key",
            f"--service-account-signing-key-file={folder}/accounts.key",
            "--max-requests-inflight=800", "--max-mutating-requests-inflight=400", *audited, *options,
        ],
    }  # fmt: skip


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait(server: ApiServer, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(f"{server.url}/readyz", context=_unverified(), timeout=5)
            return
        except OSError as e:
            if time.monotonic() > deadline:
                log = (server.folder / "kube-apiserver.log").read_text()[-2000:]
                raise RuntimeError(f"the API server did not come up: {e}\n{log}") from e
            time.sleep(0.2)


def _unverified() -> ssl.SSLContext:
    return ssl._create_unverified_context()


def _install(server: ApiServer) -> None:
    from tests.operator.stage.api import Api

    async def install() -> None:
        async with Api.of(server) as api:
            for path in sorted((ROOT / "crds").glob("*.yaml")):
                for crd in yaml.safe_load_all(path.read_text()):
                    await api.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd)
                    names = crd["spec"]["names"]
                    await api.until_served(
                        f"/apis/{crd['spec']['group']}/{crd['spec']['versions'][0]['name']}/{names['plural']}"
                    )

    asyncio.run(install())
