"""Deletes a tenant everywhere, in batches; may be killed anywhere and repeated. How and why: sql/repeatable/tenant_deletion.sql."""

import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import psycopg2
from psycopg2.errors import DeadlockDetected, LockNotAvailable, UniqueViolation
from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.compression.chunks import read_chunks
from iot_platform.compression.compress import compress
from iot_platform.compression.forecast import disk_limit
from iot_platform.compression.formats import size
from iot_platform.database import connect
from iot_platform.database.batches import BatchSize, in_slices
from iot_platform.database.errors import DatabaseUnreachableError
from iot_platform.database.migrate import require_migrated
from iot_platform.database.tenant_sessions import make_way
from iot_platform.settings import Settings
from iot_platform.telemetry.decode import DecodeRules
from iot_platform.tenants import access
from iot_platform.tenants.errors import TenantError
from iot_platform.tenants.listing import tenants

MAX_ROWS: Final = 10_000
MAX_NAMES: Final = 2_000
"""Series, and sources, per transaction: a drain that creates one of them anew waits for it."""
LEAST_ROWS: Final = 1_000
MOST_ROWS: Final = 50_000
"""Rows per transaction, by how long they take."""
MAX_IDS: Final = 20_000
"""Series or sources per transaction: each batch of rows looks for all of them."""
LOCK_SECONDS: Final = 600.0
"""A chunk that is being compressed is waited for, a second at a time."""
TABLES: Final = ("message", "quarantine", "measurement", "measurement_1h", "measurement_1d", "quality_result")

_OPEN: Final = "SELECT deletion_id, cut_at IS NOT NULL FROM tenant_deletion WHERE tenant_id = %s AND finished_at IS NULL"
_BEGIN: Final = "INSERT INTO tenant_deletion (tenant_id, requested_by) VALUES (%s, %s) RETURNING deletion_id, false"
_EXISTS: Final = """
SELECT EXISTS (SELECT FROM project WHERE tenant_id = %(tenant)s) OR EXISTS (SELECT FROM accounting_1h WHERE tenant_id = %(tenant)s)
    OR EXISTS (SELECT FROM quarantine WHERE tenant_id = %(tenant)s)"""
_CHUNKS: Final = """
SELECT c.range_start, c.range_end, CASE WHEN c.compressed THEN c.chunk::text END
FROM retention_tables() t CROSS JOIN LATERAL retention_chunks(t.table_name) c
WHERE t.table_name = %s AND isfinite(c.range_start) ORDER BY 1"""
_BLOCK: Final = """
SELECT min(id), max(id) FROM (SELECT {0}_id AS id, (row_number() OVER (ORDER BY {0}_id) - 1) / %s AS block
    FROM tenant_deletion_{0} WHERE deletion_id = %s) i
GROUP BY block ORDER BY block"""
_BLOCKS: Final = {owner: _BLOCK.format(owner) for owner in ("series", "source")}
_OWNER: Final = "SELECT owner FROM retention_tables() WHERE table_name = %s"
_REMOVE: Final = "SELECT rows, done_to FROM tenant_deletion_remove(%s, %s, %s, %s, %s, %s, %s)"
_DONE: Final = "SELECT requested_at, cut_at, finished_at, projects, series, sources, removed FROM tenant_deletion WHERE deletion_id = %s"


@dataclass(frozen=True)
class Deletion:
    """A finished row of tenant_deletion."""

    deletion_id: int
    tenant: str
    requested_at: datetime
    cut_at: datetime
    finished_at: datetime
    projects: tuple[str, ...]
    series: int
    sources: int
    removed: dict[str, int]


@dataclass(frozen=True)
class Room:
    """Bytes on disk: what a deletion takes meanwhile, and what is left (None where nobody knows), by `source`."""

    need: int
    left: int | None
    source: str

    def __str__(self) -> str:
        text = f"deleting rows out of compressed chunks unpacks them, one at a time: that takes up to {size(self.need)} for a while"
        return text if self.left is None else f"{text}, and {size(self.left)} are left ({self.source})"


@dataclass
class DeletionProgress:
    """What it does now, and rows that went so far."""

    stage: str = ""
    removed: Counter[str] = field(default_factory=Counter)


def delete_tenant(
    settings: Settings,
    tenant: str,
    *,
    requested_by: str,
    max_rows: int = MAX_ROWS,
    on_progress: Callable[[DeletionProgress], None] = lambda _: None,
) -> Deletion:
    """Delete everything of a tenant that is committed at its cut, or go on with a deletion that was interrupted. Blocks. Messages that come
    later make a new tenant of that id. Acts as the owner of the database.

    Deleting out of a compressed chunk unpacks what it touches: each chunk is compressed again before the next one is opened.

    Raises:
        TenantError: there is no such tenant, or the disk has no room for the largest chunk unpacked.
        DatabaseError: the database does not answer, or others held its locks for minutes: repeat it.
    """
    try:
        with closing(connect(settings, "admin", "iot-tenant-delete")) as connection:
            require_migrated(connection)
            return _Deleter(settings, connection, tenant, max_rows, on_progress).run(requested_by)
    except psycopg2.Error as error:
        raise DatabaseUnreachableError(f"the deletion was not finished, repeat it: {' '.join(str(error).split())}") from error


