"""What the ingest daemon writes into the header, the drain reads."""

import struct

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ingest_daemon import envelope as written
from iot_platform.telemetry import envelope as read


@given(
    first_byte=st.integers(0x30, 0x3D),
    packet_id=st.integers(0, 65535),
    received_at=st.integers(read.EARLIEST, read.LATEST - 1),
    number=st.integers(0, 2**63 - 1),
    sequence=st.integers(1, 2**63 - 1),
    client=st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=100),
)
def test_both_sides_agree(*, first_byte: int, packet_id: int, received_at: int, number: int, sequence: int, client: str) -> None:
    header = written.pack(first_byte, packet_id, received_at, number, sequence, client.encode())
    found = read.unpack([header, None], lambda row: row)
    assert found.readable.tolist() == [True, False]
    assert found.received_at.tolist() == [received_at, 1]
    assert (found.flags[0], found.packet_id[0], found.sequence[0]) == (written.flags_of(first_byte), packet_id, sequence)
    assert found.connections[found.connection[0]] == (client, number)
    assert found.connection[1] == -1
    assert (written.HEADER, written.VERSION, written.DUP) == (read.HEADER, read.VERSION, read.DUP)


@given(st.lists(st.none() | st.binary(max_size=60)))
def test_any_bytes_are_read_or_not(headers: list[bytes | None]) -> None:
    found = read.unpack(headers, lambda row: 1000 + row)
    assert len(found.readable) == len(headers)
    for row, readable in enumerate(found.readable.tolist()):
        assert readable == (found.connection[row] >= 0)
        if not readable:
            assert found.received_at[row] == 1000 + row


def test_what_postgresql_cannot_store_is_unreadable_or_escaped() -> None:
    def header(version: int = 1, received_at: int = read.EARLIEST, number: int = 1, sequence: int = 1, client: bytes = b"c") -> bytes:
        return struct.pack("!BBHqqQ", version, 0, 0, received_at, number, sequence) + client

    headers = [
        header(version=2),
        header(received_at=-(2**63)),
        header(sequence=2**63),
        header(number=-1),
        header(client=b"x" * 1025),
        header(client=b"\xff" * 300),  # 1,200 bytes when escaped
        header(client=b"a\0\xff"),
    ]
    found = read.unpack(headers, lambda _: 0)
    assert found.readable.tolist() == [False] * 6 + [True]
    assert found.connections[found.connection[6]] == ("a\\x00\\xff", 1)


def test_several_connections_keep_their_rows_apart() -> None:
    headers = [written.pack(0x32, 1, read.EARLIEST, number, 1, client) for number, client in ((1, b"a"), (2, b"a"), (1, b"b"), (1, b"a"))]
    found = read.unpack(headers, lambda _: 0)
    assert [found.connections[index] for index in found.connection.tolist()] == [("a", 1), ("a", 2), ("b", 1), ("a", 1)]
    assert found.connection.dtype == np.int32
