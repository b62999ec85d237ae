"""An import: reads a file ahead in one thread and commits its batches in another, rows and the offset in one transaction."""

import os
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
import numpy.typing as npt
import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.database.abandoned import end_abandoned
from iot_platform.database.connection import connect
from iot_platform.database.migrate import require_migrated
from iot_platform.imports import books, mapping
from iot_platform.imports.books import Books, Entry
from iot_platform.imports.errors import ImportRefusedError
from iot_platform.imports.line_protocol import LineReader
from iot_platform.imports.made import Made, TimePlace
from iot_platform.imports.mapping import Format
from iot_platform.imports.tables import read_csv, read_parquet
from iot_platform.settings import Settings
from iot_platform.telemetry import retries
from iot_platform.telemetry.counters import COUNTERS
from iot_platform.telemetry.decode import Decoder, DecodeRules, Reason
from iot_platform.telemetry.decode.times import format_time
from iot_platform.telemetry.drain import stage
from iot_platform.telemetry.drain.catalog import Catalog, Project
from iot_platform.telemetry.drain.drain import short_switches
from iot_platform.telemetry.drain.measurements import MeasurementWriter
from iot_platform.telemetry.drain.plan import Bad, Copies, plan_of
from iot_platform.telemetry.drain.quiet_collector import QuietCollector
from iot_platform.telemetry.drain.values import ADDED, CONFLICTING, DUPLICATE, has_outcome, select
from iot_platform.telemetry.drain.writer import Writer, WriterRules
from iot_platform.telemetry.envelope import Envelopes
from iot_platform.telemetry.errors import DrainedElsewhereError
from iot_platform.telemetry.partitions import IMPORT_TOPIC
from iot_platform.telemetry.project_options import CONFLICTS, NUMBERS_IN_STRINGS, ProjectOptions
from iot_platform.telemetry.records import DecodedRecords, Records

_CUTOFF: Final = """
SELECT (extract(epoch FROM nullif(greatest(retention_cutoff('measurement', %(tenant)s, %(project)s),
    retention_mark_of('measurement', %(tenant)s, %(project)s)), '-infinity')) * 1000000)::bigint"""
