"""Writes a tenant's data as Parquet files, a manifest beside them; memory stays bounded, and what was written is not written again."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import polars as pl
import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.database import connect
from iot_platform.database.errors import DatabaseUnreachableError
from iot_platform.database.migrate import require_migrated
from iot_platform.settings import Settings
from iot_platform.tenants.errors import TenantError
from iot_platform.tenants.export_tables import TABLES, ExportTable
from iot_platform.tenants.listing import require

FORMAT: Final = 4
"""1: without the manifest's digest of itself. 2: the rollups' columns without value_."""
SEALED: Final = 2
"""The first format with that digest."""
FETCH: Final = 5_000
PART_ROWS: Final = 200_000
PART_BYTES: Final = 64 * 1024 * 1024
"""A file holds at most about so many rows, or so many bytes of them before compression: that bounds the memory."""
MANIFEST: Final = "manifest.json"
DIGEST: Final = "sha256"
"""Of the rest of the manifest."""

_SCHEMA_VERSION: Final = "SELECT max(name) FROM schema_migration WHERE name LIKE 'migrations/%'"
_SPAN: Final = """
SELECT c.range_start, c.range_end FROM unnest(%s) t CROSS JOIN LATERAL retention_chunks(t) c WHERE isfinite(c.range_start)"""


@dataclass(frozen=True)
class ExportedFile:
    """One Parquet file of a manifest. `first` and `last`: times of its oldest and newest row, None in tables without time."""

    name: str
    table: str
    rows: int
    bytes: int
    sha256: str
    first: str | None
    last: str | None


@dataclass
class ExportProgress:
    """Days of a table, done and in all."""

    table: str = ""
    done: int = 0
    total: int = 1
    rows: int = 0


def export_tenant(
    settings: Settings,
    tenant: str,
    folder: Path,
    *,
    at: datetime | None = None,
    part_rows: int = PART_ROWS,
    on_progress: Callable[[ExportProgress], None] = lambda _: None,
) -> dict[str, Any]:
    """Export everything of the tenant into the folder, which must be empty or hold an interrupted export of it, and return the manifest.
    A day that is complete is not read again. Each day is one snapshot; messages that arrive meanwhile may be in it or not.

    Raises:
        TenantError: there is no such tenant, or the folder holds something else or cannot be written (disk full …).
        DatabaseError: the database does not answer: repeat it.
    """
    try:
        with closing(connect(settings, "reader", "iot-tenant-export")) as connection:
            require_migrated(connection)
            require(connection, tenant)
            return _Export(connection, tenant, folder, at=at or datetime.now(UTC), part_rows=part_rows, on_progress=on_progress).run()
    except (OSError, pl.exceptions.ComputeError) as error:  # polars raises the latter when the disk is full
        raise TenantError(f"{folder} cannot be written, repeat it when it can: {error}") from error
    except psycopg2.Error as error:
        raise DatabaseUnreachableError(f"the export was not finished, repeat it: {' '.join(str(error).split())}") from error


class _Export:
    def __init__(
        self,
        connection: Connection,
        tenant: str,
        folder: Path,
        *,
        at: datetime,
        part_rows: int,
        on_progress: Callable[[ExportProgress], None],
    ) -> None:
        self._connection, self._tenant, self._folder, self._at, self._part_rows = connection, tenant, folder, at, part_rows
        self._on_progress = on_progress
        self._journal = folder / "export.part.jsonl"
        self._files: list[ExportedFile] = []
        self._done: dict[tuple[str, str], list[ExportedFile]] = {}

    def run(self) -> dict[str, Any]:
        """Table by table, day by day."""
        begun = self._resume()
        for table in TABLES:
            spans = list(self._spans(table))
            progress = ExportProgress(table.name, 0, len(spans))
            for label, start, end in spans:
                if (table.name, label) not in self._done:
                    self._write_span(table, label, start, end)
                files = self._done[table.name, label]
                self._files += files
                progress.done += 1
                progress.rows += sum(file.rows for file in files)
                self._on_progress(progress)
        manifest = self._manifest(begun)
        _write(self._folder / MANIFEST, json.dumps(manifest, indent=2, ensure_ascii=False).encode() + b"\n")
        self._journal.unlink()
        return manifest

    def _resume(self) -> datetime:
        """Take over what an interrupted export wrote. Returns when it began."""
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._journal.exists():
            lines = list(_lines(self._journal))
            if lines and lines[0].get("tenant") == self._tenant and lines[0].get("format") == FORMAT:
                begun = datetime.fromisoformat(lines[0]["begun_at"])
                for line in lines[1:]:
                    self._take(line)
                return begun
            if lines:
                raise TenantError(f"{self._folder} holds an interrupted export of tenant {lines[0].get('tenant')}: use another")
            self._journal.unlink()
        if any(self._folder.iterdir()):
            raise TenantError(f"{self._folder} is not empty: export into a new folder (or verify it: iot tenant export --verify DIR)")
        self._note({"format": FORMAT, "tenant": self._tenant, "begun_at": self._at.isoformat()})
        return self._at

    def _take(self, line: dict[str, Any]) -> None:
        """A day that the journal says is complete, if its files are as it says."""
        files = [ExportedFile(**file) for file in line["files"]]
        if all((self._folder / file.name).exists() and (self._folder / file.name).stat().st_size == file.bytes for file in files):
            self._done[line["table"], line["span"]] = files

    def _note(self, line: dict[str, Any]) -> None:
        with self._journal.open("ab") as file:
            file.write(b"\n" + json.dumps(line, ensure_ascii=False).encode() + b"\n")  # the line before may be half written
            file.flush()
            os.fsync(file.fileno())

    def _spans(self, table: ExportTable) -> Iterator[tuple[str, datetime | None, datetime | None]]:
        """What goes into files of its own: each day (or year) that has chunks."""
        if table.chunks is None:
            yield "all", None, None
            return
        with self._connection.cursor() as cursor:
            cursor.execute(
                _SPAN, ([name for name in (table.chunks, table.live) if name],)
            )  # what is computed on the spot has its source's days
            chunks = cursor.fetchall()
        self._connection.rollback()
        spans: dict[datetime, datetime] = {}
        for start, end in chunks:
            day = datetime(start.year, start.month if table.daily else 1, start.day if table.daily else 1, tzinfo=UTC)
            while day < end:
                spans[day] = day + timedelta(days=1) if table.daily else datetime(day.year + 1, 1, 1, tzinfo=UTC)
                day = spans[day]
        for day, following in sorted(spans.items()):
            yield f"{day:%Y-%m-%d}" if table.daily else f"{day:%Y}", day, following

    def _write_span(self, table: ExportTable, label: str, start: datetime | None, end: datetime | None) -> None:
        for stale in self._folder.glob(_name(table, label, "*") + "*"):  # of a day that was interrupted
            stale.unlink()
        files = [self._write_part(table, label, number, frame) for number, frame in enumerate(self._frames(table, start, end), 1)]
        self._done[table.name, label] = files
        if files or start is None:  # empty days are looked at again: that is quick
            self._note({"table": table.name, "span": label, "files": [asdict(file) for file in files]})

    def _frames(self, table: ExportTable, start: datetime | None, end: datetime | None) -> Iterator[pl.DataFrame]:
        rows: list[tuple[Any, ...]] = []
        size = 0
        cursor = self._connection.cursor(name="tenant_export")
        cursor.itersize = FETCH
        try:
            cursor.execute(table.query, {"tenant": self._tenant, "start": start, "end": end})
            while got := cursor.fetchmany(FETCH):
                rows += [tuple(bytes(value) if isinstance(value, memoryview) else value for value in row) for row in got]
                size += sum(table.weight(row) for row in got)
                if len(rows) >= self._part_rows or size >= PART_BYTES:
                    yield table.frame(rows)
                    rows, size = [], 0
            if rows:
                yield table.frame(rows)
        finally:
            if not self._connection.closed:
                self._connection.rollback()

    def _write_part(self, table: ExportTable, label: str, number: int, frame: pl.DataFrame) -> ExportedFile:
        name = _name(table, label, f"{number:04d}")
        path = self._folder / name
        path.parent.mkdir(exist_ok=True)
        part = path.with_name(path.name + ".part")
        frame.write_parquet(part, compression="zstd", statistics=True)
        with part.open("rb+") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
        part.replace(path)
        times = frame.get_column(table.time) if table.time and len(frame) else None
        edges = (times.min(), times.max()) if times is not None else (None, None)
        first, last = (edge.isoformat() if isinstance(edge, datetime) else None for edge in edges)
        return ExportedFile(name, table.name, len(frame), path.stat().st_size, digest, first, last)

    def _manifest(self, begun: datetime) -> dict[str, Any]:
        with self._connection.cursor() as cursor:
            cursor.execute(_SCHEMA_VERSION)
            (version,) = cursor.fetchone() or ("",)
        self._connection.rollback()
        counts = {table.name: sum(file.rows for file in self._files if file.table == table.name) for table in TABLES}
        times = [(file.first, file.last) for file in self._files if file.table in ("message", "measurement") and file.first and file.last]
        manifest = {
            "format": FORMAT,
            "tenant": self._tenant,
            "begun_at": begun.isoformat(),
            "finished_at": datetime.now(UTC).isoformat(),
            "schema_version": version,
            "first": min((first for first, _ in times if first), default=None),
            "last": max((last for _, last in times if last), default=None),
            "rows": counts,
            "columns": {table.name: {name: str(kind) for name, kind in table.schema.items()} for table in TABLES},
            "files": [asdict(file) for file in self._files],
        }
        return {**manifest, DIGEST: digest_of(manifest)}


def digest_of(manifest: dict[str, Any]) -> str:
    """SHA-256 of everything in a manifest but its own digest, as canonical JSON: keys sorted, no spaces, UTF-8."""
    rest = {name: value for name, value in manifest.items() if name != DIGEST}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()).hexdigest()


def _lines(journal: Path) -> Iterator[dict[str, Any]]:
    """The complete lines."""
    for line in journal.read_bytes().splitlines():
        with suppress(ValueError):
            yield json.loads(line)


def _name(table: ExportTable, label: str, number: str) -> str:
    return f"{table.name}/{label}-{number}.parquet" if table.chunks else f"{table.name}-{number}.parquet"


def _write(path: Path, data: bytes) -> None:
    """All of it or nothing."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
