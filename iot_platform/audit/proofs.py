"""Asks the database for the proofs (sql/repeatable/audit_*.sql) and turns their rows into an audit's result."""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.audit.result import AcceptedLoss, AuditResult, ConnectionRow, DaemonRow, Difference, Hole, PartitionRow, SinkRow, Tally
from iot_platform.telemetry.drain.known_cuts import KnownCut

FETCH: Final = 2_000
_OFFSETS: Final = """
SELECT kafka_topic, kafka_partition, log_generation, from_offset, to_offset, expected, found, problem FROM audit_offsets(%(since)s)
ORDER BY problem IS NOT NULL, kafka_topic, kafka_partition, log_generation, from_offset"""
_SEQUENCES: Final = """
SELECT client_id, connection_number, reported_at, checked_from, checked_to, received, stored, duplicates, quarantined, dead_lettered,
    in_flight, unacknowledged, missing, repeated, unmarked, problem, holes
FROM audit_sequences(%(since)s, %(window)s) ORDER BY client_id, connection_number"""
_HOURS: Final = """
SELECT tenant_id, project_id, hour, messages, stored_messages, duplicates, quarantined, measurements, measurement_conflicts, difference,
    reasons, problem FROM audit_hours(%(since)s) WHERE %(tenant)s::text IS NULL OR tenant_id = %(tenant)s"""
_MEASUREMENTS: Final = """
SELECT tenant_id, project_id, accounted, stored, problem FROM audit_measurements()
WHERE problem IS NOT NULL AND (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s) ORDER BY 1, 2"""
_DAEMONS: Final = """
SELECT client_id, reported_at, fetched_at, received, delivered, dead_lettered, spooled, in_flight, given_up, missing, sessions_lost,
    difference, problem FROM audit_daemon ORDER BY client_id"""
_ACCEPTED: Final = """
SELECT committed_at, kafka_topic, kafka_partition, from_offset, to_offset, coalesce(detail, ''), run_id FROM ledger
WHERE kind = 'accepted_loss' AND committed_at >= %(since)s ORDER BY committed_at LIMIT 1000"""

_CUTS: Final = """
SELECT committed_at, kafka_partition, from_offset, to_offset, log_generation, leader_epoch, coalesce(detail, '') FROM ledger
WHERE kind = 'log_cut' AND committed_at >= %(since)s ORDER BY committed_at LIMIT 1000"""

_SINKS: Final = """
SELECT sink, kafka_topic, kafka_partition, log_generation, from_offset, to_offset, stored, followed, removed, waiting, points, sent,
    refused, problem FROM audit_sinks(%(since)s) ORDER BY problem IS NOT NULL, 1, 2, 3, 4, 5"""

Parameters = Mapping[str, Any]


def offsets(connection: Connection, parameters: Parameters, result: AuditResult) -> None:
    """First proof: every offset is in message or quarantine, once. Accepted losses are shown with it."""
    for topic, partition, generation, start, end, expected, found, problem in _rows(connection, _OFFSETS, parameters):
        if problem is None:
            result.partitions.append(PartitionRow(topic, partition, start, end, expected, found, generation))
        else:
            log = f"partition {partition}" + (f" generation {generation}" if generation else "")
            place = f"{log} offset {start}" + ("" if end - start == 1 else f"-{end - 1}")
            result.add(Difference("offsets", place, expected, found, problem))
    result.accepted += [AcceptedLoss(*row) for row in _rows(connection, _ACCEPTED, parameters)]
    result.cuts += [KnownCut(*row) for row in _rows(connection, _CUTS, parameters)]


def sequences(connection: Connection, parameters: Parameters, result: AuditResult) -> None:
    """Second proof: every sequence that a daemon brought into Kafka is in message, quarantine or dead_letter."""
    for columns in _rows(connection, _SEQUENCES, parameters):
        row = ConnectionRow(*columns[:-1])
        result.connections.append(row)
        if row.problem is not None:
            place = f"connection {row.number} of {row.client_id}"
            when = tuple(Hole.of(item) for item in columns[-1] or ())
            result.add(Difference("sequences", place, row.missing, 0, f"{place}: {row.problem}", when))


def daemons(connection: Connection, _parameters: Parameters, result: AuditResult) -> None:
    """What each daemon's own counters must add up to."""
    for columns in _rows(connection, _DAEMONS, {}):
        row = DaemonRow(*columns)
        result.daemons.append(row)
        if row.problem is not None:
            accounted = row.received - row.difference
            result.add(
                Difference(
                    "daemon", f"ingest daemon {row.client_id}", row.received, accounted, f"ingest daemon {row.client_id}: {row.problem}"
                )
            )


def hours(connection: Connection, parameters: Parameters, result: AuditResult) -> None:
    """The sums of accounting_1h against the stored rows; streamed, and summed by tenant unless one was asked for."""
    for columns in _rows(connection, _HOURS, parameters):
        tenant, project, hour, messages, stored, duplicates, quarantined, measurements, conflicts, difference, reasons, problem = columns
        key = (tenant, project if parameters["tenant"] else "", hour)
        tally = result.hours.setdefault(key, Tally())
        tally.add(Tally(messages, stored, duplicates, quarantined, measurements, conflicts, difference, reasons))
        if problem is not None:
            place = f"tenant {tenant or '–'} project {project or '–'} hour {_hour(hour)}"
            result.add(Difference("accounting", place, messages + quarantined, None, f"{place}: {problem}"))


def measurements(connection: Connection, parameters: Parameters, result: AuditResult) -> None:
    """Measurements accounted and stored, since the beginning: reads the whole table."""
    for tenant, project, accounted, stored, problem in _rows(connection, _MEASUREMENTS, parameters):
        place = f"tenant {tenant or '–'} project {project or '–'}"
        result.add(Difference("accounting", place, accounted, stored, f"{place}: {problem}"))


def sinks(connection: Connection, parameters: Parameters, result: AuditResult) -> None:
    """Second stores: what the ledger has of every partition was followed, or waits; what was found there was sent, or refused."""
    for *columns, problem in _rows(connection, _SINKS, parameters):
        row = SinkRow(*columns)
        if problem is None:
            result.sinks.append(row)
        else:
            log = f"partition {row.partition}" + (f" generation {row.generation}" if row.generation else "")
            place = f"sink {row.sink} {log} offset {row.from_offset}-{row.to_offset - 1}"
            result.add(Difference("sinks", place, row.stored, row.followed, f"{place}: {problem}"))


PROOFS: Final[dict[str, tuple[str, Callable[[Connection, Parameters, AuditResult], None]]]] = {
    "offsets": ("looking for every offset", offsets),
    "sequences": ("looking for every sequence", sequences),
    "daemon": ("adding up the ingest daemons' counters", daemons),
    "accounting": ("comparing accounting_1h with the stored rows", hours),
    "sinks": ("asking what second stores followed", sinks),
    "measurements": ("counting measurements", measurements),
}
"""Kind → its description for people, and its proof."""


def _hour(hour: datetime) -> str:
    return f"{hour:%Y-%m-%dT%H:%MZ}"


def _rows(connection: Connection, query: str, parameters: Parameters) -> Iterator[tuple[Any, ...]]:
    """Streamed: there may be as many differences as messages."""
    with connection.cursor(name="audit") as cursor:
        cursor.itersize = FETCH
        cursor.execute(query, parameters)
        yield from cursor
