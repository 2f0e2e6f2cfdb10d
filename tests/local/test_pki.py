"""Certificates by the real openssl, and kubeconfigs."""

import subprocess
from pathlib import Path

import yaml

from dreambooth_local import pki
from dreambooth_local.places import API_SERVICE, NODE, NODE_ADDRESS


def openssl(*words: str | Path) -> str:
    return subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, text=True).stdout


def test_a_kubeconfig_names_files_and_the_loopback_address():
    config = yaml.safe_load(pki.kubeconfig("scheduler", Path("/state/pki")))
    assert config["clusters"][0]["cluster"] == {
        "server": "https://127.0.0.1:6443",
        "certificate-authority": "/state/pki/ca.crt",
    }
    assert config["users"][0]["user"]["client-key"] == "/state/pki/scheduler.key"
    context = next(c for c in config["contexts"] if c["name"] == config["current-context"])
    assert context["context"] == {"cluster": config["clusters"][0]["name"], "user": config["users"][0]["name"]}


def test_kubernetes_knows_its_parts_by_their_subjects():
    subjects = {identity.name: identity.subject for identity in pki.IDENTITIES}
    assert subjects["admin"].startswith("/O=system:masters/")
    assert subjects["kubelet"] == f"/O=system:nodes/CN=system:node:{NODE}"  # what NodeRestriction asks for
    assert next(i for i in pki.IDENTITIES if i.name == "aggregator").authority == "aggregator-ca"


def test_one_certificate_is_issued_and_verifies(tmp_path):
    pki._authority(tmp_path, "ca")
    server = next(identity for identity in pki.IDENTITIES if identity.name == "apiserver")
    pki._issue(tmp_path, server)
    openssl("verify", "-CAfile", tmp_path / "ca.crt", tmp_path / "apiserver.crt")
    text = openssl("x509", "-in", tmp_path / "apiserver.crt", "-noout", "-ext", "subjectAltName")
    for name in ("kubernetes.default.svc", "127.0.0.1", API_SERVICE, NODE_ADDRESS):
        assert name in text
    assert not (tmp_path / "apiserver.csr").exists()


def test_finished_certificates_are_kept_and_kubeconfigs_written_for_their_owner_only(tmp_path):
    (tmp_path / "pki").mkdir()
    (tmp_path / "pki/complete").touch()
    assert pki.ensure(tmp_path) == "kept"
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("*.conf")} == {0o600}
    assert {path.stem for path in tmp_path.glob("*.conf")} == set(pki.USERS)
