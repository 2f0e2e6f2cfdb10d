"""Between none and one: what no autoscaler does. Pure.

A HorizontalPodAutoscaler leaves alone what has 0 replicas; so the operator takes the last replicas away when nobody
asks, and sets the first one going when somebody does. All between 1 and the most is the autoscaler's.
"""

from datetime import datetime

from dreambooth_api.conditions import Condition
from dreambooth_api.serving import Scaling
from dreambooth_operator import clock
from dreambooth_operator.traffic import Demand
from dreambooth_operator.views import Body

# How often it is looked at again while it is not known what gateways have, seconds.
UNKNOWN = 5.0


def replicas(deployment: Body | None) -> int:
    """How many replicas a Deployment is meant to have; a new one begins with 1."""
    return 1 if deployment is None else deployment["spec"].get("replicas", 1)


def waited_for(deployment: Body | None, demand: Demand) -> bool:
    """Whether somebody waits for a Deployment that sleeps: it is woken, whatever is wrong with what is to come next."""
    return deployment is not None and replicas(deployment) == 0 and bool(demand.waiting or demand.in_flight)


def wanted(current: int, scaling: Scaling, demand: Demand, ready_for: float, needed: bool) -> tuple[int, float | None]:
    """(replicas, when to look again). `ready_for`: seconds since it was ready first; `needed`: a replica must run
    whoever asks."""
    if current == 0:
        wake = needed or scaling.min_replicas > 0 or demand.waiting or demand.in_flight
        return (1 if wake else 0), None
    if scaling.min_replicas > 0 or needed:
        return current, None
    if demand.waiting or demand.in_flight or not demand.known:
        return current, UNKNOWN
    left = scaling.idle_seconds - min(demand.idle, ready_for)
    return (0, None) if left <= 0 else (current, max(0.2, left))


def ready_for(condition: Condition | None, now: datetime) -> float:
    """How long a Ready condition has been true, seconds; 0 when it is not."""
    if condition is None or condition.status != "True":
        return 0.0
    return clock.age(condition.last_transition_time, now)
