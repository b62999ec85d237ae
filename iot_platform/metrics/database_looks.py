"""What the exporter reads from the database, beside the totals: one function per look, each with a connection of its own."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Final

from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.backup.create import KINDS
from iot_platform.compression.forecast import HORIZON_DAYS, forecast
from iot_platform.database import connect
from iot_platform.database.sessions import IS_CLIENT
from iot_platform.influx import status
from iot_platform.kafka.watermarks import TopicOffsets
from iot_platform.metrics.look import rows
from iot_platform.metrics.values import Samples, Values, foremost
from iot_platform.quality.statements import RULES
from iot_platform.settings import Settings
from iot_platform.telemetry.drain.known_cuts import cuts_since
from iot_platform.telemetry.drain.partition_state import Problem, look

SEVERITIES: Final = ("WARN", "ERROR")

_SERVER: Final = f"""
SELECT pg_database_size(current_database()), (SELECT count(*) FROM pg_stat_activity WHERE {IS_CLIENT}),
    current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int,
    (current_setting('archive_mode') <> 'off')::int, a.failed_count, coalesce(extract(epoch FROM a.last_archived_time), 0)::float8,
    coalesce((SELECT extract(epoch FROM max(updated_at)) FROM kafka_offset WHERE topic = %(topic)s), 0)::float8
FROM pg_stat_archiver a"""  # noqa: S608 - our own constant
_DRILLS: Final = """
SELECT coalesce(extract(epoch FROM max(started_at) FILTER (WHERE problems = '{}')), 0)::float8,
    (array_agg((problems <> '{}')::int ORDER BY started_at DESC))[1] FROM backup_drill"""
_BACKUPS: Final = "SELECT type, extract(epoch FROM max(ended_at))::float8 FROM database_backup GROUP BY 1"
_TENANT_FRESHNESS: Final = """
SELECT tenant_id, extract(epoch FROM max(last_committed_at - last_received_at))::float8 FROM accounting_1h
WHERE hour >= date_trunc('hour', now()) - interval '1 hour' AND last_committed_at > now() - interval '5 minutes' GROUP BY 1"""
_INCIDENTS: Final = (
    "SELECT rule, severity, count(*) FROM quality_incident"
    " WHERE closed_at IS NULL AND (silenced_until IS NULL OR silenced_until < now()) GROUP BY 1, 2"
)
_RULES: Final = """
SELECT rule, extract(epoch FROM evaluated_at)::float8, (error IS NOT NULL)::int FROM quality_watermark WHERE evaluated_at IS NOT NULL"""
_ROLLUPS: Final = """
SELECT extract(epoch FROM CASE WHEN isfinite(threshold) THEN threshold END)::float8,
    extract(epoch FROM CASE WHEN isfinite(threshold_1d) THEN threshold_1d END)::float8,
    (SELECT count(*) FROM (SELECT FROM rollup_change LIMIT 100000) n)
FROM rollup_state"""
_CONFLICTS: Final = """
SELECT tenant_id, project_id, sum(measurement_conflicts)::bigint FROM accounting_1h
WHERE conflict_example IS NOT NULL AND hour > date_trunc('hour', now()) - interval '24 hours' GROUP BY 1, 2"""
_CHUNKS: Final = "SELECT table_name, sum(bytes)::float8, count(*), count(*) FILTER (WHERE compressed) FROM disk_chunks() GROUP BY 1"
_COMPRESSION: Final = """
SELECT p.table_name, count(c.due),
    CASE WHEN timescale_edition() = 'community' THEN
        coalesce(extract(epoch FROM max(now() - p.older_than - c.range_end) FILTER (WHERE c.due = 'compress')), 0)::float8 ELSE 0 END
FROM compression_policy p LEFT JOIN compression_chunks() c USING (table_name) WHERE p.enabled GROUP BY 1"""
_RETENTION: Final = """
SELECT t.table_name, coalesce(extract(epoch FROM (
    SELECT max(retention_cutoff(t.table_name) - c.range_end) FROM retention_chunks(t.table_name) c
    WHERE isfinite(c.range_end) AND c.range_end < retention_cutoff(t.table_name))), 0)::float8
