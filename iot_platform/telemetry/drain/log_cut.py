"""Whether Kafka's log still is the one that was drained; where it is not, at which offset old and new part, and going on there.

A broker that answers before its disk has the record can lose the end of a log in a power cut; an older disk can be put back. The log grows
again, and offsets that count as drained get other records. Two things tell: Kafka's leader epoch, which it compares when the consumer hands
over that of the last record, and that record itself, compared byte for byte (epochs begin again on an older disk).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from confluent_kafka import Consumer, KafkaException, Message
from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.kafka.watermarks import WORK_SECONDS, TopicIdentity, TopicOffsets, Watermarks
from iot_platform.logs import get_logger
from iot_platform.settings import Settings
from iot_platform.telemetry.drain.offsets import OffsetRow
from iot_platform.telemetry.drain.peek import PATIENCE_SECONDS, Nothing, peek
from iot_platform.telemetry.drain.source import Start
from iot_platform.telemetry.drain.stored_record import StoredRecords
from iot_platform.telemetry.errors import DataGoneError, DrainedElsewhereError, TransientError, accept_command
from iot_platform.telemetry.records import LastRecord, last_record

log = get_logger(__name__)

MOST_UNKNOWN: Final = 1_000
"""So many records in a row without a trace in the database are looked at before the search gives up."""
_BROKER_END: Final = re.compile(r"broker end offset is (\d+)")
"""In librdkafka's error text about a truncated log: where the epoch that was handed over ended."""

_NOTE: Final = """
UPDATE kafka_offset SET verified_epoch = %(verified_epoch)s, leader_epoch = coalesce(%(leader_epoch)s, leader_epoch),
    record_offset = coalesce(%(record_offset)s, record_offset), record_sha256 = coalesce(%(record_sha256)s, record_sha256)
WHERE topic = %(topic)s AND kafka_partition = %(partition)s AND topic_id = %(topic_id)s AND log_generation = %(generation)s
    AND next_offset = %(next_offset)s"""
_CUT: Final = """
UPDATE kafka_offset SET next_offset = %(at)s, updated_at = now(), first_offset = least(first_offset, %(at)s),
    log_generation = %(generation)s, leader_epoch = NULL, record_offset = NULL, record_sha256 = NULL, verified_epoch = %(verified_epoch)s
WHERE topic = %(topic)s AND kafka_partition = %(partition)s AND topic_id = %(topic_id)s AND next_offset = %(drained_to)s
    AND log_generation = %(generation)s - 1"""
_LEDGER: Final = """
INSERT INTO ledger (kind, kafka_topic, topic_id, kafka_partition, log_generation, leader_epoch, from_offset, to_offset, run_id, detail)
VALUES ('log_cut', %(topic)s, %(topic_id)s, %(partition)s, %(generation)s, %(leader_epoch)s, %(at)s, %(drained_to)s, %(run_id)s,
    %(detail)s)"""


@dataclass(frozen=True)
class LogCut:
    """A log that was cut at offset `at` although it had been drained to `drained_to`. `generation` is that of the log that begins there;
    `leader_epoch` of the last record that was drained; `older_copy`: Kafka's leader epoch went back, as on an older disk."""

    partition: int
    at: int
    drained_to: int
    generation: int
    leader_epoch: int | None
    older_copy: bool

    @property
    def text(self) -> str:
        """What happened, as a sentence for people."""
        epoch = "" if self.leader_epoch is None else f", leader epoch {self.leader_epoch}"
        what = (
            "is an older copy (Kafka's disk was put back): its leader epoch went back, and it"
            if self.older_copy
            else "lost its end (a broker that had not synced lost power, or an unclean leader was elected): it"
        )
        return (
            f"the log of partition {self.partition} {what} parts at offset {self.at} from what was drained, which reached offset"
            f" {self.drained_to}{epoch}. Rows of the offsets from {self.at} on stay; what Kafka has there now is new, and is drained as"
            f" generation {self.generation}. Messages that Kafka lost before they were drained are named by `iot audit`"
        )


@dataclass
class Verified:
    """Where to begin in each partition whose log goes on; the logs that were cut."""

    starts: dict[int, Start] = field(default_factory=dict)
    cuts: list[LogCut] = field(default_factory=list)


