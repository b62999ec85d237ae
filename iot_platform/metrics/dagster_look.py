"""What the exporter reads from Dagster's storage: its tables, by SQL, so that it is known while no part of Dagster runs."""

import json
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812
from psycopg2.extensions import make_dsn, parse_dsn

from iot_platform.database.connection import DEFAULTS
from iot_platform.metrics.definitions import OTHER, RUN_BUCKETS
from iot_platform.metrics.look import rows
from iot_platform.metrics.values import Histogram, Samples, Values
from iot_platform.settings import Settings

JOBS: Final = (
    "back_up_database",
    "carry_out_actions",
    "check_telemetry",
    "compress_old_chunks",
    "drain",
    "evaluate_quality",
    "follow_influx",
    "observe_ingestion",
    "practise_restore",
    "purge_dagster_history",
    "remove_old_rows",
    "roll_up_measurements",
)
"""Our jobs; runs of any other one, as of assets launched by hand, are `other`."""
ENDED: Final = ("SUCCESS", "FAILURE", "CANCELED")
UNFINISHED: Final = ("QUEUED", "NOT_STARTED", "STARTING", "STARTED", "CANCELING")
STATEMENT_SECONDS: Final = 30
_LOOK_BACK_SECONDS: Final = 300.0
"""Longer than a run's end takes to be in the table: one that appears late is counted then."""

_NOW: Final = "SELECT extract(epoch FROM clock_timestamp())::float8"
_RUNS: Final = """
SELECT run_id, pipeline_name, status, coalesce(end_time - start_time, 0), end_time FROM runs
WHERE status IN %(ended)s AND update_timestamp > (now() AT TIME ZONE 'UTC') - make_interval(secs => %(seconds)s)"""
_UNFINISHED: Final = """
SELECT status, count(*), coalesce(max(extract(epoch FROM (now() AT TIME ZONE 'UTC') - create_timestamp)), 0)::float8
FROM runs WHERE status IN %(unfinished)s GROUP BY 1"""
_HEARTBEATS: Final = "SELECT daemon_type, extract(epoch FROM max(timestamp) AT TIME ZONE 'UTC')::float8 FROM daemon_heartbeats GROUP BY 1"
_TICKS: Final = """
SELECT i.instigator_type, i.status, i.instigator_body, extract(epoch FROM t.timestamp AT TIME ZONE 'UTC')::float8, f.status
FROM instigators i
LEFT JOIN LATERAL (SELECT timestamp FROM job_ticks WHERE selector_id = i.selector_id ORDER BY timestamp DESC LIMIT 1) t ON true
LEFT JOIN LATERAL (
    SELECT status FROM job_ticks WHERE selector_id = i.selector_id AND status <> 'STARTED' ORDER BY timestamp DESC LIMIT 1
) f ON true"""


@dataclass
class DagsterLook:
    """Looks, and counts what has ended since the last look."""

    _runs: Samples = field(default_factory=lambda: {(job, status): 0.0 for job in (*JOBS, OTHER) for status in ENDED})
    _seconds: dict[tuple[str, ...], Histogram] = field(default_factory=lambda: {(job,): Histogram(RUN_BUCKETS) for job in (*JOBS, OTHER)})
    _seen: set[str] | None = None
    _at: float = 0.0

    def look(self, settings: Settings, values: Values) -> None:
        """Raises psycopg2.Error: Dagster's storage does not answer, or has not been made yet."""
        with closing(_connect(settings)) as connection:
            ((now,),) = rows(connection, _NOW)
            since = _LOOK_BACK_SECONDS + (now - self._at if self._at else 0.0)
            ended = rows(connection, _RUNS, ended=ENDED, seconds=since)
            unfinished = rows(connection, _UNFINISHED, unfinished=UNFINISHED)
            heartbeats = rows(connection, _HEARTBEATS)
            instigators = rows(connection, _TICKS)
        self._count(ended)
        self._at = now
        values.put("iot_dagster_runs", self._runs)
        values.put_histograms("iot_dagster_run_seconds", self._seconds)
        states: Samples = {(status,): 0 for status in UNFINISHED}
        values.put("iot_dagster_unfinished_runs", states | {(status,): count for status, count, _ in unfinished})
        values.put(
            "iot_dagster_oldest_queued_seconds", max((max(0.0, age) for status, _, age in unfinished if status == "QUEUED"), default=0)
        )
        values.put("iot_dagster_heartbeat_timestamp_seconds", {(name.lower(),): at for name, at in heartbeats})
        _put_instigators(values, instigators)

    def _count(self, ended: list[tuple[Any, ...]]) -> None:
        """The first look counts nothing: what had ended before it is no news."""
        for run_id, job, status, seconds, _ in ended:
            if self._seen is None or run_id in self._seen:
                continue
            name = job if job in JOBS else OTHER
            self._runs[name, status] += 1
            self._seconds[name,].add(max(0.0, seconds))
        self._seen = {row[0] for row in ended}


def _put_instigators(values: Values, rows: list[tuple[Any, ...]]) -> None:
    ticks: Samples = {}
    failed: Samples = {}
    off: Samples = {}
    for kind, status, body, at, last in rows:
        origin = json.loads(body).get("origin") or {}
        labels = (kind.lower(), str(origin.get("instigator_name") or origin.get("job_name") or "unknown")[:128])
        off[labels] = int(status == "STOPPED")
        if at is not None:
            ticks[labels] = max(at, ticks.get(labels, 0.0))
            failed[labels] = int(last == "FAILURE")
    values.put("iot_dagster_tick_timestamp_seconds", ticks)
    values.put("iot_dagster_tick_failed", failed)
    values.put("iot_dagster_switched_off", off)


def _connect(settings: Settings) -> Connection:
    """To Dagster's storage, which may be another server than the platform's database."""
    url = settings.dagster_database_url.replace("postgresql+psycopg2://", "postgresql://", 1)
    own = parse_dsn(url)
    options = f"{own.pop('options', '')} -c statement_timeout={STATEMENT_SECONDS}s -c default_transaction_read_only=on".strip()
    return psycopg2.connect(make_dsn(**{**DEFAULTS, "application_name": "iot-metrics", **own, "options": options}))
