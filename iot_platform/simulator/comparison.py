"""Compares what a simulation published with what the database holds: every message once, every value exact, every count equal."""

import json
import struct
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.simulator.message import Expected
from iot_platform.simulator.record import Published
from iot_platform.telemetry.records import place_of

Place = tuple[int, int, int]  # Kafka partition, generation of its log, offset
Log = tuple[int, int]  # Kafka partition, generation
Content = tuple[bytes, bytes]  # topic and payload
Series = tuple[str, str, str, str]
Value = tuple[bytes | None, int | None, str | None]  # the double's bits, so that -0.0 and 0.0 differ

_MICROSECONDS = "(extract(epoch FROM {}) * 1000000)::bigint"
_IN_SCOPE = "record_place(log_generation, kafka_offset) >= coalesce((%(places)s::jsonb ->> kafka_partition::text)::bigint, 0)"
_MESSAGES = f"""
SELECT kafka_partition, log_generation, kafka_offset, topic, payload, duplicate_of_generation, duplicate_of,
       tenant_id, project_id, device_id, time_source,
       {_MICROSECONDS.format("received_at")} + coalesce(time_shift_us, 0), connection_number, sequence, packet_id, dup
FROM message_named WHERE {_IN_SCOPE} ORDER BY 1, 2, 3
"""  # noqa: S608 - parts of our own
_QUARANTINE = f"""
SELECT kafka_partition, log_generation, kafka_offset, coalesce(topic_bytes, convert_to(topic, 'UTF8')), payload,
       duplicate_of_generation, duplicate_of, reason,
       connection_number, sequence, packet_id, dup
FROM quarantine_named WHERE {_IN_SCOPE} ORDER BY 1, 2, 3
"""  # noqa: S608 - as above
_MEASUREMENTS = f"""
SELECT tenant_id, project_id, device_id, metric, {_MICROSECONDS.format("time")}, value, value_int, value_text FROM measurement_named
WHERE %(tenants)s::text[] IS NULL OR tenant_id = ANY(%(tenants)s)
"""  # noqa: S608 - as above
_LATEST = f"""
SELECT tenant_id, project_id, device_id, metric, {_MICROSECONDS.format("time")}, value, value_int, value_text FROM latest_named
WHERE %(tenants)s::text[] IS NULL OR tenant_id = ANY(%(tenants)s)
"""  # noqa: S608 - as above
_COUNTERS = "messages, duplicates, quarantined, measurements, measurement_duplicates, measurement_conflicts"
_SUMS = ", ".join(f"coalesce(sum({name}), 0)::bigint" for name in _COUNTERS.split(", "))
_LEDGER = (
    "FROM ledger WHERE kafka_topic = %(topic)s AND record_place(log_generation, from_offset)"
    " >= coalesce((%(places)s::jsonb ->> kafka_partition::text)::bigint, 0)"
)
_RANGES = f"""
SELECT kafka_partition, log_generation, from_offset, CASE kind WHEN 'log_cut' THEN from_offset ELSE to_offset END,
       CASE kind WHEN 'accepted_loss' THEN to_offset - from_offset ELSE messages + quarantined + empty_offsets END,
       CASE kind WHEN 'accepted_loss' THEN to_offset - from_offset ELSE empty_offsets END, {_MICROSECONDS.format("committed_at")}, kind
{_LEDGER} AND kind <> 'replay' ORDER BY 1, 2, batch_id
"""
_OFFSETS = "SELECT kafka_partition, log_generation, next_offset FROM kafka_offset WHERE topic = %(topic)s"


@dataclass(frozen=True)
class Scope:
    """What a comparison looks at: everything from these places (generation and offset) of a Kafka topic on (the beginning of partitions not
    named)."""

    topic: str
    places: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    accounting: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def now(cls, connection: Connection, topic: str) -> "Scope":
        """What is stored from now on; meant for a moment at which nothing is under way."""
        places = {partition: (generation, offset) for partition, generation, offset in _all(connection, _OFFSETS, {"topic": topic})}
        return cls(topic, places, _sums(connection, "FROM accounting_1h", {}))


@dataclass(frozen=True)
class Row:
    """One record in message (`reason` None) or quarantine."""

    place: Place
    content: Content
    duplicate_of: tuple[int, int] | None  # generation and offset of the first copy
    reason: str | None
    names: tuple[str, ...] = ()
    received_us: int = 0  # with time_shift_us: the time of what has none of its own
    delivery: tuple[Any, ...] = ()  # connection number, sequence, packet id, DUP: only to explain differences


@dataclass
class Stored:
    """What the database holds, read in one go."""

    rows: list[Row]
    measurements: dict[tuple[Series, int], Value]
    latest: dict[Series, tuple[int, Value]]
    ledger: list[tuple[Log, int, int, int]]  # log, from, to, offsets accounted for
    ledger_sums: dict[str, int]
    accounting_sums: dict[str, int]
    next_offsets: dict[Log, int]
    first_offsets: dict[Log, int] = field(default_factory=dict)
    absent: dict[Log, int] = field(default_factory=dict)  # offsets that have no row, and rightly so
    committed_us: list[int] = field(default_factory=list)  # of each ledger range


