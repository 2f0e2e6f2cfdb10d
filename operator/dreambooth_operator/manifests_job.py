"""A job's children: headless Service, Indexed Jobs that prepare and train; and the model it makes. Pure."""

from typing import Any

from pydantic_core import to_json

from dreambooth_api import exits, names
from dreambooth_api.job import ArtifactStatus, DreamBoothJobSpec
from dreambooth_api.uris import CONFIG_MAP_ROOT, PVC_ROOT, parse_uri
from dreambooth_operator import manifests, pods
from dreambooth_operator.drift import stamped
from dreambooth_operator.settings import Settings
from dreambooth_operator.views import Body

GRACE_SECONDS = 60
COMPLETION_INDEX = "batch.kubernetes.io/job-completion-index"
JOB_FIELD = {"fieldPath": f"metadata.annotations['{names.ANNOTATION_JOB}']"}
JOB_VOLUME = {"name": "job", "downwardAPI": {"items": [{"path": names.JOB_KEY, "fieldRef": JOB_FIELD}]}}


def job_file(body: Body, spec: DreamBoothJobSpec) -> str:
    """The whole job as the trainer reads it, save whether it is suspended: no pod is, and a Job that was made before a
    suspension is the same after it."""
    metadata = {key: body["metadata"].get(key) for key in ("namespace", "name", "uid")}
    spec = spec.model_copy(update={"suspend": False})
    job = {"apiVersion": names.API_VERSION, "kind": names.JOB_KIND, "metadata": metadata, "spec": spec}
    return to_json(job, by_alias=True, exclude_none=True).decode()


def prepare_job(body: Body, spec: DreamBoothJobSpec, settings: Settings) -> Body:
    """The pods that check the input and draw the class images, a share each."""
    container = _container(names.COMPONENT_PREPARE, "prepare", spec, settings, processes=1)
    name = names.prepare_job(body["metadata"]["name"])
    return _job(name, body, spec, names.COMPONENT_PREPARE, container, spec.prepare_pods)


def service(body: Body) -> Body:
    """DNS names for the training pods, from the moment they exist: rank 0 waits for its peers before it is ready."""
    name, job = names.training(body["metadata"]["name"]), body["metadata"]["name"]
    return {
        **_child("v1", "Service", name, body, names.COMPONENT_TRAIN),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {names.LABEL_JOB: job, names.LABEL_COMPONENT: names.COMPONENT_TRAIN},
            "ports": [
                {"name": "master", "port": names.MASTER_PORT, "targetPort": names.MASTER_PORT, "protocol": "TCP"},
                {"name": "metrics", "port": names.TRAINER_PORT, "targetPort": names.TRAINER_PORT, "protocol": "TCP"},
            ],
        },
    }


def train_job(body: Body, spec: DreamBoothJobSpec, settings: Settings) -> Body:
    """One pod a node, each with its ranks."""
    metadata, topology = body["metadata"], spec.topology
    container = _container(names.COMPONENT_TRAIN, "launch", spec, settings, topology.ranks_per_node)
    rank = {"fieldRef": {"fieldPath": f"metadata.annotations['{COMPLETION_INDEX}']"}}
    container["env"] += [
        {"name": "PET_NNODES", "value": str(topology.nodes)},
        {"name": "PET_NPROC_PER_NODE", "value": str(topology.ranks_per_node)},
        {"name": "PET_NODE_RANK", "valueFrom": rank},
        {"name": "PET_MASTER_ADDR", "value": names.master_address(metadata["name"], metadata["namespace"])},
        {"name": "PET_MASTER_PORT", "value": str(names.MASTER_PORT)},
    ]
    name = names.training(metadata["name"])
    return _job(name, body, spec, names.COMPONENT_TRAIN, container, topology.nodes)


def personalized_model(body: Body, spec: DreamBoothJobSpec, artifact: ArtifactStatus) -> Body:
    """The model that rolls the result out. The job does not own it: it outlives the job."""
    serving = spec.publish.serving
    secret = spec.base_model.secret_ref
    metadata: Body = {
        "name": spec.publish.name,
        "namespace": body["metadata"]["namespace"],
        "labels": manifests.labels(names.LABEL_JOB, body["metadata"]["name"]),
    }
    if secret:
        metadata["annotations"] = {names.ANNOTATION_BASE_SECRET: secret.name}
    template = pods.with_base(serving.template, spec.base_model.uri)
    serving = serving.model_copy(update={"template": template})
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.MODEL_KIND,
        "metadata": metadata,
        "spec": {"artifact": {"uri": artifact.uri, "digest": artifact.digest}, "serving": serving.to_dict()},
    }


def _child(api_version: str, kind: str, name: str, body: Body, component: str | None) -> Body:
    own = manifests.labels(names.LABEL_JOB, body["metadata"]["name"], component)
    return manifests.child(api_version, kind, name, names.JOB_KIND, body, own)


