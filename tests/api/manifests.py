"""Good and bad manifests as data: parsed by the models in tests/api, and sent to a real API server in tests/cluster.

A case is (name, kind, body); a bad one has the field besides, which the refusal must name in both places.
"""

from copy import deepcopy
from typing import Any, NamedTuple

from dreambooth_api import names

DIGEST = "sha256:" + "0123456789abcdef" * 4


class Case(NamedTuple):
    """One manifest; `field` is what its refusal must name, empty for a good one."""

    name: str
    kind: str
    body: dict[str, Any]
    field: str = ""


def job(name: str = "robot", **changes: Any) -> dict[str, Any]:
    """The smallest job, with `changes` at dotted paths below spec ("training__steps" is spec.training.steps)."""
    spec = {
        "baseModel": {"uri": "s3://models/base"},
        "subject": {"images": {"uri": "s3://pictures/robot/"}, "className": "robot"},
        "publish": {"name": "robot"},
    }
    return _resource(names.JOB_KIND, name, spec, changes)


def model(name: str = "robot", **changes: Any) -> dict[str, Any]:
    """The smallest model, with `changes` below spec."""
    return _resource(names.MODEL_KIND, name, {"artifact": {"uri": "s3://models/robot", "digest": DIGEST}}, changes)


def pool(name: str = "default", **changes: Any) -> dict[str, Any]:
    """The smallest pool, with `changes` below spec."""
    return _resource(names.POOL_KIND, name, {"baseModel": {"uri": "s3://models/base"}}, changes)


REMOVED = object()


