"""`metav1.Condition` and the one rule that matters: the transition time moves only when the status does."""

from datetime import UTC, datetime
from typing import Literal

from pydantic import Field

from dreambooth_api.base import ApiModel

ConditionStatus = Literal["True", "False", "Unknown"]


class Condition(ApiModel):
    """One aspect of a resource's state, as Kubernetes' own resources state it."""

    type: str = Field(max_length=316, description="What the condition is about, in CamelCase.")
    status: ConditionStatus = Field(description="True, False or Unknown.")
    observed_generation: int | None = Field(None, ge=0, description="The generation of the spec that was looked at.")
    last_transition_time: str = Field(description="When `status` last changed, RFC 3339.")
    reason: str = Field(max_length=1024, description="The cause in one CamelCase word.")
    message: str = Field("", max_length=32768, description="The cause in a sentence that says what to do.")


def now() -> str:
    """The current time as Kubernetes writes it: RFC 3339, UTC, whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def set_condition(conditions: list[Condition], new: Condition) -> list[Condition]:
    """`conditions` with `new` in the place of the one of its type; its transition time is kept while the status is."""
    old = next((c for c in conditions if c.type == new.type), None)
    if old is None:
        return [*conditions, new]
    if old.status == new.status:
        new = new.model_copy(update={"last_transition_time": old.last_transition_time})
    return [new if c.type == new.type else c for c in conditions]
