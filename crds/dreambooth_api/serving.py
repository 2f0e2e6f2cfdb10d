"""How a model is served and rolled out: shared by the job's `publish` and the model itself."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from dreambooth_api import names
from dreambooth_api.base import ApiModel
from dreambooth_api.pods import ObjectName, PodOverrides


class ServingMode(StrEnum):
    """`Dedicated`: pods of its own. `Shared`: an adapter on a pool of its base."""

    SHARED = "Shared"
    DEDICATED = "Dedicated"


class Scaling(ApiModel):
    """Replicas, what scales them, and what each of them is given."""

    __cel__ = (("self.minReplicas <= self.maxReplicas", "minReplicas must not exceed maxReplicas", ".minReplicas"),)

    min_replicas: int = Field(
        1, ge=0, le=1000, description="The fewest replicas; 0: none while nobody asks, and the gateway wakes the first."
    )
    max_replicas: int = Field(5, ge=1, le=1000, description="The most replicas.")
    target_in_flight: int = Field(
        4, ge=1, le=1000, description="Requests in flight that one replica is meant to carry."
    )
    idle_seconds: int = Field(
        300, ge=1, le=86_400, description="Without requests for so long, scale to `minReplicas`, seconds."
    )
    gpus: int = Field(0, ge=0, le=8, description="GPUs per replica; 0: draw on the CPU.")
    compile: bool = Field(
        False,
        description="torch.compile the U-Net for the base's own size before a replica is ready; the image needs a "
        "compiler.",
    )
    cache_claim: ObjectName | None = Field(
        None,
        description="A PersistentVolumeClaim in which replicas keep what they download, beyond their pods' lives. "
        "Default: the namespace's `dreambooth-cache`, where the chart's `cache` has made it.",
    )
    template: PodOverrides = Field(PodOverrides(), description="Overrides of the replicas' pods.")


class Access(ApiModel):
    """Who may ask."""

    secret: str = Field(
        min_length=1,
        max_length=253,
        pattern=names.OBJECT_PATTERN,
        description="A Secret of the namespace: each of its entries is an API key, under the key's name.",
    )
    requests_per_minute: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="Requests that each key may make in a minute, of all gateways together; absent: any number.",
    )


class Serving(Scaling):
    """The endpoint: pods of its own, or an adapter on a pool."""

    mode: ServingMode = Field(
        ServingMode.DEDICATED,
        description="`Dedicated`: pods of its own, as the fields below say. `Shared`: an adapter on `pool`, which says "
        "all that.",
    )
    pool: str = Field(
        "default",
        min_length=1,
        max_length=names.MAX_NAME_LENGTH,
        pattern=names.NAME_PATTERN,
        description="The ServingPool of the namespace that draws it, for `Shared`.",
    )
    access: Access | None = Field(None, description="API keys that open the endpoint; absent: it is open.")


class RolloutStrategy(StrEnum):
    """How a new artifact takes over."""

    ROLLING = "Rolling"
    CANARY = "Canary"


class Analysis(ApiModel):
    """When a canary is bad."""

    max_error_rate: float = Field(0.01, ge=0, le=1, description="Share of requests that may fail.")
    max_p95_seconds: float | None = Field(
        None, gt=0, le=3600, description="95th percentile of a request's duration, seconds."
    )


class Rollout(ApiModel):
    """How a new artifact takes over."""

    strategy: RolloutStrategy = Field(RolloutStrategy.ROLLING, description="`Rolling` or `Canary`.")
    steps: list[Annotated[int, Field(ge=1, le=99)]] = Field(
        [10, 50], max_length=10, description="Weights of a canary on its way to 100, percent."
    )
    step_seconds: int = Field(
        60, ge=1, le=86_400, description="How long a canary is watched at each of its weights, seconds."
    )
    paused: bool = Field(False, description="Keep a canary at its weight; `strategy: Rolling` promotes it at once.")
    analysis: Analysis = Field(Analysis(), description="When a canary is bad.")
