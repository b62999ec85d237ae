"""The COPY encoding against pgpq, an independent one."""

from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st
from pgpq import ArrowToPostgresBinaryEncoder

from iot_platform.database.copy_binary import HEADER, POSTGRES_EPOCH_US, TRAILER, Column, Texts, encode, encode_row, int8

INT64 = st.integers(-(2**63), 2**63 - 1)
TIME = st.integers(POSTGRES_EPOCH_US - 10**15, POSTGRES_EPOCH_US + 10**15)
ROWS = st.lists(
    st.tuples(TIME, st.integers(-(2**31), 2**31 - 1), st.none() | st.floats(allow_nan=False), st.none() | INT64, st.binary(max_size=20)),
    min_size=1,
)


def oracle(arrays: dict[str, Any]) -> bytes:
    batch = pa.RecordBatch.from_pydict(arrays)
    encoder = ArrowToPostgresBinaryEncoder(batch.schema)
    return bytes(encoder.write_header() + encoder.write_batch(batch) + encoder.finish())


@given(ROWS)
def test_equals_pgpq(rows: list[tuple[int, int, float | None, int | None, bytes]]) -> None:
    rows = sorted(rows, key=lambda row: (row[2] is not None) + 2 * (row[3] is not None))  # encode() groups by which columns are null
    times, small, floats, large, blobs = zip(*rows, strict=True)
    ours = encode(
        [
            Column("timestamptz", np.array(times, np.int64)),
            Column("int4", np.array(small, np.int32)),
            Column("float8", np.array([0.0 if v is None else v for v in floats]), np.array([v is not None for v in floats])),
            Column("int8", np.array([0 if v is None else v for v in large], np.int64), np.array([v is not None for v in large])),
            Column("bytes", blobs),
        ],
        len(rows),
    )
    theirs = oracle(
        {
            "time": pa.array(times, pa.timestamp("us", "UTC")),
            "small": pa.array(small, pa.int32()),
            "float": pa.array(floats, pa.float64()),
            "large": pa.array(large, pa.int64()),
            "blob": pa.array(blobs, pa.binary()),
        }
    )
    assert b"".join((HEADER, *ours, TRAILER)) == theirs


@given(st.none() | INT64, st.none() | st.binary(max_size=9))
def test_single_rows_equal_pgpq(number: int | None, blob: bytes | None) -> None:
    ours = encode_row((None if number is None else int8(number), blob))
    assert HEADER + ours + TRAILER == oracle({"number": pa.array([number], pa.int64()), "blob": pa.array([blob], pa.binary())})


@given(st.lists(st.integers(-1, 6), min_size=1, max_size=300), st.lists(st.binary(max_size=9), min_size=7, max_size=7, unique=True))
def test_texts_that_many_rows_share_equal_pgpq(position: list[int], texts: list[bytes]) -> None:
    position += [0] * 40 + [1] * 32 + [2] * 31  # some are shared by many, some by few
    at = np.array(position, np.int32)
    columns = [Column("int4", np.arange(len(at), dtype=np.int32)), Column("bytes", Texts(texts, at), at >= 0)]
    rows = {number: None if text < 0 else texts[text] for number, text in enumerate(position)}
    ours = b"".join(encode(columns, len(at)))
    single = {
        bytes(oracle({"n": pa.array([number], pa.int32()), "blob": pa.array([text], pa.binary())}))[len(HEADER) : -len(TRAILER)]: number
        for number, text in rows.items()
    }
    found = []
    while ours:
        row = next(row for row in (ours[:14], *(ours[: 14 + size] for size in range(1, 10))) if row in single)
        found.append(single[row])
        ours = ours[len(row) :]
    assert sorted(found) == list(rows)
    for text in range(-1, len(texts)):  # those of one text keep their order
        of_text = [number for number in found if position[number] == text]
        assert of_text == sorted(of_text)
