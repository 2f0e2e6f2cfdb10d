"""What a user may override in the pods that are made for them.

Only what is listed here can be set. What could let a pod out of its namespace (the host's namespaces and paths,
privilege, another service account) the operator refuses unless its administrator allows it.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, WithJsonSchema

from dreambooth_api import names
from dreambooth_api.base import ApiModel

ObjectName = Annotated[str, StringConstraints(pattern=names.OBJECT_PATTERN, max_length=253)]

# Kubernetes' own structures: the API server checks them when the pod is made; repeating their schema here would age.
Opaque = Annotated[dict[str, Any], WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True})]
Quantity = Annotated[
    str | int, WithJsonSchema({"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]})
]


class Resources(ApiModel):
    """Requests and limits of the main container, in Kubernetes' quantities."""

    requests: dict[str, Quantity] = Field({}, description="What the scheduler reserves, e.g. `{cpu: 1, memory: 2Gi}`.")
    limits: dict[str, Quantity] = Field({}, description="What the container may not exceed, e.g. `{memory: 16Gi}`.")


class EnvVar(ApiModel):
    """A plain environment variable."""

    name: str = Field(min_length=1, description="The variable's name.")
    value: str = Field("", description="Its value.")


class Toleration(ApiModel):
    """A taint that the pod tolerates."""

    key: str | None = Field(None, description="The taint's key; empty with `Exists` matches all.")
    operator: Literal["Exists", "Equal"] | None = Field(None, description="How key and value are compared.")
    value: str | None = Field(None, description="The taint's value.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(None, description="Which effect.")
    toleration_seconds: int | None = Field(None, ge=0, description="How long a NoExecute taint is tolerated, seconds.")


class VolumeMount(ApiModel):
    """Where a volume of `volumes` is mounted in the main container."""

    name: str = Field(min_length=1, max_length=63, description="The volume's name.")
    mount_path: str = Field(pattern="^/", max_length=1024, description="Absolute path in the container.")
    sub_path: str | None = Field(None, max_length=1024, description="A path inside the volume.")
    read_only: bool = Field(False, description="Whether it cannot be written.")


class PodOverrides(ApiModel):
    """Overrides of the pod template: applied to every pod of the job or of the model's endpoint."""

    labels: dict[str, str] = Field({}, description="Labels added to the pods.")
    annotations: dict[str, str] = Field({}, description="Annotations added to the pods.")
    resources: Resources = Field(Resources(), description="Resources of the main container.")
    env: list[EnvVar] = Field([], max_length=64, description="Environment variables added to the main container.")
    node_selector: dict[str, str] = Field({}, description="Labels that a node must have.")
    tolerations: list[Toleration] = Field([], max_length=32, description="Taints that the pods tolerate.")
    affinity: Opaque | None = Field(None, description="A Kubernetes `Affinity`.")
    topology_spread_constraints: list[Opaque] = Field([], max_length=8, description="Kubernetes' spread constraints.")
    priority_class_name: str | None = Field(None, description="A PriorityClass of the cluster.")
    runtime_class_name: str | None = Field(None, description="A RuntimeClass of the cluster.")
    scheduler_name: str | None = Field(None, description="Another scheduler than the default one.")
    image_pull_secrets: list[ObjectName] = Field([], max_length=8, description="Names of Secrets to pull images with.")
    volume_claims: dict[str, ObjectName] = Field(
        {}, description="PersistentVolumeClaims to mount: absolute path in the container → claim."
    )
    volumes: list[Opaque] = Field(
        [],
        max_length=16,
        description="Kubernetes volumes; kinds beyond configMap, emptyDir, ephemeral and persistentVolumeClaim must be "
        "allowed in the chart's values (`operator.podAllowances`).",
    )
    volume_mounts: list[VolumeMount] = Field([], max_length=32, description="Where `volumes` are mounted.")
    service_account_name: str | None = Field(
        None, max_length=253, description="Another ServiceAccount, without its token; must be allowed."
    )
    host_network: bool = Field(False, description="The node's network, as RDMA may want it; must be allowed.")
    host_ipc: bool = Field(False, alias="hostIPC", description="The node's IPC namespace; must be allowed.")
    host_pid: bool = Field(False, alias="hostPID", description="The node's processes; must be allowed.")
    run_as_user: int | None = Field(
        None, ge=0, le=2**31 - 1, description="Another user than 65532 (0: root); must be allowed."
    )
    privileged: bool = Field(False, description="A privileged container; must be allowed.")
    capabilities: list[str] = Field(
        [], max_length=16, description="Linux capabilities added, e.g. IPC_LOCK; each must be allowed."
    )
