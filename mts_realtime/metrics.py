"""Numbers about the sidecar: Prometheus metrics and the health report.

What belongs here: reading counters that the parts keep anyway, when somebody asks. Nothing is counted here, so that
a frame costs no more than its own work.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from mts_realtime.book import BookState
from mts_realtime.topics import BookTopic

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client.metrics_core import Metric

    from mts_realtime.histogram import Histogram
    from mts_realtime.sidecar import Sidecar

_PREFIX = "mts_realtime_"


class SidecarCollector(Collector):
    """Reads all parts of the sidecar at the moment of the scrape."""

    def __init__(self, sidecar: Sidecar) -> None:
        self._sidecar = sidecar

    def collect(self) -> Iterator[Metric]:
        """All metrics."""
        yield from self._traffic()
        yield from self._state()
        yield from self._delivery()

    def _traffic(self) -> Iterator[Metric]:
        side, pipeline = self._sidecar, self._sidecar.pipeline
        yield _counter("frames", "Frames handled.", ("exchange", "route"), pipeline.frames_by_route())
        yield _counter("quarantined_frames", "Frames that could not be read.", (), {(): pipeline.counters.quarantined})
        yield _counter("refused_requests", "Requests that an exchange refused.", (), {(): pipeline.counters.refused})
        yield _counter("unrouted_events", "Events of topics nobody asked for.", (), {(): pipeline.counters.unrouted})
        yield _counter(
            "dropped_frames",
            "Frames given up under overload.",
            ("kind",),
            {("conflated",): side.inbox.conflated, ("shed",): side.inbox.shed},
        )
        unknown = {
            (name, frame_type, member): count
            for name, exchange in pipeline.exchanges.items()
            for (frame_type, member), count in exchange.unknown_fields.items()
        }
        yield _counter(
            "unknown_fields", "Members of frames that nobody knows.", ("exchange", "frame", "member"), unknown
        )
        yield _gauge("inbox_frames", "Frames that wait to be handled.", (), {(): len(side.inbox)})
        yield _histogram("handling_lag_seconds", "From receipt to handling.", {(): side.inbox.lag}, ())
        lags = {(exchange,): lag for exchange, lag in pipeline.exchange_lag.items()}
        yield _histogram("exchange_lag_seconds", "From exchange time to receipt.", lags, ("exchange",))

    def _state(self) -> Iterator[Metric]:
        side, pipeline = self._sidecar, self._sidecar.pipeline
        yield _counter(
            "reconnects", "Connections that ended unasked.", ("exchange", "route"), side.supervisor.reconnects
        )
        rotations = {(exchange,): count for exchange, count in side.supervisor.rotations.items()}
        yield _counter("rotations", "Connections replaced on purpose.", ("exchange",), rotations)
        yield _counter("handovers", "Topics taken over by a newer connection.", (), {(): pipeline.counters.handovers})
        yield _counter("resyncs", "Books that broke and were built again.", ("exchange", "reason"), pipeline.broken)
        gaps = {(reason,): count for reason, count in pipeline.ledger.declared.items()}
        yield _counter("gaps", "Gaps declared.", ("reason",), gaps)
        yield _gauge("open_gaps", "Topics that are missing now.", (), {(): len(pipeline.ledger.still_open())})
        connections = Counter((session.plan.exchange,) for session in pipeline.sessions.values())
        yield _gauge("connections", "Open connections.", ("exchange",), connections)
        states: Counter[tuple[str, ...]] = Counter()
        live: Counter[tuple[str, ...]] = Counter()
        for (exchange, _), topic in pipeline.active.items():
            if isinstance(topic, BookTopic):
                states[exchange, topic.book.state.name] += 1
            for feed in topic.subscription.feeds:
                live[exchange, feed] += topic.live
        for exchange in pipeline.exchanges:
            for state in BookState:
                states[exchange, state.name] += 0
        yield _gauge("books", "Books by state.", ("exchange", "state"), states)
        yield _gauge("live_topics", "Topics that are known right now.", ("exchange", "dataset"), live)
        offsets = {(exchange,): offset / 1000.0 for exchange, offset in side.supervisor.clock_offset_ms.items()}
        yield _gauge("exchange_clock_offset_seconds", "Exchange's clock ahead of ours.", ("exchange",), offsets)
        yield _gauge("clock_drift_seconds", "Wall clock ahead of ours.", (), {(): side.clock.drift_ns() / 1e9})

    def _delivery(self) -> Iterator[Metric]:
        side, pipeline = self._sidecar, self._sidecar.pipeline
        tracker = pipeline.detector.tracker
        yield _counter(
            "opportunities",
            "Arbitrage opportunities.",
            ("change",),
            {("opened",): tracker.opened, ("expired",): tracker.expired},
        )
        yield _gauge("living_opportunities", "Arbitrage opportunities right now.", (), {(): len(tracker.living)})
        signals = {(kind.value,): count for kind, count in pipeline.detector.signals_raised.items()}
        yield _counter("signals", "Signals raised.", ("kind",), signals)
        rows = {(dataset,): count for dataset, count in pipeline.recorder.rows_added.items()}
        yield _counter("rows", "Rows collected for landing.", ("dataset",), rows)
        yield _counter("segments", "Segments written.", (), {(): side.writer.segments_written})
        shed = {(dataset,): count for dataset, count in side.writer.rows_shed.items()}
        yield _counter("shed_rows", "Rows given up because the disk refused them.", ("dataset",), shed)
        yield _gauge("waiting_rows", "Rows that wait for the disk.", (), {(): side.writer.waiting_rows})
        yield _gauge("landing_ok", "1 while segments can be written.", (), {(): float(not side.writer.problem)})
        if side.feed is not None:
            missed = side.feed.missed_by_gone + sum(outlet.missed_total for outlet in side.feed.outlets)
            yield _gauge("feed_clients", "Receivers of the live feed.", (), {(): len(side.feed.outlets)})
            yield _counter("feed_missed_messages", "Queued messages that slow receivers lost.", (), {(): missed})
        if side.redis is not None:
            delivered = {("delivered",): side.redis.delivered, ("failed",): side.redis.failures}
            yield _counter("redis_messages", "Messages for Redis.", ("result",), delivered)


def render_metrics(sidecar: Sidecar) -> bytes:
    """All metrics in Prometheus's text format."""
    collectors = CollectorRegistry(auto_describe=False)
    collectors.register(SidecarCollector(sidecar))
    return generate_latest(collectors)


