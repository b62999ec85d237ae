"""What the ingest daemon writes into the header, the drain reads."""

import struct

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ingest_daemon import envelope as written
from ingest_daemon.transport import DUP
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
    assert (found.flags[0], found.packet_id[0], found.sequence[0]) == (written.FLAGS_OF_FIRST_BYTE[first_byte], packet_id, sequence)
    assert found.connections[found.connection[0]] == (client, number)
    assert found.connection[1] == -1
    assert (written.HEADER, written.VERSION) == (read.HEADER, read.VERSION)
    assert bool(found.flags[0] & read.DUP) == bool(first_byte & DUP)


@given(
    known=st.integers(0, 2**63 - 1),
    receipts=st.lists(
        st.tuples(st.integers(0, 2**63 - 1), st.integers(1, 2**63 - 1), st.integers(read.EARLIEST, read.LATEST - 1)), max_size=8
    ),
)
def test_both_sides_agree_on_earlier_receipts(known: int, receipts: list[tuple[int, int, int]]) -> None:
    plain = written.pack(0x3A, 7, read.EARLIEST, 5, 9, b"c")
    header = written.with_receipts(plain, known, receipts)
    found = read.unpack([plain, header, header[:-1], header[:30]], lambda row: row)
    assert found.readable.tolist() == [True, True, True, False]
    assert found.receipts[1] == read.Receipts(known, tuple(receipts))
    assert 0 not in found.receipts
    assert [found.connections[index] for index in found.connection[:3].tolist()] == [("c", 5), ("c", 5), ("", 5)]
    assert (found.flags[1], found.packet_id[1], found.sequence[1], found.received_at[1]) == (found.flags[0], 7, 9, read.EARLIEST)


def test_earlier_receipts_that_nobody_writes_make_a_header_unreadable() -> None:
    plain = written.pack(0x3A, 7, read.EARLIEST, 5, 9, b"c")
    wrong = [(1, 1, 2**62), (1, 1, -1), (-1, 1, read.EARLIEST), (1, 2**63, read.EARLIEST)]
    found = read.unpack([written.with_receipts(plain, 0, [receipt]) for receipt in wrong], lambda row: row)
    assert not found.readable.any()
    assert not found.receipts


@given(st.lists(st.none() | st.binary(max_size=60) | st.binary(max_size=90).map(lambda data: b"\x02" + data)))
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
