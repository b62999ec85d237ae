"""Backups and the archived WAL as Prometheus metrics: asked in a thread of their own, because the repository may be far away."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Final

import psycopg2
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from iot_platform.backup.create import KINDS
from iot_platform.backup.errors import BackupError
from iot_platform.backup.host import DatabaseHost
from iot_platform.backup.listing import read_repository
from iot_platform.database import DatabaseError, connect
from iot_platform.logs import get_logger
from iot_platform.settings import Settings

log = get_logger(__name__)

LOOK_SECONDS: Final = 15.0
REPOSITORY_SECONDS: Final = 300.0
_ARCHIVER: Final = """
SELECT failed_count, extract(epoch FROM last_archived_time)::float8, current_setting('archive_mode') <> 'off' FROM pg_stat_archiver"""


@dataclass
class Seen:
    """`backups`: type → end of the newest one. None: not seen yet, or there is none. Seconds since the epoch."""

    backups: dict[str, float] | None = None
    archiving: bool = False
    failures: int = 0
    archived_at: float | None = None
    complaint: str = field(default="", repr=False)


class BackupCollector(Collector):
    """What `iot metrics` shows of backups. Where none are set up, of the WAL only, if the server archives it."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self.seen = settings, Seen()
        self._looked_at = -float("inf")

    def run(self, stop: threading.Event) -> None:
        """Look until `stop` is set; what does not answer keeps its last values, and is logged once."""
        while not stop.is_set():
            self.look()
            stop.wait(LOOK_SECONDS)

    def look(self) -> None:
        """Once: at the server, and every REPOSITORY_SECONDS at the repository."""
        try:
            self._look_at_server()
            if self._settings.backup_config and time.monotonic() - self._looked_at >= REPOSITORY_SECONDS:
                self._look_at_repository()
        except (BackupError, DatabaseError, psycopg2.Error) as error:
            complaint = " ".join(str(error).split())
            if complaint != self.seen.complaint:
                log.warning("backups_not_seen", reason=complaint)
            self.seen.complaint = complaint
        else:
            self.seen.complaint = ""

    def collect(self) -> Iterator[Metric]:
        """The metrics, from what was seen last."""
        seen = self.seen
        backups = GaugeMetricFamily(
            "iot_backup_last_success_timestamp_seconds", "When the newest backup ended; 0: there is none.", labels=["type"]
        )
        if seen.backups is not None:
            for kind in KINDS:
                backups.add_metric([kind], seen.backups.get(kind, 0.0))
        yield backups
        if seen.archiving:
            yield CounterMetricFamily(
                "iot_wal_archive_failures",
                "Attempts to archive a WAL segment that failed, by pg_stat_archiver; stays after they succeed.",
                value=seen.failures,
            )
            yield GaugeMetricFamily(
                "iot_wal_archive_last_success_timestamp_seconds",
                "When the newest WAL segment was archived; 0: none yet.",
                value=seen.archived_at or 0.0,
            )

    def _look_at_server(self) -> None:
        with closing(connect(self._settings, application_name="iot-metrics")) as connection, connection.cursor() as cursor:
            cursor.execute(_ARCHIVER)
            row = cursor.fetchone()
        if row is not None:
            self.seen.failures, self.seen.archived_at, self.seen.archiving = int(row[0]), row[1], bool(row[2])

    def _look_at_repository(self) -> None:
        self._looked_at = time.monotonic()
        newest: dict[str, float] = {}
        for backup in read_repository(DatabaseHost.of(self._settings, read_only=True)).backups:
            newest[backup.type] = max(newest.get(backup.type, 0.0), float(backup.stopped_at))
        self.seen.backups = newest
