"""The tables of a sink: how far it is, what it refused, which series it has. Every change is the caller's transaction."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from psycopg2.extensions import connection as Connection  # noqa: N812
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from psycopg2.extras import execute_values

from iot_platform.database.interval import interval
from iot_platform.influx.errors import InfluxBusyError
from iot_platform.influx.lines import Row
from iot_platform.telemetry.partitions import IMPORT_TOPIC, topic_of_partition

OVERLAP: Final = timedelta(minutes=15)
"""How much later than its time in the ledger a batch of a replay may become visible: no transaction of a replay takes longer."""

# Tenants that were deleted before a sink began never were in it.
_OPEN: Final = """
INSERT INTO sink (sink, deletion_id)
SELECT %s, coalesce(min(deletion_id) FILTER (WHERE finished_at IS NULL) - 1, max(deletion_id), 0) FROM tenant_deletion
ON CONFLICT (sink) DO UPDATE SET seen_at = now()"""
# A new sink begins with the oldest messages that retention has left; what is older is a backfill's.
_POSITIONS: Final = """
INSERT INTO sink_offset (sink, topic, kafka_partition, log_generation, next_offset)
SELECT %(sink)s, k.topic, k.kafka_partition, coalesce(l.log_generation, k.log_generation), coalesce(l.from_offset, k.next_offset)
FROM kafka_offset k
LEFT JOIN LATERAL (
    SELECT l.log_generation, l.from_offset FROM ledger l
    WHERE l.kafka_topic = k.topic AND l.kafka_partition = k.kafka_partition AND l.kind = 'drain'
      AND l.last_received_at >= coalesce((SELECT r.removed_before FROM retention_mark r
          WHERE r.table_name = 'message' AND r.tenant_id = ''), '-infinity')
    ORDER BY l.log_generation, l.from_offset LIMIT 1
) l ON true
WHERE k.topic = ANY (%(topics)s) AND NOT EXISTS (SELECT FROM sink_offset o
    WHERE o.sink = %(sink)s AND o.topic = k.topic AND o.kafka_partition = k.kafka_partition)
ON CONFLICT DO NOTHING"""
_READ: Final = """
SELECT o.kafka_partition, o.log_generation, o.next_offset, k.log_generation, k.next_offset
FROM sink_offset o JOIN kafka_offset k USING (topic, kafka_partition) WHERE o.sink = %s AND o.topic = ANY (%s) ORDER BY 1"""
_BATCHES: Final = """
SELECT from_offset, to_offset, messages + quarantined, measurements + measurement_duplicates, measurement_conflicts,
    (extract(epoch FROM first_received_at) * 1000000)::bigint, (extract(epoch FROM last_received_at) * 1000000)::bigint
FROM ledger
WHERE kafka_partition = %s AND log_generation = %s AND from_offset >= %s AND kind = 'drain' AND kafka_topic = %s
ORDER BY from_offset LIMIT %s"""
_REPLAYS: Final = """
SELECT l.batch_id, l.committed_at, l.kafka_partition, l.log_generation, l.from_offset, l.to_offset,
    (extract(epoch FROM l.first_received_at) * 1000000)::bigint, (extract(epoch FROM l.last_received_at) * 1000000)::bigint
FROM ledger l
WHERE l.kind = 'replay' AND l.kafka_topic = ANY (%(topics)s) AND l.first_received_at IS NOT NULL
    AND l.committed_at >= greatest((SELECT begun_at FROM sink WHERE sink = %(sink)s),
        (SELECT max(r.committed_at) FROM sink_replay r WHERE r.sink = %(sink)s)) - %(overlap)s
    AND NOT EXISTS (SELECT FROM sink_replay r WHERE r.sink = %(sink)s AND r.batch_id = l.batch_id)