@dataclass(frozen=True)
class Comparison:
    """`lost`: acknowledged and not stored. `doubled`: stored more often than published, and not marked. `redelivered`: marked."""

    messages: int
    lost: int
    doubled: int
    redelivered: int
    losses: list[str]
    problems: list[str]


@dataclass
class Model:
    """What the measurements must be, worked out from the generator's knowledge in the order of the Kafka offsets."""

    measurements: dict[tuple[Series, int], Value] = field(default_factory=dict)
    duplicates: int = 0
    conflicts: int = 0

    def add(self, expected: Expected, received_us: int) -> None:
        """One message: the first value of a (series, time) wins."""
        for item in expected.measurements:
            device = expected.device if item.device is None else item.device
            time_us = received_us if item.time_us is None else item.time_us
            key = ((expected.tenant, expected.project, device, item.metric), time_us)
            value = (_bits(item.value), item.value_int, item.value_text)
            if key not in self.measurements:
                self.measurements[key] = value
            elif self.measurements[key] == value:
                self.duplicates += 1
            else:
                self.conflicts += 1


def read(connection: Connection, scope: Scope, tenants: Collection[str] | None = None) -> Stored:
    """Everything in the scope, through the views that people use; measurements of the given tenants only."""
    values = {
        "topic": scope.topic,
        "places": json.dumps({str(partition): place_of(*place) for partition, place in scope.places.items()}),
        "tenants": None if tenants is None else list(tenants),
    }
    rows = [
        Row(
            (part, log, offset),
            (topic.encode(), bytes(payload)),
            None if copy is None else (copied_log, copy),
            None,
            (tenant, project, device, source),
            received,
            tuple(delivery),
        )
        for part, log, offset, topic, payload, copied_log, copy, tenant, project, device, source, received, *delivery in _all(
            connection, _MESSAGES, values
        )
    ]
    rows += [
        Row(
            (part, log, offset),
            (bytes(topic), bytes(payload)),
            None if copy is None else (copied_log, copy),
            reason,
            delivery=tuple(delivery),
        )
        for part, log, offset, topic, payload, copied_log, copy, reason, *delivery in _all(connection, _QUARANTINE, values)
    ]
    accounting = _sums(connection, "FROM accounting_1h", {})
    ranges = _all(connection, _RANGES, values)
    absent: Counter[Log] = Counter()
    first = {(partition, generation): offset for partition, (generation, offset) in scope.places.items()}
    for partition, generation, begin, _, _, empty, _, kind in ranges:
        absent[partition, generation] += empty
        if kind == "log_cut":
            first[partition, generation] = begin
    return Stored(
        rows,
        {(tuple(row[:4]), row[4]): _value(row) for row in _all(connection, _MEASUREMENTS, values)},
        {tuple(row[:4]): (row[4], _value(row)) for row in _all(connection, _LATEST, values)},
        [((row[0], row[1]), *row[2:5]) for row in ranges],
        _sums(connection, _LEDGER, values),
        {name: value - scope.accounting.get(name, 0) for name, value in accounting.items()},
        {(partition, generation): offset for partition, generation, offset in _all(connection, _OFFSETS, values)},
        first,
        dict(absent),
        [row[6] for row in ranges],
    )


def compare(published: Sequence[Published], stored: Stored) -> list[str]:
    """Every difference, as sentences; empty when the platform kept its promise."""
    found = examine(published, stored)
    return found.losses + found.problems


def examine(published: Sequence[Published], stored: Stored) -> Comparison:
    """Every difference, with the numbers of lost and doubled messages."""
    expected = {(item.message.topic.encode(), item.message.payload): item.message.expected for item in published}
    lost, doubled, problems = _messages(published, stored.rows)
    losses = _some("lost", lost)
    problems += [*_redeliveries(stored.rows), *_outcomes(stored.rows, expected)]
    model = Model()
    for row in sorted(stored.rows, key=lambda each: each.place):
        if row.duplicate_of is None and row.reason is None and row.content in expected:
            model.add(expected[row.content], row.received_us)
    problems += _measurements(model, stored)
    problems += _accounting(model, stored)
    problems += _ranges(stored)
    redelivered = sum(row.duplicate_of is not None for row in stored.rows)
    return Comparison(len(published), sum(count for _, count in lost), doubled, redelivered, losses, problems)


def _messages(published: Sequence[Published], rows: Sequence[Row]) -> tuple[list[tuple[Content, int]], int, list[str]]:
    """Multiset equality of what was acknowledged with message ∪ quarantine, redeliveries aside."""
    least: Counter[Content] = Counter()
    most: Counter[Content] = Counter()
    for item in published:
        content = (item.message.topic.encode(), item.message.payload)
        least[content] += item.acked
        most[content] += 0 if item.refused else item.sends
    found = Counter(row.content for row in rows if row.duplicate_of is None)
    lost = [(content, least[content] - found[content]) for content in least if found[content] < least[content]]
    extra = {content: found[content] - most[content] for content in found if found[content] > most[content]}
    places: dict[Content, list[Any]] = defaultdict(list)
    for row in rows:
        if row.content in extra:
            places[row.content].append((row.place, row.duplicate_of, row.delivery))
    examples = [(content, most[content], places[content]) for content in extra]
    return lost, sum(extra.values()), _some("stored too often or never published", examples)