_NEVER: Final = np.iinfo(np.int64).min


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an import is: records that are in, and the place in the file (0 to 1). `looking`: the file is read for its digest."""

    records: int
    part: float
    looking: bool = False


@dataclass(slots=True)
class Summary:
    """What became of the file. `ended`: done, stopped, or already (it was imported before). Counts are of all runs of this import; of a dry
    run, what would happen to the records that are not in yet."""

    partition: int | None
    run_id: str
    form: Format
    ended: str = "done"
    records: int = 0
    was_in: int = 0
    books: Books = field(default_factory=Books)
    seconds: float = 0.0


class Import:
    """One run. Killed at any point, the next one goes on behind what is committed; once all is in, it does nothing."""

    def __init__(
        self,
        settings: Settings,
        file: Path,
        map_file: Path,
        *,
        form: Format | None = None,
        again: bool = False,
        dry_run: bool = False,
        on_progress: Callable[[Progress], None] = lambda _: None,
        on_retry: Callable[[str], None] = lambda _: None,
        stop: threading.Event | None = None,
    ) -> None:
        """Raises ImportRefusedError for a mapping that means nothing, SettingsError for settings of which that is so."""
        self._settings, self._file, self._again, self._dry_run = settings, file, again, dry_run
        self._mapping, self._form, self._mapping_text = mapping.read(map_file, form, file)
        self._rules = DecodeRules.from_settings(settings)
        self._place = TimePlace(self._rules.time_pointers)
        self._on_progress, self._on_retry, self._stop = on_progress, on_retry, stop or threading.Event()
        self._committed = False
        self._collector = QuietCollector()
        self.run_id = f"import-{uuid.uuid4().hex[:12]}"

    def run(self) -> Summary:
        """Import what is not in yet. Blocks; `on_progress` is called from this thread. Setting `stop` ends it after a batch.

        Raises:
            ImportRefusedError: the file or its mapping is not what it must be; names what to change.
            TransientError, DatabaseUnreachableError: PostgreSQL did not come back. Repeat the import.
        """
        begun = time.monotonic()
        try:
            with self._file.open("rb") as file, short_switches(), QuietCollector() as self._collector:
                summary = self._run(file)
        except IsADirectoryError as error:
            raise ImportRefusedError(f"{self._file} is a folder: name a file") from error
        except FileNotFoundError as error:
            raise ImportRefusedError(f"there is no file {self._file}") from error
        summary.seconds = time.monotonic() - begun
        return summary

    def _run(self, file: BinaryIO) -> Summary:
        before = _stamp(file)
        with closing(self._connect()) as connection:
            content = books.digest(file, books.lengths(connection), lambda: self._tell(0, file, looking=True))
            if self._dry_run:
                entry = books.find(connection, content, self._mapping_text, again=self._again)
            else:
                entry = books.begin(connection, content, self._file.name, self._mapping_text, again=self._again)
            summary = Summary(entry.partition if entry else None, self.run_id, self._form, was_in=entry.next_offset if entry else 0)
            if entry is not None and entry.finished:
                summary.ended, summary.records = "already", entry.next_offset
                summary.books = books.books(connection, entry.partition)
                return summary
            if self._dry_run:
                self._look(connection, file, summary)
                return summary
        assert entry is not None  # noqa: S101 - begin() made it
        while not self._stop.is_set():
            self._committed = False
            done: list[int] = []
            retries.persist(
                lambda entry=entry, done=done: self._session(file, entry, done),  # type: ignore[misc]
                progressed=lambda: self._committed,
                stop=self._stop,
                on_retry=lambda error: self._on_retry(str(error)),
            )
            if done:
                break
        if _stamp(file) != before or _stamp_of(self._file) != before:
            raise ImportRefusedError(
                f"{self._file} was changed while it was imported (partition {entry.partition}): what is in may be of either content"
            )
        with closing(self._connect()) as connection:
            summary.records = books.next_offset(connection, entry.partition)
            summary.ended = "stopped" if self._stop.is_set() and not done else "done"
            if summary.ended == "done":
                books.finish(connection, entry.partition, summary.records)
            summary.books = books.books(connection, entry.partition)
        return summary

    def _connect(self) -> Connection:
        connection = connect(self._settings, "writer", f"iot-{self.run_id}"[:63])
        require_migrated(connection)
        return connection

    def _session(self, file: BinaryIO, entry: Entry, done: list[int]) -> None:
        """Work until the end, or until it breaks; `done` gets an item at the end."""
        connection: Connection | None = None
        try:
            connection = self._connect()
            end_abandoned(connection)
            options = self._options(connection)
            settings = self._settings
            rules = WriterRules(
                IMPORT_TOPIC,
                entry.topic_id,
                self.run_id,
                settings.max_series_per_project,
                settings.ingest_in_flight_window,
                options=options,
                hopeful=True,
            )
            writer, cutoffs = Writer(connection, rules), _Cutoffs(connection)
            at = books.next_offset(connection, entry.partition)
            with closing(self._batches(file, entry.partition, at)) as batches:  # at the latest then nobody reads the file any more
                for batch, refused in batches:
                    writer.write(batch, {**cutoffs.refused(batch), **refused})
                    self._committed = True
                    self._tell(batch.records.ranges[entry.partition][1], file)
                    if self._stop.is_set():
                        return
            done.append(1)
        except DrainedElsewhereError as error:
            raise ImportRefusedError(f"another `iot import` works on this file now (partition {entry.partition})") from error
        except psycopg2.Error as error:
            retries.raise_explained(error, connection)
        finally:
            if connection is not None:
                connection.close()

    def _options(self, connection: Connection) -> ProjectOptions:
        options = ProjectOptions.load(connection)
        if (conflicts := self._mapping.conflicts_of(self._form)) is not None:
            options = options.for_all(CONFLICTS, conflicts)
        self._rules = replace(self._rules, numbers_in_strings=options.switches(NUMBERS_IN_STRINGS))
        return options

    def _batches(self, file: BinaryIO, partition: int, at: int) -> Generator[tuple[DecodedRecords, Bad], None, None]:
        """Decoded batches from a record on; the next one is made while the caller works on one."""
        made = self._made(file, at)
        decoder = Decoder(self._rules)

        def following() -> tuple[DecodedRecords, Bad] | None:
            nonlocal decoder, at
            found = next(made, None)
            if found is None:
                return None
            decoder = decoder.renewed()
            batch = DecodedRecords.of(_records(found, partition, at), decoder)
            at += len(found)
            return batch, found.refused

        with ThreadPoolExecutor(1, thread_name_prefix="import-read") as reader:
            coming = reader.submit(following)
            while (item := coming.result()) is not None:
                coming = reader.submit(following)
                yield item

    def _made(self, file: BinaryIO, skip: int) -> Iterator[Made]:
        """What the reader of the format makes, in batches as large as a drain's."""
        count, size = self._settings.drain_batch_records, self._settings.drain_batch_bytes
        if self._form == "line_protocol":
            parts = LineReader(books.opened(file), self._mapping, self._place).read(skip, count, size)
        elif self._form == "csv":
            parts = read_csv(books.opened(file), self._mapping, self._place, skip, count)
        else:
            parts = read_parquet(str(self._file), self._mapping, self._place, skip, count)
        batch = Made()
        for part in parts:
            batch.extend(part)
            if len(batch) >= count or batch.size >= size:
                yield batch
                batch = Made()
        if len(batch):
            yield batch

    def _look(self, connection: Connection, file: BinaryIO, summary: Summary) -> None:
        """Count what would happen to what is not in yet. Writes nothing; what repeats an earlier row of the same file counts as new."""
        options = self._options(connection)
        with connection.cursor() as cursor:
            cursor.execute(stage.CREATE)
        connection.commit()
        counts, reasons, cutoffs = Counter[str](), Counter[str](), _Cutoffs(connection)
        writer = MeasurementWriter(connection, options, is_drain=True)
        catalog: Catalog | None = None
        for batch, unread in self._batches(file, summary.partition or 0, summary.was_in):
            if catalog is None or catalog.decoder is not batch.decoder:
                catalog = Catalog(connection, batch.decoder, self._settings.max_series_per_project, create=False)
            refused = {**cutoffs.refused(batch), **unread}
            size = len(batch.records)
            copies = Copies([], np.full(size, -1, np.int64), np.zeros(size, np.int32))
            plan = plan_of(catalog, batch, copies, refused)
            outcome = writer.look(select(plan, plan.measured, catalog), catalog)
            reasons.update(str(reason) for reason, _ in plan.bad.values())
            found = (
                size - len(plan.bad),
                0,
                len(plan.bad),
                *(int(has_outcome(outcome, each).sum()) for each in (ADDED, (DUPLICATE,), CONFLICTING)),
            )
            counts.update(dict(zip(COUNTERS, found, strict=True)))
            summary.records += size
            self._tell(summary.records, file)
            if self._stop.is_set():
                summary.ended = "stopped"
                break
        summary.books = Books({name: counts[name] for name in COUNTERS}, reasons)

    def _tell(self, records: int, file: BinaryIO, *, looking: bool = False) -> None:
        self._collector.look(busy=True)
        size = max(1, os.fstat(file.fileno()).st_size)
        self._on_progress(Progress(records, min(1.0, os.lseek(file.fileno(), 0, os.SEEK_CUR) / size), looking))