def _container(
    component: str, command: str, spec: DreamBoothJobSpec, settings: Settings, processes: int
) -> dict[str, Any]:
    secret = spec.base_model.secret_ref
    gpus = spec.topology.gpus_per_node if component == names.COMPONENT_TRAIN else min(1, spec.topology.gpus_per_node)
    return {
        "name": component,
        "image": settings.trainer_image,
        "imagePullPolicy": settings.pull_policy,
        "command": ["python", "-m", "dreambooth_trainer", command, "--job", names.JOB_FILE],
        "ports": [{"name": "metrics", "containerPort": names.TRAINER_PORT, "protocol": "TCP"}],
        "env": [
            *pods.common_env(spec.topology.template, processes),
            {"name": names.ENV_IMAGE, "value": settings.trainer_image},
            *pods.token_env(secret.name if secret else None),
        ],
        "resources": {"limits": {pods.GPU: gpus}} if gpus else {},
        "volumeMounts": [pods.STORE_MOUNT, {"name": "job", "mountPath": names.JOB_DIR, "readOnly": True}],
    }


def _job(name: str, body: Body, spec: DreamBoothJobSpec, component: str, container: Body, count: int) -> Body:
    """An Indexed Job of `count` pods; those that train are a gang."""
    job, gang = body["metadata"]["name"], component == names.COMPONENT_TRAIN
    volumes, mounts = input_volumes(spec)
    container["volumeMounts"] = [*container["volumeMounts"], *mounts]
    if gang and spec.topology.ranks_per_node > 1:
        # Ranks of one pod exchange data through shared memory; the default of 64 MiB is too little.
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory"}})
        container["volumeMounts"].append({"name": "shm", "mountPath": "/dev/shm"})
    template = pods.pod_template(
        container,
        spec.topology.template,
        labels=manifests.labels(names.LABEL_JOB, job, component),
        # In no object of its own: one write fewer, and no pod runs by another spec than its Job was made from.
        annotations={names.ANNOTATION_JOB: job_file(body, spec)}
        | (pods.scrape_annotations(names.TRAINER_PORT) if gang else {}),
        volumes=volumes,
        grace_seconds=GRACE_SECONDS,
        extra={"restartPolicy": "Never"} | ({"subdomain": name} if gang else {}),
    )
    deadline = spec.active_deadline_seconds
    child, queue = _child("batch/v1", "Job", name, body, component), queue_labels(body)
    child["metadata"]["labels"] |= queue
    return stamped({
        **child,
        "spec": {
            "completionMode": "Indexed",
            "completions": count,
            "parallelism": count,
            "backoffLimit": backoff_limit(spec.backoff_limit, count if gang else 1),
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": failure_policy(component),
            # A queued Job is Kueue's to start.
            "suspend": names.LABEL_QUEUE in queue,
            **({"activeDeadlineSeconds": deadline} if deadline else {}),
            "template": template,
        },
    })  # fmt: skip


def queue_labels(body: Body) -> dict[str, str]:
    """The labels of a job by which Kueue knows its Jobs; priorities and limits mean nothing without a queue."""
    labels = body["metadata"].get("labels") or {}
    return {key: labels[key] for key in names.LABELS_FOR_QUEUE if key in labels} if names.LABEL_QUEUE in labels else {}


def backoff_limit(incidents: int, nodes: int) -> int:
    """Pod failures that `incidents` may cost: a rank that dies takes its peers along, and each of them counts as one.

    Peers count (exit PEER_LOST) because a gang that only ever loses each other must come to an end, too.
    """
    return incidents * nodes


def failure_policy(container: str) -> Body:
    """What a retry cannot mend ends the Job; what was no failure does not count; the rest counts."""
    permanent = sorted(int(code) for code in exits.PERMANENT)
    saved = [int(exits.ExitCode.SAVED_ON_SIGTERM)]
    return {
        "rules": [
            {
                "action": "FailJob",
                "onExitCodes": {"containerName": container, "operator": "In", "values": permanent},
            },
            {"action": "Ignore", "onExitCodes": {"containerName": container, "operator": "In", "values": saved}},
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        ]
    }


def input_volumes(spec: DreamBoothJobSpec) -> tuple[list[Body], list[Body]]:
    """Volumes and mounts of the store's Secret, the job's file, and of all that `pvc://` and `configMap://` name."""
    volumes: list[Body] = [pods.STORE_VOLUME, JOB_VOLUME]
    mounts: list[Body] = []
    for i, claim in enumerate(sorted(input_claims(spec))):
        source = {"claimName": claim, "readOnly": True}
        volumes.append({"name": f"input-{i}", "persistentVolumeClaim": source})
        mounts.append({"name": f"input-{i}", "mountPath": f"{PVC_ROOT}/{claim}", "readOnly": True})
    images = parse_uri(spec.subject.images.uri)
    if images.scheme == "configMap":
        volumes.append({"name": "images", "configMap": {"name": images.authority}})
        mount = {"name": "images", "mountPath": f"{CONFIG_MAP_ROOT}/{images.authority}", "readOnly": True}
        mounts.append(mount)
    return volumes, mounts


def input_claims(spec: DreamBoothJobSpec) -> set[str]:
    """The claims that the job reads from."""
    uris = (spec.base_model.uri, spec.subject.images.uri, spec.scoring.clip, spec.scoring.dino)
    return {parse_uri(uri).authority for uri in uris if uri and parse_uri(uri).scheme == "pvc"}
