"""`iot metrics`: looks at the servers again and again, and lives through their outages; what it saw last is what /metrics says."""

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Final

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from iot_platform.audit.audit import EVERYTHING, run_audit
from iot_platform.audit.window import window_start
from iot_platform.logs import get_logger
from iot_platform.metrics.backup_look import look_at_backups
from iot_platform.metrics.broker_look import BrokerLook
from iot_platform.metrics.dagster_look import DagsterLook
from iot_platform.metrics.database_looks import look_at_database, look_at_kafka, look_at_storage
from iot_platform.metrics.look import Look, take
from iot_platform.metrics.totals import Totals
from iot_platform.metrics.values import Values
from iot_platform.settings import Settings

log = get_logger(__name__)

LOOK_SECONDS: Final = 15.0
AUDIT_SECONDS: Final = 300.0
STATEMENT_SECONDS: Final = 120.0
STUCK_SECONDS: Final = 4 * STATEMENT_SECONDS + 120.0
"""A look that takes this long fails /healthz: an audit of four queries at their limit, and the waits around it."""
LEAVE_SECONDS: Final = 5.0
"""Looks that go on for longer when it is stopped are left."""


class Exporter(Collector):
    """Looks every LOOK_SECONDS, and at the audit, the storage and the backups every AUDIT_SECONDS, until it is stopped; each in a thread of
    its own, so that one that takes minutes makes no other old. A server that does not answer is a value of a gauge; figures stay as they
    were seen last, and iot_look_timestamp_seconds tells when that was."""

    def __init__(self, settings: Settings, look_seconds: float = LOOK_SECONDS, audit_seconds: float = AUDIT_SECONDS) -> None:
        self._settings = settings
        self._passed_at: float | None = None
        self._failed_since: float | None = None
        self._totals = Totals()
        self._dagster = DagsterLook()
        self._broker = BrokerLook(settings) if settings.metrics_mqtt_url else None
        self.values = Values()
        self._looks = {
            "totals": Look("database", self._look_at_totals, look_seconds),
            "database": Look("database", lambda: look_at_database(settings, self.values), look_seconds),
            "kafka": Look("kafka", lambda: look_at_kafka(settings, self.values), look_seconds),
            "dagster": Look("dagster", lambda: self._dagster.look(settings, self.values), look_seconds),
            "storage": Look("database", lambda: look_at_storage(settings, self.values), audit_seconds),
            "audit": Look("database", self._audit, audit_seconds),
        }
        if (broker := self._broker) is not None:
            self._looks["mqtt"] = Look("mqtt", partial(broker.look, self.values), look_seconds)
        if settings.backup_config:
            self._looks["backups"] = Look("backups", lambda: look_at_backups(settings, self.values), audit_seconds)
        self._looked_at = dict.fromkeys(self._looks, time.monotonic())
        self._failure: Exception | None = None
        self.values.put("iot_look_timestamp_seconds", {(look,): 0 for look in self._looks})
        self.values.put("iot_audit_differences", {(proof,): 0 for proof in EVERYTHING})
        self.values.put_histograms("iot_freshness_seconds", {(): self._totals.freshness})

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set. What a look raises that is no server's silence ends all of them, and is raised."""
        threads = [
            threading.Thread(target=self._repeat, args=(name, look, stop), name=f"look {name}", daemon=True)
            for name, look in self._looks.items()
        ]
        for thread in threads:
            thread.start()
        stop.wait()
        left_at = time.monotonic() + LEAVE_SECONDS
        for thread in threads:
            thread.join(max(0.0, left_at - time.monotonic()))
        if self._broker is not None:
            self._broker.close()
        if self._failure is not None:
            raise self._failure

    def _repeat(self, name: str, look: Look, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                take(self.values, name, look)
            except Exception as error:
                self._failure = error
                stop.set()
                return
            self._looked_at[name] = time.monotonic()
            stop.wait(look.seconds)

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
        for difference in result.differences[:20]:
            log.error("audit difference", kind=difference.kind, text=difference.text)
        self.values.put("iot_audit_differences", {(proof,): result.counts.get(proof, 0) for proof in EVERYTHING})
        self.values.put("iot_audit_timestamp_seconds", result.at.timestamp())

    def healthy(self) -> bool:
        """Whether every look makes progress."""
        now = time.monotonic()
        return all(now - self._looked_at[name] < look.seconds + STUCK_SECONDS for name, look in self._looks.items())

    def collect(self) -> Iterator[Metric]:
        """The metrics, from what was seen last."""
        return self.values.families()