class _Cutoffs:
    """Before when measurements of each project are not kept: they would go again with the next retention run, and are refused."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._of_project: dict[Project, int] = {}
        self._of_series = np.zeros(0, np.int64)
        self._decoder: Decoder | None = None

    def refused(self, batch: DecodedRecords) -> Bad:
        """The records with a measurement that is too old. Commits nothing."""
        if self._decoder is not batch.decoder:
            self._decoder, self._of_series = batch.decoder, np.zeros(0, np.int64)
        decoded = batch.decoded
        if not len(decoded.m_row):
            return {}
        new = batch.decoder.series[len(self._of_series) : int(decoded.m_series.max()) + 1]
        if new:
            more = np.array([self._cutoff((tenant, project)) for tenant, project, _, _ in new], np.int64)
            self._of_series = np.concatenate([self._of_series, more])
        cutoff = self._of_series[decoded.m_series]
        old = np.flatnonzero(decoded.m_time < cutoff)
        return {
            int(decoded.m_row[at]): (
                Reason.TIME_OUT_OF_RANGE,
                f"{format_time(int(decoded.m_time[at]))} is older than what retention keeps: it begins at {format_time(int(cutoff[at]))}"
                " (iot retention show)",
            )
            for at in old.tolist()
        }

    def _cutoff(self, project: Project) -> int:
        if (known := self._of_project.get(project)) is None:
            with self._connection.cursor() as cursor:
                cursor.execute(_CUTOFF, {"tenant": project[0], "project": project[1]})
                (found,) = cursor.fetchone() or (None,)
            self._connection.rollback()
            known = self._of_project[project] = _NEVER if found is None else int(found)
        return known


def _records(made: Made, partition: int, first: int) -> Records:
    """As records of the import's partition, received now; they came over no MQTT connection."""
    size = len(made)
    no: npt.NDArray[np.int32] = np.zeros(size, np.int32)
    envelope = Envelopes(
        readable=np.zeros(size, np.bool_),
        received_at=np.full(size, time.time_ns() // 1000, np.int64),
        flags=np.zeros(size, np.uint8),
        packet_id=no,
        sequence=np.zeros(size, np.int64),
        connection=np.full(size, -1, np.int32),
        connections=[],
    )
    return Records(
        topics=list(made.topics),
        payloads=list(made.payloads),
        partition=np.full(size, partition, np.int32),
        offset=np.arange(first, first + size, dtype=np.int64),
        envelope=envelope,
        ranges={partition: (first, first + size)},
        generation=no,
    )


def _stamp(file: BinaryIO) -> tuple[int, int, int]:
    found = os.fstat(file.fileno())
    return found.st_ino, found.st_size, found.st_mtime_ns


def _stamp_of(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
