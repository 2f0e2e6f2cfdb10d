"""`PersonalizedModel`: one subject's endpoint."""

from pydantic import Field

from dreambooth_api import names
from dreambooth_api.base import ApiModel
from dreambooth_api.conditions import Condition
from dreambooth_api.reasons import ModelPhase
from dreambooth_api.serving import Rollout, Serving
from dreambooth_api.uris import ARTIFACT_PATTERN, NO_CLIMBING


class Artifact(ApiModel):
    """A trained subject in the store, by content."""

    __cel__ = (NO_CLIMBING,)

    uri: str = Field(pattern=ARTIFACT_PATTERN, max_length=1024, description="The folder with `model.json`.")
    digest: str = Field(
        pattern=r"^sha256:[0-9a-f]{64}$", description="`sha256:<hex>` over its files; verified on loading."
    )


class JobReference(ApiModel):
    """A DreamBoothJob of the same namespace."""

    name: str = Field(min_length=1, max_length=253, pattern=names.OBJECT_PATTERN, description="The job's name.")


class PersonalizedModelSpec(ApiModel):
    """What is served, and how."""

    __cel__ = (
        ("has(self.artifact) != has(self.jobRef)", "exactly one of artifact and jobRef must be given", ".artifact"),
    )

    artifact: Artifact | None = Field(None, description="The artifact to serve.")
    job_ref: JobReference | None = Field(None, description="Serve what this job published.")
    serving: Serving = Field(Serving(), description="Replicas and scaling.")
    rollout: Rollout = Field(Rollout(), description="How a new artifact takes over.")


class Revision(ApiModel):
    """One artifact that is, or was, rolled out."""

    digest: str = Field(description="Its digest.")
    uri: str | None = Field(None, description="Where it is: what `spec.artifact` needs to go back to it.")
    weight: int = Field(ge=0, le=100, description="Its share of the traffic, percent.")
    ready: bool = Field(
        description="Whether its replicas are ready; of a `Shared` model: whether its pool verified it."
    )
    promoted: bool = Field(False, description="Whether it ever had all of the traffic.")
    backend: str | None = Field(
        None, description="What draws it: `model/…`, `canary/…` or `pool/…`, with the namespace and the name."
    )


class RolloutStatus(ApiModel):
    """A canary on its way, or the one that was rolled back."""

    digest: str = Field(description="The artifact that is tried.")
    generation: int = Field(ge=0, description="The generation of the spec that began it, or that it failed under.")
    step: int = Field(0, ge=0, description="Which of `spec.rollout.steps` it is at; one more than there are: promoted.")
    since: str | None = Field(None, description="Since when it is watched at this step; absent: its pods are starting.")
    failure: str | None = Field(None, description="Why it was rolled back: it is not tried again until `spec` changes.")


class PersonalizedModelStatus(ApiModel):
    """What the operator saw."""

    observed_generation: int | None = Field(None, description="The generation of the spec that this is about.")
    phase: ModelPhase | None = Field(None, description="Where the model is.")
    conditions: list[Condition] = Field([], description="`Ready` and `Progressing`.")
    url: str | None = Field(None, description="The endpoint inside the cluster, for OpenAI's clients.")
    replicas: int = Field(0, ge=0, description="Replicas that are there.")
    ready_replicas: int = Field(0, ge=0, description="Replicas that are ready.")
    selector: str | None = Field(None, description="Label selector of the endpoint's pods, for autoscalers.")
    revisions: list[Revision] = Field([], description="Artifacts rolled out, newest first.")
    rollout: RolloutStatus | None = Field(None, description="The canary, as long as there is one, or why it failed.")


class PersonalizedModel(ApiModel):
    """Serves one personalised subject at a URL of its own."""

    spec: PersonalizedModelSpec = Field(description="What is served, and how.")
    status: PersonalizedModelStatus = Field(
        default_factory=PersonalizedModelStatus, description="What the operator saw."
    )
