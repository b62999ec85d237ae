"""The plan of a batch: records with every id and verdict, and how they become rows of message and quarantine, drained or replayed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from iot_platform.database.copy_binary import Column, encode, encode_row, int2, int4, int8, timestamptz
from iot_platform.telemetry.decode import DecodedBatch, Reason
from iot_platform.telemetry.drain.catalog import Catalog, Project
from iot_platform.telemetry.duplicates.redelivery import topic_columns
from iot_platform.telemetry.duplicates.repeats import Stream
from iot_platform.telemetry.records import DecodedRecords, Records, split_place

_MESSAGE: Final = """
COPY message (received_at, kafka_offset, source_id, kafka_partition, time_source, sequence, connection_id, packet_id, flags,
    duplicate_of,{more} payload) FROM STDIN (FORMAT binary)"""
_GENERATIONS: Final = " log_generation, duplicate_of_generation,"
_SHIFT: Final = " time_shift_us,"
QUARANTINE: Final = """
COPY quarantine (received_at, kafka_offset, kafka_partition, reason, detail, tenant_id, project_id, sequence, connection_id, packet_id,
    flags, duplicate_of, log_generation, duplicate_of_generation, topic, topic_bytes, payload) FROM STDIN (FORMAT binary)"""


Bad = Mapping[int, tuple[Reason, str]]
"""Row → why it is quarantined."""
NONE_REFUSED: Final[Bad] = {}


@dataclass(frozen=True, slots=True)
class Copies:
    """Which of n records repeat which, as the search for duplicates found it."""

    streams: list[Stream]
    duplicate_of: npt.NDArray[np.int64]  # [n] place of the first copy (see records.place_of); -1: none
    connection_id: npt.NDArray[np.int32]  # [n]


@dataclass(frozen=True, slots=True)
class Plan:
    """A batch with all its ids and verdicts: ready to be written. Its names have been resolved before (`resolve_names`)."""

    batch: DecodedRecords
    copies: Copies
    bad: Bad
    is_bad: npt.NDArray[np.bool_]  # [n]

    @classmethod
    def of(cls, batch: DecodedRecords, copies: Copies, refused: Bad) -> "Plan":
        """The plan of a batch of which `resolve_names` refused these."""
        decoded = batch.decoded
        is_bad = decoded.source_index < 0
        is_bad[list(refused)] = True
        return cls(batch, copies, {row: (reason, detail) for row, reason, detail in decoded.reason} | dict(refused), is_bad)

    @property
    def records(self) -> Records:
        """The records themselves."""
        return self.batch.records

    @property
    def decoded(self) -> DecodedBatch:
        """What the decoder made of them."""
        return self.batch.decoded

    @property
    def duplicate_of(self) -> npt.NDArray[np.int64]:
        """[n] place of the first copy; -1: none."""
        return self.copies.duplicate_of

    @property
    def connection_id(self) -> npt.NDArray[np.int32]:
        """[n]"""
        return self.copies.connection_id

    @property
    def measured(self) -> npt.NDArray[np.bool_]:
        """Records that give measurements: good ones that are no repetition."""
        return ~self.is_bad & (self.duplicate_of < 0)


def resolve_names(catalog: Catalog, batch: DecodedRecords, copies: Copies, wanted: npt.NDArray[np.bool_]) -> Bad:
    """Make the names of the wanted good records known to the catalog; those that their project has no room for are refused.

    Commits: names that are new are created in transactions of their own. A batch that is rolled back later leaves names without rows.
    """
    good, first = batch.decoded.source_index >= 0, copies.duplicate_of < 0
    # A redelivered message needs its source (it is kept), but no series: it has no measurements.
    refused = catalog.resolve(batch.decoded, good & first & wanted)
    refused += catalog.resolve_sources(batch.decoded, good & ~first & wanted)
    return {row: (Reason.SERIES_LIMIT, detail) for row, detail in refused}


def plan_of(catalog: Catalog, batch: DecodedRecords, copies: Copies, refused: Bad) -> Plan:
    """The plan of a batch to be stored; records that are `refused` go to quarantine for that reason, whatever the decoder made of them.
    Commits names that are new."""
    wanted = np.ones(len(batch.records), np.bool_)
    wanted[list(refused)] = False
    return Plan.of(batch, copies, {**resolve_names(catalog, batch, copies, wanted), **refused})


def message_rows(plan: Plan, catalog: Catalog, rows: npt.NDArray[np.intp], shifts: Mapping[int, int]) -> tuple[str, list[bytes]]:
    """Good records for table message: the COPY statement and its rows; `rows` ascend. `shifts`: record → time_shift_us."""
    if not len(rows):
        return "", []
    records, envelope = plan.records, plan.records.envelope
    readable = envelope.readable[rows]
    with_header = None if readable.all() else readable
    copied = plan.duplicate_of[rows]
    is_copy = copied >= 0
    names, more = "", list[Column]()
    if records.generation.any():  # the usual case is spared two columns: what came first is of no later log
        generation = records.generation[rows]
        copied_generation, copied = split_place(np.maximum(copied, 0))
        names = _GENERATIONS
        more += [Column("int4", generation), Column("int4", copied_generation, is_copy & (copied_generation != generation))]
    if shifts:  # and a third one
        shift = np.array([shifts.get(row, 0) for row in rows.tolist()], np.int32)
        names += _SHIFT
        more.append(Column("int4", shift, shift > 0))
    payloads = records.payloads if len(rows) == len(records) else [records.payloads[row] for row in rows.tolist()]
    columns = [
        Column("timestamptz", envelope.received_at[rows]),
        Column("int8", records.offset[rows]),
        Column("int4", catalog.source_id[plan.decoded.source_index[rows]]),
        Column("int4", records.partition[rows]),
        Column("int2", plan.decoded.time_source[rows]),
        Column("int8", envelope.sequence[rows], with_header),
        Column("int4", plan.connection_id[rows], with_header),
        Column("int4", envelope.packet_id[rows], with_header),
        Column("int2", envelope.flags[rows], with_header),
        Column("int8", copied, is_copy),
        *more,
        Column("bytes", payloads),
    ]
    return _MESSAGE.format(more=names), encode(columns, len(rows))


def quarantine_rows(plan: Plan, rows: Iterable[int]) -> list[bytes]:
    """Bad records as rows of QUARANTINE."""
    records, envelope = plan.records, plan.records.envelope
    pieces = []
    for row in rows:
        (reason, detail), (tenant, project) = plan.bad[row], project_of(plan.batch, row)
        topic, topic_bytes = topic_columns(records.topics[row])
        readable, generation, is_copy = bool(envelope.readable[row]), int(records.generation[row]), int(plan.duplicate_of[row]) >= 0
        copied_generation, copied_offset = split_place(np.maximum(plan.duplicate_of[row : row + 1], 0))
        pieces.append(
            encode_row(
                (
                    timestamptz(int(envelope.received_at[row])),
                    int8(int(records.offset[row])),
                    int4(int(records.partition[row])),
                    str(reason).encode(),
                    detail_text(detail).encode(),
                    tenant.encode(),
                    project.encode(),
                    int8(int(envelope.sequence[row])) if readable else None,
                    int4(int(plan.connection_id[row])) if readable else None,
                    int4(int(envelope.packet_id[row])) if readable else None,
                    int2(int(envelope.flags[row])) if readable else None,
                    int8(int(copied_offset[0])) if is_copy else None,
                    int4(generation),
                    int4(int(copied_generation[0])) if is_copy and int(copied_generation[0]) != generation else None,
                    topic.encode(),
                    topic_bytes,
                    records.payloads[row] or b"",
                )
            )
        )
    return pieces


def detail_text(detail: str) -> str:
    """A detail as PostgreSQL text: lone surrogates and U+0000 are escaped."""
    return detail.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()


def project_of(batch: DecodedRecords, row: int) -> Project:
    """Tenant and project of a record: as decoded, else as the topic names them; empty where it names none. Never with U+0000, which
    PostgreSQL cannot store."""
    if (source := int(batch.decoded.source_index[row])) >= 0:
        _, tenant, project, _ = batch.decoder.sources[source]
        return tenant, project
    named = batch.decoder.rules.topic_names(batch.records.topics[row])
    if named is None:
        return ("", "")
    tenant, project = named.tenant or "", named.project or ""
    return ("", "") if "\0" in tenant + project else (tenant, project)


def project_indices(plan: Plan, catalog: Catalog) -> npt.NDArray[np.int32]:
    """Each record's index into the catalog's projects."""
    source = plan.decoded.source_index
    project = np.zeros(len(plan.records), np.int32)
    decoded = source >= 0
    project[decoded] = catalog.source_project[source[decoded]]
    for row, _, _ in plan.decoded.reason:
        project[row] = catalog.project_index(project_of(plan.batch, row))
    return project