def _redeliveries(rows: Sequence[Row]) -> list[str]:
    """A record marked duplicate_of repeats a record of the same partition that is itself no repetition."""
    by_place = {row.place: row for row in rows}
    wrong = []
    for row in rows:
        if row.duplicate_of is not None:
            first = by_place.get((row.place[0], *row.duplicate_of))
            if first is None or first.content != row.content or first.place >= row.place:
                wrong.append((row.place, first))
    return _some("marked as a redelivery of something else", wrong)


def _outcomes(rows: Iterable[Row], expected: dict[Content, Expected]) -> list[str]:
    wrong = []
    for row in rows:
        want = expected.get(row.content)
        if want is not None:
            names = () if want.reason is not None else (want.tenant, want.project, want.device, want.time_source)
            if (row.reason, row.names) != (want.reason, names):
                wrong.append((row.place, row.content, (row.reason, row.names), (want.reason, names)))
    return _some("classified wrongly", wrong)


def _measurements(model: Model, stored: Stored) -> list[str]:
    missing = [(key, value) for key, value in model.measurements.items() if key not in stored.measurements]
    extra = [key for key in stored.measurements if key not in model.measurements]
    differing = [
        (key, value, stored.measurements[key])
        for key, value in model.measurements.items()
        if key in stored.measurements and stored.measurements[key] != value
    ]
    newest: dict[Series, tuple[int, Value]] = {}
    for (series, time_us), value in model.measurements.items():
        if series not in newest or newest[series][0] < time_us:
            newest[series] = (time_us, value)
    latest = [(series, value, stored.latest.get(series)) for series, value in newest.items() if stored.latest.get(series) != value]
    return (
        _some("measurement missing", missing)
        + _some("measurement nobody sent", extra)
        + _some("measurement with another value", differing)
        + _some("series_latest is not the newest", latest)
    )


def _accounting(model: Model, stored: Stored) -> list[str]:
    messages = [row for row in stored.rows if row.reason is None]
    want = {
        "messages": len(messages),
        "duplicates": sum(row.duplicate_of is not None for row in stored.rows),
        "quarantined": len(stored.rows) - len(messages),
        "measurements": len(model.measurements),
        "measurement_duplicates": model.duplicates,
        "measurement_conflicts": model.conflicts,
    }
    problems = []
    if stored.ledger_sums != want:
        problems.append(f"ledger sums {stored.ledger_sums}, expected {want}")
    if stored.accounting_sums != want:
        problems.append(f"accounting_1h sums {stored.accounting_sums}, expected {want}")
    return problems


def _ranges(stored: Stored) -> list[str]:
    """Each partition's batches follow each other up to next_offset, and hold as many rows as offsets."""
    problems = []
    places: dict[Log, list[int]] = defaultdict(list)
    for row in stored.rows:
        places[row.place[:2]].append(row.place[2])
    following: dict[Log, int] = defaultdict(int, stored.first_offsets)
    for log, begin, end, accounted in stored.ledger:
        if begin != following[log] or end - begin != accounted:
            problems.append(f"ledger of partition {_name(log)}: [{begin}, {end}) with {accounted} follows {following[log]}")
        following[log] = end
    for log, next_offset in stored.next_offsets.items():
        if following[log] != next_offset:
            problems.append(f"partition {_name(log)}: ledger ends at {following[log]}, next_offset is {next_offset}")
    for log in {*following, *stored.next_offsets, *places}:
        first, last = stored.first_offsets.get(log, 0), stored.next_offsets.get(log, following[log])
        found, wanted = set(places[log]), last - first - stored.absent.get(log, 0)
        if len(found) != len(places[log]) or len(found) != wanted or not found <= set(range(first, last)):
            problems.append(f"partition {_name(log)}: {len(places[log])} rows for {wanted} offsets of [{first}, {last})")
    return problems


def _name(log: Log) -> str:
    partition, generation = log
    return f"{partition} generation {generation}" if generation else str(partition)


def _some(what: str, found: Sequence[Any], most: int = 5) -> list[str]:
    """At most a few examples, so that a failing test stays readable."""
    return [f"{what}: {len(found)}, such as " + "; ".join(repr(item)[:600] for item in found[:most])] if found else []


def _value(row: Sequence[Any]) -> Value:
    return _bits(row[5]), row[6], row[7]


def _bits(value: float | None) -> bytes | None:
    return None if value is None else struct.pack(">d", value)


def _sums(connection: Connection, source: str, values: Mapping[str, Any]) -> dict[str, int]:
    return dict(zip(_COUNTERS.split(", "), _all(connection, f"SELECT {_SUMS} {source}", values)[0], strict=True))


def _all(connection: Connection, query: str, values: Mapping[str, Any]) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(query, values)
        return cursor.fetchall()
