"""Reads the header `iot` that the ingest daemon puts on every Kafka record (ingest_daemon/envelope.py writes it)."""

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

import numpy as np
import numpy.typing as npt

HEADER: Final = "iot"
VERSION: Final = 1
VERSION_WITH_RECEIPTS: Final = 2
LAYOUT: Final = np.dtype(
    [("version", "u1"), ("flags", "u1"), ("packet_id", ">u2"), ("received_at", ">i8"), ("connection_number", ">i8"), ("sequence", ">u8")]
)
"""`struct` format !BBHqqQ; the MQTT client id (UTF-8) follows."""
_KNOWN: Final = struct.Struct("!qB")
_RECEIPT: Final = struct.Struct("!qQq")
DUP: Final = 1
RETAIN: Final = 2
MAX_CLIENT_ID_BYTES: Final = 1024
"""As stored, escapes included: an index entry holds 2,700."""
EARLIEST: Final = 946_684_800_000_000
LATEST: Final = 4_102_444_800_000_000
"""Receive times outside 2000..2100 (µs) are a broken clock or another writer: the header counts as unreadable."""

Connection = tuple[str, int]
"""MQTT client id and connection number."""


@dataclass(frozen=True, slots=True)
class Receipts:
    """What version 2 of a header says: the same message came before in these receipts, oldest first, each of which may be in Kafka
    (connection number, sequence, receive time in µs); of its connections up to `known` the daemon can tell nothing more."""

    known: int
    earlier: tuple[tuple[int, int, int], ...]


@dataclass(slots=True)
class Envelopes:
    """What the headers of n records say, as columns. Where `readable` is false only received_at means anything."""

    readable: npt.NDArray[np.bool_]
    received_at: npt.NDArray[np.int64]  # µs since the epoch
    flags: npt.NDArray[np.uint8]
    packet_id: npt.NDArray[np.int32]
    sequence: npt.NDArray[np.int64]
    connection: npt.NDArray[np.int32]  # index into connections, -1 where not readable
    connections: list[Connection]
    receipts: Mapping[int, Receipts] = field(default_factory=dict)  # of the rows that have version 2


def unpack(headers: Sequence[bytes | None], kafka_time: Callable[[int], int]) -> Envelopes:
    """Columns of the headers (None: the record has none). `kafka_time(row)` gives the Kafka timestamp in µs for records without a
    readable header; it is asked for these only. Never raises for any bytes."""
    columns, clients = _split(headers)
    received_at = columns["received_at"].astype(np.int64)
    receipts: dict[int, Receipts] = {}
    readable = columns["version"] == VERSION
    for row in np.flatnonzero(columns["version"] == VERSION_WITH_RECEIPTS).tolist():
        if (split := _receipts(clients[row])) is not None:
            receipts[row], clients[row] = split
            readable[row] = True
    readable &= (received_at >= EARLIEST) & (received_at < LATEST)
    readable &= (columns["sequence"] < 1 << 63) & (columns["connection_number"] >= 0)
    if too_long := {client for client in set(clients) if len(client_text(client).encode()) > MAX_CLIENT_ID_BYTES}:
        readable &= np.fromiter((client not in too_long for client in clients), np.bool_, len(clients))
    connection, connections = _connections(clients, columns["connection_number"], readable)
    for row in np.flatnonzero(~readable).tolist():
        received_at[row] = kafka_time(row)
    return Envelopes(
        readable=readable,
        received_at=received_at,
        flags=columns["flags"].copy(),
        packet_id=columns["packet_id"].astype(np.int32),
        sequence=columns["sequence"].astype(np.int64),
        connection=connection,
        connections=connections,
        receipts={row: found for row, found in receipts.items() if readable[row]},
    )


def _split(headers: Sequence[bytes | None]) -> tuple[npt.NDArray[np.void], list[bytes]]:
    """The fixed part of each header, zeros where there is none, and what follows it."""
    size, blank = LAYOUT.itemsize, bytes(LAYOUT.itemsize)
    if None not in headers and len(lengths := set(map(len, cast("Sequence[bytes]", headers)))) == 1 and (length := lengths.pop()) >= size:
        whole = np.frombuffer(b"".join(cast("Sequence[bytes]", headers)), np.uint8).reshape(-1, length)
        if (whole[:, size:] == whole[0, size:]).all():  # of one client: nearly every batch
            return whole[:, :size].copy().view(LAYOUT)[:, 0], [whole[0, size:].tobytes()] * len(headers)
    clients = [header[size:] if header is not None else b"" for header in headers]
    fixed = b"".join([header[:size] if header is not None and len(header) >= size else blank for header in headers])
    return np.frombuffer(fixed, LAYOUT), clients


def _receipts(rest: bytes) -> tuple[Receipts, bytes] | None:
    """What version 2 has behind the fixed part, and the client id; None if it ends early or holds what we do not write."""
    if len(rest) < _KNOWN.size:
        return None
    known, count = _KNOWN.unpack_from(rest)
    end = _KNOWN.size + count * _RECEIPT.size
    if len(rest) < end:
        return None
    earlier = tuple(_RECEIPT.iter_unpack(rest[_KNOWN.size : end]))
    if any(number < 0 or sequence >= 1 << 63 or not EARLIEST <= received_at < LATEST for number, sequence, received_at in earlier):
        return None
    return Receipts(known, earlier), rest[end:]


def _connections(
    clients: list[bytes], numbers: npt.NDArray[np.int64], readable: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.int32], list[Connection]]:
    if readable.all() and len(clients) > 0 and (numbers == numbers[0]).all() and len(set(clients)) == 1:  # nearly every batch
        return np.zeros(len(clients), np.int32), [(client_text(clients[0]), int(numbers[0]))]
    found: dict[tuple[bytes, int], int] = {}
    rows = [
        found.setdefault((client, number), len(found)) if good else -1
        for client, number, good in zip(clients, numbers.tolist(), readable.tolist(), strict=True)
    ]
    return np.array(rows, np.int32), [(client_text(client), number) for client, number in found]


def client_text(client: bytes) -> str:
    """A client id as PostgreSQL text: bytes that are no UTF-8, and U+0000, are escaped as \\xNN."""
    return escaped(client)


def escaped(data: bytes) -> str:
    """Bytes as PostgreSQL text: what is no UTF-8, and U+0000, becomes \\xNN."""
    return data.decode("utf-8", "backslashreplace").replace("\0", "\\x00")
