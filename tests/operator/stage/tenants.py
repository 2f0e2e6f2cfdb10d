"""Another team's namespace, and every way in which a job or a model might be made to reach into it."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from dreambooth_api import names
from tests.operator.stage import world
from tests.operator.stage.api import Api

MODEL, CLAIM, PICTURES, SECRET, JOB = "their-model", "their-claim", "their-pictures", "their-token", "their-job"
DIGEST = "sha256:" + "5ec2e7" * 10 + "5ec2"
# What nobody else may come to know.
DATA = ("hunter2", "aHVudGVyMg==", "their-diary", DIGEST, "s3://their-bucket")


class Attempt(NamedTuple):
    """One resource. `expected`: "refused at the door", "InvalidSpec" (either names `field`), "not there" (with the
    reason `field` and this message, word for word: nothing in it depends on the other namespace), or "harmless"."""

    name: str
    plural: str
    body: dict[str, Any]
    expected: str
    field: str
    message: str = ""


async def furnish(api: Api, namespace: str) -> None:
    """A namespace with something to find in it."""
    at = f"/api/v1/namespaces/{namespace}"
    await api.create(f"{at}/secrets", {"metadata": {"name": SECRET}, "stringData": {"token": "hunter2"}})
    await api.create(f"{at}/configmaps", {"metadata": {"name": PICTURES}, "data": {"a.txt": "their-diary"}})
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    await api.create(f"{at}/persistentvolumeclaims", {"metadata": {"name": CLAIM}, "spec": claim})
    artifact = {"uri": "s3://their-bucket/models/x", "digest": DIGEST}
    await api.create(api.path("personalizedmodels", namespace), _model(MODEL, artifact=artifact))
    await api.create(api.path("dreamboothjobs", namespace), world.job(JOB, publish={"name": MODEL}))
    done = {"phase": "Succeeded", "completionTime": "2026-11-24T12:00:00Z", "artifact": artifact}
    await api.patch(api.path("dreamboothjobs", namespace, JOB, "status"), {"status": done})


def attempts(theirs: str) -> Iterator[Attempt]:
    """All of them; `theirs` is the other namespace."""
    cases = [*_at_the_door(theirs), *_not_there(), *_overrides(theirs), *_harmless()]
    for number, (kind, spec, expected, field, *message) in enumerate(cases):
        name = f"try-{number}"
        body = world.job(name, **spec) if kind == "dreamboothjobs" else _model(name, **spec)
        body["metadata"] |= spec.pop("metadata", {})
        body["spec"].pop("metadata", None)
        yield Attempt(f"{name} {field}", kind, body, expected, field, *message)


JOBS, MODELS = "dreamboothjobs", "personalizedmodels"


def _at_the_door(theirs: str) -> Iterator[tuple[Any, ...]]:
    door = "refused at the door"
    for uri in (f"pvc://../{theirs}/x", f"pvc://c/../../{theirs}", f"s3://bucket/../{theirs}", f"hf://../{theirs}"):
        yield JOBS, {"baseModel": {"uri": uri}}, door, "spec.baseModel"
        yield JOBS, {"scoring": {"clip": uri}}, door, "spec.scoring"
        yield JOBS, {"scoring": {"dino": uri}}, door, "spec.scoring"
    for uri in (f"configMap://../{theirs}/{PICTURES}", f"configMap://{theirs}/{PICTURES}", f"pvc://{theirs}%2F{CLAIM}",
                f"pvc://c/../../{theirs}"):  # fmt: skip
        yield JOBS, {"subject": {"images": {"uri": uri}, "className": "robot"}}, door, "spec.subject.images"
    for name in (f"../../{theirs}/secrets/{SECRET}", f"{theirs}/{SECRET}", "..", "?limit=1", f"..%2F{theirs}"):
        reference = {"uri": "s3://bucket/x", "secretRef": {"name": name}}
        yield JOBS, {"baseModel": reference}, door, "spec.baseModel.secretRef.name"
    for name in (f"../{theirs}/{MODEL}", f"{theirs}/{MODEL}", f"{theirs}.{MODEL}"):
        yield JOBS, {"publish": {"name": name}}, door, "spec.publish.name"
    for name in (f"../{theirs}/{JOB}", f"{theirs}/{JOB}"):
        yield MODELS, {"jobRef": {"name": name}}, door, "spec.jobRef.name"
    yield MODELS, {"artifact": {"uri": f"s3://bucket/../{theirs}/x", "digest": DIGEST}}, door, "spec.artifact"
    for template in ({"volumeClaims": {"/x": f"../{theirs}/{CLAIM}"}}, {"imagePullSecrets": [f"{theirs}/{SECRET}"]}):
        (field,) = template
        yield JOBS, {"topology": _topology(template)}, door, f"template.{field}"
        yield MODELS, _served(template), door, f"template.{field}"
    for cache in (f"../{theirs}/{CLAIM}", f"{theirs}/{CLAIM}", {"hostPath": {"path": "/var/lib/kubelet"}}):
        artifact = {"uri": "s3://bucket/x", "digest": DIGEST}
        yield MODELS, {"artifact": artifact, "serving": {"cacheClaim": cache}}, door, "serving.cacheClaim"
        publish = {"name": "x", "serving": {"cacheClaim": cache}}
        yield JOBS, {"publish": publish}, door, "serving.cacheClaim"
    yield JOBS, {"metadata": {"namespace": theirs}}, door, "namespace"
    yield JOBS, {"metadata": {"labels": {names.LABEL_QUEUE: f"{theirs}/queue"}}}, door, "labels"


def _not_there() -> Iterator[tuple[Any, ...]]:
    """Names that only the others' namespace knows: told just as names that nobody knows."""
    at = "in the namespace tenant-mine"
    for name in (SECRET, "nobodys"):
        purpose = f"there is no Secret {name} {at}: baseModel.secretRef names it"
        spec = {"baseModel": {"uri": "s3://bucket/x", "secretRef": {"name": name}}}
        yield JOBS, spec, "not there", "SecretNotFound", purpose
    for name in (PICTURES, "nobodys"):
        purpose = f"there is no ConfigMap {name} {at}: subject.images.uri names it"
        spec = {"subject": {"images": {"uri": f"configMap://{name}"}, "className": "robot"}}
        yield JOBS, spec, "not there", "DatasetNotFound", purpose
    for name in (CLAIM, "nobodys"):
        purpose = f"there is no PersistentVolumeClaim {name} {at}: a pvc:// URI of the job names it"
        pictures = {"subject": {"images": {"uri": f"pvc://{name}/x"}, "className": "robot"}}
        yield JOBS, pictures, "not there", "DatasetNotFound", purpose
        yield JOBS, {"baseModel": {"uri": f"pvc://{name}/x"}}, "not there", "BaseModelNotFound", purpose
        yield JOBS, {"scoring": {"dino": f"pvc://{name}/x"}}, "not there", "BaseModelNotFound", purpose
    for name in (JOB, "nobodys"):
        told = f"there is no DreamBoothJob {name} in this namespace"
        yield MODELS, {"jobRef": {"name": name}}, "not there", "ArtifactNotFound", told


