"""The operator's own metrics. No label takes a value that a user can choose."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from dreambooth_api.reasons import ModelPhase, Phase
from dreambooth_operator.analysis import Fault

_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

RECONCILES = Histogram("dreambooth_reconcile_duration_seconds", "Time of one reconcile.", ["kind"], buckets=_SECONDS)
QUEUE_DELAY = Histogram(
    "dreambooth_reconcile_queue_delay_seconds",
    "Time from an event to the begin of its reconcile.",
    ["kind"],
    buckets=(*_SECONDS, 30, 60),
)
ERRORS = Counter("dreambooth_reconcile_errors_total", "Reconciles that failed and are tried again.", ["kind", "reason"])
API_REQUESTS = Counter("dreambooth_api_requests_total", "Requests to the API server.", ["verb"])
WATCH_ERRORS = Counter(
    "dreambooth_watch_errors_total", "Lists and watches that failed and are tried again, by HTTP status; 0: no answer.",
    ["kind", "code"],
)  # fmt: skip
GPU_SECONDS = Counter(
    "dreambooth_training_gpu_seconds_total",
    "GPU time of training pods that ended: useful, or wasted (after the last checkpoint of a pod that failed).",
    ["outcome"],
)
USEFUL, WASTED = (GPU_SECONDS.labels(outcome) for outcome in ("useful", "wasted"))
_ROLLED_BACK = Counter(
    "dreambooth_canaries_rolled_back_total", "Canaries that were rolled back: for their errors, or their duration.",
    ["reason"],
)  # fmt: skip
# Made at once, also with 0: what appears with 1 has not risen.
ROLLED_BACK = {fault: _ROLLED_BACK.labels(fault) for fault in Fault}
LEADER = Gauge("dreambooth_operator_leader", "1 on the replica that leads, 0 on one that stands by.")


class Census(Collector):
    """Objects by phase, as the informers' caches count them; only of the replica that leads: a sum over all replicas
    would count every object twice."""

    def __init__(
        self,
        jobs: Callable[[], Mapping[str, int]],
        models: Callable[[], Mapping[str, int]],
        pools: Callable[[], Mapping[str, int]],
    ) -> None:
        self._jobs, self._models, self._pools = jobs, models, pools

    def collect(self) -> Iterator[Metric]:
        """Every phase has its series, also with 0: a rate over a series that comes and goes is none."""
        yield _by_phase("dreambooth_jobs", "DreamBoothJobs by phase.", self._jobs(), [p.value for p in Phase])
        phases = [p.value for p in ModelPhase]
        yield _by_phase("dreambooth_models", "PersonalizedModels by phase.", self._models(), phases)
        yield _by_phase("dreambooth_pools", "ServingPools by what their conditions say.", self._pools(), phases)


def _by_phase(name: str, text: str, found: Mapping[str, int], phases: list[str]) -> Metric:
    """A label must not take any value that a status may have: what is none of the known phases counts as pending."""
    odd = sum(count for phase, count in found.items() if phase not in phases)
    family = GaugeMetricFamily(name, text, labels=["phase"])
    for phase in phases:
        family.add_metric([phase], found.get(phase, 0) + (odd if phase == "Pending" else 0))
    return family
