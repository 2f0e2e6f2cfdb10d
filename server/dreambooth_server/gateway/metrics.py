"""What Prometheus sees of a gateway. Label values are bounded: subjects that have a route, and `unknown`."""

from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from dreambooth_api import names
from dreambooth_server.gateway.table import Subject, Table
from dreambooth_server.gateway.tally import Tally

UNKNOWN: Subject = ("", "unknown")
_LABELS = ["namespace", "model"]
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120)
_PREFIX = "dreambooth_gateway_"


@dataclass(frozen=True)
class Metrics:
    """One gateway's series, in a registry of their own."""

    registry: CollectorRegistry
    requests: Counter
    request_seconds: Histogram
    hold_seconds: Histogram
    retries: Counter

    def forget(self, subject: Subject) -> None:
        """Drop the series of a subject that is no more."""
        for series in (self.request_seconds, self.hold_seconds, self.retries):
            series.remove_by_labels(dict(zip(_LABELS, subject, strict=True)))
        self.requests.remove_by_labels(dict(zip(_LABELS, subject, strict=True)))


def make_metrics(table: Table, tally: Tally) -> Metrics:
    """Fresh series, all zero; those of this moment are read from `tally`."""
    registry = CollectorRegistry()
    registry.register(_Now(table, tally))
    return Metrics(
        registry=registry,
        requests=Counter(
            f"{_PREFIX}requests", "Requests for pictures, by HTTP status.", [*_LABELS, "code"], registry=registry
        ),
        request_seconds=Histogram(
            f"{_PREFIX}request_duration_seconds", "From a request's arrival to its answer's end, seconds.", _LABELS,
            buckets=_SECONDS, registry=registry,
        ),
        hold_seconds=Histogram(
            f"{_PREFIX}hold_duration_seconds", "How long a request was held until a replica had room, seconds.",
            _LABELS, buckets=_SECONDS, registry=registry,
        ),
        retries=Counter(
            f"{_PREFIX}retries", "Requests that were sent to a replica once more.", _LABELS, registry=registry
        ),
    )  # fmt: skip


class _Now(Collector):
    """Series of this moment: those of idle subjects are 0, so that an autoscaler sees that nobody asks.

    Read by the thread that answers Prometheus: the table's dictionaries are replaced as a whole and never changed, and
    a count is read at once.
    """

    def __init__(self, table: Table, tally: Tally) -> None:
        self._table, self._tally = table, tally

    def describe(self) -> list[GaugeMetricFamily]:
        """None before the routes are known: the registry must not collect to find out."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """In flight and waiting by subject, in flight by pool."""
        tally = self._tally
        flying = GaugeMetricFamily(
            f"{_PREFIX}in_flight_requests", "Requests that are worked on or wait.", labels=_LABELS
        )
        waiting = GaugeMetricFamily(f"{_PREFIX}waiting_requests", "Requests that wait for a replica.", labels=_LABELS)
        for subject in self._table.routes:
            flying.add_metric(list(subject), tally.working[subject] + tally.waiting[subject])
            waiting.add_metric(list(subject), tally.waiting[subject])
        pools = GaugeMetricFamily(
            f"{_PREFIX}pool_in_flight_requests", "Requests that a pool works on, or that wait for it.",
            labels=["namespace", "pool"],
        )  # fmt: skip
        for key in self._table.pools():
            pools.add_metric(key.removeprefix(names.POOL_BACKEND).split("/", 1), tally.backends[key])
        return iter((flying, waiting, pools))
