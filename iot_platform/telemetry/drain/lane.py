"""A lane: one thread that consumes and decodes its Kafka partitions, one that writes them, and the retries around both."""

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

import psycopg2
import structlog
from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.database.abandoned import end_abandoned
from iot_platform.database.connection import connect
from iot_platform.database.migrate import require_migrated
from iot_platform.kafka.watermarks import WORK_SECONDS, TopicOffsets
from iot_platform.logs import get_logger, is_wanted
from iot_platform.settings import Settings
from iot_platform.telemetry import retries
from iot_platform.telemetry.corrections import corrected
from iot_platform.telemetry.decode import Decoder, DecodeRules
from iot_platform.telemetry.decode.sparkplug.births import Births
from iot_platform.telemetry.drain import offsets
from iot_platform.telemetry.drain.batch_counts import Outcome
from iot_platform.telemetry.drain.log_cut import LogCheck
from iot_platform.telemetry.drain.source import KafkaSource
from iot_platform.telemetry.drain.sparkplug import BirthHistory
from iot_platform.telemetry.drain.writer import Writer, WriterRules
from iot_platform.telemetry.errors import DrainedElsewhereError
from iot_platform.telemetry.project_options import NUMBERS_IN_STRINGS, ProjectOptions
from iot_platform.telemetry.records import DecodedRecords, Ranges

log = get_logger(__name__)

MAX_LOST: Final = 3
"""After losing the compare-and-set this often in a row, the partitions are left to the other drain."""


@dataclass
class LaneState:
    """What a lane tells its drain; read by other threads."""

    error: BaseException | None = None
    unresolved: BaseException | None = None  # the transient error that is being retried
    retries: int = 0
    lost: int = 0
    gave_way: bool = False
    notes: list[str] = field(default_factory=list)


