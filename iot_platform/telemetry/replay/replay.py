"""A replay: sends stored records through the drain's decode path again, under the rules of today, batch by batch, each exactly once."""

import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.database.abandoned import end_abandoned
from iot_platform.database.connection import connect
from iot_platform.database.migrate import require_migrated
from iot_platform.logs import get_logger
from iot_platform.settings import Settings
from iot_platform.telemetry import retries
from iot_platform.telemetry.corrections import corrected
from iot_platform.telemetry.decode import Decoder, DecodeRules
from iot_platform.telemetry.decode.sparkplug.births import Births
from iot_platform.telemetry.drain import offsets
from iot_platform.telemetry.drain.sparkplug import BirthHistory
from iot_platform.telemetry.drain.writer import WriterRules
from iot_platform.telemetry.errors import ReplayError
from iot_platform.telemetry.partitions import FIRST_IMPORT, IMPORT_TOPIC
from iot_platform.telemetry.project_options import NUMBERS_IN_STRINGS, ProjectOptions
from iot_platform.telemetry.records import DecodedRecords
from iot_platform.telemetry.replay import rows, selection
from iot_platform.telemetry.replay.restore import KafkaLog, Offsets, batch_from_kafka, missing
from iot_platform.telemetry.replay.rows import Key, ReplayBatch
from iot_platform.telemetry.replay.selection import Selection, Slice
from iot_platform.telemetry.replay.tally import Tally
from iot_platform.telemetry.replay.writer import ReplayWriter
from iot_platform.telemetry.retries import LedgerKey

__all__ = ["Replay", "Selection", "Tally"]

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Place:
    """How far a slice is: rows up to `after` are done, then all (`read`), then missing offsets below `offset`, then all of it."""

    after: Key | None = None
    read: bool = False
    offset: int = 0
    done: bool = False