ORDER BY l.batch_id LIMIT 100"""
_REPLAYED: Final = "INSERT INTO sink_replay (sink, batch_id, committed_at) VALUES (%s, %s, %s)"
_PRUNE_REPLAYS: Final = """
DELETE FROM sink_replay r WHERE r.sink = %(sink)s
    AND r.committed_at < (SELECT max(n.committed_at) FROM sink_replay n WHERE n.sink = %(sink)s) - 2 * %(overlap)s"""
_ADVANCE: Final = """
UPDATE sink_offset SET log_generation = %s, next_offset = %s, updated_at = now()
WHERE sink = %s AND topic = %s AND kafka_partition = %s AND log_generation = %s AND next_offset = %s"""
# A range grows for an hour, so that a sink that keeps up has few of them; one whose messages do not tell all stays alone.
_FOLLOWED: Final = """
WITH new AS (
    SELECT %(sink)s AS sink, %(topic)s AS topic, %(partition)s AS kafka_partition, %(generation)s AS log_generation
), longer AS (
    UPDATE sink_range r SET to_offset = %(to_offset)s, ended_at = now(), records = r.records + %(records)s,
        removed = r.removed + %(removed)s, values_read = r.values_read + %(values_read)s, points_found = r.points_found + %(points_found)s,
        points_sent = r.points_sent + %(points_sent)s, points_refused = r.points_refused + %(points_refused)s
    FROM new n
    WHERE (r.sink, r.topic, r.kafka_partition, r.log_generation) = (n.sink, n.topic, n.kafka_partition, n.log_generation)
      AND r.from_offset = (SELECT max(l.from_offset) FROM sink_range l
          WHERE (l.sink, l.topic, l.kafka_partition, l.log_generation) = (n.sink, n.topic, n.kafka_partition, n.log_generation))
      AND r.to_offset = %(from_offset)s AND r.begun_at > now() - interval '1 hour' AND NOT (r.by_time OR %(by_time)s)
    RETURNING 1
)
INSERT INTO sink_range (sink, topic, kafka_partition, log_generation, from_offset, to_offset, records, removed, values_read, points_found,
    points_sent, points_refused, by_time)
SELECT n.*, %(from_offset)s, %(to_offset)s, %(records)s, %(removed)s, %(values_read)s, %(points_found)s, %(points_sent)s,
    %(points_refused)s, %(by_time)s
FROM new n WHERE NOT EXISTS (SELECT FROM longer)"""
_PRUNE_RANGES: Final = "DELETE FROM sink_range WHERE sink = %s AND ended_at < now() - interval '35 days'"
_REPLAYED_RANGE: Final = """
SELECT EXISTS (SELECT FROM ledger WHERE kind = 'replay' AND kafka_partition = %s AND kafka_topic = %s AND log_generation = %s
    AND from_offset < %s AND to_offset > %s)"""
_COUNT: Final = """
UPDATE sink SET written = written + %s, refused = refused + %s, written_at = now(), seen_at = now(), error = NULL,
    error_since = NULL WHERE sink = %s"""
_TROUBLE: Final = """
UPDATE sink SET error = %s, error_since = coalesce(error_since, now()), seen_at = now(), retries = retries + %s WHERE sink = %s"""
_REFUSE: Final = """
INSERT INTO sink_refused (sink, series_id, time, tenant_id, reason, detail) VALUES %s
ON CONFLICT (sink, series_id, time) DO UPDATE SET reason = excluded.reason, detail = excluded.detail, refused_at = now()"""
_REFUSE_ROW: Final = "(%s, %s, 'epoch'::timestamptz + %s::interval, %s, %s, %s)"
_TAKEN: Final = """
DELETE FROM sink_refused r USING unnest(%s::int[], %s::bigint[]) v (series_id, time)
WHERE r.sink = %s AND r.series_id = v.series_id AND r.time = 'epoch'::timestamptz + v.time * interval '1 microsecond'"""
_KINDS: Final = "SELECT series_id, kinds FROM sink_series WHERE sink = %s AND series_id = ANY (%s)"
_SERIES: Final = "SELECT count(*) FROM sink_series WHERE sink = %s"
_ADD_SERIES: Final = """
INSERT INTO sink_series AS s (sink, series_id, kinds) VALUES %s
ON CONFLICT (sink, series_id) DO UPDATE SET kinds = s.kinds | excluded.kinds"""
_REMOVED: Final = (
    "SELECT EXISTS (SELECT FROM retention_mark WHERE table_name = 'message' AND removed_before > 'epoch'::timestamptz + %s::interval)"
)


class Position(NamedTuple):
    """How far a sink is in one partition, and how far the main store is."""

    partition: int
    generation: int
    next_offset: int
    committed_generation: int
    committed_offset: int

    @property
    def is_behind(self) -> bool:
        """Whether the main store has more."""
        return (self.generation, self.next_offset) < (self.committed_generation, self.committed_offset)


class Batch(NamedTuple):
    """A row of the ledger. `counted`: measurements, repeated ones among them, conflicting ones not. Times in µs, None where it has no
    records."""

    from_offset: int
    to_offset: int
    records: int
    counted: int
    conflicts: int
    first_received: int | None
    last_received: int | None


class Range(NamedTuple):
    """A row of sink_range: what became of [from_offset, to_offset)."""

    from_offset: int
    to_offset: int
    records: int
    removed: int
    values_read: int
    points_found: int
    points_sent: int
    points_refused: int
    by_time: bool


class ReplayBatch(NamedTuple):
    """A replay's row of the ledger."""

    batch_id: int
    committed_at: datetime
    partition: int
    generation: int
    from_offset: int
    to_offset: int
    first_received: int
    last_received: int


