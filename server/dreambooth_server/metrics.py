"""What Prometheus sees. Label values are bounded: subjects that are served, `base`, and `unknown`."""

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

UNKNOWN = "unknown"
SHARED = "shared"
"""All subjects of a pool: there may be thousands; the gateway counts each by itself."""
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120)
_STEPS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


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
    batch_size: Histogram
    step_seconds: Histogram
    swap_seconds: Histogram
    adapters: Gauge
    device_memory: Gauge
    process_start: Gauge
    start_seconds: Gauge


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
        batch_size=Histogram(
            "dreambooth_batch_size", "Pictures that shared a step.", buckets=(1, 2, 3, 4, 6, 8, 12, 16, 32, 64),
            registry=registry,
        ),
        step_seconds=Histogram(
            "dreambooth_step_duration_seconds", "One step of a batch, seconds.", buckets=_STEPS, registry=registry
        ),
        swap_seconds=Histogram(
            "dreambooth_swap_duration_seconds",
            "Until an adapter was in a slot (from memory or disk), or in memory (from the store), seconds.", ["tier"],
            buckets=_STEPS, registry=registry,
        ),
        adapters=Gauge("dreambooth_adapters", "Subjects by where they are kept.", ["tier"], registry=registry),
        device_memory=Gauge(
            "dreambooth_device_memory_bytes", "The GPU's memory in use by this process; without a GPU, the process's.",
            registry=registry,
        ),
        # prometheus_client's own is exact to the second, too little to take a start apart.
        process_start=Gauge(
            "process_start_time_seconds", "When the process began, seconds since 1970.", registry=registry
        ),
        start_seconds=Gauge(
            "dreambooth_start_duration_seconds", "What the start was made of, seconds.", ["stage"], registry=registry
        ),
    )  # fmt: skip
