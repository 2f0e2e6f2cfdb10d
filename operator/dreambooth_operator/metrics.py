"""The operator's own metrics."""

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from dreambooth_api.reasons import ModelPhase, Phase
from dreambooth_operator.views import Body

RECONCILES = Histogram(
    "dreambooth_reconcile_duration_seconds",
    "Time of one reconcile.",
    ["kind"],
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
ERRORS = Counter("dreambooth_reconcile_errors_total", "Reconciles that failed and are tried again.", ["kind", "reason"])
API_REQUESTS = Counter("dreambooth_api_requests_total", "Requests to the API server, without watches.", ["verb"])


class Census(Collector):
    """Objects by phase, counted in the informers' caches when somebody asks."""

    def __init__(self, jobs: Callable[[], Iterable[Body]], models: Callable[[], Iterable[Body]]) -> None:
        self._jobs, self._models = jobs, models

    def collect(self) -> Iterator[Metric]:
        """Every phase has its series, also with 0: a rate over a series that comes and goes is none."""
        yield _by_phase("dreambooth_jobs", "DreamBoothJobs by phase.", self._jobs(), [p.value for p in Phase])
        phases = [p.value for p in ModelPhase]
        yield _by_phase("dreambooth_models", "PersonalizedModels by phase.", self._models(), phases)


def _by_phase(name: str, text: str, bodies: Iterable[Body], phases: list[str]) -> Metric:
    tally = Tally(phase_of(body, phases) for body in bodies)
    family = GaugeMetricFamily(name, text, labels=["phase"])
    for phase in phases:
        family.add_metric([phase], tally[phase])
    return family


def phase_of(body: Body, phases: list[str]) -> str:
    """A resource's phase, of the known ones: a label must not take any value a status may have."""
    found = (body.get("status") or {}).get("phase")
    return found if found in phases else "Pending"
