"""Pod templates that Pod Security *restricted* admits, with the user's overrides. Pure."""

from typing import Any

from dreambooth_api import names
from dreambooth_api.pods import PodOverrides
from dreambooth_api.uris import PVC_ROOT, parse_uri
from dreambooth_operator.drift import quantity
from dreambooth_operator.views import Body

USER = 65532
GPU = "nvidia.com/gpu"
DEFAULT_REQUESTS = {"cpu": "250m", "memory": "512Mi"}
STORE_VOLUME = {"name": "store", "secret": {"secretName": names.STORE_SECRET, "defaultMode": 0o440}}
CACHE_MOUNT = {"name": "downloads", "mountPath": names.CACHE_DIR}
STORE_MOUNT = {"name": "store", "mountPath": names.STORE_DIR, "readOnly": True}


def pod_template(
    container: Body,
    overrides: PodOverrides,
    *,
    labels: dict[str, str],
    annotations: dict[str, str],
    volumes: list[Body],
    grace_seconds: int,
    extra: Body | None = None,
) -> Body:
    """A pod of one container; `extra` are further fields of the pod's spec. Our labels win over the user's."""
    claims, mounts = _claims(overrides)
    user = USER if overrides.run_as_user is None else overrides.run_as_user
    spec = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": user != 0,
            "runAsUser": user,
            "runAsGroup": user,
            "fsGroup": user,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationGracePeriodSeconds": grace_seconds,
        "containers": [_container(container, overrides, mounts)],
        "volumes": [{"name": "work", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}, *volumes, *claims],
        **_scheduling(overrides),
        **_beyond(overrides),
        **(extra or {}),
    }
    return {
        "metadata": {
            "labels": {**overrides.labels, **labels},
            "annotations": {**overrides.annotations, **annotations},
        },
        "spec": spec,
    }


def _container(container: Body, overrides: PodOverrides, mounts: list[Body]) -> Body:
    own = [{"name": "work", "mountPath": names.WORK_DIR}, {"name": "tmp", "mountPath": "/tmp"}]
    return {
        **container,
        "env": _env(container.get("env", []), overrides),
        "resources": resources(overrides, container.get("resources", {})),
        "volumeMounts": [*own, *container.get("volumeMounts", []), *mounts],
        # What a process without a termination message said last is better than nothing.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": _security(overrides),
    }


