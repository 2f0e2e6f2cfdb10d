"""What a pod's overrides ask for beyond its namespace, and whether the administrator allows it. Pure.

The words are the chart's `operator.podAllowances`: `serviceAccountName`, `hostNetwork`, `hostIPC`, `hostPID`,
`runAsUser`, `privileged`, `capabilities/NAME`, `volumes/KIND`, `volumes/serviceAccountToken`, `systemPriority`,
`unconfined`, `otherNamespaces`.
"""

from collections.abc import Collection, Iterator
from typing import Any

from dreambooth_api.pods import PodOverrides
from dreambooth_api.reasons import Reason
from dreambooth_operator.views import Problem

# Kinds of volumes that hold nothing but the namespace's own, and not its Secrets.
OWN_VOLUMES = frozenset({"configMap", "emptyDir", "ephemeral", "persistentVolumeClaim"})
# By these prefixes the operator and the Job controller know their own.
RESERVED = ("dreambooth.dev/", "batch.kubernetes.io/")
# Where a Kubernetes structure names other namespaces (an affinity, a volume's source), has keys of the user's own, and
# names objects.
ABROAD = frozenset({"namespace", "namespaces", "namespaceSelector"})
LABELS = frozenset({"labelSelector", "metadata", "selector"})
NAMES = frozenset({"name", "claimName", "secretName"})
SECURITY = ("container.apparmor.security.beta.kubernetes.io/", "container.seccomp.security.alpha.kubernetes.io/")


def refusal(overrides: PodOverrides, path: str, allowed: Collection[str]) -> Problem | None:
    """The first field of the overrides at `path` of the spec that is not allowed, with what would allow it."""
    for field, word in needed(overrides):
        if not word:
            return Problem(Reason.INVALID_SPEC, f"{path}.{field}: keys below {' and '.join(RESERVED)} are reserved")
        if word not in allowed:
            ask = f"leave it out, or have the administrator add {word!r} to the chart's operator.podAllowances"
            return Problem(Reason.INVALID_SPEC, f"{path}.{field}: not allowed on this cluster: {ask}")
    return None


def needed(overrides: PodOverrides) -> Iterator[tuple[str, str]]:
    """What must be allowed for these overrides: (field, word); the word is empty for what cannot be."""
    for name, asked in (
        ("serviceAccountName", overrides.service_account_name),
        ("hostNetwork", overrides.host_network),
        ("hostIPC", overrides.host_ipc),
        ("hostPID", overrides.host_pid),
        ("runAsUser", overrides.run_as_user is not None),
        ("privileged", overrides.privileged),
    ):
        if asked:
            yield name, name
    yield from ((f"capabilities[{i}]", f"capabilities/{name}") for i, name in enumerate(overrides.capabilities))
    for i, volume in enumerate(overrides.volumes):
        yield from ((f"volumes[{i}].{field}", word) for field, word in _volume(volume))
    if (overrides.priority_class_name or "").startswith("system-"):
        yield "priorityClassName", "systemPriority"
    for field, keys in (("labels", overrides.labels), ("annotations", overrides.annotations)):
        yield from ((f"{field}[{key}]", "") for key in keys if key.startswith(RESERVED))
    yield from ((f"annotations[{key}]", "unconfined") for key in overrides.annotations if key.startswith(SECURITY))
    for field, given in (("affinity", overrides.affinity), ("volumes", overrides.volumes)):
        yield from ((path, "otherNamespaces") for path in _abroad(given, field))


def _abroad(value: Any, path: str) -> Iterator[str]:
    """Where a Kubernetes structure names other namespaces, or an object with a slash in its name: whether others' pods
    run on a node, or what is in their volumes, is nothing to be learned by way of the scheduler."""
    if isinstance(value, dict):
        for key, inner in value.items():
            climbs = key in NAMES and "/" in str(inner)
            if climbs or (key in ABROAD and inner not in (None, "", [])):
                yield f"{path}.{key}"
            elif key not in LABELS:
                yield from _abroad(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from _abroad(inner, f"{path}[{i}]")


def _volume(volume: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield from ((kind, f"volumes/{kind}") for kind in sorted(volume.keys() - OWN_VOLUMES - {"name"}))
    projected = volume.get("projected")
    sources = projected.get("sources") if isinstance(projected, dict) else None
    for i, source in enumerate(sources if isinstance(sources, list) else []):
        if isinstance(source, dict) and "serviceAccountToken" in source:
            yield f"projected.sources[{i}].serviceAccountToken", "volumes/serviceAccountToken"
