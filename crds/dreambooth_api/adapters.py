"""What a pool's replica says of a subject: the operator asks with `POST /adapters` until it is settled."""

from enum import StrEnum

from pydantic import Field

from dreambooth_api.base import ApiModel
from dreambooth_api.reasons import Reason


class AdapterPhase(StrEnum):
    """How far a replica is with a subject."""

    FETCHING = "Fetching"
    READY = "Ready"
    FAILED = "Failed"


class AdapterRequest(ApiModel):
    """Have this subject at hand."""

    name: str = Field(min_length=1, max_length=253, description="The subject's name: what people call it in a prompt.")
    uri: str = Field(max_length=1024, description="The artifact's folder.")
    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$", description="What the artifact must be.")


class AdapterState(ApiModel):
    """The answer."""

    digest: str = Field(description="The artifact that was asked for.")
    phase: AdapterPhase = Field(description="`Ready`: verified and on the replica's disk at least.")
    reason: Reason | None = Field(None, description="Why it failed.")
    message: str = Field("", description="The cause in a sentence that says what to do.")
