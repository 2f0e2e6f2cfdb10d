"""What a trainer pod tells the operator: progress while it runs, a termination message (< 4 KiB) at its end."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, TypeAdapter

from dreambooth_api.base import ApiModel
from dreambooth_api.job import ArtifactStatus, CheckpointStatus, PriorStatus, Progress, RunStatus, Scores
from dreambooth_api.reasons import Phase, Reason

MAX_TERMINATION_BYTES = 4000
MAX_MESSAGE = 2000


def _shortened(text: object) -> object:
    """`text` cut to what a message may have: a fault must be reported, however much its library says about it."""
    return text[: MAX_MESSAGE - 1] + "…" if isinstance(text, str) and len(text) > MAX_MESSAGE else text


class Report(ApiModel):
    """`/progress` of a running trainer."""

    phase: Phase = Field(description="Preparing, Training, Scoring or Publishing.")
    progress: Progress = Field(Progress(), description="How far it is; for Preparing in class images.")
    run: RunStatus | None = Field(None, description="The MLflow run, once there is one.")
    checkpoint: CheckpointStatus | None = Field(None, description="The newest checkpoint.")
    best_checkpoint: CheckpointStatus | None = Field(None, description="The best scored checkpoint so far.")
    scores: Scores | None = Field(None, description="The scores of the best checkpoint.")
    warning: str | None = Field(None, description="What is amiss but does not stop the work, e.g. tracking is away.")
    warning_reason: Reason = Field(Reason.TRACKING_UNAVAILABLE, description="The cause of the warning.")


class PrepareResult(ApiModel):
    """The input is good, and the class images are in the store."""

    kind: Literal["Prepared"] = "Prepared"
    prior: PriorStatus | None = Field(None, description="The class images; absent without a prior.")
    dataset_digest: str = Field(description="`sha256:<hex>` over the pictures.")
    base_digest: str = Field(description="`sha256:<hex>` over the base's files.")
    images: int = Field(ge=1, description="Pictures of the subject.")


class TrainResult(ApiModel):
    """The training is over. Without an artifact the gate refused it, and `below_gate` says by how much."""

    kind: Literal["Trained"] = "Trained"
    progress: Progress = Field(description="The last state.")
    scores: Scores = Field(Scores(), description="Measured scores.")
    artifact: ArtifactStatus | None = Field(None, description="The published artifact.")
    below_gate: str | None = Field(None, description="Which scores missed the gate, and by how much.")
    run: RunStatus | None = Field(None, description="The MLflow run.")
    checkpoint: CheckpointStatus | None = Field(None, description="The newest checkpoint.")
    best_checkpoint: CheckpointStatus | None = Field(None, description="The checkpoint that was scored best.")


class Fault(ApiModel):
    """A process ended for a reason that is known."""

    kind: Literal["Fault"] = "Fault"
    reason: Reason = Field(description="The cause.")
    message: Annotated[str, BeforeValidator(_shortened)] = Field(
        max_length=MAX_MESSAGE, description="A sentence that says what to do."
    )


Result = PrepareResult | TrainResult | Fault
_RESULT: TypeAdapter[Result] = TypeAdapter(Result)


def dump_result(result: Result) -> str:
    """`result` as a termination message, shortened where it would exceed what Kubernetes keeps."""
    text = result.model_dump_json(by_alias=True, exclude_none=True)
    if len(text.encode()) <= MAX_TERMINATION_BYTES:
        return text
    # Only prose is cut: half a URI would be worse than none.
    if isinstance(result, Fault):
        return dump_result(result.model_copy(update={"message": result.message[: len(result.message) // 2] + "…"}))
    if isinstance(result, TrainResult) and result.below_gate and len(result.below_gate) > 1:
        half = result.below_gate[: len(result.below_gate) // 2] + "…"
        return dump_result(result.model_copy(update={"below_gate": half if len(half) > 2 else None}))
    return text


def load_result(text: str) -> Result | None:
    """The result in a termination message; None when there is none, as after a SIGKILL."""
    try:
        return _RESULT.validate_json(text)
    except ValueError:
        return None
