"""What hardware a load needs: arithmetic on figures that were measured, each with its unit and the page that says how.

Rates are planned at half of what was measured, so that a backlog is caught up with and maintenance has room. Nothing is asked or read.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

DAY_SECONDS: Final = 86_400
PLANNED_SHARE: Final = 0.5
MOST_SHARDS: Final = 3  # IOT_DRAIN_SHARDS
LANES: Final = 2  # IOT_DRAIN_LANES
FEW_PARTITIONS, MORE_PARTITIONS, LANES_OF_FEW = 6, 12, 4


@dataclass(frozen=True)
class Figure:
    """A measured number, what it is of, and the page that says how it was measured."""

    value: float
    unit: str
    what: str
    source: str


_PERFORMANCE, _OPERATIONS, _SOAK, _SCALE = "docs/performance.md", "docs/operations.md", "docs/soak.md", "docs/scale.md"

INGEST_CPU: Final = Figure(13, "µs/message", "ingest daemon", _PERFORMANCE)
INGEST_RATE: Final = Figure(111_000, "messages/s", "one ingest daemon from a backlog", _OPERATIONS)
INGEST_MEMORY: Final = Figure(80, "MB", "one ingest daemon at full window", _OPERATIONS)
KAFKA_CPU: Final = Figure(30, "µs/message", "Kafka, taking a message that it syncs", _PERFORMANCE)
KAFKA_MEMORY: Final = Figure(732, "MB", "Kafka with 512 MB of heap, after two hours", _SOAK)
KAFKA_RECORD: Final = Figure(100, "bytes/message", "Kafka's record beside payload and topic", _OPERATIONS)
DRAIN_CPU: Final = Figure(3.2, "µs/message", "drain: consuming, and what is left beside decoding and writing", _PERFORMANCE)
DRAIN_CPU_FLAT: Final = Figure(1.6, "µs/measurement", "drain: decoding and writing a number of a flat document", _PERFORMANCE)
DRAIN_CPU_MIXED: Final = Figure(2.1, "µs/measurement", "drain: the same of texts, ISO times, nested objects, lists of points", _PERFORMANCE)
DRAIN_MESSAGE_RATE: Final = Figure(62_000, "messages/s", "one shard from a backlog, flat documents", _PERFORMANCE)
DRAIN_MEASUREMENT_RATE: Final = Figure(175_000, "measurements/s", "one shard from a backlog, the realistic mix", _PERFORMANCE)
DRAIN_MEMORY: Final = Figure(250, "MB", "one run of the drain; each shard has two while one takes over from the other", _PERFORMANCE)
DATABASE_CPU: Final = Figure(2, "µs/message", "PostgreSQL: a row of message, its part of the commit", _PERFORMANCE)
DATABASE_CPU_MEASUREMENT: Final = Figure(3, "µs/measurement", "PostgreSQL: a row of measurement with its unique index", _PERFORMANCE)
DATABASE_MEMORY: Final = Figure(377, "MB", "PostgreSQL after two hours, beside the cache", _SOAK)
DAGSTER_MEMORY: Final = Figure(508, "MB", "Dagster's web server, daemon and code server", _OPERATIONS)
PAGES_MEMORY: Final = Figure(153, "MB", "console and `iot metrics`", _SOAK)
IDLE_CPU: Final = Figure(0.14, "cores", "the whole stack without messages", _PERFORMANCE)
ROLLUP_CPU: Final = Figure(22.5, "µs/hour of a series", "a rollup of one hour", _SCALE)
MESSAGE_ROW: Final = Figure(210, "bytes/message", "row of message beside the payload", _OPERATIONS)
MEASUREMENT_ROW: Final = Figure(97, "bytes/measurement", "row of measurement, half of it the unique index", _SCALE)
INDEX_PAGE: Final = Figure(8192, "bytes/series", "page of an index", "docs/schema.md")
ROLLUP_ROW: Final = Figure(150, "bytes/row", "row of a rollup with its index, from its columns", _PERFORMANCE)
ACCOUNTING_ROW: Final = Figure(430, "bytes/row", "hour, project and Kafka partition in accounting_1h", _SCALE)
WAL_MESSAGE: Final = Figure(50, "bytes/message", "WAL of a message beside the payload", _PERFORMANCE)
CHECKPOINT: Final = Figure(900, "s", "between two checkpoints (checkpoint_timeout)", "deploy/compose/timescaledb/postgresql.conf")
WAL_MEASUREMENT: Final = Figure(165, "bytes/measurement", "WAL of a measurement", _PERFORMANCE)
MESSAGE_RATIO: Final = Figure(7.3, "×", "compression of messages (Community edition)", "docs/compression.md")
MEASUREMENT_RATIO: Final = Figure(9.6, "×", "compression of measurements (Community edition)", "docs/compression.md")


@dataclass(frozen=True)
class Load:
    """What comes, and how long it is kept. Rates a second, sizes in bytes, times in days; `measurements` are of one message."""

    messages_per_second: float
    measurements: float
    retention_days: float
    payload_bytes: int = 200
    topic_bytes: int = 70
    projects: int = 10
    series: int | None = None
    """Unless given: as if each device sent once a minute."""
    flat: bool = False
    compression: bool = False
    message_days: float = 3
    rollup_days: float = 730
    accounting_days: float = 400
    kafka_days: float = 7
    replicas: int = 1
    wal_archive_days: float = 14

    @property
    def measurements_per_second(self) -> float:
        return self.messages_per_second * self.measurements

    @property
    def known_series(self) -> float:
        return self.series if self.series is not None else max(1.0, self.measurements_per_second * 60)


@dataclass(frozen=True)
class Size:
    """Cores (planned share included), MB and bytes by part; how many shards, lanes in all, Kafka partitions and ingest daemons."""

    cores: dict[str, float]
    memory_mb: dict[str, float]
    disk_bytes: dict[str, float]
    shards: int
    partitions: int
    ingest_daemons: int
    warnings: tuple[str, ...]


def size(load: Load) -> Size:
    """What a load needs, on however many machines; nothing of the operating system. Raises ValueError: a number makes no sense."""
    for name in ("messages_per_second", "measurements", "retention_days", "payload_bytes", "projects", "replicas"):
        if getattr(load, name) <= 0:
            raise ValueError(f"{name} must be above 0")
    wanted = _shards(load)
    shards = min(wanted, MOST_SHARDS)
    partitions = FEW_PARTITIONS if shards * LANES <= LANES_OF_FEW else MORE_PARTITIONS
    daemons = math.ceil(load.messages_per_second / (INGEST_RATE.value * PLANNED_SHARE))
    return Size(
        dict(_cores(load)),
        dict(_memory(load, shards, daemons)),
        dict(_disk(load, partitions)),
        shards,
        partitions,
        daemons,
        tuple(_warnings(load, wanted)),
    )


def _shards(load: Load) -> int:
    share = max(
        load.messages_per_second / DRAIN_MESSAGE_RATE.value,
        load.measurements_per_second / DRAIN_MEASUREMENT_RATE.value,
    )
    return max(1, math.ceil(share / PLANNED_SHARE))


def _cores(load: Load) -> Iterator[tuple[str, float]]:
    messages, values = load.messages_per_second, load.measurements_per_second
    hours_per_second = min(load.known_series / 3600, values)
    drain = DRAIN_CPU_FLAT if load.flat else DRAIN_CPU_MIXED
    busy = {
        "ingest": messages * INGEST_CPU.value,
        "kafka": messages * KAFKA_CPU.value * load.replicas,
        "drain": messages * DRAIN_CPU.value + values * drain.value,
        "postgresql": messages * DATABASE_CPU.value + values * DATABASE_CPU_MEASUREMENT.value + hours_per_second * ROLLUP_CPU.value,
    }
    for part, microseconds in busy.items():
        yield part, microseconds / 1e6 / PLANNED_SHARE
    yield "at rest", IDLE_CPU.value


def _memory(load: Load, shards: int, daemons: int) -> Iterator[tuple[str, float]]:
    yield "ingest", INGEST_MEMORY.value * daemons
    yield "kafka", KAFKA_MEMORY.value * load.replicas
    yield "drain", DRAIN_MEMORY.value * 2 * shards
    yield "postgresql", DATABASE_MEMORY.value
    # Rows come in the order of time, their index in that of series: of each series the newest page is written to.
    index = load.measurements_per_second * DAY_SECONDS * MEASUREMENT_ROW.value / 2
    yield "newest index pages, cached", min(index, load.known_series * INDEX_PAGE.value) / 1e6
    yield "dagster", DAGSTER_MEMORY.value
    yield "console and metrics", PAGES_MEMORY.value


def _disk(load: Load, partitions: int) -> Iterator[tuple[str, float]]:
    messages, values = load.messages_per_second * DAY_SECONDS, load.measurements_per_second * DAY_SECONDS
    yield "message", messages * (MESSAGE_ROW.value + load.payload_bytes) * _days(load.message_days, 1, MESSAGE_RATIO, load.compression)
    yield "measurement", values * MEASUREMENT_ROW.value * _days(load.retention_days, 7, MEASUREMENT_RATIO, load.compression)
    hours, days = min(load.known_series * 24, values), min(load.known_series, values)
    yield "rollups", (hours + days) * ROLLUP_ROW.value * load.rollup_days
    rows = min(load.projects * 24 * partitions, messages)
    yield "accounting_1h", rows * ACCOUNTING_ROW.value * load.accounting_days
    wal = messages * (WAL_MESSAGE.value + load.payload_bytes) + values * WAL_MEASUREMENT.value
    yield "wal archive, rows", wal * load.wal_archive_days
    # What PostgreSQL writes first to a page after a checkpoint is the whole page: of each series the newest page of its index.
    pages = min(load.known_series, load.measurements_per_second * CHECKPOINT.value) * INDEX_PAGE.value
    yield "wal archive, whole pages", pages * DAY_SECONDS / CHECKPOINT.value * load.wal_archive_days
    record = load.payload_bytes + load.topic_bytes + KAFKA_RECORD.value
    yield "kafka", messages * record * load.kafka_days * load.replicas


def _days(kept: float, plain: float, ratio: Figure, compression: bool) -> float:
    """Days of uncompressed rows that take as much; a chunk is a day, and the one that retention cuts is still there."""
    there = kept + 1
    if not compression:
        return there
    loose = min(there, plain + 1)
    return loose + (there - loose) / ratio.value


def _warnings(load: Load, wanted: int) -> Iterator[str]:
    if wanted > MOST_SHARDS:
        yield f"{wanted} shards would be needed, and IOT_DRAIN_SHARDS is {MOST_SHARDS} at most: more than was measured, try it out before"
    if load.known_series > 100_000 and load.series is not None:
        yield "more than 100,000 series were not measured (docs/scale.md)"
    if load.projects > 10_000:
        yield "more than 10,000 projects were not measured (docs/scale.md)"


def figures() -> tuple[Figure, ...]:
    """Every figure that the arithmetic uses."""
    return tuple(value for value in globals().values() if isinstance(value, Figure))
