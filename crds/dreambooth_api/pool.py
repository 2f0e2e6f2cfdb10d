"""`ServingPool`: replicas of one base that draw any LoRA subject of it."""

from pydantic import Field

from dreambooth_api.base import ApiModel
from dreambooth_api.conditions import Condition
from dreambooth_api.job import BaseModelSource
from dreambooth_api.serving import Scaling


class Adapters(ApiModel):
    """How much of its subjects a replica keeps at hand."""

    max_rank: int = Field(
        64, ge=1, le=512, description="The highest LoRA rank that is served; memory is set aside for it."
    )
    on_device: int = Field(8, ge=1, le=1000, description="Subjects whose weights stay on the device.")
    in_memory: int = Field(200, ge=1, le=100_000, description="Subjects whose weights stay in the host's memory.")


class ServingPoolSpec(Scaling):
    """The base, and the replicas that hold it. Administrators make pools; whoever makes models names one."""

    base_model: BaseModelSource = Field(description="The base that all of the pool's subjects complete.")
    adapters: Adapters = Field(Adapters(), description="How much of its subjects a replica keeps at hand.")


class ServingPoolStatus(ApiModel):
    """What the operator saw."""

    observed_generation: int | None = Field(None, description="The generation of the spec that this is about.")
    conditions: list[Condition] = Field([], description="`Ready`.")
    replicas: int = Field(0, ge=0, description="Replicas that are there.")
    ready_replicas: int = Field(0, ge=0, description="Replicas that are ready.")
    selector: str | None = Field(None, description="Label selector of the pool's pods.")
    subjects: int = Field(0, ge=0, description="Models that name the pool.")


class ServingPool(ApiModel):
    """Serves all LoRA subjects of one base on the same replicas."""

    spec: ServingPoolSpec = Field(description="The base, and the replicas that hold it.")
    status: ServingPoolStatus = Field(default_factory=ServingPoolStatus, description="What the operator saw.")
