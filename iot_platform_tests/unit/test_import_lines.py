"""Lines read by the thousand are what they are one by one; comments, texts over several lines and line numbers survive."""

import io
import random
from collections.abc import Iterable, Sequence

import pytest

from iot_platform.imports.line_columns import LineColumns
from iot_platform.imports.line_protocol import LineReader
from iot_platform.imports.made import Made, TimePlace
from iot_platform.imports.mapping import Mapping, Source

PLACE = TimePlace((("head", "ts"),))
VALUES = (
    *("1", "-0", "0.5", "1e3", "-1.5E-07", "12i", "-3i", "9223372036854775807i", "92233720368547758070i", "t", "False", "TRUE", "tRUE"),
    *("nan", "0x1", "1u", "00", "1.", ".5", '"text"', '"a b"', '"open', "", "1,b=2", "1,b=2i,c=f", "1,v=2", '1,b="x"', "1e400"),
    "1234567890123456789",
)
TIMES = ("", "x", "0", "-1", "1", "99999999999999999999", "9223372036854775807", "-9223372036854775808", "-62135596800000000000")
KEYS = (
    *("m,host=a,site=s", "m,site=s,host=b,core=0", "m,site=s", "m,host=a", "m,host=a,site=x/y", r"m\ n,host=a\,b,site=s", "m,host=,site=s"),
    *("m,host", "温度,host=设备,site=s", ",host=a", "m,host=a,host=b,site=s", "m", "#m,host=a,site=s", " m,host=a,site=s"),
    *("m\t,host=a,site=s", "m\0,host=a,site=s"),
)
FIELDS = ("v", "值", "", r"a\ b", "a b", "head", "time", "a\0", '"q"')


def mapping(precision: str = "ns") -> Mapping:
    return Mapping(tenant=Source(value="t"), project=Source(tag="site"), device=Source(tag="host"), precision=precision)  # type: ignore[arg-type]


def read(lines: bytes, precision: str = "ns", skip: int = 0, records: int = 7) -> tuple[list[tuple[bytes, bytes]], dict[int, object]]:
    """Topics and payloads, and what is refused, of all batches together."""
    made, parts = Made(), list(LineReader(io.BytesIO(lines), mapping(precision), PLACE).read(skip, records, 1 << 20))
    assert all(len(part) == records for part in parts[:-1])
    for part in parts:
        assert part.size == sum(map(len, part.payloads))
        made.extend(part)
    return list(zip(made.topics, made.payloads, strict=True)), dict(made.refused)


def one_by_one(self: LineColumns, lines: Sequence[bytes]) -> tuple[list[bytes], list[bytes], Iterable[int]]:
    return [], [], range(len(lines))


def some(rng: random.Random, precision: str) -> str:
    now = str(1_700_000_000 + rng.randrange(10**6)) + "0" * {"ns": 9, "us": 6, "ms": 3, "s": 0}[precision]
    now = str(int(now) + rng.randrange(1_000)) if precision == "ns" else now
    key = rng.choice(KEYS) if rng.random() < 0.3 else "m,host=a,site=s"
    name = rng.choice(FIELDS) if rng.random() < 0.3 else "v"
    value = rng.choice(VALUES) if rng.random() < 0.5 else str(rng.random())
    time = rng.choice(TIMES) if rng.random() < 0.2 else rng.choice(("", "-")) + now
    return f"{key} {name}={value} {time}" + rng.choice(("", "", "", " ", "\r", " x"))


@pytest.mark.parametrize("precision", ["ns", "us", "ms", "s"])
def test_by_the_thousand_as_one_by_one(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(precision)
    lines = [some(rng, precision).encode() for _ in range(3_000)]
    lines[10:10] = [b"m,host=\xff,site=s v=1 1", b"m,host=a,site=s v=\xfe 1"]
    at_once = read(b"\n".join(lines), precision, records=500)
    monkeypatch.setattr(LineColumns, "make", one_by_one)
    assert read(b"\n".join(lines), precision, records=500) == at_once
    assert 500 < len(at_once[1]) < len(at_once[0]) - 500


def test_most_lines_are_ordinary() -> None:
    lines = [
        f"m,host=a,site=s v={value} {1_700_000_000_123_456_789 + at}\n".encode() for at, value in enumerate(("1", "-2.5", "3i", "t", "F"))
    ]
    columns = LineColumns(PLACE, 1, lambda key, name: (key.encode(), f'"{name}":'))
    topics, payloads, odd = columns.make(lines)
    assert (topics, odd) == ([b"m,host=a,site=s"] * 5, [])
    assert payloads == [b'{"head":{"ts":1700000000123456},"v":%s}' % value for value in (b"1", b"-2.5", b"3", b"true", b"false")]


def test_records_keep_their_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    import iot_platform.imports.line_protocol as module

    good = 'm,host=a,site=s v="{}" 1700000000000000000'
    lines = [
        "# INFLUXDB EXPORT", "# DDL", "CREATE DATABASE x WITH NAME autogen", "# DML", "# CONTEXT-DATABASE:x", good.format("1"), "", "bad",
        good.format("two\n# lines\n\nof text"), "  ", "# comment", good.format("3"), "worse", good.format("never ends")[:-21],
    ]  # fmt: skip
    text = "\n".join(lines).encode() + b"\n"
    monkeypatch.setattr(module, "BLOCK", 1)  # each line alone: texts go on behind their block
    alone = read(text)
    monkeypatch.setattr(module, "BLOCK", 1 << 20)
    records, refused = read(text)
    assert (records, refused) == alone
    assert len(records) == 6
    assert {at: detail.partition(":")[0] for at, (_, detail) in refused.items()} == {1: "line 8", 4: "line 16", 5: "line 17"}
    for skip in range(7):
        assert read(text, skip=skip, records=2)[0] == records[skip:]
