"""What Prometheus asks for: counters that requests leave behind, gauges taken when it asks.

A registry of our own, so that nothing else in the process shows up in it. Counting costs a few
microseconds and never waits; rendering happens in a thread.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from os import sysconf
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from runtime.leases import Loaded
from schemas import limits
from schemas.version import VERSION

_OTHER: Final = "other"
_REQUEST: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_WAIT: Final = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_TOKEN: Final = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5)
_LOAD: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_STATM: Final = Path("/proc/self/statm")

disable_created_metrics()  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class ModelMetrics:
    """The counters of one model, looked up once per request.

    Attributes:
        queue: Seconds until the request's turn came, loading included.
        first: Seconds until the first piece of the answer.
        gap: Seconds between two pieces of it.
        prompt: Tokens of prompts.
        cached: Of these, taken over from earlier requests.
        output: Tokens made.
    """

    queue: Histogram
    first: Histogram
    gap: Histogram
    prompt: Counter
    cached: Counter
    output: Counter


class Metrics:
    """Everything under ``/metrics``; the names are part of the interface (docs/operations.md)."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.started = time.time()
        self._requests = self._counter("requests", "Requests answered", "route", "status")
        self._seconds = self._histogram(
            "request_seconds", "From a request's first byte to its answer's last", _REQUEST, "route"
        )
        self._rejected = self._counter("rejected", "Requests turned away, by why", "reason")
        self._errors = self._counter("errors", "Requests that failed, by error code", "code")
        self._queue = self._histogram(
            "queue_seconds", "Until a request's turn came, loading included", _WAIT, "model"
        )
        self._first = self._histogram(
            "first_token_seconds", "From a request's arrival to its first token", _WAIT, "model"
        )
        self._gap = self._histogram(
            "inter_token_seconds", "Between two pieces of an answer", _TOKEN, "model"
        )
        self._tokens = self._counter(
            "tokens", "Tokens; cached ones are part of the prompts", "model", "kind"
        )
        self._loads = self._counter("model_loads", "Models loaded, or not", "outcome")
        self._load_seconds = self._histogram(
            "model_load_seconds", "Until a model was loaded", _LOAD
        )
        self._lost = self._counter("audit_lost", "Lines of the log of requests that were lost")
        self._models: dict[str, ModelMetrics] = {}

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"sealift_{name}", text, labels, registry=self.registry)

    def _histogram(
        self, name: str, text: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        return Histogram(f"sealift_{name}", text, labels, buckets=buckets, registry=self.registry)

    def model(self, name: str) -> ModelMetrics:
        """The counters of a model that is in the store; there are ``METRICS_MODELS`` at most."""
        if name not in self._models and len(self._models) >= limits.METRICS_MODELS:
            name = _OTHER
        found = self._models.get(name)
        if found is None:
            found = self._models[name] = ModelMetrics(
                self._queue.labels(name),
                self._first.labels(name),
                self._gap.labels(name),
                *(self._tokens.labels(name, kind) for kind in ("prompt", "cached", "output")),
            )
        return found

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count a request.

        Args:
            route: Its pattern, of which there are few; never the path that a client wrote.
            status: Of the answer.
            seconds: In all.
        """
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def rejected(self, reason: str) -> None:
        """Count a request that was turned away."""
        self._rejected.labels(reason).inc()

    def failed(self, code: str) -> None:
        """Count a request that ended with an error."""
        self._errors.labels(code).inc()

    def loaded(self, seconds: float | None) -> None:
        """Count an attempt to load a model; None if it failed."""
        self._loads.labels("failed" if seconds is None else "ok").inc()
        if seconds is not None:
            self._load_seconds.observe(seconds)

    def lost(self, lines: int) -> None:
        """Count lines of the log of requests that could not be written."""
        self._lost.inc(lines)

    def render(self, accept: str, gauges: Iterable[Metric]) -> tuple[bytes, str]:
        """The whole document; takes milliseconds, so not in the event loop.

        Args:
            accept: The ``Accept`` header, for OpenMetrics.
            gauges: From :func:`gauges`.

        Returns:
            It, and its content type.
        """
        encode, content_type = choose_encoder(accept)
        return encode(_Together(self.registry, list(gauges))), content_type


class _Together(CollectorRegistry):
    """What has been counted and what holds now, in one document."""

    def __init__(self, counted: Collector, now: list[Metric]) -> None:
        super().__init__()
        self._counted, self._now = counted, now

    def collect(self) -> Iterator[Metric]:
        yield from self._counted.collect()
        yield from self._now


def gauges(
    loaded: Sequence[Loaded], waiting: int, started: float, expires: datetime | None = None
) -> list[Metric]:
    """What holds at this moment. Quick; called in the event loop, where nothing changes meanwhile.

    Args:
        loaded: Models in memory.
        waiting: Requests in the queue.
        started: When the server was started, seconds since 1970.
        expires: When its certificate does, if it has one.
    """
    build = GaugeMetricFamily("sealift_build_info", "The version", labels=("version",))
    build.add_metric((VERSION,), 1)
    found: list[Metric] = [
        build,
        GaugeMetricFamily("sealift_start_time_seconds", "When it was started", value=started),
        GaugeMetricFamily("sealift_queue_waiting", "Requests waiting", value=waiting),
    ]
    running = GaugeMetricFamily(
        "sealift_requests_running", "Requests being answered", labels=("model",)
    )
    memory = GaugeMetricFamily(
        "sealift_model_memory_bytes", "Memory of loaded models", labels=("model", "kind")
    )
    for entry in loaded:
        running.add_metric((entry.model.name,), entry.running)
        memory.add_metric((entry.model.name, "weights"), entry.ready.model_bytes)
        memory.add_metric((entry.model.name, "cache"), entry.ready.kv_bytes)
    found += [
        GaugeMetricFamily("sealift_models_loaded", "Models in memory", value=len(loaded)),
        running,
        memory,
    ]
    if expires is not None:
        text = "When the certificate expires"
        value = expires.timestamp()
        found.append(GaugeMetricFamily("sealift_certificate_expires_seconds", text, value=value))
    with suppress(OSError, ValueError, IndexError):
        pages = int(_STATM.read_text(encoding="ascii").split()[1])
        resident = float(pages * sysconf("SC_PAGE_SIZE"))
        text = "Memory of the front-end itself"
        found.append(GaugeMetricFamily("sealift_resident_memory_bytes", text, value=resident))
    return found
