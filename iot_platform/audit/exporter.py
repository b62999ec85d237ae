"""`iot metrics`: the audit, the drain's lag and the stored messages as Prometheus metrics; lives through outages of what it looks at."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

import psycopg2
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from iot_platform.audit.audit import EVERYTHING, run_audit
from iot_platform.audit.result import AuditResult
from iot_platform.audit.totals import Totals
from iot_platform.audit.window import window_start
from iot_platform.database import DatabaseError, connect
from iot_platform.kafka.errors import KafkaUnavailableError
from iot_platform.kafka.watermarks import TopicOffsets
from iot_platform.logs import get_logger
from iot_platform.settings import Settings, SettingsError
from iot_platform.telemetry.drain.known_cuts import cuts_since
from iot_platform.telemetry.drain.partition_state import PartitionState, Problem, look

log = get_logger(__name__)

LOOK_SECONDS: Final = 15.0
AUDIT_SECONDS: Final = 300.0
STATEMENT_SECONDS: Final = 120.0
STUCK_SECONDS: Final = 4 * STATEMENT_SECONDS + 120.0
"""Without a step for this long /healthz fails: an audit of four queries at their limit, and the waits around it."""


@dataclass
class Picture:
    """What the metrics say. Replaced piece by piece by the one thread that looks."""

    up: dict[str, bool] = field(default_factory=dict)
    partitions: dict[int, PartitionState] = field(default_factory=dict)
    log_cuts: int = 0
    totals: Totals = field(default_factory=Totals)
    audit: AuditResult | None = None
    stepped_at: float = field(default_factory=time.monotonic)


class Exporter(Collector):
    """Looks every LOOK_SECONDS, and audits every AUDIT_SECONDS, until it is stopped; renders from what it saw last."""

    def __init__(self, settings: Settings, look_seconds: float = LOOK_SECONDS, audit_seconds: float = AUDIT_SECONDS) -> None:
        self._settings = settings
        self._look_seconds, self._audit_seconds = look_seconds, audit_seconds
        self._audited_at = -float("inf")
        self._passed_at: float | None = None
        self._failed_since: float | None = None
        self.picture = Picture()

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set."""
        while not stop.is_set():
            self._step("database", lambda: self.picture.totals.update(self._settings))
            self._step("kafka", self._look_at_lag)
            if time.monotonic() - self._audited_at >= self._audit_seconds:
                self._step("database", self._audit)
            stop.wait(self._look_seconds)

    def _step(self, server: str, look: Callable[[], None]) -> None:
        """One look; a server that does not answer is a value of a gauge, not the end."""
        try:
            look()
        except (DatabaseError, KafkaUnavailableError, psycopg2.Error) as error:
            name = "kafka" if isinstance(error, KafkaUnavailableError) else "database"
            if self.picture.up.get(name, True):
                log.warning("server does not answer", server=name, error=" ".join(str(error).split()))
            self.picture.up[name] = False
        else:
            self.picture.up[server] = True
        self.picture.stepped_at = time.monotonic()

    def _look_at_lag(self) -> None:
        with closing(connect(self._settings, application_name="iot-metrics")) as connection:
            self.picture.log_cuts = len(cuts_since(connection, self._settings.kafka_topic))
            with TopicOffsets(self._settings) as topic:
                self.picture.partitions = look(self._settings, connection, topic).partitions

    def _audit(self) -> None:
        now = time.time()
        since = window_start(now, self._passed_at, self._failed_since)
        result = run_audit(self._settings, since=datetime.fromtimestamp(since, UTC), wait_seconds=10, statement_seconds=STATEMENT_SECONDS)
        self._passed_at, self._failed_since = (now, None) if result.ok else (self._passed_at, since)
        self._audited_at = time.monotonic()
        for difference in result.differences[:20]:
            log.error("audit difference", kind=difference.kind, text=difference.text)
        self.picture.audit = result

    def healthy(self) -> bool:
        """Whether the loop makes progress."""
        return time.monotonic() - self.picture.stepped_at < STUCK_SECONDS

    def collect(self) -> Iterator[Metric]:
        """The metrics, from what was seen last."""
        seen = self.picture
        up = GaugeMetricFamily("iot_server_up", "1 while the server answers the platform's exporter.", labels=["server"])
        for server, answers in sorted(seen.up.items()):
            up.add_metric([server], int(answers))
        yield up
        lag = GaugeMetricFamily(
            "iot_drain_lag_messages",
            "Messages in Kafka that the database has not taken; below 0: Kafka has fewer than were drained.",
            labels=["partition"],
        )
        problem = GaugeMetricFamily(
            "iot_drain_problem", "1 while a partition cannot simply go on at its next offset.", labels=["partition", "problem"]
        )
        for partition, state in sorted(seen.partitions.items()):
            lag.add_metric([str(partition)], state.lag)
            for name in Problem:
                problem.add_metric([str(partition), name], int(state.problem is name))
        yield lag
        yield problem
        yield CounterMetricFamily(
            "iot_kafka_log_cuts", "How often Kafka's log turned out to have been cut (ledger, one year, 100 at most).", value=seen.log_cuts
        )
        yield CounterMetricFamily(
            "iot_stored_messages", "Rows written to message, those marked as duplicates included.", value=seen.totals.stored
        )
        quarantined = CounterMetricFamily("iot_quarantined_messages", "Rows written to quarantine.", labels=["reason"])
        for reason, count in sorted(seen.totals.quarantined.items()):
            quarantined.add_metric([reason], count)
        yield quarantined
        yield CounterMetricFamily(
            "iot_sparkplug_sequence_gaps",
            "Jumps of the sequence numbers of Sparkplug B edge nodes: messages did not reach the platform.",
            value=seen.totals.sequence_gaps,
        )
        yield CounterMetricFamily(
            "iot_sparkplug_sequence_missing", "Sequence numbers that these jumps left out, at least.", value=seen.totals.sequence_missing
        )
        if seen.audit is not None:
            differences = GaugeMetricFamily("iot_audit_differences", "Differences that the last audit found; must be 0.", labels=["proof"])
            for proof in EVERYTHING:
                differences.add_metric([proof], seen.audit.counts.get(proof, 0))
            yield differences
            yield GaugeMetricFamily("iot_audit_timestamp_seconds", "When the last audit was finished.", value=seen.audit.at.timestamp())


def serve(exporter: Exporter, host: str, port: int, *others: Collector) -> ThreadingHTTPServer:
    """Answer /metrics (of the others, too) and /healthz from threads. Raises SettingsError when the port is taken."""
    registry = CollectorRegistry()
    for collector in (exporter, *others):
        registry.register(collector)

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._answer(200, CONTENT_TYPE_LATEST, generate_latest(registry))
            elif path == "/healthz":
                ok = exporter.healthy()
                self._answer(200 if ok else 503, "application/json", json.dumps({"ok": ok}).encode() + b"\n")
            else:
                self._answer(404, "text/plain; charset=utf-8", b"/metrics /healthz\n")

        def _answer(self, status: int, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's signature
            """Quiet: scrapes come every few seconds."""

    try:
        server = ThreadingHTTPServer((host, port), Handler)
    except OSError as error:
        raise SettingsError(f"IOT_METRICS_PORT: can't listen on {host}:{port}: {error.strerror}") from error
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.5}, name="http", daemon=True).start()
    return server
