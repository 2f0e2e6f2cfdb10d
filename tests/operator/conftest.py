"""Bodies and views as an API server would show them, made by few words."""

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from dreambooth_api import names
from dreambooth_api.model import PersonalizedModelStatus
from dreambooth_api.result import PrepareResult, dump_result
from dreambooth_operator import clock
from dreambooth_operator.settings import Settings
from dreambooth_operator.status import read
from dreambooth_operator.views import ChildRef, JobView, ModelView, PoolView
from tests.operator.life import Life
from tests.operator.stage import apiserver

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)
DIGEST = "sha256:" + "ab" * 32


def deep(base, changes):
    """`base` with `changes` merged into it."""
    if not isinstance(base, dict) or not isinstance(changes, dict):
        return changes
    return {**base, **{key: deep(base.get(key), value) for key, value in changes.items()}}


class Make:
    """Makes bodies and views."""

    digest = DIGEST

    def ago(self, seconds):
        """A time of Kubernetes', so many seconds before the view's moment."""
        return clock.text(NOW - timedelta(seconds=seconds))

    def job(self, spec=None, status=None, **metadata):
        """A DreamBoothJob `robot`."""
        base = {
            "baseModel": {"uri": "s3://dreambooth/examples/base"},
            "subject": {"images": {"uri": "s3://dreambooth/examples/robot/images"}, "className": "robot"},
            "topology": {"nodes": 2, "gpusPerNode": 0},
            "publish": {"name": "robot"},
        }
        meta = {"name": "robot", "namespace": "team", "uid": "job-uid", "generation": 1, **metadata}
        body = {
            "apiVersion": names.API_VERSION,
            "kind": names.JOB_KIND,
            "metadata": meta,
            "spec": deep(base, spec or {}),
        }
        return body | ({"status": status} if status else {})

    def model(self, spec=None, status=None, **metadata):
        """A PersonalizedModel `robot`."""
        base = {"artifact": {"uri": "s3://dreambooth/models/team/robot/abab", "digest": DIGEST}}
        meta = {"name": "robot", "namespace": "team", "uid": "model-uid", "generation": 1, **metadata}
        body = {"apiVersion": names.API_VERSION, "kind": names.MODEL_KIND, "metadata": meta, "spec": spec or base}
        return body | ({"status": status} if status else {})

    def pool(self, spec=None, status=None, **metadata):
        """A ServingPool `default`."""
        meta = {"name": "default", "namespace": "team", "uid": "pool-uid", "generation": 1, **metadata}
        base = {"baseModel": {"uri": "s3://dreambooth/examples/base"}, **(spec or {})}
        body = {"apiVersion": names.API_VERSION, "kind": names.POOL_KIND, "metadata": meta, "spec": base}
        return body | ({"status": status} if status else {})

    def pool_view(self, body, *children, **fields):
        """A pool's view with children."""
        found = {ChildRef(child["kind"], child["metadata"]["name"]): child for child in children}
        return PoolView(body=body, now=NOW, children=found, **fields)

    def kubernetes_job(self, name, *conditions, suspend=False, age=5):
        """A child Job with conditions (type, reason, message)."""
        found = [{"type": t, "status": "True", "reason": r, "message": m, "lastTransitionTime": self.ago(60)}
                 for t, r, m in conditions]  # fmt: skip
        return {
            "kind": "Job",
            "metadata": {"name": name, "uid": f"{name}-uid", "creationTimestamp": self.ago(age)},
            "spec": {"suspend": suspend},
            "status": {"conditions": found, "startTime": self.ago(age)},
        }

    def pod(self, name="robot-train-0-x", index=0, phase="Running", age=5, node=None, **container_state):
        """A pod; `container_state` is one of running, waiting, terminated."""
        state = container_state or {"running": {}}
        return {
            "metadata": {
                "name": name,
                "namespace": "team",
                "uid": f"{name}-uid",
                "creationTimestamp": self.ago(age),
                "annotations": {"batch.kubernetes.io/job-completion-index": str(index)},
                "labels": {},
            },
            "spec": {"nodeName": node} if node else {},
            "status": {"phase": phase, "podIP": "10.0.0.1", "containerStatuses": [{"state": state}]},
        }

    def ended(self, code, message="", reason="Error", **pod):
        """A pod whose container ended."""
        state = {"exitCode": code, "message": message, "reason": reason, "finishedAt": self.ago(pod.pop("ended", 1))}
        return self.pod(phase="Succeeded" if code == 0 else "Failed", terminated=state, **pod)

    def view(self, body, *children, **fields):
        """A job's view with children."""
        found = {ChildRef(child["kind"], child["metadata"]["name"]): child for child in children}
        return JobView(body=body, now=NOW, children=found, **fields)

    def model_view(self, body, *children, **fields):
        """A model's view with children."""
        found = {ChildRef(child["kind"], child["metadata"]["name"]): child for child in children}
        return ModelView(body=body, now=NOW, children=found, status=read(PersonalizedModelStatus, body), **fields)


