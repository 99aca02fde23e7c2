"""Prometheus metrics of a server: requests, stages of searches, queues, collections."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from api.service import Service

_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)


class Metrics:
    """The metrics of one server; each server has its own, so that several can live in a process."""

    def __init__(self, service: "Service") -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "grapnel_requests", "Requests answered", ("method", "route", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "grapnel_request_seconds",
            "Time to answer a request",
            ("method", "route"),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._stages = Histogram(
            "grapnel_search_stage_seconds",
            "Time of a search's batch in one stage",
            ("stage",),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._registry.register(_State(service))

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)

    def stages(self, timings_s: Iterable[tuple[str, float]]) -> None:
        """Count the stages of one search."""
        for stage, seconds in timings_s:
            self._stages.labels(stage).observe(seconds)

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self._registry)


class _State(Collector):
    """What the service has now, read when it is asked for."""

    def __init__(self, service: "Service") -> None:
        self._service = service

    def describe(self) -> "Iterable[Metric]":
        """Return nothing: the service is not ready when this is registered."""
        return ()

    def collect(self) -> "Iterator[Metric]":
        """Yield the metrics."""
        service = self._service
        ready = GaugeMetricFamily("grapnel_ready", "1 once models are loaded and collections open")
        ready.add_metric((), float(service.ready))
        yield ready
        pending = GaugeMetricFamily("grapnel_pending_calls", "Calls that run or wait", labels=("kind",))
        pending.add_metric(("read",), service.reads.pending)
        pending.add_metric(("write",), service.writes.pending)
        yield pending
        queued = GaugeMetricFamily("grapnel_queued_searches", "Searches that wait", labels=("collection", "lane"))
        batches = CounterMetricFamily("grapnel_search_batches", "Batches answered", labels=("collection",))
        searches = CounterMetricFamily("grapnel_searches", "Searches answered", labels=("collection",))
        rejected = CounterMetricFamily("grapnel_rejected_searches", "Refused: queue full", labels=("collection",))
        expired = CounterMetricFamily("grapnel_expired_searches", "Not begun in time", labels=("collection",))
        for served in service.registry.all():
            if served.searches is None:
                continue
            statistics = served.searches.statistics()
            for lane, count in statistics.queued.items():
                queued.add_metric((served.name, lane), count)
            batches.add_metric((served.name,), statistics.batches)
            searches.add_metric((served.name,), statistics.items)
            rejected.add_metric((served.name,), statistics.rejected)
            expired.add_metric((served.name,), statistics.expired)
        yield from (queued, batches, searches, rejected, expired)