class Refusal(NamedTuple):
    """A measurement that the sink does not have."""

    series_id: int
    time: int
    tenant: str
    reason: str
    detail: str


@dataclass(slots=True)
class Books:
    """One sink's rows. Used by one thread."""

    connection: Connection
    sink: str
    kafka_topic: str
    has_refused: bool = True
    _kinds: dict[int, int] = field(default_factory=dict)

    @property
    def topics(self) -> list[str]:
        """What is followed: Kafka's topic, and imports."""
        return [self.kafka_topic, IMPORT_TOPIC]

    def open(self) -> None:
        """Make the rows that are missing; commits."""
        with self.connection.cursor() as cursor:
            cursor.execute(_OPEN, (self.sink,))
            cursor.execute(_POSITIONS, {"sink": self.sink, "topics": self.topics})
            cursor.execute(_PRUNE_RANGES, (self.sink,))
            cursor.execute("SELECT EXISTS (SELECT FROM sink_refused WHERE sink = %s)", (self.sink,))
            (self.has_refused,) = cursor.fetchone() or (True,)
        self.connection.commit()

    def positions(self, cursor: Cursor) -> list[Position]:
        """Of every partition. Read before the batches, so that a log that has ended is known to have no more of them."""
        cursor.execute(_READ, (self.sink, self.topics))
        return list(map(Position._make, cursor.fetchall()))

    def batches(self, cursor: Cursor, position: Position, most: int) -> list[Batch]:
        """What follows a position in its log."""
        topic = topic_of_partition(position.partition, self.kafka_topic)
        cursor.execute(_BATCHES, (position.partition, position.generation, position.next_offset, topic, most))
        return list(map(Batch._make, cursor.fetchall()))

    def replays(self, cursor: Cursor) -> list[ReplayBatch]:
        """Batches of replays that the sink does not have."""
        cursor.execute(_REPLAYS, {"sink": self.sink, "topics": self.topics, "overlap": OVERLAP})
        return list(map(ReplayBatch._make, cursor.fetchall()))

    def note_replay(self, cursor: Cursor, batch: ReplayBatch) -> None:
        """The sink has this one."""
        cursor.execute(_REPLAYED, (self.sink, batch.batch_id, batch.committed_at))
        cursor.execute(_PRUNE_REPLAYS, {"sink": self.sink, "overlap": OVERLAP})

    def advance(self, cursor: Cursor, position: Position, generation: int, offset: int) -> None:
        """Move a position.

        Raises:
            InfluxBusyError: somebody else has moved it.
        """
        topic = topic_of_partition(position.partition, self.kafka_topic)
        place = (self.sink, topic, position.partition, position.generation, position.next_offset)
        cursor.execute(_ADVANCE, (generation, offset, *place))
        if cursor.rowcount != 1:
            self.connection.rollback()
            raise InfluxBusyError(f"partition {position.partition} of sink '{self.sink}' was moved by somebody else")

    def followed(self, cursor: Cursor, position: Position, found: Range) -> None:
        """Note what became of a range, for the audit."""
        topic = topic_of_partition(position.partition, self.kafka_topic)
        place = {"sink": self.sink, "topic": topic, "partition": position.partition, "generation": position.generation}
        cursor.execute(_FOLLOWED, {**place, **found._asdict()})

    def was_replayed(self, cursor: Cursor, position: Position, from_offset: int, to_offset: int) -> bool:
        """Whether a replay may have changed what the records of a range gave."""
        topic = topic_of_partition(position.partition, self.kafka_topic)
        cursor.execute(_REPLAYED_RANGE, (position.partition, topic, position.generation, to_offset, from_offset))
        (replayed,) = cursor.fetchone() or (False,)
        return bool(replayed)

    def delivered(self, cursor: Cursor, written: list[Row], refused: list[Refusal]) -> None:
        """Note what became of measurements: these are there, those are not."""
        self._taken(cursor, written)
        self._refuse(cursor, refused)
        cursor.execute(_COUNT, (len(written), len(refused), self.sink))

    def trouble(self, text: str, retries: int) -> None:
        """It does not take what it is sent; commits."""
        with self.connection.cursor() as cursor:
            cursor.execute(_TROUBLE, (text[:2000], retries, self.sink))
        self.connection.commit()

    def _refuse(self, cursor: Cursor, refusals: Iterable[Refusal]) -> None:
        rows = [(self.sink, item.series_id, interval(item.time), item.tenant, item.reason, item.detail) for item in refusals]
        if rows:
            execute_values(cursor, _REFUSE, rows, template=_REFUSE_ROW)
            self.has_refused = True

    def _taken(self, cursor: Cursor, rows: list[Row]) -> None:
        """What was refused once and is there now."""
        if self.has_refused and rows:
            cursor.execute(_TAKEN, ([row.series_id for row in rows], [row.time for row in rows], self.sink))

    def kinds(self, cursor: Cursor, series: Iterable[int]) -> Mapping[int, int]:
        """Which fields the sink was sent of series (see lines.kinds); those that it has not are missing."""
        if missing := [number for number in series if number not in self._kinds]:
            cursor.execute(_KINDS, (self.sink, missing))
            self._kinds |= dict(cursor.fetchall())
        return self._kinds

    def series_count(self, cursor: Cursor) -> int:
        """How many series it has."""
        cursor.execute(_SERIES, (self.sink,))
        (count,) = cursor.fetchone() or (0,)
        return int(count)

    def add_series(self, cursor: Cursor, found: Mapping[int, int]) -> None:
        """Note fields before they are sent; the caller commits at once."""
        execute_values(cursor, _ADD_SERIES, [(self.sink, number, kinds) for number, kinds in sorted(found.items())])
        for number, kinds in found.items():
            self._kinds[number] = self._kinds.get(number, 0) | kinds

    def forget(self) -> None:
        """What is remembered of series, after a deletion."""
        self._kinds.clear()

    def was_removed(self, cursor: Cursor, received: int) -> bool:
        """Whether retention may have removed messages received at a time (µs)."""
        cursor.execute(_REMOVED, (interval(received),))
        (removed,) = cursor.fetchone() or (False,)
        return bool(removed)