class Replay:
    """One replay. Each batch is a transaction of its own, so that it may be killed at any instruction and simply be repeated: what moved is
    not selected again, what is complete gets nothing. Safe beside drains and beside other replays."""

    def __init__(
        self,
        settings: Settings,
        selection: Selection,
        *,
        dry_run: bool = False,
        on_progress: Callable[[Tally, int], None] = lambda *_: None,
        on_retry: Callable[[str], None] = lambda _: None,
        stop: threading.Event | None = None,
        name: str = "replay",
    ) -> None:
        """`on_progress` gets the sums so far and how many records there are to look at, an estimate; it is called after each batch. Setting
        `stop` ends the replay after the batch at work. `name` begins the run_id, by which the ledger knows the replay's batches."""
        self.run_id = f"{name} {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {secrets.token_hex(3)}"
        self.tally = Tally()
        self._settings = settings
        self._selection = selection
        self._dry_run = dry_run
        self._on_progress = on_progress
        self._on_retry = on_retry
        self._stop = stop or threading.Event()
        self._history = BirthHistory(settings, self.run_id, anywhere=True)
        self._decoder = Decoder(replace(DecodeRules.from_settings(settings), births=Births(self._history.load, replays=True)))
        self._total = 0
        self._offsets: dict[int, offsets.OffsetRow] = {}
        self._reading: Connection | None = None
        self._writing: Connection | None = None
        self._writer: ReplayWriter | None = None
        self._kafka_log: KafkaLog | None = None
        self._place = self._following = self._began_at = _Place()
        self._in_doubt: tuple[Tally, list[LedgerKey], _Place] | None = None

    def run(self) -> Tally:
        """Replay everything that is selected, and return what became of it. Blocks.

        Raises:
            DatabaseError, KafkaUnavailableError, TransientError: a server cannot be used, or did not come back within 5 minutes. What
                was committed stays: repeat it.
            ReplayError: the selection means nothing here. Never retry.
        """
        try:
            parts = self._parts()
            self._total = sum(part.records for part in parts)
            self._on_progress(self.tally, self._total)
            for part in parts:
                self._place = _Place(offset=part.first)
                while not self._place.done and not self._stop.is_set():
                    retries.persist(
                        partial(self._session, part),
                        progressed=lambda: self._place is not self._began_at,
                        stop=self._stop,
                        on_retry=self._note_retry,
                    )
        except Exception as error:
            if not (retries.is_retried(error) and self._stop.is_set()):
                raise
        finally:
            self._close()
        self.tally.ended = "stopped" if self._stop.is_set() else "done"
        return self.tally

    def _parts(self) -> list[Slice]:
        try:
            reading = self._open()
            if not self._offsets:
                raise ReplayError(f"topic '{self._settings.kafka_topic}' was never drained: there is nothing to replay")
            if self._selection.partition is None:
                return selection.by_time(reading, self._selection)
            return self._parts_by_offset(reading, self._selection.partition)
        except psycopg2.Error as error:
            retries.raise_explained(error, self._writing)

    def _parts_by_offset(self, reading: Connection, partition: int) -> list[Slice]:
        if (row := self._offsets.get(partition)) is None:
            known = ", ".join(map(str, sorted(self._offsets)))
            raise ReplayError(f"partition {partition} of topic '{self._settings.kafka_topic}' was never drained; there are: {known}")
        logs = selection.logs(reading, self._settings, row)
        if (wanted := self._selection.generation) is not None:
            logs = [each for each in logs if each.generation == wanted]
            if not logs:
                raise ReplayError(
                    f"partition {partition} has no log of generation {wanted}; the one that is drained now has {row.log_generation}"
                )
        elif len(logs) > 1:
            several = ", ".join(str(each.generation) for each in logs)
            self.tally.notes.append(
                f"the log of partition {partition} was cut: generations {several} are replayed; --generation chooses one"
            )
        parts = [part for each in logs for part in selection.by_offset(reading, self._settings, self._selection, each)]
        asked = sum(max(0, min(self._selection.last, each.end) - max(self._selection.first, each.begin)) for each in logs)
        if self._selection.last > row.next_offset:
            self.tally.notes.append(f"partition {partition} is drained to offset {row.next_offset}: what follows needs no replay")
        if uncovered := asked - sum(part.last - part.first for part in parts):
            self.tally.notes.append(f"{uncovered} of the offsets are an accepted loss, or older than the ledger: left alone")
        return parts

    def _note_retry(self, error: BaseException) -> None:
        log.warning("replay retries", error=str(error))
        if self._place is self._began_at:  # after progress it just goes on
            self._on_retry(str(error))

    def _session(self, part: Slice) -> None:
        """Work on a slice until it is done, stopped or broken."""
        self._began_at = self._place
        try:
            self._work(part)
        except BaseException as error:
            if self._writer is not None and self._writer.in_doubt is not None:
                self._in_doubt = (*self._writer.in_doubt, self._following)
            self._close()
            if isinstance(error, psycopg2.Error):
                retries.raise_explained(error, None)
            raise

    def _work(self, part: Slice) -> None:
        reading = self._open()
        if not self._place.read:
            for batch, key in rows.read(reading, self._settings, self._selection, part, self._place.after):
                self._write(batch, replace(self._place, after=key))
                if self._stop.is_set():
                    return
            self._place = replace(self._place, read=True)
        if part.partition is not None and not self._selection.quarantined:
            self._restore(reading, part, part.partition)
        self._place = replace(self._place, done=not self._stop.is_set())

    def _restore(self, reading: Connection, part: Slice, partition: int) -> None:
        """What the ledger counts and neither table has comes back from Kafka."""
        wanted = missing(reading, part)
        wanted = wanted[wanted >= self._place.offset]
        if not len(wanted):
            return None
        if partition >= FIRST_IMPORT:
            return self._give_up(partition, wanted, "they came from a file, not from Kafka")
        self._kafka_log = self._kafka_log or KafkaLog(self._settings, self._offsets)
        if reason := self._kafka_log.reason_against(partition, reading):
            return self._give_up(partition, wanted, reason)
        if (wanted >= part.kafka_to).any():
            self._give_up(partition, wanted[wanted >= part.kafka_to], f"Kafka's log was cut at {part.kafka_to} since")
            wanted = wanted[wanted < part.kafka_to]
        low = self._kafka_log.low(partition)
        if (wanted < low).any():
            self._give_up(partition, wanted[wanted < low], f"Kafka's log begins at {low}")
        for records, passed in self._kafka_log.fetch(partition, part.generation, wanted[wanted >= low], self._stop.is_set):
            self._write(batch_from_kafka(records, counted=part.counted), replace(self._place, offset=int(passed[-1]) + 1))
        return None

    def _give_up(self, partition: int, wanted: Offsets, reason: str) -> None:
        self.tally.lost += len(wanted)
        self.tally.notes.append(
            f"partition {partition}: {len(wanted)} offsets from {wanted[0]} to {wanted[-1]} are in neither table and cannot be restored"
            f" ({reason}): deleted by retention, or lost"
        )
        self._place = replace(self._place, offset=int(wanted[-1]) + 1)

    def _write(self, batch: ReplayBatch, following: "_Place") -> None:
        """Decode and commit a batch; then the place is the following one."""
        self._following = following
        if len(batch) and (writer := self._writer) is not None:
            self._decoder = self._decoder.renewed()
            self.tally.add(writer.write(batch, DecodedRecords.of(batch.records, self._decoder)))
        self._place = following
        self._on_progress(self.tally, self._total)

    def _open(self) -> Connection:
        """The connections, made where there are none; the reading one."""
        if self._reading is None or self._writing is None:
            self._close()
            self._writing = connect(self._settings, "writer", f"iot-{self.run_id}"[:63])
            require_migrated(self._writing)
            end_abandoned(self._writing)
            self._settle(self._writing)
            self._offsets = offsets.read(self._writing, self._settings.kafka_topic) | offsets.read(self._writing, IMPORT_TOPIC)
            settings = self._settings
            options = ProjectOptions.load(self._writing)
            known = self._decoder.rules
            today = replace(corrected(settings, known, self._writing), numbers_in_strings=options.switches(NUMBERS_IN_STRINGS))
            if today != known:
                self._decoder = Decoder(today)
            rules = WriterRules(
                settings.kafka_topic,
                "",
                self.run_id,
                settings.max_series_per_project,
                settings.ingest_in_flight_window,
                options=options,
            )
            self._writer = ReplayWriter(self._writing, rules, self._selection, self._topic_ids(), dry_run=self._dry_run)
            self._reading = connect(self._settings, "writer", f"iot-{self.run_id} reads"[:63])
            rows.session(self._reading)
        return self._reading

    def _topic_ids(self) -> dict[int, str]:
        return {row.partition: row.topic_id for row in self._offsets.values()}

    def _settle(self, connection: Connection) -> None:
        """Count the batch whose COMMIT was not answered, if the ledger has it; else it is repeated."""
        if self._in_doubt is None:
            return
        tally, keys, following = self._in_doubt
        self._in_doubt = None
        if retries.is_committed(connection, self.run_id, "replay", keys):
            self.tally.add(tally)
            self._place = following

    def _close(self) -> None:
        for connection in (self._reading, self._writing):
            if connection is not None:
                connection.close()
        if self._kafka_log is not None:
            self._kafka_log.close()
        self._history.close()
        self._reading = self._writing = self._writer = self._kafka_log = None