def _resource(kind: str, name: str, spec: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    spec = deepcopy(spec)
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = spec
        for parent in parents:
            place = place.setdefault(parent, {})
        if value is REMOVED:
            place.pop(last)
        else:
            place[last] = value
    return {"apiVersion": names.API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}


def _good_job(case: str, name: str = "robot", **changes: Any) -> Case:
    return Case(case, names.JOB_KIND, job(name, **changes))


def _good_model(case: str, name: str = "robot", **changes: Any) -> Case:
    return Case(case, names.MODEL_KIND, model(name, **changes))


def _bad_job(field: str, case: str, name: str = "robot", **changes: Any) -> Case:
    return Case(case, names.JOB_KIND, job(name, **changes), field)


def _bad_model(field: str, case: str, name: str = "robot", **changes: Any) -> Case:
    return Case(case, names.MODEL_KIND, model(name, **changes), field)


def _good_pool(case: str, name: str = "default", **changes: Any) -> Case:
    return Case(case, names.POOL_KIND, pool(name, **changes))


def _bad_pool(field: str, case: str, name: str = "default", **changes: Any) -> Case:
    return Case(case, names.POOL_KIND, pool(name, **changes), field)


GOOD = [
    _good_job("the smallest job"),
    _good_job("the longest name", name="a" * 46),
    _good_job("a base from the hub", baseModel__uri="hf://stable-diffusion-v1-5/stable-diffusion-v1-5",
              baseModel__revision="main", baseModel__secretRef={"name": "hf-token"}),
    _good_job("a base on a claim", baseModel__uri="pvc://models/sd15"),
    _good_job("pictures in a ConfigMap", subject__images__uri="configMap://robot.pictures"),
    _good_job("pictures at a claim's root", subject__images__uri="pvc://pictures"),
    _good_job("dots in a path that climbs nowhere", baseModel__uri="s3://models/..base/v1..2"),
    _good_job("the identifier spelled out", subject__identifier="zwx", subject__prompt="a zwx robot"),
    _good_job("no prior", prior__weight=0),
    _good_job("a class of two words", subject__className="teddy bear"),
    _good_job("full training in half precision on GPUs", method__type="Full", training__precision="fp16",
              training__optimizer="AdamW8bit", topology={"nodes": 2, "gpusPerNode": 4}),
    _good_job("full training divided among ranks", method__type="Full", training__precision="bf16",
              topology={"nodes": 2, "gpusPerNode": 4, "sharding": "FullySharded"}),
    _good_job("ranks on the CPU", topology={"nodes": 2, "gpusPerNode": 0, "processesPerNode": 2}),
    _good_job("whole numbers where fractions may be", prior__weight=1, method__lora__alpha=32,
              training__learningRate=1),
    _good_job("warm-up below steps", training__steps=100, training__warmupSteps=99),
    _good_job("every deadline", startDeadlineSeconds=60, activeDeadlineSeconds=600, ttlSecondsAfterFinished=0,
              backoffLimit=0, suspend=True),
    _good_job("pod overrides", topology__template={
        "resources": {"requests": {"cpu": 1, "memory": "2Gi"}, "limits": {"nvidia.com/gpu": 1}},
        "nodeSelector": {"pool": "gpu"}, "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {"nodeAffinity": {}}, "env": [{"name": "NCCL_DEBUG", "value": "INFO"}],
        "volumeClaims": {"/cache": "cache"}, "imagePullSecrets": ["registry"], "priorityClassName": "low",
    }),
    _good_job("a gate and a canary's endpoint", publish__gate={"clipI": 0.75, "pres": 0.6},
              publish__serving={"mode": "Shared", "minReplicas": 0, "maxReplicas": 3, "idleSeconds": 60}),
    _good_job("scoring and validation", scoring={"clip": "s3://models/clip", "dino": "hf://facebook/dinov2-small"},
              validation={"prompts": ["a {identifier} {className} in the snow"], "everySteps": 50, "images": 2},
              training__steps=100),
    _good_model("the smallest model"),
    _good_model("the result of a job", artifact=REMOVED, jobRef={"name": "robot"}),
    _good_model("an artifact in a folder", artifact__uri="file:///models/robot"),
    _good_model("a canary", rollout={"strategy": "Canary", "steps": [5, 25, 50],
                                     "analysis": {"maxErrorRate": 0.02, "maxP95Seconds": 12.5}}),
    _good_model("scaled to nothing", serving={"minReplicas": 0, "maxReplicas": 1}),
    _good_model("an adapter on a pool", serving={"mode": "Shared", "pool": "default"}),
    _good_model("opened by keys", serving__access={"secret": "robot.keys", "requestsPerMinute": 60}),
    _good_model("a canary that is paused", rollout={"strategy": "Canary", "stepSeconds": 5, "paused": True}),
    _good_pool("the smallest pool"),
    _good_pool("a pool with everything", baseModel={"uri": "hf://org/sd", "revision": "main",
               "secretRef": {"name": "hf"}}, adapters={"maxRank": 512, "onDevice": 1, "inMemory": 100_000},
               minReplicas=0, maxReplicas=1, targetInFlight=1, idleSeconds=1, gpus=1, compile=True,
               template={"nodeSelector": {"pool": "gpu"}}),
]  # fmt: skip

BAD = [
    _bad_job("metadata.name", "a name that is too long for its children", name="a" * 47),
    _bad_job("metadata.name", "a name that no Service can have", name="1robot"),
    _bad_job("metadata.name", "a name with dots", name="robot.v2"),
    _bad_job("spec.baseModel", "no base", baseModel=REMOVED),
    _bad_job("spec.baseModel.uri", "a base without a scheme", baseModel__uri="/models/base"),
    _bad_job("spec.baseModel.uri", "a base by http", baseModel__uri="http://example.com/base"),
    _bad_job("spec.baseModel.uri", "a hub's name without an owner", baseModel__uri="hf://base"),
    _bad_job("spec.baseModel.uri", "a base that climbs out", baseModel__uri="pvc://models/../other"),
    _bad_job("spec.subject", "no subject", subject=REMOVED),
    _bad_job("spec.subject.className", "no class", subject__className=REMOVED),
    _bad_job("spec.subject.images", "no pictures", subject__images=REMOVED),
    _bad_job("spec.subject.images.uri", "a bucket without a path", subject__images__uri="s3://pictures"),
    _bad_job("spec.subject.images.uri", "an empty URI", subject__images__uri=""),
    _bad_job("spec.subject.images.uri", "pictures that climb out", subject__images__uri="s3://pictures/a/.."),
    _bad_job("spec.subject.identifier", "an identifier of two words", subject__identifier="sks robot"),
    _bad_job("spec.subject.prompt", "a prompt without the identifier", subject__prompt="a photo of a robot"),
    _bad_job("spec.subject.prompt", "an empty prompt", subject__prompt=""),
    _bad_job("spec.subject.holdout", "a negative holdout", subject__holdout=-1),
    _bad_job("spec.prior.weight", "a negative weight", prior__weight=-0.5),
    _bad_job("spec.prior.images", "no class images at all", prior__images=0),
    _bad_job("spec.method.type", "an unknown method", method__type="lora"),
    _bad_job("spec.method.lora.rank", "rank 0", method__lora__rank=0),
    _bad_job("spec.method.lora.targets", "no targets", method__lora__targets=[]),
    _bad_job("spec.training.steps", "negative steps", training__steps=-5),
    _bad_job("spec.training.steps", "steps as text", training__steps="600"),
    _bad_job("spec.training.steps", "steps with a fraction", training__steps=1.5),
    _bad_job("spec.training.learningRate", "a learning rate of 0", training__learningRate=0),
    _bad_job("spec.training.optimizer", "an unknown optimizer", training__optimizer="SGD"),
    _bad_job("spec.training.precision", "an unknown precision", training__precision="float16"),
    _bad_job("spec.training.precision", "half precision on the CPU", training__precision="fp16",
             topology__gpusPerNode=0),
    _bad_job("spec.training.resolution", "a side that the VAE cannot halve", training__resolution=500),
    _bad_job("spec.training.ema", "an average that never moves", training__ema=1),
    _bad_job("spec.training.warmupSteps", "a warm-up beyond the end", training__steps=10, training__warmupSteps=10),
    _bad_job("spec.training.gradientCheckpointing", "a switch as text", training__gradientCheckpointing="yes"),
    _bad_job("spec.validation.everySteps", "a validation beyond the end", training__steps=10,
             validation__everySteps=11),
    _bad_job("spec.checkpoints.keep", "no checkpoint kept", checkpoints__keep=0),
    _bad_job("spec.topology.nodes", "no nodes", topology__nodes=0),
    _bad_job("spec.topology.gpusPerNode", "GPUs as text", topology__gpusPerNode="1"),
    _bad_job("spec.topology.sharding", "an unknown sharding", topology__sharding="Sharded"),
    _bad_job("spec.topology.sharding", "an optimizer that needs whole tensors", topology__sharding="FullySharded",
             training__optimizer="AdamW8bit"),
    _bad_job("spec.topology.sharding", "half precision divided", topology__sharding="FullySharded",
             training__precision="fp16"),
    _bad_job("spec.topology.template.env", "a nameless variable", topology__template={"env": [{"value": "x"}]}),
    _bad_job("spec.topology.template.tolerations", "an unknown operator",
             topology__template={"tolerations": [{"operator": "In"}]}),
    _bad_job("spec.topology.template.volumeClaims", "a claim of another namespace",
             topology__template={"volumeClaims": {"/x": "../other/claim"}}),
    _bad_job("spec.topology.template.imagePullSecrets", "a registry's Secret of another namespace",
             topology__template={"imagePullSecrets": ["other/registry"]}),
    _bad_job("spec.backoffLimit", "a negative limit", backoffLimit=-1),
    _bad_job("spec.activeDeadlineSeconds", "a deadline of 0", activeDeadlineSeconds=0),
    _bad_job("spec.publish", "nothing published", publish=REMOVED),
    _bad_job("spec.publish.name", "a name with capitals", publish__name="Robot"),
    _bad_job("spec.publish.name", "a published name that is too long", publish__name="a" * 47),
    _bad_job("spec.publish.gate.clipI", "a cosine above 1", publish__gate__clipI=75),
    _bad_job("spec.publish.serving.minReplicas", "fewest above most",
             publish__serving={"minReplicas": 3, "maxReplicas": 2}),
    _bad_job("spec.scoring.clip", "an encoder from nowhere", scoring__clip="clip-vit"),
    _bad_job("spec.scoring.clip", "an encoder that climbs out", scoring__clip="pvc://models/../other"),
    _bad_job("spec.scoring.dino", "another encoder that climbs out", scoring__dino="pvc://models/.."),
    _bad_job("spec.baseModel.secretRef.name", "a Secret of another namespace",
             baseModel__secretRef={"name": "../../other/secrets/token"}),
    _bad_job("spec.baseModel.secretRef.name", "a Secret that is a query", baseModel__secretRef={"name": "?limit=1"}),
    _bad_model("metadata.name", "a model's name with dots", name="robot.v2"),
    _bad_model("spec.artifact", "neither artifact nor job", artifact=REMOVED),
    _bad_model("spec.artifact", "artifact and job", jobRef={"name": "robot"}),
    _bad_model("spec.artifact.digest", "a digest cut short", artifact__digest="sha256:0123"),
    _bad_model("spec.artifact.digest", "no digest", artifact__digest=REMOVED),
    _bad_model("spec.artifact.uri", "an artifact by http", artifact__uri="http://example.com/robot"),
    _bad_model("spec.artifact.uri", "an artifact that climbs out", artifact__uri="s3://models/robot/../../other"),
    _bad_model("spec.jobRef.name", "a job without a name", artifact=REMOVED, jobRef={"name": ""}),
    _bad_model("spec.jobRef.name", "a job of another namespace", artifact=REMOVED, jobRef={"name": "../other/robot"}),
    _bad_model("spec.serving.mode", "an unknown mode", serving__mode="shared"),
    _bad_model("spec.serving.minReplicas", "a model's fewest above its most",
               serving={"minReplicas": 2, "maxReplicas": 1}),
    _bad_model("spec.serving.targetInFlight", "no requests in flight", serving__targetInFlight=0),
    _bad_model("spec.rollout.strategy", "an unknown strategy", rollout__strategy="BlueGreen"),
    _bad_model("spec.rollout.steps", "a weight above 100", rollout__steps=[10, 500]),
    _bad_model("spec.rollout.steps", "a weight of nothing", rollout__steps=[0]),
    _bad_model("spec.rollout.analysis.maxErrorRate", "a share above 1", rollout__analysis__maxErrorRate=2),
    _bad_model("spec.rollout.stepSeconds", "a step of no time", rollout__stepSeconds=0),
    _bad_model("spec.serving.pool", "a pool of another namespace", serving__pool="../other/default"),
    _bad_model("spec.serving.access.secret", "keys of another namespace", serving__access={"secret": "../other/keys"}),
    _bad_model("spec.serving.access.secret", "access without a Secret", serving__access={}),
    _bad_model("spec.serving.access.requestsPerMinute", "no requests at all",
               serving__access={"secret": "keys", "requestsPerMinute": 0}),
    _bad_pool("metadata.name", "a pool's name with dots", name="sd.v15"),
    _bad_pool("spec.baseModel", "a pool without a base", baseModel=REMOVED),
    _bad_pool("spec.baseModel.uri", "a pool's base that climbs out", baseModel__uri="pvc://models/../other"),
    _bad_pool("spec.baseModel.secretRef.name", "a pool's Secret of another namespace",
              baseModel__secretRef={"name": "../other/hf"}),
    _bad_pool("spec.minReplicas", "a pool's fewest above its most", minReplicas=3, maxReplicas=2),
    _bad_pool("spec.maxReplicas", "a pool of nothing", minReplicas=0, maxReplicas=0),
    _bad_pool("spec.adapters.maxRank", "a rank beyond all", adapters__maxRank=513),
    _bad_pool("spec.adapters.onDevice", "no subject on the device", adapters__onDevice=0),
    _bad_pool("spec.gpus", "GPUs by halves", gpus=0.5),
]  # fmt: skip