FROM retention_tables() t"""


@contextmanager
def _reading(settings: Settings) -> Iterator[Connection]:
    with closing(connect(settings, application_name="iot-metrics")) as connection:
        connection.set_session(readonly=True)
        yield connection


def look_at_database(settings: Settings, values: Values) -> None:
    """What is cheap to read. Raises DatabaseError, psycopg2.Error."""
    with _reading(settings) as connection:
        ((size, sessions, most, archived, failures, last, commit),) = rows(connection, _SERVER, topic=settings.kafka_topic)
        ((passed, failed),) = rows(connection, _DRILLS)
        backups = rows(connection, _BACKUPS)
        fresh = rows(connection, _TENANT_FRESHNESS)
        incidents = rows(connection, _INCIDENTS)
        rules = rows(connection, _RULES)
        rollups = rows(connection, _ROLLUPS)
        sinks = status.read(connection)
    values.put("iot_database_bytes", size)
    values.put("iot_database_connections", sessions)
    values.put("iot_database_connections_limit", most)
    values.put("iot_wal_archive_enabled", archived)
    values.put("iot_wal_archive_failures", failures)
    values.put("iot_wal_archive_last_success_timestamp_seconds", last)
    values.put("iot_backup_drill_last_success_timestamp_seconds", passed if settings.backup_config or failed is not None else None)
    values.put("iot_backup_drill_failed", failed)
    if backups and not settings.backup_config:  # else backup_look asks the repository itself
        values.put("iot_backup_last_success_timestamp_seconds", {(kind,): 0.0 for kind in KINDS} | {(kind,): at for kind, at in backups})
    values.put("iot_drain_last_commit_timestamp_seconds", commit)
    values.put("iot_tenant_freshness_seconds", foremost([((tenant,), age) for tenant, age in fresh], summed=False))
    open_ones: Samples = {(rule, severity): 0 for rule in RULES for severity in SEVERITIES}
    values.put("iot_quality_incidents", open_ones | {(rule, severity): count for rule, severity, count in incidents})
    values.put("iot_quality_evaluated_timestamp_seconds", {(rule,): at for rule, at, _ in rules})
    values.put("iot_quality_rule_failed", {(rule,): failed for rule, _, failed in rules})
    _put_sinks(values, sinks)
    for hours, days, notes in rollups:
        stored = {("measurement_1h",): hours, ("measurement_1d",): days}
        values.put("iot_rollup_threshold_timestamp_seconds", {labels: at for labels, at in stored.items() if at is not None})
        values.put("iot_rollup_notes", notes)


def _put_sinks(values: Values, sinks: list[status.SinkStatus]) -> None:
    values.put("iot_sink_lag_messages", {(sink.sink,): sink.lag for sink in sinks})
    values.put("iot_sink_behind_seconds", {(sink.sink,): sink.behind_seconds for sink in sinks})
    values.put("iot_sink_failed", {(sink.sink,): int(sink.error is not None) for sink in sinks})
    values.put("iot_sink_missing_measurements", {(sink.sink,): sink.missing for sink in sinks})
    values.put("iot_sink_series", {(sink.sink,): sink.series for sink in sinks})
    values.put("iot_sink_written_measurements", {(sink.sink,): sink.written for sink in sinks})
    values.put("iot_sink_retried_requests", {(sink.sink,): sink.retries for sink in sinks})


def look_at_kafka(settings: Settings, values: Values) -> None:
    """Lag against Kafka's high watermarks, and what keeps partitions. Raises DatabaseError, psycopg2.Error, KafkaUnavailableError."""
    with _reading(settings) as connection:
        cuts = len(cuts_since(connection, settings.kafka_topic))
        with TopicOffsets(settings) as topic:
            partitions = look(settings, connection, topic).partitions
    values.put("iot_kafka_log_cuts", cuts)
    values.put("iot_drain_lag_messages", {(str(number),): state.lag for number, state in partitions.items()})
    values.put(
        "iot_drain_problem",
        {(str(number), problem): int(state.problem is problem) for number, state in partitions.items() for problem in Problem},
    )


def look_at_storage(settings: Settings, values: Values) -> None:
    """What reads every chunk's size, or a day's books. Raises DatabaseError, psycopg2.Error."""
    with _reading(settings) as connection:
        conflicts = rows(connection, _CONFLICTS)
        chunks = rows(connection, _CHUNKS)
        compression = rows(connection, _COMPRESSION)
        retention = rows(connection, _RETENTION)
        ahead = forecast(connection, settings)
    projects = [((tenant, project), float(count)) for tenant, project, count in conflicts]
    values.put("iot_project_conflicts_measurements", foremost(projects, summed=True))
    for place, name in enumerate(("iot_table_bytes", "iot_table_chunks", "iot_table_compressed_chunks"), 1):
        values.put(name, {(row[0],): row[place] for row in chunks})
    values.put("iot_compression_due_chunks", {(table,): due for table, due, _ in compression})
    values.put("iot_compression_overdue_seconds", {(table,): max(0.0, age) for table, _, age in compression})
    values.put("iot_retention_overdue_seconds", {(table,): age for table, age in retention})
    values.put("iot_database_growth_bytes", ahead.day_bytes)
    values.put("iot_database_limit_bytes", ahead.limit)
    values.put("iot_disk_left_days", None if ahead.limit is None else HORIZON_DAYS if ahead.days is None else ahead.days)
