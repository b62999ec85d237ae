"""Policies of compression, and the chunks they are about, as the database has them."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.compression.errors import CompressionError

LEAST_AGE: Final = timedelta(hours=1)

_POLICIES: Final = """
SELECT table_name, older_than, late_share, enabled, segment_by, order_by, changed_at, changed_by
FROM compression_policy ORDER BY table_name"""
_SET: Final = """
UPDATE compression_policy SET older_than = coalesce(%s, older_than),
    late_share = coalesce(%s, late_share), enabled = coalesce(%s, enabled),
    changed_at = now(), changed_by = %s
WHERE table_name = %s"""
_CHUNKS: Final = """
SELECT c.table_name, c.chunk_name, c.range_start, c.range_end, c.compressed, c.bytes, c.late_bytes, c.due,
    CASE WHEN c.compressed THEN round(coalesce(k.bytes_before * (n.rows::float8 / k.rows), k.bytes_before))::bigint END, n.rows
FROM compression_chunks() c
LEFT JOIN LATERAL (
    SELECT k.bytes_before, nullif(k.rows, 0) AS rows FROM compressed_chunk k WHERE k.chunk_name = c.chunk_name AND k.action = 'compress'
    ORDER BY k.compressed_at DESC LIMIT 1
) k ON true
LEFT JOIN LATERAL (
    SELECT n.rows FROM compressed_chunk n WHERE n.chunk_name = c.chunk_name AND c.compressed ORDER BY n.compressed_at DESC LIMIT 1
) n ON true
ORDER BY c.table_name, c.range_start"""


@dataclass(frozen=True)
class Policy:
    """Which chunks of a table are compressed, and how."""

    table: str
    older_than: timedelta
    late_share: float
    enabled: bool
    segment_by: str
    order_by: str
    changed_at: datetime
    changed_by: str


@dataclass(frozen=True)
class Chunk:
    """A chunk of a table with a policy. `bytes` are those on disk now, `bytes_before` those it would take uncompressed, by
    its first compression and the rows that came later; None for a chunk that is not compressed."""

    table: str
    name: str
    start: datetime
    end: datetime
    compressed: bool
    bytes: int
    late_bytes: int
    due: Literal["compress", "recompress"] | None
    bytes_before: int | None
    rows: int | None

    @property
    def plain_bytes(self) -> int:
        """What it would take uncompressed."""
        return self.bytes_before or self.bytes

    @property
    def ratio(self) -> float | None:
        """Bytes before over bytes now; None for a chunk that is not compressed."""
        return self.plain_bytes / self.bytes if self.compressed and self.bytes else None


def read_policies(connection: Connection) -> list[Policy]:
    """All policies, by table."""
    with connection.cursor() as cursor:
        cursor.execute(_POLICIES)
        rows = cursor.fetchall()
    connection.rollback()
    return [Policy(*row) for row in rows]


def read_chunks(connection: Connection) -> list[Chunk]:
    """Every chunk of the tables with a policy, in order of table and time."""
    with connection.cursor() as cursor:
        cursor.execute(_CHUNKS)
        rows = cursor.fetchall()
    connection.rollback()
    return [Chunk(*row) for row in rows]


def set_policy(
    connection: Connection,
    table: str,
    by: str,
    *,
    older_than: timedelta | None = None,
    late_share: float | None = None,
    enabled: bool | None = None,
) -> None:
    """Change what is not None, and commit. It holds from the next run on; nothing that is compressed is decompressed.

    Raises:
        CompressionError: there is no policy for the table, or a value is out of bounds.
    """
    if older_than is not None and older_than < LEAST_AGE:
        raise CompressionError("a chunk must be at least 1 hour old: younger ones are still written to")
    if late_share is not None and not 0 < late_share <= 1:  # also refuses nan
        raise CompressionError("the share of late rows must be above 0 and at most 1, such as 0.1")
    with connection.cursor() as cursor:
        cursor.execute(_SET, (older_than, late_share, enabled, by, table))
        found = cursor.rowcount
    connection.commit()
    if not found:
        known = ", ".join(policy.table for policy in read_policies(connection))
        raise CompressionError(f"there is no compression policy for '{table}'; there are: {known}")