class Lane:
    """Drains some partitions until it is halted or caught up. Everything is rebuilt after an error: connection, consumer, decoder and
    ids, so that no state outlives a transaction whose fate is unknown."""

    def __init__(
        self,
        settings: Settings,
        partitions: tuple[int, ...],
        *,
        run_id: str,
        until_caught_up: bool,
        halt: threading.Event,
        on_commit: Callable[[Outcome], None],
    ) -> None:
        self.partitions = partitions
        self.state = LaneState()
        self.topic_id = ""
        self._settings = settings
        self._run_id = run_id
        self._until_caught_up = until_caught_up
        self._targets: dict[int, int] | None = None
        self._halt = halt
        self._on_commit = on_commit
        self._rules = DecodeRules.from_settings(settings)
        self._done = self._late_start_noted = False
        self._committed = False
        self._in_doubt: Outcome | None = None
        self._at_work: Ranges = {}
        self.thread = threading.Thread(target=self._run, name=f"drain-lane-{partitions[0]}", daemon=True)

    def _run(self) -> None:
        structlog.contextvars.bind_contextvars(run=self._run_id)  # of all lines that this thread writes, whoever writes them
        try:
            while not self._done and not self._halt.is_set():
                retries.persist(self._session, progressed=lambda: self._committed, stop=self._halt, on_retry=self._note_retry)
        except BaseException as error:  # handed to the drain, which raises it
            if not (retries.is_retried(error) and self._halt.is_set()):
                self.state.error = error

    def _note_retry(self, error: BaseException) -> None:
        self.state.unresolved = error
        self.state.retries += 1
        log.warning("drain retries", partitions=self.partitions, offsets=offset_spans(self._at_work), error=str(error))

    def _session(self) -> None:
        """Work until halted, caught up or broken."""
        self._committed = False
        try:
            self._open_and_pump()
        except DrainedElsewhereError as error:
            self.state.lost += 1
            log.info("drained elsewhere", partitions=self.partitions, lost=self.state.lost, error=str(error))
            self._done = self.state.gave_way = self.state.lost >= MAX_LOST
            if self.state.gave_way:
                self.state.unresolved = None

    def _open_and_pump(self) -> None:
        source = KafkaSource(self._settings)
        connection: Connection | None = None
        try:
            connection = connect(self._settings, "writer", f"iot-drain {self._run_id}"[:63])
            require_migrated(connection)
            end_abandoned(connection)
            before = offsets.read(connection, self._settings.kafka_topic)
            with TopicOffsets(self._settings, WORK_SECONDS) as topic:
                identity, watermarks = topic.look(self.partitions)
                rows = offsets.begin(connection, identity, self.partitions, watermarks)
                if any(number in before and before[number] != row for number, row in rows.items()):  # another drain has gone on meanwhile
                    watermarks = topic.watermarks(self.partitions)
            self._settle(connection)
            verified = LogCheck(self._settings, source.consumer, connection, identity).go_on(rows, watermarks, self._run_id)
            generations = {partition: row.log_generation for partition, row in rows.items()}
            for cut in verified.cuts:
                generations[cut.partition] = cut.generation
                if self._targets is not None:  # what was wanted of the old log is not there any more
                    self._targets[cut.partition] = watermarks[cut.partition].high
                self.state.notes.append(cut.text)
            self._note_late_start(rows)
            self.topic_id = identity.topic_id
            if self._until_caught_up and self._targets is None:
                self._targets = {partition: ends.high for partition, ends in watermarks.items()}
            source.assign(verified.starts, generations)
            settings = self._settings
            options = ProjectOptions.load(connection)
            self._rules = replace(corrected(settings, self._rules, connection), numbers_in_strings=options.switches(NUMBERS_IN_STRINGS))
            rules = WriterRules(
                identity.topic,
                identity.topic_id,
                self._run_id,
                settings.max_series_per_project,
                settings.ingest_in_flight_window,
                generations,
                options,
            )
            self._pump(source, Writer(connection, rules))
        except psycopg2.Error as error:
            retries.raise_explained(error, connection)
        finally:
            source.close()
            if connection is not None:
                connection.close()

    def _pump(self, source: KafkaSource, writer: Writer) -> None:
        """Write what the reading thread decodes, until it ends."""
        decoded: queue.Queue[DecodedRecords | BaseException | None] = queue.Queue(maxsize=1)
        abort = threading.Event()
        reader = threading.Thread(target=self._read, args=(source, decoded, abort), name=f"drain-read-{self.partitions[0]}", daemon=True)
        reader.start()
        try:
            while (item := decoded.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                self._write(writer, item)
        finally:
            abort.set()
            reader.join()
        self._done = self._done or self._caught_up(source)
        if self._done:
            self.state.unresolved = None  # whatever was retried is behind us

    def _write(self, writer: Writer, batch: DecodedRecords) -> None:
        self._at_work = batch.records.ranges
        try:
            outcome = writer.write(batch)
        except BaseException:
            self._in_doubt = writer.in_doubt or self._in_doubt
            raise
        self._in_doubt, self._committed, self._at_work = None, True, {}
        tell(outcome)
        self.state.lost, self.state.unresolved = 0, None
        self._on_commit(outcome)

    def _read(self, source: KafkaSource, decoded: "queue.Queue[DecodedRecords | BaseException | None]", abort: threading.Event) -> None:
        """Thread: consume and decode one batch ahead of the writer. Always ends with None, or with its error."""

        def stopped() -> bool:
            return abort.is_set() or self._halt.is_set()

        def put(item: DecodedRecords | BaseException | None) -> None:
            while not abort.is_set():
                try:
                    return decoded.put(item, timeout=0.2)
                except queue.Full:
                    continue
            return None

        structlog.contextvars.bind_contextvars(run=self._run_id)
        history = BirthHistory(self._settings, self._run_id)
        try:
            decoder = Decoder(replace(self._rules, births=Births(history.load)))
            while not stopped() and not self._caught_up(source):
                if (records := source.read(stopped)) is None:
                    self.state.unresolved = None  # Kafka and PostgreSQL answered, there is just nothing to do
                    continue
                decoder = decoder.renewed()
                put(DecodedRecords.of(records, decoder))
            put(None)
        except BaseException as error:  # raised again by the writing thread
            put(error)
        finally:
            history.close()

    def _caught_up(self, source: KafkaSource) -> bool:
        return self._targets is not None and all(source.position.get(partition, 0) >= end for partition, end in self._targets.items())

    def _note_late_start(self, rows: dict[int, offsets.OffsetRow]) -> None:
        late = [f"{row.partition} (offset {row.first_offset})" for row in rows.values() if row.next_offset == row.first_offset > 0]
        if late and not self._late_start_noted:
            self._late_start_noted = True
            self.state.notes.append(f"Kafka had deleted the beginning of partition {', '.join(late)} before its first drain")
            log.warning("first drain begins after the beginning of the log", partitions=late)

    def _settle(self, connection: Connection) -> None:
        """Count the batch whose COMMIT was not answered, if the ledger has it."""
        if (outcome := self._in_doubt) is None:
            return
        keys = [(outcome.generations.get(partition, 0), partition, *edges) for partition, edges in outcome.ranges.items()]
        if retries.is_committed(connection, self._run_id, "drain", keys):
            self._in_doubt = None
            tell(outcome)
            self._on_commit(outcome)


def offset_spans(ranges: Ranges) -> dict[str, list[int]]:
    """Partition → first and last offset, as log lines have them."""
    return {str(partition): [start, end - 1] for partition, (start, end) in sorted(ranges.items())}


def tell(outcome: Outcome) -> None:
    """One line for each batch of the ledger: what leads from a row (partition, offset) to the run, and on to the ingest daemon's log."""
    if not is_wanted("debug"):
        return
    sums = outcome.by_partition()
    for partition, (start, end) in sorted(outcome.ranges.items()):
        counts = sums[partition]
        log.debug(
            "batch committed",
            batch=outcome.batches.get(partition),
            partition=partition,
            first_offset=start,
            last_offset=end - 1,
            messages=counts.messages,
            quarantined=counts.quarantined,
            measurements=counts.measurements,
        )
