"""Which files were imported: a file is known by its content, and every import has a partition of its own in kafka_offset and ledger."""

import gzip
import hashlib
import io
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, Final, cast

from psycopg2 import Binary
from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.database.locks import advisory_lock
from iot_platform.imports.errors import ImportRefusedError
from iot_platform.telemetry.counters import COUNTERS, SUMS
from iot_platform.telemetry.partitions import IMPORT_TOPIC

BLOCK: Final = 1 << 20
_SIZES: Final = "SELECT DISTINCT bytes FROM import_file ORDER BY 1"
_FIND: Final = """
SELECT f.kafka_partition, f.name, f.mapping_sha256, f.finished_at::text, f.records, o.next_offset, o.topic_id
FROM import_file f JOIN kafka_offset o ON o.topic = %s AND o.kafka_partition = f.kafka_partition
WHERE f.sha256 = %s ORDER BY f.kafka_partition DESC"""
_GROWN: Final = (
    "SELECT name, records, kafka_partition FROM import_file WHERE bytes = %s AND sha256 = %s AND coalesce(records, 1) > 0 LIMIT 1"
)
_ADD: Final = """
INSERT INTO import_file (sha256, bytes, name, mapping, mapping_sha256) VALUES (%s, %s, %s, %s, %s) RETURNING kafka_partition"""
_OFFSET: Final = """
INSERT INTO kafka_offset (topic, kafka_partition, next_offset, cluster_id, topic_id, first_offset) VALUES (%s, %s, 0, %s, %s, 0)"""
_FINISH: Final = "UPDATE import_file SET finished_at = now(), records = %s WHERE kafka_partition = %s AND finished_at IS NULL"
_SUMS: Final = f"""
SELECT {SUMS}, min(first_received_at), max(last_received_at) FROM ledger
WHERE kafka_partition = %s AND kafka_topic = %s"""  # noqa: S608 - names of columns
_REASONS: Final = """
SELECT reason, count(*) FROM quarantine WHERE kafka_partition = %s AND received_at BETWEEN %s AND %s GROUP BY 1"""


@dataclass(frozen=True, slots=True)
class Content:
    """What a file holds: its SHA-256 and length (unpacked), and the SHA-256 of its first so many bytes, for lengths that are known."""

    sha256: bytes
    length: int
    beginnings: dict[int, bytes]


@dataclass(frozen=True, slots=True)
class Entry:
    """An import: its partition, the content's id in the ledger, and whether it is complete."""

    partition: int
    topic_id: str
    next_offset: int
    finished: bool


@dataclass(slots=True)
class Books:
    """What became of an import so far, by the ledger: the sums of all its runs."""

    counts: dict[str, int] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)


def opened(file: BinaryIO) -> BinaryIO:
    """The content of an open file from its beginning: unpacked, where it is gzip."""
    file.seek(0)
    packed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    return cast("BinaryIO", io.BufferedReader(gzip.GzipFile(fileobj=file), BLOCK)) if packed else file


def digest(file: BinaryIO, lengths: Sequence[int], on_block: Callable[[], None]) -> Content:
    """Read the file once. Raises ImportRefusedError if it is damaged gzip."""
    stream, found, beginnings, size = opened(file), hashlib.sha256(), {}, 0
    wanted = sorted(lengths)
    try:
        while block := stream.read(BLOCK):
            while wanted and wanted[0] <= size + len(block):
                part = found.copy()
                part.update(block[: wanted[0] - size])
                beginnings[wanted.pop(0)] = part.digest()
            found.update(block)
            size += len(block)
            on_block()
    except (EOFError, OSError) as error:
        raise ImportRefusedError(f"the file cannot be read to its end: {error}") from error
    return Content(found.digest(), size, beginnings)


def lengths(connection: Connection) -> list[int]:
    """The lengths of all files that were imported."""
    with connection.cursor() as cursor:
        cursor.execute(_SIZES)
        found = [int(size) for (size,) in cursor.fetchall()]
    connection.rollback()
    return found


def find(connection: Connection, content: Content, mapping: str, *, again: bool) -> Entry | None:
    """The import of this content, if it was begun. `again`: one that is complete, or had another mapping, does not count.

    Raises:
        ImportRefusedError: the content was imported under another mapping; or it is that of a file that was, and more.
    """
    with connection.cursor() as cursor:
        cursor.execute(_FIND, (IMPORT_TOPIC, Binary(content.sha256)))
        entries = cursor.fetchall()
        for size, beginning in content.beginnings.items():
            if size == content.length or entries:
                continue
            cursor.execute(_GROWN, (size, Binary(beginning)))
            if (row := cursor.fetchone()) is not None:
                connection.rollback()
                raise ImportRefusedError(
                    f"the file grew: its first {size:,} bytes are {row[0]}, imported as partition {row[2]}"
                    f" ({'not finished' if row[1] is None else f'{row[1]:,} records'}). Import what is new as a file of its own"
                    f" (tail -c +{size + 1}; of CSV with the header), or all of it with --again, which counts what is there as duplicates"
                )
    connection.rollback()
    same = hashlib.sha256(mapping.encode()).digest()
    for partition, name, mapped, finished_at, _, next_offset, topic_id in entries:
        if bytes(mapped) == same:
            return None if again and finished_at else Entry(partition, topic_id, next_offset, finished_at is not None)
        if not again:
            raise ImportRefusedError(
                f"this content ({name}) was imported with another mapping, as partition {partition}: with --again by this one, beside it"
            )
    return None


def begin(connection: Connection, content: Content, name: str, mapping: str, *, again: bool) -> Entry:
    """The import of this content, begun now unless it was before. Commits."""
    with advisory_lock(connection, "imports", float("inf")), connection.cursor() as cursor:
        if (entry := find(connection, content, mapping, again=again)) is None:
            mapped = hashlib.sha256(mapping.encode()).digest()
            cursor.execute(_ADD, (Binary(content.sha256), content.length, name, mapping, Binary(mapped)))
            (partition,) = cursor.fetchone() or (0,)
            entry = Entry(partition, content.sha256.hex(), 0, finished=False)
            cursor.execute(_OFFSET, (IMPORT_TOPIC, partition, IMPORT_TOPIC, entry.topic_id))
            connection.commit()
    return entry


def next_offset(connection: Connection, partition: int) -> int:
    """How many records are in."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT next_offset FROM kafka_offset WHERE topic = %s AND kafka_partition = %s", (IMPORT_TOPIC, partition))
        (found,) = cursor.fetchone() or (0,)
    connection.rollback()
    return int(found)


def finish(connection: Connection, partition: int, records: int) -> None:
    """Note that all is in. Commits."""
    with connection.cursor() as cursor:
        cursor.execute(_FINISH, (records, partition))
    connection.commit()


def books(connection: Connection, partition: int) -> Books:
    """What became of an import, of all its runs."""
    with connection.cursor() as cursor:
        cursor.execute(_SUMS, (partition, IMPORT_TOPIC))
        *sums, first, last = cursor.fetchone() or ()
        reasons: Counter[str] = Counter()
        if first is not None:
            cursor.execute(_REASONS, (partition, first, last))
            reasons.update(dict(cursor.fetchall()))
    connection.rollback()
    return Books({name: count or 0 for name, count in zip(COUNTERS, sums, strict=True)}, reasons)
