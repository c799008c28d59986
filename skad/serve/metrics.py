"""What Prometheus reads at /metrics."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
)

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)


class Metrics:
    """The metrics of one service, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "skad_requests", "Answers by status", ["status"], registry=registry
        )
        self.verdicts = Counter(
            "skad_verdicts", "Verdicts", ["model", "action"], registry=registry
        )
        self.seconds = Histogram(
            "skad_inspection_seconds",
            "From a whole request to its verdict",
            buckets=_SECONDS,
            registry=registry,
        )
        self.reloads = Counter(
            "skad_model_reloads",
            "Model files that were replaced",
            ["model", "result"],
            registry=registry,
        )
        self.unreadable = Counter(
            "skad_watched_files_unreadable",
            "New files in the watched folder without a verdict",
            registry=registry,
        )
        self.dropped = Counter(
            "skad_webhooks_dropped",
            "Verdicts that the webhook misses, as too many waited",
            registry=registry,
        )
        self.waiting = Gauge(
            "skad_webhooks_waiting",
            "Verdicts that wait for the webhook",
            registry=registry,
        )
        self.queue = Gauge("skad_queue_length", "Requests under way", registry=registry)
        self.listeners = Gauge(
            "skad_event_listeners", "Listeners to events", registry=registry
        )
        self.drift = Gauge(
            "skad_drift_alarm", "1 after an alarm", ["model"], registry=registry
        )