@pytest.fixture
def make():
    """The factory of bodies and views."""
    return Make()


@pytest.fixture
def settings():
    """Settings of an operator."""
    return Settings(
        trainer_image="dreambooth/trainer:1", server_image="dreambooth/server:1", mlflow_url="http://mlflow"
    )


def admitted(template):
    """Faults of a pod template under Pod Security *restricted* and our own rules on top; empty when it is fine."""
    spec, faults = template["spec"], []
    pod = spec["securityContext"]
    (container,) = spec["containers"]
    own = container["securityContext"]
    checks = {
        "host namespaces": not any(spec.get(k) for k in ("hostNetwork", "hostPID", "hostIPC")),
        "volumes": all(
            set(v) - {"name"} <= {"configMap", "downwardAPI", "emptyDir", "persistentVolumeClaim", "secret"}
            for v in spec["volumes"]
        ),
        "runAsNonRoot": pod["runAsNonRoot"] and own.get("runAsNonRoot", True),
        "runAsUser": pod["runAsUser"] == pod["runAsGroup"] == pod["fsGroup"] == 65532,
        "seccomp": pod["seccompProfile"]["type"] == "RuntimeDefault",
        "escalation": own["allowPrivilegeEscalation"] is False and "privileged" not in own,
        "capabilities": own["capabilities"] == {"drop": ["ALL"]},
        "read-only root": own["readOnlyRootFilesystem"] is True,
        "no credentials": spec["automountServiceAccountToken"] is False and "serviceAccountName" not in spec,
        "no service links": spec["enableServiceLinks"] is False,
        "unique mounts": len({m["mountPath"] for m in container["volumeMounts"]}) == len(container["volumeMounts"]),
        "mounts have volumes": {m["name"] for m in container["volumeMounts"]} <= {v["name"] for v in spec["volumes"]},
        "unique env": len({e["name"] for e in container["env"]}) == len(container["env"]),
    }
    faults = [name for name, passed in checks.items() if not passed]
    return faults


@pytest.fixture(name="admitted")
def admitted_fixture():
    """The check of a pod template."""
    return admitted


@pytest.fixture
def check_golden():
    """Compares with a committed file; `UPDATE_GOLDEN=1` writes it anew, for the eyes of whoever commits it."""

    def check(name, manifest):
        path = Path(__file__).parent / "golden" / f"{name}.yaml"
        if os.environ.get("UPDATE_GOLDEN"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(yaml.safe_dump(manifest, sort_keys=True))
        assert manifest == yaml.safe_load(path.read_text())

    return check


@pytest.fixture(scope="session")
def server():
    """The API server of all tests that need a real one without nodes."""
    with apiserver.running() as server:
        yield server


@pytest.fixture
def gatewayed(settings):
    """Settings of an operator that has a gateway."""
    return replace(settings, gateway_url="http://gateway")


@pytest.fixture
def life(make, settings):
    return Life(make, settings)


@pytest.fixture
def training(life, make):
    """A job that trains with two pods."""
    life.step()
    life.finish("robot-prepare")
    prior = dump_result(PrepareResult.model_validate({
        "prior": {"uri": "s3://p", "images": 3, "reused": 1}, "datasetDigest": "d", "baseDigest": "d", "images": 4,
    }))  # fmt: skip
    life.step(prepare_pods=(make.ended(0, prior, name="robot-prepare-x"),))
    pods = (make.pod(), make.pod("robot-train-1-x", index=1))
    life.step(train_pods=pods)
    return life
