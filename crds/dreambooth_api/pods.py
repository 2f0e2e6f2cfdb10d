"""What a user may override in the pods that are made for them.

Only what is listed here can be set, so an override cannot make a pod privileged, mount the host or take another
service account.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, WithJsonSchema

from dreambooth_api.base import ApiModel

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
    image_pull_secrets: list[str] = Field([], max_length=8, description="Names of Secrets to pull images with.")
    volume_claims: dict[str, str] = Field(
        {}, description="PersistentVolumeClaims to mount: absolute path in the container → claim."
    )
