"""Finished MQTT connections: how far each one's messages got, kept for the proof that none of its sequences is missing."""

import contextlib
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

KEPT = 10_000  # newest finished connections
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS connection (
    number INTEGER PRIMARY KEY,  -- of the MQTT connection, grows
    opened_at_us INTEGER NOT NULL,
    received INTEGER NOT NULL,   -- last sequence received
    settled INTEGER NOT NULL,    -- 1..settled were in Kafka, the dead-letter topic or the spool
    in_kafka INTEGER NOT NULL    -- 1..in_kafka were in Kafka or the dead-letter topic when the row was written
)"""
_ADD = """
INSERT INTO connection VALUES (?, ?, ?, ?, ?)
ON CONFLICT (number) DO UPDATE SET received = max(received, excluded.received), settled = max(settled, excluded.settled),
    in_kafka = max(in_kafka, excluded.in_kafka)"""
_FORGET = "DELETE FROM connection WHERE number <= (SELECT number FROM connection ORDER BY number DESC LIMIT 1 OFFSET ?)"

Oldest = tuple[int, int] | None
"""Connection number and sequence of the oldest message in the spool; no other message of the spool is before it."""


@dataclass(frozen=True, slots=True)
class ConnectionReport:
    """One MQTT connection at one moment. Sequences count from 1 within it."""

    number: int
    opened_at_us: int
    received: int
    settled: int
    in_kafka: int
    open: bool

    def to_dict(self) -> dict[str, Any]:
        """As in /accounting."""
        return {
            "number": self.number,
            "opened_at": utc(self.opened_at_us),
            "received": self.received,
            "settled": self.settled,
            "in_kafka": self.in_kafka,
            "open": self.open,
        }


def utc(microseconds: int) -> str:
    """ISO 8601 of a Unix time."""
    return (_EPOCH + timedelta(microseconds=microseconds)).isoformat(timespec="microseconds").replace("+00:00", "Z")


def in_kafka(number: int, settled: int, known: int, oldest: Oldest) -> int:
    """Up to which sequence a connection's messages are certainly in Kafka's topic or the dead-letter topic.

    What is settled is there or in the spool, and the spool is in order of arrival: nothing of an earlier connection than its oldest
    entry's, nor before that entry, is still in it. `known` is what was certain before; it stays so.
    """
    if oldest is None or number < oldest[0]:
        return settled
    return max(known, min(settled, oldest[1] - 1) if number == oldest[0] else 0)


def listed(history: Iterable[ConnectionReport], unfinished: Iterable[ConnectionReport], oldest: Oldest) -> tuple[ConnectionReport, ...]:
    """The newest connections, oldest first; those of the history as far as they are in Kafka now."""
    known = {}
    for one in history:
        certain = in_kafka(one.number, one.settled, one.in_kafka, oldest)
        known[one.number] = one if certain == one.in_kafka else replace(one, in_kafka=certain)
    known.update((one.number, one) for one in unfinished)
    return tuple(known[number] for number in sorted(known)[-KEPT:])


class ConnectionHistory:
    """A small SQLite file. Every method may block for as long as the disk does, and raises sqlite3.Error when it won't."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = sqlite3.connect(self._path, timeout=5.0, isolation_level=None, check_same_thread=False)
            try:
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute(_SCHEMA)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def load(self) -> list[ConnectionReport]:
        """All of them, oldest first."""
        rows = self._open().execute("SELECT number, opened_at_us, received, settled, in_kafka, 0 FROM connection ORDER BY number")
        return [ConnectionReport(*row) for row in rows]

    def add(self, reports: Iterable[ConnectionReport]) -> None:
        """Keep these, on disk on return; a repeated one is merged. All or none."""
        rows = [(r.number, r.opened_at_us, r.received, r.settled, r.in_kafka) for r in reports]
        execute = self._open().execute
        execute("BEGIN IMMEDIATE")
        try:
            self._open().executemany(_ADD, rows)
            execute(_FORGET, (KEPT,))
            execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                if self._open().in_transaction:
                    execute("ROLLBACK")
            raise

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