def _overrides(theirs: str) -> Iterator[tuple[Any, ...]]:
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {}}
    source = {"kind": "PersistentVolumeClaim", "name": CLAIM, "namespace": theirs}
    for field, template in (
        ("privileged", {"privileged": True}),
        ("hostNetwork", {"hostNetwork": True}),
        ("hostIPC", {"hostIPC": True}),
        ("hostPID", {"hostPID": True}),
        ("runAsUser", {"runAsUser": 0}),
        ("capabilities[0]", {"capabilities": ["SYS_ADMIN"]}),
        ("serviceAccountName", {"serviceAccountName": f"system:serviceaccount:{theirs}:default"}),
        ("volumes[0].hostPath", {"volumes": [{"name": "x", "hostPath": {"path": "/var/lib/kubelet"}}]}),
        ("volumes[0].secret", {"volumes": [{"name": "x", "secret": {"secretName": "dreambooth-store"}}]}),
        ("volumes[0].projected", {"volumes": [{"name": "x", "projected": {"sources": [{"secret": {"name": "s"}}]}}]}),
        ("volumes[0].csi", {"volumes": [{"name": "x", "csi": {"driver": "secrets-store.csi.k8s.io"}}]}),
        ("volumes[0].nfs", {"volumes": [{"name": "x", "nfs": {"server": "n", "path": f"/{theirs}"}}]}),
        ("volumes[0].configMap.name", {"volumes": [{"name": "x", "configMap": {"name": f"../{theirs}/{PICTURES}"}}]}),
        ("volumes[0].persistentVolumeClaim.claimName",
         {"volumes": [{"name": "x", "persistentVolumeClaim": {"claimName": f"{theirs}/{CLAIM}"}}]}),
        ("volumes[0].ephemeral.volumeClaimTemplate.spec.dataSourceRef.namespace",
         {"volumes": [{"name": "x", "ephemeral": {"volumeClaimTemplate": {"spec": {"dataSourceRef": source}}}}]}),
        (f"affinity.podAffinity.{required}[0].namespaces",
         {"affinity": {"podAffinity": {required: [{**term, "namespaces": [theirs]}]}}}),
        (f"affinity.podAntiAffinity.{required}[0].namespaceSelector",
         {"affinity": {"podAntiAffinity": {required: [{**term, "namespaceSelector": {}}]}}}),
        ("labels[dreambooth.dev/model]", {"labels": {"dreambooth.dev/model": MODEL}}),
    ):  # fmt: skip
        yield JOBS, {"topology": _topology(template)}, "InvalidSpec", f"spec.topology.template.{field}"
        yield MODELS, _served(template), "InvalidSpec", f"spec.serving.template.{field}"
    publish = {"name": "x", "serving": {"template": {"hostPID": True}}}
    yield JOBS, {"publish": publish}, "InvalidSpec", "spec.publish.serving.template.hostPID"
    climbing = {"annotations": {names.ANNOTATION_BASE_SECRET: f"../{theirs}/{SECRET}"}}
    yield MODELS, {**_served({}), "metadata": climbing}, "InvalidSpec", names.ANNOTATION_BASE_SECRET


def _harmless() -> Iterator[tuple[Any, ...]]:
    """Taken, without what a variable of Kubernetes' own might have: the schema knows plain ones only."""
    reference = {"secretKeyRef": {"name": SECRET, "key": "token"}}
    template = {"env": [{"name": "STOLEN", "valueFrom": reference}]}
    yield JOBS, {"topology": _topology(template)}, "harmless", "env"


def _topology(template: dict[str, Any]) -> dict[str, Any]:
    return {"nodes": 2, "gpusPerNode": 0, "template": template}


def _served(template: dict[str, Any]) -> dict[str, Any]:
    artifact = {"uri": "s3://bucket/x", "digest": "sha256:" + "ab" * 32}
    return {"artifact": artifact, "serving": {"template": template}}


def _model(name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": names.API_VERSION, "kind": names.MODEL_KIND, "metadata": {"name": name}, "spec": dict(spec)}