class LogCheck:
    """Verifies the logs of a topic's partitions. Uses the consumer's assignment, and commits."""

    def __init__(self, settings: Settings, consumer: Consumer, connection: Connection, identity: TopicIdentity) -> None:
        self._settings = settings
        self._consumer = consumer
        self._connection = connection
        self._identity = identity
        self._topic = identity.topic

    def go_on(self, rows: Mapping[int, OffsetRow], watermarks: Mapping[int, Watermarks], run_id: str) -> Verified:
        """Verify the logs, record those that were cut in the ledger, and say where each partition goes on.

        Raises:
            DataGoneError: nothing in the database says where a log parts from what was drained. A person decides.
            DrainedElsewhereError: another drain went on meanwhile. Look again.
            TransientError: Kafka does not answer, or contradicts itself.
        """
        found = self.verify(rows, watermarks)
        if found.cuts:
            self._confirm(found.cuts, rows, watermarks)
        for cut in found.cuts:
            self._record(cut, watermarks[cut.partition], run_id)
            log.error(
                "kafka log was cut",
                topic=self._topic,
                partition=cut.partition,
                cut_at=cut.at,
                drained_to=cut.drained_to,
                leader_epoch=cut.leader_epoch,
                detail=cut.text,
            )
            found.starts[cut.partition] = Start(cut.at)
        return found

    def verify(self, rows: Mapping[int, OffsetRow], watermarks: Mapping[int, Watermarks], *, note: bool = True) -> Verified:
        """Compare the last drained record of each partition with what Kafka has in its place. `note`: keep what was verified in
        kafka_offset.

        Raises:
            DataGoneError, TransientError: as go_on.
        """
        found = Verified()
        drained = {number: row for number, row in rows.items() if _last_place(row) >= watermarks[number].low}
        starts = {number: Start(row.next_offset - 1, _epoch_of_tail(row)) for number, row in drained.items()}
        starts |= {
            number: Start(_last_place(row), row.leader_epoch)
            for number, row in drained.items()
            if row.next_offset > watermarks[number].high
        }
        answers = peek(self._consumer, self._topic, starts)
        for number, row in rows.items():
            ends = watermarks[number]
            cut_at, record = self._judge(row, ends, answers.get(number))
            if cut_at is not None:
                found.cuts.append(_cut(row, ends, cut_at))
                continue
            is_tail = record is not None and record.offset == row.next_offset - 1
            found.starts[number] = Start(row.next_offset, record.leader_epoch if record is not None and is_tail else None)
            if note:
                self._note(row, ends, record)
        return found

    def _judge(self, row: OffsetRow, ends: Watermarks, answer: Message | Nothing | None) -> tuple[int | None, LastRecord | None]:
        """Where the log was cut (None: it was not), and the last record, where it was seen to be the one that was drained.

        Raises:
            DataGoneError, TransientError: as go_on.
        """
        if answer is None:  # nothing was drained yet, or Kafka has it no more
            if row.next_offset <= ends.high:
                return None, None
            return (ends.low if row.next_offset == row.first_offset else ends.high), None
        if row.next_offset > ends.high:
            if isinstance(answer, Message) and self._is_the_one(answer, row):
                return ends.high, None
            return self._parting(row, ends, min(_last_place(row), ends.high), _hint(answer)), None
        if isinstance(answer, Nothing) and answer.refused:
            return self._parting(row, ends, row.next_offset - 1, _hint(answer)), None
        if isinstance(answer, Message) and answer.offset() == row.next_offset - 1:
            if self._is_the_one(answer, row):
                return None, last_record(answer)
            return self._parting(row, ends, row.next_offset - 1, None), None
        # Kafka has no record at the last drained offset (a transaction marker, say): the last one before it tells.
        if (place := row.record_offset) is None or not ends.low <= place < row.next_offset - 1:
            return None, None
        before = peek(self._consumer, self._topic, {row.partition: Start(place, row.leader_epoch)})[row.partition]
        if isinstance(before, Message) and self._is_the_one(before, row):
            return None, None
        return self._parting(row, ends, place, _hint(before)), None

    def _confirm(self, cuts: list[LogCut], rows: Mapping[int, OffsetRow], watermarks: Mapping[int, Watermarks]) -> None:
        """Look a second time, not across a change of leaders, and make sure of who answers: what is asked of Kafka goes over several
        connections, and behind an address (a port that a dead broker left, a name that was moved) there may be another cluster for a while.

        Raises:
            TransientError: it is not the same as before.
        """
        try:
            cluster = self._consumer.list_topics(self._topic, timeout=PATIENCE_SECONDS).cluster_id
        except KafkaException as error:
            raise TransientError(f"Kafka does not answer: {error.args[0].str()}") from error
        numbers = [cut.partition for cut in cuts]
        with TopicOffsets(self._settings, WORK_SECONDS, self._topic) as topic:
            again = topic.identity()
            if cluster != again.cluster_id or again != self._identity:
                raise TransientError(
                    f"Kafka contradicts itself about topic '{self._topic}': {again} and cluster {cluster}, before {self._identity}. Do all"
                    " of IOT_KAFKA_BOOTSTRAP_SERVERS belong to one cluster?"
                )
            later = topic.watermarks(numbers)
        second = self.verify({number: rows[number] for number in numbers}, later)
        changed = any(later[number].leader_epoch != watermarks[number].leader_epoch for number in numbers)
        if changed or [(cut.partition, cut.at) for cut in second.cuts] != [(cut.partition, cut.at) for cut in cuts]:
            raise TransientError(f"Kafka's log of topic '{self._topic}' looks another one at each look; it is looked at again")

    def _is_the_one(self, answer: Message, row: OffsetRow) -> bool:
        """Whether a record is the one that was drained at its place; what the database has no trace of is believed."""
        if answer.offset() == row.record_offset and row.record_sha256 is not None:
            return last_record(answer).sha256.hex() == row.record_sha256
        return StoredRecords(self._connection, self._identity, row).has(answer) is not False

    def _parting(self, row: OffsetRow, ends: Watermarks, high: int, hint: int | None) -> int:
        """The first offset below `high` whose record is not the one that was drained, or `high`. Kafka's own answer is tried first; else
        the records are compared by bisection: before that offset all are the same, behind it none is.

        Raises:
            DataGoneError, TransientError: as go_on.
        """
        stored = StoredRecords(self._connection, self._identity, row)

        def is_same(offset: int, below: int) -> tuple[bool, int]:
            """Whether the first record from the offset on that the database knows is the one that was drained, and its offset."""
            begun = offset
            for _ in range(MOST_UNKNOWN):
                record = peek(self._consumer, self._topic, {row.partition: Start(offset)})[row.partition] if offset < below else None
                if not isinstance(record, Message) or (at := record.offset() or 0) >= below:
                    if offset == begun:
                        return False, offset  # Kafka has no record in between
                    break
                if (verdict := stored.has(record)) is not None:
                    return verdict, at
                offset = at + 1
            raise DataGoneError(
                f"the log of partition {row.partition} of topic '{self._topic}' is not the one that was drained to {row.next_offset}, and"
                f" nothing is stored of offsets {begun} to {offset - 1} that would show where they part (retention?). To go on with all"
                f" that Kafka holds from offset {ends.low} on, as new: {accept_command([row.partition])} --from-beginning"
            )

        low = ends.low
        if hint is not None and low <= hint <= high:
            joins = hint == low or is_same(hint - 1, hint)[0]
            if joins and (hint == high or not is_same(hint, high)[0]):
                return hint
        while low < high:
            middle = (low + high) // 2
            same, at = is_same(middle, high)
            if same:
                low = at + 1
            else:
                high = middle
        return low

    def _note(self, row: OffsetRow, ends: Watermarks, record: LastRecord | None) -> None:
        """Keep the epoch at which the log was seen to go on, and what a last record that an earlier release drained is known by."""
        known = row.record_sha256 is not None and record is not None and record.offset == row.record_offset
        new = None if known else record
        if row.verified_epoch == ends.leader_epoch and new is None:
            return
        values = {
            "topic": self._topic,
            "partition": row.partition,
            "topic_id": row.topic_id,
            "generation": row.log_generation,
            "next_offset": row.next_offset,
            "verified_epoch": ends.leader_epoch,
            "leader_epoch": new and new.leader_epoch,
            "record_offset": new and new.offset,
            "record_sha256": new and new.sha256,
        }
        with self._connection.cursor() as cursor:
            cursor.execute(_NOTE, values)
        self._connection.commit()

    def _record(self, cut: LogCut, ends: Watermarks, run_id: str) -> None:
        """Go on at the cut, and say so in the ledger: one transaction."""
        values = {
            "topic": self._topic,
            "topic_id": self._identity.topic_id,
            "partition": cut.partition,
            "generation": cut.generation,
            "leader_epoch": cut.leader_epoch,
            "verified_epoch": ends.leader_epoch,
            "at": cut.at,
            "drained_to": cut.drained_to,
            "run_id": run_id,
            "detail": cut.text,
        }
        with self._connection.cursor() as cursor:
            cursor.execute(_CUT, values)
            if cursor.rowcount != 1:
                self._connection.rollback()
                raise DrainedElsewhereError(f"partition {cut.partition} moved meanwhile")
            cursor.execute(_LEDGER, values)
        self._connection.commit()


def _last_place(row: OffsetRow) -> int:
    """Where the last drained record is; -1: none was drained, as far as is known."""
    if row.record_offset is not None:
        return row.record_offset
    return row.next_offset - 1 if row.next_offset > row.first_offset else -1  # drained by a release that did not note records


def _epoch_of_tail(row: OffsetRow) -> int | None:
    return row.leader_epoch if row.record_offset == row.next_offset - 1 else None


def _cut(row: OffsetRow, ends: Watermarks, at: int) -> LogCut:
    older = row.verified_epoch is not None and ends.leader_epoch is not None and ends.leader_epoch < row.verified_epoch
    return LogCut(row.partition, at, row.next_offset, row.log_generation + 1, row.leader_epoch, older)


def _hint(answer: Message | Nothing | None) -> int | None:
    found = _BROKER_END.search(answer.reason) if isinstance(answer, Nothing) else None
    return int(found[1]) if found else None
