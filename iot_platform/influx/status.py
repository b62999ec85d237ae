"""How every sink is: what it has, how far behind it is, what it refused."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from psycopg2.extensions import connection as Connection  # noqa: N812

LATE_SECONDS: Final = 300.0
"""A sink that is so far behind has trouble: usually it is seconds."""

_SINKS: Final = """
SELECT s.sink, s.seen_at, s.written_at, s.written, s.refused, s.retries, s.error, s.error_since, coalesce(p.lag, 0)::bigint,
    coalesce(extract(epoch FROM clock_timestamp() - p.waiting_since), 0)::float8,
    (SELECT count(*) FROM sink_series r WHERE r.sink = s.sink), (SELECT count(*) FROM sink_refused r WHERE r.sink = s.sink),
    (SELECT count(*) FROM sink_backfill b WHERE b.sink = s.sink)
FROM sink s
LEFT JOIN (SELECT sink, sum(lag) AS lag, min(waiting_since) AS waiting_since FROM sink_progress GROUP BY 1) p USING (sink)
ORDER BY 1"""
_REASONS: Final = "SELECT sink, reason, count(*), min(detail) FROM sink_refused GROUP BY 1, 2 ORDER BY 1, 3 DESC"


@dataclass(frozen=True)
class SinkStatus:
    """One sink. `lag`: Kafka records of the ledger that it does not have; `behind_seconds`: since when the oldest of them is committed."""

    sink: str
    seen_at: datetime
    written_at: datetime | None
    written: int
    refused: int
    retries: int
    error: str | None
    error_since: datetime | None
    lag: int
    behind_seconds: float
    series: int
    missing: int
    backfills: int


@dataclass(frozen=True)
class Missing:
    """What a sink does not have, by reason, with an example of why."""

    sink: str
    reason: str
    points: int
    example: str


def read(connection: Connection) -> list[SinkStatus]:
    """All sinks that ever followed."""
    return [SinkStatus(*row) for row in _ask(connection, _SINKS)]


def missing(connection: Connection) -> list[Missing]:
    """What they do not have."""
    return [Missing(*row) for row in _ask(connection, _REASONS)]


def _ask(connection: Connection, query: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query)
        found = cursor.fetchall()
    connection.rollback()
    return found
