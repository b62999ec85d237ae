"""The plan of a batch: records with every id and verdict, and how they become rows of message and quarantine, drained or replayed."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from iot_platform.database.copy_binary import Column, encode, encode_row, int2, int4, int8, timestamptz
from iot_platform.telemetry.decode import DecodedBatch, Decoder, Reason
from iot_platform.telemetry.drain.catalog import Catalog, Project
from iot_platform.telemetry.duplicates.redelivery import topic_columns
from iot_platform.telemetry.duplicates.repeats import Stream
from iot_platform.telemetry.records import Records, split_place

_MESSAGE: Final = """
COPY message (received_at, kafka_offset, source_id, kafka_partition, time_source, sequence, connection_id, packet_id, flags,
    duplicate_of,{generations} payload) FROM STDIN (FORMAT binary)"""
_FIRST_LOG: Final = _MESSAGE.format(generations="")
_LATER_LOG: Final = _MESSAGE.format(generations=" log_generation, duplicate_of_generation,")
QUARANTINE: Final = """
COPY quarantine (received_at, kafka_offset, kafka_partition, reason, detail, tenant_id, project_id, sequence, connection_id, packet_id,
    flags, duplicate_of, log_generation, duplicate_of_generation, topic, topic_bytes, payload) FROM STDIN (FORMAT binary)"""


@dataclass(slots=True)
class Plan:
    """A batch with all its ids: ready to be written."""

    records: Records
    decoded: DecodedBatch
    streams: list[Stream]
    duplicate_of: npt.NDArray[np.int64]  # [n] place of the first copy (see records.place_of); -1: none
    connection_id: npt.NDArray[np.int32]  # [n]
    bad: dict[int, tuple[Reason, str]] = field(default_factory=dict)
    is_bad: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))

    @property
    def measured(self) -> npt.NDArray[np.bool_]:
        """Records that give measurements: good ones that are no repetition."""
        return ~self.is_bad & (self.duplicate_of < 0)

    def judge(self, catalog: Catalog, wanted: npt.NDArray[np.bool_]) -> None:
        """Fill in what is bad, and make the names of the wanted good records known to the catalog, which may commit."""
        self.bad = {row: (reason, detail) for row, reason, detail in self.decoded.reason}
        self.is_bad = self.decoded.source_index < 0
        # A redelivered message needs its source (it is kept), but no series: it has no measurements.
        rejected = catalog.resolve(self.decoded, self.measured & wanted)
        rejected += catalog.resolve_sources(self.decoded, ~self.is_bad & (self.duplicate_of >= 0) & wanted)
        for row, detail in rejected:
            self.bad[row] = (Reason.SERIES_LIMIT, detail)
            self.is_bad[row] = True


def message_rows(plan: Plan, catalog: Catalog, rows: npt.NDArray[np.intp]) -> tuple[str, list[bytes]]:
    """Good records for table message: the COPY statement and its rows; `rows` ascend."""
    if not len(rows):
        return _FIRST_LOG, []
    records, envelope = plan.records, plan.records.envelope
    readable = envelope.readable[rows]
    with_header = None if readable.all() else readable
    copied = plan.duplicate_of[rows]
    is_copy = copied >= 0
    is_first_log = not records.generation.any()  # the usual case is spared two columns: what came first is of no later log
    generations: list[Column] = []
    if not is_first_log:
        generation = records.generation[rows]
        copied_generation, copied = split_place(np.maximum(copied, 0))
        generations = [Column("int4", generation), Column("int4", copied_generation, is_copy & (copied_generation != generation))]
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
        *generations,
        Column("bytes", payloads),
    ]
    return _FIRST_LOG if is_first_log else _LATER_LOG, encode(columns, len(rows))


def quarantine_rows(plan: Plan, decoder: Decoder, rows: Iterable[int]) -> list[bytes]:
    """Bad records as rows of QUARANTINE."""
    records, envelope = plan.records, plan.records.envelope
    pieces = []
    for row in rows:
        (reason, detail), (tenant, project) = plan.bad[row], project_of(plan, decoder, row)
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


def project_of(plan: Plan, decoder: Decoder, row: int) -> Project:
    """Tenant and project of a record: as decoded, else as the topic names them; empty where it names none. Never with U+0000, which
    PostgreSQL cannot store."""
    if (source := int(plan.decoded.source_index[row])) >= 0:
        _, tenant, project, _ = decoder.sources[source]
        return tenant, project
    named = decoder.rules.identify(plan.records.topics[row])
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
        project[row] = catalog.project_index(project_of(plan, catalog.decoder, row))
    return project