def health_report(sidecar: Sidecar) -> dict[str, Any]:
    """What is well and what is not: ``ok``, ``degraded`` (something is missing) or ``down`` (nothing is live)."""
    pipeline = sidecar.pipeline
    exchanges: dict[str, dict[str, Any]] = {}
    for name in pipeline.exchanges:
        topics = [topic for (exchange, _), topic in pipeline.active.items() if exchange == name]
        exchanges[name] = {
            "topics": len(topics),
            "live": sum(topic.live for topic in topics),
            "connections": sum(session.plan.exchange == name for session in pipeline.sessions.values()),
            "problem": sidecar.supervisor.problems.get(name, ""),
        }
    live = sum(report["live"] for report in exchanges.values())
    whole = all(report["topics"] and report["live"] == report["topics"] for report in exchanges.values())
    status = "down" if not live else "ok" if whole and not sidecar.writer.problem else "degraded"
    return {
        "status": status,
        "exchanges": exchanges,
        "open_gaps": len(pipeline.ledger.still_open()),
        "landing_problem": sidecar.writer.problem,
        "waiting_rows": sidecar.writer.waiting_rows,
        "inbox_frames": len(sidecar.inbox),
        "lag_p99_s": min(sidecar.inbox.lag.quantile_s(0.99), 1e9),
    }


def health_line(report: Mapping[str, Any]) -> str:
    """The report of ``health_report`` in one line, for logs."""
    exchanges = ", ".join(
        f"{name} {state['live']} of {state['topics']} topics live"
        + (f" ({state['problem']})" if state["problem"] else "")
        for name, state in report["exchanges"].items()
    )
    landing = f"; {report['landing_problem']}, {report['waiting_rows']} rows wait" if report["landing_problem"] else ""
    return (
        f"{report['status']}: {exchanges}; {report['open_gaps']} gaps open; {report['inbox_frames']} frames wait; "
        f"lag p99 {report['lag_p99_s'] * 1000:g} ms{landing}"
    )


def _counter(name: str, text: str, labels: tuple[str, ...], values: Mapping[Any, float]) -> Metric:
    family = CounterMetricFamily(_PREFIX + name, text, labels=labels)
    for key, value in values.items():
        family.add_metric([str(part) for part in key], value)
    return family


def _gauge(name: str, text: str, labels: tuple[str, ...], values: Mapping[Any, float]) -> Metric:
    family = GaugeMetricFamily(_PREFIX + name, text, labels=labels)
    for key, value in values.items():
        family.add_metric([str(part) for part in key], value)
    return family


def _histogram(name: str, text: str, values: Mapping[Any, Histogram], labels: tuple[str, ...]) -> Metric:
    family = HistogramMetricFamily(_PREFIX + name, text, labels=labels)
    for key, histogram in values.items():
        family.add_metric([str(part) for part in key], histogram.cumulative(), histogram.sum_s)
    return family