def room_to_delete(connection: Connection, settings: Settings) -> Room | None:
    """For the largest compressed chunk, unpacked and packed again beside it; None where no chunk is compressed. Any role. Rolls back."""
    need = max((chunk.plain_bytes for chunk in read_chunks(connection) if chunk.compressed), default=0)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_database_size(current_database())")
        ((used,),) = cursor.fetchall()
    connection.rollback()
    limit, source = disk_limit(settings, used)
    return Room(need, None if limit is None else max(0, limit - used), source) if need else None


class _Deleter:
    def __init__(
        self, settings: Settings, connection: Connection, tenant: str, max_rows: int, on_progress: Callable[[DeletionProgress], None]
    ) -> None:
        self._settings, self._connection, self._tenant, self._max_rows = settings, connection, tenant, max_rows
        self._rules = DecodeRules.from_settings(settings)
        self._size = BatchSize(max_rows, max(max_rows, MOST_ROWS) if max_rows >= LEAST_ROWS else max_rows, min(max_rows, LEAST_ROWS))
        self._max_ids = min(MAX_IDS, max_rows)
        self._on_progress = on_progress
        self._progress = DeletionProgress()
        self._resumed = False

    def run(self, requested_by: str) -> Deletion:
        """All of it."""
        self._require_room()
        deletion, cut = self._begin(requested_by)
        self._resumed = cut
        self._stage("login")
        access.revoke(self._connection, self._tenant)  # first: nobody shall read half a tenant
        access.revoke(self._connection, self._tenant, console=True)
        if not cut:
            self._stage("books")
            prepare = "SELECT max(rows) FROM tenant_deletion_prepare(%s, %s)"
            while self._call(prepare, deletion, self._max_rows)[0][0] >= self._max_rows:
                self._on_progress(self._progress)
            self._call("SELECT tenant_deletion_cut(%s)", deletion)
        self._stage("names")
        while self._call("SELECT tenant_deletion_names(%s, %s)", deletion, min(self._max_rows, MAX_NAMES))[0][0]:
            self._on_progress(self._progress)
        for table in TABLES:
            self._stage(table)
            self._remove(deletion, table)
        self._stage("latest values")
        while any(rows for _, rows in self._call("SELECT table_name, rows FROM tenant_deletion_small(%s, %s)", deletion, self._max_rows)):
            self._on_progress(self._progress)
        self._forget_dead_letters(deletion)
        self._call("SELECT tenant_deletion_finish(%s)", deletion)
        requested, cut_at, finished, projects, series, sources, removed = self._call(_DONE, deletion)[0]
        return Deletion(deletion, self._tenant, requested, cut_at, finished, tuple(projects), series, sources, removed)

    def _begin(self, requested_by: str) -> tuple[int, bool]:
        if found := self._call(_OPEN, self._tenant):
            return int(found[0][0]), bool(found[0][1])
        if not self._tenant or not self._call(_EXISTS, {"tenant": self._tenant})[0][0]:
            known = [item.tenant for item in tenants(self._connection)]
            shown = ", ".join(known[:10]) + (" …" if len(known) > 10 else "")
            raise TenantError(f"there is no tenant {self._tenant!r}; there are: {shown or 'none yet'}")
        try:
            return self._call(_BEGIN, self._tenant, requested_by)[0]
        except UniqueViolation:  # somebody else asked for it at this moment: both work on the same deletion
            self._connection.rollback()
            return self._begin(requested_by)

    def _remove(self, deletion: int, table: str) -> None:
        owners = self._call(_OWNER, table)
        query = _BLOCKS.get(owners[0][0]) if owners else None
        blocks = self._call(query, self._max_ids, deletion) if query else [(0, 0)]
        for begin, end, compressed in self._call(_CHUNKS, table):
            before = self._progress.removed[table]
            for block in blocks:

                def remove(since: datetime, until: datetime, most: int, ids: tuple[Any, ...] = block) -> tuple[int, datetime]:
                    rows, done = self._call(_REMOVE, deletion, table, since, until, most, *ids)[0]
                    self._progress.removed[table] += rows
                    self._on_progress(self._progress)
                    return rows, done

                in_slices(begin, end, self._size, remove)
            if compressed is not None and (self._resumed or self._progress.removed[table] > before):
                compress(self._settings, chunk=compressed)

    def _require_room(self) -> None:
        room = room_to_delete(self._connection, self._settings)
        if room is not None and room.left is not None and room.need > room.left:
            raise TenantError(f"{room}: make room, or raise IOT_DISK_LIMIT_BYTES; nothing was deleted")

    def _forget_dead_letters(self, deletion: int) -> None:
        """Rows of dead_letter are needed for the audit; the topics that name the tenant are not."""
        topics = []
        for (topic,) in self._call("SELECT DISTINCT topic FROM dead_letter"):
            named = self._rules.topic_names(topic.encode())
            if named is not None and named.tenant == self._tenant:
                topics.append(topic)
        if topics:
            self._call("SELECT tenant_deletion_dead_letters(%s, %s)", deletion, topics)

    def _stage(self, name: str) -> None:
        self._progress.stage = name
        self._on_progress(self._progress)

    def _call(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """One transaction; tried again while others hold its locks."""
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                with self._connection.cursor() as cursor:
                    cursor.execute(query, parameters[0] if parameters and isinstance(parameters[0], dict) else parameters)
                    rows = cursor.fetchall()
                self._connection.commit()
                return rows
            except (LockNotAvailable, DeadlockDetected) as error:
                self._connection.rollback()
                if time.monotonic() > deadline:
                    raise
                make_way(self._connection, error)
