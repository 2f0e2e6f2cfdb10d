"""What Prometheus sees. Label values are bounded: subjects that are served, `base`, and `unknown`."""

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

UNKNOWN = "unknown"
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120)


@dataclass(frozen=True)
class Metrics:
    """One server's series, in a registry of their own."""

    registry: CollectorRegistry
    requests: Counter
    request_seconds: Histogram
    queue_seconds: Histogram
    images: Counter
    in_flight: Gauge
    loaded: Gauge


def make_metrics() -> Metrics:
    """Fresh series, all zero."""
    registry = CollectorRegistry()
    return Metrics(
        registry=registry,
        requests=Counter(
            "dreambooth_requests", "Requests for pictures, by HTTP status.", ["model", "code"], registry=registry
        ),
        request_seconds=Histogram(
            "dreambooth_request_duration_seconds", "From a request's arrival to its answer, seconds.", ["model"],
            buckets=_SECONDS, registry=registry,
        ),
        queue_seconds=Histogram(
            "dreambooth_queue_duration_seconds", "From joining the line to the work's begin, seconds.",
            buckets=_SECONDS, registry=registry,
        ),
        images=Counter("dreambooth_images", "Pictures drawn.", ["model"], registry=registry),
        in_flight=Gauge(
            "dreambooth_in_flight_requests", "Requests for pictures that wait or are drawn.", registry=registry
        ),
        loaded=Gauge(
            "dreambooth_model_loaded", "1 for each model that is loaded.", ["model", "digest"], registry=registry
        ),
    )  # fmt: skip
