"""What was observed, and what was decided upon it: the two sides of the pure middle."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple

from dreambooth_api.adapters import AdapterState
from dreambooth_api.model import PersonalizedModelStatus
from dreambooth_api.reasons import Reason
from dreambooth_api.result import Report
from dreambooth_api.routes import Traffic
from dreambooth_operator.analysis import Fault
from dreambooth_operator.traffic import NOTHING as NO_TRAFFIC
from dreambooth_operator.traffic import UNKNOWN, Demand

Body = dict[str, Any]
EventType = Literal["Normal", "Warning"]


class Key(NamedTuple):
    """An object to reconcile."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


class ChildRef(NamedTuple):
    """A child by kind and name."""

    kind: str
    name: str


class Problem(NamedTuple):
    """What is wrong, for a condition."""

    reason: Reason
    message: str


class Heartbeat(NamedTuple):
    """For how many seconds a node's kubelet has not been heard of, and for how many it may be silent."""

    silent: float
    allowed: float


class Told(NamedTuple):
    """An event about an object."""

    type: EventType
    reason: str
    message: str
    # Two tellings with the same occasion are one event.
    occasion: str
    # The later, the higher, of what may be told of one object within a second.
    place: int


@dataclass(frozen=True)
class View:
    """An object and its surroundings, at one moment."""

    body: Body
    now: datetime
    # Children that are ours, by kind and name.
    children: dict[ChildRef, Body] = field(default_factory=dict)
    # Names that are taken: by a child on its way out (it will be gone soon) or by somebody else's object.
    leaving: frozenset[ChildRef] = frozenset()
    foreign: frozenset[ChildRef] = frozenset()
    # Children whose live form was left as it is after an apply of the same manifest, although they look different.
    settled: frozenset[tuple[ChildRef, str, Any]] = frozenset()

    @property
    def name(self) -> str:
        return self.body["metadata"]["name"]

    @property
    def namespace(self) -> str:
        return self.body["metadata"]["namespace"]

    @property
    def uid(self) -> str:
        return self.body["metadata"]["uid"]

    @property
    def generation(self) -> int:
        return self.body["metadata"].get("generation", 1)

    @property
    def deleted(self) -> bool:
        return bool(self.body["metadata"].get("deletionTimestamp"))

    def child(self, kind: str, name: str) -> Body | None:
        """The child, unless it is absent or on its way out."""
        return self.children.get(ChildRef(kind, name))


@dataclass(frozen=True)
class JobView(View):
    """A DreamBoothJob, its Jobs' pods, and what was heard from them."""

    prepare_pods: tuple[Body, ...] = ()
    train_pods: tuple[Body, ...] = ()
    # The PersonalizedModel of the name that the job publishes under, whoever made it.
    model: Body | None = None
    # An input that is not there: looked up only as long as nothing was started.
    missing: Problem | None = None
    report: Report | None = None
    # Which pod, by its uid, gave that report, and when.
    answered: tuple[str, datetime] | None = None
    # Of the nodes on which its pods run, as far as they are watched.
    heartbeats: dict[str, Heartbeat] = field(default_factory=dict)
    # What was said of a Job whose pods are not let be made.
    complaint: str | None = None
    # Training pods that were seen to take another one's place, since the job began.
    restarts: int = 0


@dataclass(frozen=True)
class ModelView(View):
    """A PersonalizedModel, its pods, and the job that it refers to."""

    # As it is in the body, parsed.
    status: PersonalizedModelStatus = field(default_factory=PersonalizedModelStatus)
    # Its own, of the endpoint and of the canary.
    pods: tuple[Body, ...] = ()
    job: Body | None = None
    missing: Problem | None = None
    # The pool that it names, and what a replica of that said of the artifact.
    pool: Body | None = None
    adapter: AdapterState | None = None
    demand: Demand = UNKNOWN
    # What gateways saw of the canary since its step began.
    seen: Traffic = field(default_factory=lambda: NO_TRAFFIC)
    # The Secret with the API keys is not there.
    locked: Problem | None = None


@dataclass(frozen=True)
class PoolView(View):
    """A ServingPool, its pods, and what is asked of its subjects."""

    pods: tuple[Body, ...] = ()
    missing: Problem | None = None
    subjects: int = 0
    # Subjects whose artifact no replica has verified yet.
    unverified: int = 0
    demand: Demand = UNKNOWN


@dataclass(frozen=True)
class Decision:
    """What is to be written, in this order: replicas, events, status, children; and when to look again."""

    # Names of Deployments, and how many replicas they are to have.
    scale: tuple[tuple[str, int], ...] = ()
    told: tuple[Told, ...] = ()
    # The whole new status; None: it is as it should be.
    status: Body | None = None
    apply: tuple[Body, ...] = ()
    # Names of Jobs, and whether they are to be suspended.
    suspend: tuple[tuple[str, bool], ...] = ()
    delete: tuple[ChildRef, ...] = ()
    # What the status rolls a canary back for.
    fault: Fault | None = None
    # Seconds; None: only when something happens.
    again: float | None = None


NOTHING = Decision()