def _security(overrides: PodOverrides) -> Body:
    added = {"add": overrides.capabilities} if overrides.capabilities else {}
    found = {
        "allowPrivilegeEscalation": overrides.privileged,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": overrides.run_as_user != 0,
        "capabilities": {"drop": ["ALL"], **added},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    return found | ({"privileged": True} if overrides.privileged else {})


def _beyond(overrides: PodOverrides) -> Body:
    """What `allowances` has let pass. A pod on its node's network keeps the cluster's DNS."""
    found = {
        "hostNetwork": overrides.host_network,
        "hostIPC": overrides.host_ipc,
        "hostPID": overrides.host_pid,
        "serviceAccountName": overrides.service_account_name,
        "dnsPolicy": "ClusterFirstWithHostNet" if overrides.host_network else None,
    }
    return {name: value for name, value in found.items() if value}


def with_base(overrides: PodOverrides, uri: str) -> PodOverrides:
    """The overrides of a model's pods, with the claim of a `pvc://` base mounted where the server looks for it."""
    base = parse_uri(uri)
    if base.scheme != "pvc":
        return overrides
    claims = {f"{PVC_ROOT}/{base.authority}": base.authority, **overrides.volume_claims}
    return overrides.model_copy(update={"volume_claims": claims})


def resources(overrides: PodOverrides, base: dict[str, dict[str, Any]]) -> Body:
    """Requests and limits: the user's, over `base`, over a modest default that no limit of the user's may undercut."""
    limits = {**base.get("limits", {}), **overrides.resources.limits}
    defaults = {name: value for name, value in DEFAULT_REQUESTS.items() if name not in limits}
    found = {"requests": {**defaults, **base.get("requests", {}), **overrides.resources.requests}, "limits": limits}
    return {kind: values for kind, values in found.items() if values}


def cpus(overrides: PodOverrides) -> int:
    """Whole CPUs that the pod may count on, at least 1: its limit, else its request."""
    given = overrides.resources.limits.get("cpu", overrides.resources.requests.get("cpu", 1))
    return max(1, int(quantity(given) or 1))


def common_env(overrides: PodOverrides, processes: int = 1) -> list[Body]:
    """The environment of every pod of ours; CPUs are shared between `processes`."""
    values = {
        names.ENV_STORE_DIR: names.STORE_DIR,
        names.ENV_WORK_DIR: names.WORK_DIR,
        names.ENV_TERMINATION_LOG: names.TERMINATION_LOG,
        "HOME": names.WORK_DIR,
        "TMPDIR": "/tmp",
        "HF_HOME": f"{names.WORK_DIR}/hf",
        "OMP_NUM_THREADS": str(max(1, cpus(overrides) // processes)),
        # Waiting threads that spin take the CPU from the ranks beside them.
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONUNBUFFERED": "1",
    }
    return [{"name": name, "value": value} for name, value in values.items()]


def token_env(secret: str | None) -> list[Body]:
    """HF_TOKEN from the Secret that opens a gated base."""
    if not secret:
        return []
    return [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": secret, "key": names.TOKEN_KEY}}}]


def cache_volume(claim: str) -> Body:
    """The volume of a claim in which downloads are kept."""
    return {"name": CACHE_MOUNT["name"], "persistentVolumeClaim": {"claimName": claim}}


def scrape_annotations(port: int) -> dict[str, str]:
    """What a Prometheus that discovers pods goes by."""
    return {"prometheus.io/scrape": "true", "prometheus.io/port": str(port), "prometheus.io/path": "/metrics"}


def _env(own: list[Body], overrides: PodOverrides) -> list[Body]:
    """The user's variables over ours, save those that the pods' own dealings rest on."""
    merged = {entry["name"]: entry for entry in own}
    for entry in overrides.env:
        if entry.name not in merged or not entry.name.startswith(("DREAMBOOTH_", "PET_")):
            merged[entry.name] = {"name": entry.name, "value": entry.value}
    return list(merged.values())


def _claims(overrides: PodOverrides) -> tuple[list[Body], list[Body]]:
    """Volumes and mounts of the user's; what is mounted where `pvc://` URIs are read is input, and read-only."""
    inputs = {claim for path, claim in overrides.volume_claims.items() if _is_input(path)}
    written = {claim for path, claim in overrides.volume_claims.items() if not _is_input(path)}
    named = {claim: f"claim-{i}" for i, claim in enumerate(sorted(inputs | written))}
    volumes: list[Body] = []
    for claim, name in named.items():
        source = {"claimName": claim} | ({"readOnly": True} if claim not in written else {})
        volumes.append({"name": name, "persistentVolumeClaim": source})
    mounts = [
        {"name": named[claim], "mountPath": path} | ({"readOnly": True} if _is_input(path) else {})
        for path, claim in sorted(overrides.volume_claims.items())
    ]
    return [*volumes, *overrides.volumes], [*mounts, *(mount.to_dict() for mount in overrides.volume_mounts)]


def _is_input(path: str) -> bool:
    return path.startswith(f"{PVC_ROOT}/")


def _scheduling(overrides: PodOverrides) -> Body:
    found = {
        "nodeSelector": overrides.node_selector,
        "tolerations": [toleration.to_dict() for toleration in overrides.tolerations],
        "affinity": overrides.affinity,
        "topologySpreadConstraints": overrides.topology_spread_constraints,
        "priorityClassName": overrides.priority_class_name,
        "runtimeClassName": overrides.runtime_class_name,
        "schedulerName": overrides.scheduler_name,
        "imagePullSecrets": [{"name": name} for name in overrides.image_pull_secrets],
    }
    return {name: value for name, value in found.items() if value}
