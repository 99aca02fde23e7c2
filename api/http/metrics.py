"""Prometheus metrics of a server: requests, stages of searches, queues, collections, jobs."""

import re
from collections import Counter as Tally
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from api.service import Service
    from retrieval.types import Ranking

_NOTE = re.compile("[a-z_]*")
"""How a note begins: what was degraded, without how much or why."""

_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)


class Metrics:
    """The metrics of one server; each server has its own, so that several can live in a process."""

    def __init__(self, service: "Service") -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "grapnel_requests",
            "Requests; status 499: its client left",
            ("method", "route", "status"),
            registry=self._registry,
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
        self._notes = Counter(
            "grapnel_search_notes", "Answers that were degraded or adjusted", ("note",), registry=self._registry
        )
        self._registry.register(_State(service))

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)

    def search(self, ranking: "Ranking") -> None:
        """Count the stages of one search, and what kept it from being answered as asked."""
        for stage, seconds in ranking.timings_s.items():
            self._stages.labels(stage).observe(seconds)
        for note in ranking.notes:
            found = _NOTE.match(note)
            self._notes.labels(found[0] if found else "").inc()

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
        pending.add_metric(("write",), sum(served.writes.pending for served in service.registry.all()))
        pending.add_metric(("model",), service.model_calls.pending)
        pending.add_metric(("phrase",), service.phrase_calls.pending)
        pending.add_metric(("change",), service.changes.pending)
        yield pending
        yield from self._searches()
        yield from self._upkeep()

    def _searches(self) -> "Iterator[Metric]":
        queued = GaugeMetricFamily("grapnel_queued_searches", "Searches that wait", labels=("collection", "lane"))
        batches = CounterMetricFamily("grapnel_search_batches", "Batches answered", labels=("collection",))
        searches = CounterMetricFamily("grapnel_searches", "Searches answered", labels=("collection",))
        rejected = CounterMetricFamily("grapnel_rejected_searches", "Refused: queue full", labels=("collection",))
        expired = CounterMetricFamily("grapnel_expired_searches", "Not begun in time", labels=("collection",))
        for served in self._service.registry.all():
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

    def _upkeep(self) -> "Iterator[Metric]":
        compacting = GaugeMetricFamily("grapnel_compacting", "1 while it is compacted", labels=("collection",))
        states = GaugeMetricFamily("grapnel_collections", "Collections by state", labels=("state",))
        running = GaugeMetricFamily("grapnel_running_jobs", "Jobs that run", labels=("kind",))
        ended = CounterMetricFamily("grapnel_ended_jobs", "Jobs that have ended", labels=("kind", "state"))
        every, jobs = self._service.registry.all(), self._service.jobs
        for served in every:
            compacting.add_metric((served.name,), float(served.compacting))
        for state, count in Tally(served.state for served in every).items():
            states.add_metric((state,), count)
        for kind, count in Tally(job.kind for job in jobs.all() if job.state == "running").items():
            running.add_metric((kind,), count)
        for labels, count in jobs.ended().items():
            ended.add_metric(labels, count)
        yield from (compacting, states, running, ended)
