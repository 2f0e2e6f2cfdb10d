"""The cluster's certificates, by openssl, and a kubeconfig per user of the API server."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from dreambooth_local.commands import run
from dreambooth_local.places import API_PORT, API_SERVICE, NODE, NODE_ADDRESS

DAYS = "3650"


@dataclass(frozen=True)
class Identity:
    """A certificate: its file's name, its subject (the user's name and group for Kubernetes), what it is served as."""

    name: str
    subject: str
    names: str
    authority: str = "ca"


IDENTITIES = (
    Identity(
        "apiserver",
        "/CN=kube-apiserver",
        "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:localhost,"
        f"IP:127.0.0.1,IP:{API_SERVICE},IP:{NODE_ADDRESS}",
    ),
    Identity("admin", "/O=system:masters/CN=admin", "DNS:admin"),
    Identity("controllers", "/CN=system:kube-controller-manager", "DNS:controllers"),
    Identity("scheduler", "/CN=system:kube-scheduler", "DNS:scheduler"),
    Identity("kubelet", f"/O=system:nodes/CN=system:node:{NODE}", f"DNS:{NODE},IP:{NODE_ADDRESS}"),
    Identity("proxy", "/CN=system:kube-proxy", "DNS:proxy"),
    # The API server calls aggregated APIs (metrics-server) in its users' names; by an authority of its own.
    Identity("aggregator", "/CN=aggregator", "DNS:aggregator", authority="aggregator-ca"),
)
USERS = ("admin", "controllers", "scheduler", "kubelet", "proxy")


def kubeconfig(user: str, pki: Path) -> str:
    """A kubeconfig whose keys are files in `pki`. By 127.0.0.1, which no proxy setting sends elsewhere."""
    return f"""apiVersion: v1
kind: Config
clusters:
- name: dreambooth-local
  cluster: {{server: "https://127.0.0.1:{API_PORT}", certificate-authority: {pki}/ca.crt}}
users: [{{name: {user}, user: {{client-certificate: {pki}/{user}.crt, client-key: {pki}/{user}.key}}}}]
contexts: [{{name: dreambooth-local, context: {{cluster: dreambooth-local, user: {user}}}}}]
current-context: dreambooth-local
"""


def ensure(state: Path) -> str:
    """Makes what is missing of state/pki and writes the kubeconfigs."""
    pki = state / "pki"
    fresh = not (pki / "complete").exists()
    if fresh:
        pki.mkdir(parents=True, exist_ok=True, mode=0o700)
        for authority in ("ca", "aggregator-ca"):
            _authority(pki, authority)
        for identity in IDENTITIES:
            _issue(pki, identity)
        run(["openssl", "genrsa", "-out", pki / "accounts.key", "2048"])
        run(["openssl", "rsa", "-in", pki / "accounts.key", "-pubout", "-out", pki / "accounts.pub"])
        (pki / "complete").touch()
    for user in USERS:
        path = state / f"{user}.conf"
        path.write_text(kubeconfig(user, pki))
        path.chmod(0o600)
    return "issued" if fresh else "kept"


def _authority(pki: Path, name: str) -> None:
    key, certificate = pki / f"{name}.key", pki / f"{name}.crt"
    run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", DAYS, "-keyout", key, "-out", certificate,
         "-subj", f"/CN=dreambooth-local-{name}"])  # fmt: skip


def _issue(pki: Path, identity: Identity) -> None:
    key, request, certificate = (pki / f"{identity.name}.{kind}" for kind in ("key", "csr", "crt"))
    authority = pki / identity.authority
    run(["openssl", "req", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", request, "-subj", identity.subject])
    with tempfile.NamedTemporaryFile("w", suffix=".cnf") as extensions:
        extensions.write(f"subjectAltName={identity.names}\nextendedKeyUsage=serverAuth,clientAuth\n")
        extensions.flush()
        run(["openssl", "x509", "-req", "-in", request, "-CA", f"{authority}.crt", "-CAkey", f"{authority}.key",
             "-CAcreateserial", "-days", DAYS, "-out", certificate, "-extfile", extensions.name])  # fmt: skip
    request.unlink()
