"""What operator and gateways tell each other: where requests go, and how many there are.

A gateway sends its GatewayReport with `POST /routes` and the chart's gateway token as its bearer; the operator answers
with Routes as soon as they differ from those that the gateway has, or with 204 after `HOLD_SECONDS`; a replica that
does not lead answers 503. A gateway that gets no answer goes on with what it has.
"""

from pydantic import Field

from dreambooth_api.base import ApiModel
from dreambooth_api.serving import ServingMode

HOLD_SECONDS = 2.0
# A report counts for so long; then its gateway is taken to be gone.
REPORT_SECONDS = 15.0
# Upper bounds of the durations that gateways count, seconds; what is longer is counted last.
BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0)


class Replica(ApiModel):
    """A pod that is ready, and not on its way out."""

    pod: str = Field(description="Its name.")
    address: str = Field(description="`host:port`.")


class Target(ApiModel):
    """One artifact of a subject."""

    digest: str = Field(description="`sha256:<hex>`.")
    uri: str = Field(description="Where a pool finds it.")
    weight: int = Field(ge=0, le=100, description="Its share of the subject's requests, percent.")
    backend: str = Field(description="The key in `Routes.backends` of the replicas that draw it.")


class KeyCheck(ApiModel):
    """Who may ask."""

    keys: dict[str, str] = Field(description="Name of a key → SHA-256 of the key, hex.")
    requests_per_minute: int | None = Field(
        None, description="Requests that each key may make in a minute: of all gateways together."
    )


class Route(ApiModel):
    """One subject."""

    namespace: str = Field(description="The model's namespace.")
    name: str = Field(description="The model's name.")
    mode: ServingMode = Field(description="`Shared` replicas are told which artifact a request is for.")
    targets: list[Target] = Field(description="Its artifacts; weights add up to 100. Empty: nothing can be served yet.")
    access: KeyCheck | None = Field(None, description="None: anybody may ask.")
    target_in_flight: int = Field(ge=1, description="Requests in flight that one replica is meant to carry.")
    max_replicas: int = Field(ge=1, description="The most replicas there can be.")
    reason: str = Field("", description="Why there is no target: what a client is told.")


class Routes(ApiModel):
    """Everything that can be asked for."""

    revision: str = Field(description="Changes with the content.")
    backends: dict[str, list[Replica]] = Field(description="Replicas by backend; none: asleep, or starting.")
    routes: list[Route] = Field(description="Subjects.")
    gateways: int = Field(1, ge=1, description="Gateways that take requests: each has its share of a key's rate.")


class Load(ApiModel):
    """How much one gateway has of one subject, at this moment."""

    in_flight: int = Field(ge=0, description="Requests that a replica works on.")
    waiting: int = Field(ge=0, description="Requests that are held until a replica has room, or is there at all.")
    idle_seconds: float = Field(ge=0, description="Since the last request, or the gateway's start, seconds.")


class Traffic(ApiModel):
    """What one gateway saw of one artifact since its own start: only ever grows."""

    requests: int = Field(ge=0, description="Requests that a replica answered, or should have.")
    errors: int = Field(ge=0, description="Those that ended with a 5xx, or without an answer.")
    durations: list[int] = Field(
        min_length=len(BOUNDS) + 1, max_length=len(BOUNDS) + 1, description="Requests by duration: within each bound."
    )


class GatewayReport(ApiModel):
    """One gateway's word."""

    gateway: str = Field(min_length=1, max_length=253, description="Which gateway: anew after each start.")
    revision: str = Field("", description="Of the routes that it has.")
    draining: bool = Field(False, description="It is about to end, and takes no share any more.")
    loads: dict[str, Load] = Field({}, description="By `namespace/name`.")
    traffic: dict[str, dict[str, Traffic]] = Field({}, description="By `namespace/name`, then by artifact digest.")
