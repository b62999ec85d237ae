"""`iot metrics`: looks at the servers again and again, and lives through their outages; what it saw last is what /metrics says."""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Final

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from iot_platform.audit.audit import EVERYTHING, run_audit
from iot_platform.audit.window import window_start
from iot_platform.logs import get_logger
from iot_platform.metrics.broker_look import BrokerLook
from iot_platform.metrics.dagster_look import DagsterLook
from iot_platform.metrics.database_looks import look_at_database, look_at_kafka, look_at_storage
from iot_platform.metrics.look import take
from iot_platform.metrics.totals import Totals
from iot_platform.metrics.values import Values
from iot_platform.settings import Settings

log = get_logger(__name__)

LOOK_SECONDS: Final = 15.0
AUDIT_SECONDS: Final = 300.0
STATEMENT_SECONDS: Final = 120.0
STUCK_SECONDS: Final = 4 * STATEMENT_SECONDS + 120.0
"""Without a step for this long /healthz fails: an audit of four queries at their limit, and the waits around it."""
LOOKS: Final = ("totals", "database", "kafka", "dagster", "audit", "storage")


class Exporter(Collector):
    """Looks every LOOK_SECONDS, and at the audit and the storage every AUDIT_SECONDS, until it is stopped. A server that does not answer
    is a value of a gauge; figures stay as they were seen last, and iot_look_timestamp_seconds tells when that was."""

    def __init__(self, settings: Settings, look_seconds: float = LOOK_SECONDS, audit_seconds: float = AUDIT_SECONDS) -> None:
        self._settings = settings
        self._look_seconds, self._audit_seconds = look_seconds, audit_seconds
        self._audited_at = -float("inf")
        self._passed_at: float | None = None
        self._failed_since: float | None = None
        self._stepped_at = time.monotonic()
        self._totals = Totals()
        self._dagster = DagsterLook()
        self._broker = BrokerLook(settings) if settings.metrics_mqtt_url else None
        self.values = Values()
        self.values.put("iot_look_timestamp_seconds", {(look,): 0 for look in LOOKS})
        self.values.put("iot_audit_differences", {(proof,): 0 for proof in EVERYTHING})
        self.values.put_histograms("iot_freshness_seconds", {(): self._totals.freshness})

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set."""
        settings, values = self._settings, self.values
        while not stop.is_set():
            self._step("totals", "database", self._look_at_totals)
            self._step("database", "database", lambda: look_at_database(settings, values))
            self._step("kafka", "kafka", lambda: look_at_kafka(settings, values))
            self._step("dagster", "dagster", lambda: self._dagster.look(settings, values))
            if (broker := self._broker) is not None:
                self._step("mqtt", "mqtt", partial(broker.look, values))
            if time.monotonic() - self._audited_at >= self._audit_seconds:
                self._step("storage", "database", lambda: look_at_storage(settings, values))
                self._step("audit", "database", self._audit)
            stop.wait(self._look_seconds)
        if self._broker is not None:
            self._broker.close()

    def _step(self, look: str, server: str, work: Callable[[], None]) -> None:
        """One look, after which the loop is known to go on."""
        take(self.values, look, server, work)
        self._stepped_at = time.monotonic()

    def _look_at_totals(self) -> None:
        totals = self._totals
        totals.update(self._settings)
        self.values.put("iot_stored_messages", totals.stored)
        self.values.put("iot_stored_measurements", totals.measurements)
        self.values.put("iot_conflicting_measurements", totals.conflicts)
        self.values.put("iot_quarantined_messages", {(reason,): count for reason, count in totals.quarantined.items()})
        self.values.put("iot_sparkplug_sequence_gaps", totals.sequence_gaps)
        self.values.put("iot_sparkplug_sequence_missing", totals.sequence_missing)

    def _audit(self) -> None:
        now = time.time()
        since = window_start(now, self._passed_at, self._failed_since)
        result = run_audit(self._settings, since=datetime.fromtimestamp(since, UTC), wait_seconds=10, statement_seconds=STATEMENT_SECONDS)
        self._passed_at, self._failed_since = (now, None) if result.ok else (self._passed_at, since)
        self._audited_at = time.monotonic()
        for difference in result.differences[:20]:
            log.error("audit difference", kind=difference.kind, text=difference.text)
        self.values.put("iot_audit_differences", {(proof,): result.counts.get(proof, 0) for proof in EVERYTHING})
        self.values.put("iot_audit_timestamp_seconds", result.at.timestamp())

    def healthy(self) -> bool:
        """Whether the loop makes progress."""
        return time.monotonic() - self._stepped_at < STUCK_SECONDS

    def collect(self) -> Iterator[Metric]:
        """The metrics, from what was seen last."""
        return self.values.families()
