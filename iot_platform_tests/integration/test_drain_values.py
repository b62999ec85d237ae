"""What a drain makes of records: values to the bit, repeats, conflicts, late ones, redelivered ones, bad ones, floods of names."""

import gzip
import json
import struct
from decimal import Decimal

import cbor2
import msgpack
import pytest

from iot_platform.settings import Settings
from iot_platform_tests.support.feeds.drain import TOPIC, Feed, check_books, drain, query


@pytest.fixture
def feed(settings: Settings) -> Feed:
    return Feed(settings)


def point(time_ms: int, value: object, metric: str = "temp") -> bytes:
    return json.dumps({"ts": time_ms, metric: value}).encode()


def now_ms(settings: Settings) -> int:
    return int(query(settings, "SELECT (extract(epoch FROM now()) * 1000)::bigint")[0][0])


VALUES: dict[str, tuple[str, float | None, int | None, str | None]] = {
    "zero": ("0", 0.0, None, None),
    "minus_zero": ("-0.0", -0.0, None, None),
    "tiny": ("5e-324", 5e-324, None, None),
    "huge": ("1.7976931348623157e308", 1.7976931348623157e308, None, None),
    "tenth": ("0.1", 0.1, None, None),
    "two_53_1": ("9007199254740993", 9007199254740992.0, 9007199254740993, None),
    "max_int": ("9223372036854775807", 9.223372036854775807e18, 2**63 - 1, None),
    "min_int_1": ("-9223372036854775807", -9.223372036854775807e18, -(2**63) + 1, None),
    "beyond": ("18446744073709551617", 1.8446744073709552e19, None, "18446744073709551617"),
    "yes": ("true", 1.0, None, "true"),
    "no": ("false", 0.0, None, "false"),
    "text": ('"温度 \\u00e9 \\\\ \\"q\\" 😀"', None, None, '温度 é \\ "q" 😀'),
    "empty": ('""', None, None, ""),
    "array": ("[1,2,3]", None, None, "[1,2,3]"),
}


def test_values_survive_to_the_bit(settings: Settings, feed: Feed) -> None:
    payload = "{" + ",".join(f'"{name}":{text}' for name, (text, *_) in VALUES.items()) + "}"
    feed.send(payload.encode())
    for name, (text, *_) in VALUES.items():  # each alone too: other rows, other encodings
        feed.send(f'{{"deviceId":"alone","{name}":{text}}}'.encode())
    feed.flush()
    drain(settings)
    for device in ("", "alone"):
        for view in ("measurement_named", "latest_named"):
            rows = query(settings, f"SELECT metric, value, value_int, value_text FROM {view} WHERE device_id = %s", device)
            assert len(rows) == len(VALUES)
            for name, value, value_int, value_text in rows:
                _, expected, *rest = VALUES[name]
                assert [value_int, value_text] == rest, name
                assert (value is None) == (expected is None), name
                if value is not None and expected is not None:
                    assert struct.pack("!d", value) == struct.pack("!d", expected), name
    check_books(settings)


def test_each_topic_has_its_codec(settings: Settings, feed: Feed) -> None:
    codecs = (
        {"topic": f"{TOPIC}/cbor", "codec": "cbor", "compression": "auto"},
        {"topic": f"{TOPIC}/msgpack", "codec": "msgpack"},
        {"topic": "home/{tenant}/{project}/{device}/{metric}", "codec": "scalar", "decimal": ","},
    )
    cbor = cbor2.dumps({"a": 21.5, "n": 2**64, "d": [Decimal("0.12345678901234567890")]})
    for _ in range(7):  # enough for columns, had they been JSON
        feed.send(b'{"a":1.5,"b":[0.12345678901234567890]}', topic=f"{TOPIC}/json")
    feed.send(gzip.compress(cbor), topic=f"{TOPIC}/cbor")
    feed.send(cbor + b"\0", topic=f"{TOPIC}/cbor")
    feed.send(gzip.compress(bytes(17 * 1024 * 1024)), topic=f"{TOPIC}/cbor")
    feed.send(gzip.compress(cbor)[:-1], topic=f"{TOPIC}/cbor")
    feed.send(msgpack.packb({"a": True, "b": None}), topic=f"{TOPIC}/msgpack")
    feed.send(b"12,5", topic="home/t/p/lamp/level")
    feed.flush()
    progress = drain(settings.model_copy(update={"topic_codecs": codecs}))
    assert progress.reasons == {"bad_encoding": 1, "too_large": 1, "bad_compression": 1}
    rows = query(
        settings, "SELECT DISTINCT tenant_id, device_id, metric, value, value_text FROM measurement_named WHERE device_id <> 'json'"
    )
    tenant = TOPIC.split("/")[4]
    assert set(rows) == {
        (tenant, "cbor", "a", 21.5, None),
        (tenant, "cbor", "n", 1.8446744073709552e19, "18446744073709551616"),
        (tenant, "cbor", "d", None, "[0.12345678901234567890]"),
        (tenant, "msgpack", "a", 1.0, "true"),
        ("t", "lamp", "level", 12.5, None),
    }
    assert query(settings, "SELECT DISTINCT value_text FROM measurement_named WHERE metric = 'b'") == [("[0.12345678901234567890]",)]
    check_books(settings)


def test_local_times_of_the_hour_that_autumn_repeats_are_counted(settings: Settings, feed: Feed) -> None:
    payloads = [f'{{"ts":"2024-{day}T02:30:0{second}","t":1}}' for day in ("10-27", "03-31", "06-01") for second in range(3)]
    for payload in payloads:
        feed.send(payload.encode())
    feed.flush()
    progress = drain(settings.model_copy(update={"default_timezone": "Europe/Berlin", "time_window_past_seconds": 10**10}))
    assert [(item.ambiguous_times, item.skipped_times) for item in progress.partitions.values()] == [(3, 3)]
    hours = query(settings, "SELECT DISTINCT to_char(time AT TIME ZONE 'UTC', 'MM-DD HH24') FROM measurement")
    assert {hour for (hour,) in hours} == {"10-27 01", "03-31 01", "06-01 00"}
    check_books(settings)


def test_repeats_conflicts_and_late_values(settings: Settings, feed: Feed) -> None:
    base = now_ms(settings) - 60_000
    for payload in (
        point(base, 1.5),
        point(base + 10, 2.5),
        point(base, 1.5),  # repeats within the batch
        point(base + 10, 9.5),  # contradicts within the batch
        point(base, "x", "state"),
        point(base, "x", "state"),
        point(base, 0.0, "zero"),
        point(base, -0.0, "zero"),  # equal numbers, other bits: a conflict
    ):
        feed.send(payload)
    feed.flush()
    progress = drain(settings)
    assert [(item.measurements, item.measurement_duplicates, item.measurement_conflicts) for item in progress.partitions.values()] == [
        (4, 2, 2)
    ]
    for payload in (
        point(base - 5, 0.5),  # late, new
        point(base, 1.5),  # late, repeated
        point(base, 7.5),  # late, contradicting
        point(base + 20, 3.5),  # new
        point(base, "y", "state"),
        point(base, 9007199254740993, "big"),
        point(base, 9007199254740992, "big"),  # the same double, another integer
    ):
        feed.send(payload)
    feed.flush()
    progress = drain(settings)
    assert [(item.measurements, item.measurement_duplicates, item.measurement_conflicts) for item in progress.partitions.values()] == [
        (3, 1, 3)
    ]
    rows = query(
        settings,
        "SELECT (extract(epoch FROM time) * 1000)::bigint - %s, value FROM measurement_named WHERE metric = 'temp' ORDER BY 1",
        base,
    )
    assert rows == [(-5, 0.5), (0, 1.5), (10, 2.5), (20, 3.5)]
    check_books(settings)


def test_one_series_through_two_partitions_at_once(settings: Settings, feed: Feed) -> None:
    """Two lanes write the same series: whoever comes second goes the slow way; nothing is doubled, nothing is lost."""
    base = now_ms(settings) - 3_600_000
    for number in range(20_000):
        payload = json.dumps({"ts": base + number // 2, "a": number // 2, "b": 1}).encode()
        feed.send(payload, partition=number % 2, topic=f"{TOPIC}/shared")
    feed.flush()
    progress = drain(settings.model_copy(update={"drain_batch_records": 500}))
    assert sum(item.measurements for item in progress.partitions.values()) == 20_000
    assert sum(item.measurement_duplicates for item in progress.partitions.values()) == 20_000
    assert query(settings, "SELECT count(*), count(DISTINCT time), sum(value) FROM measurement_named WHERE metric = 'a'") == [
        (10_000, 10_000, float(sum(range(10_000))))
    ]
    check_books(settings)


def test_redelivered_messages_point_to_their_first_copy(settings: Settings, feed: Feed) -> None:
    settings = settings.model_copy(update={"ingest_in_flight_window": 3})
    feed.send(b'{"n":0}', packet=1)  # 0: left the window of connection 1
    feed.send(b'{"n":1}', packet=2)  # 1
    feed.send(b"broken", packet=3)  # 2
    feed.send(b'{"n":3}', packet=4)  # 3
    feed.flush()
    drain(settings)
    feed.send(b'{"n":0}', packet=1, connection=2, dup=True)  # 4: too far back
    feed.send(b'{"n":1}', packet=2, connection=2, dup=True)  # 5 → 1
    feed.send(b"broken", packet=3, connection=2, dup=True)  # 6 → 2, in quarantine
    feed.send(b'{"n":33}', packet=4, connection=2, dup=True)  # 7: other bytes
    feed.send(b'{"n":1}', packet=2, connection=3, dup=True)  # 8 → 1, by way of 5
    feed.send(b'{"n":1}', packet=2, connection=3, dup=False)  # 9: not flagged, so another message
    feed.send(b'{"n":1}', packet=2, connection=9, client="other", dup=True)  # 10: another client
    feed.send(b'{"n":4}', packet=9, connection=3)  # 11
    feed.send(b'{"n":4}', packet=9, connection=4, dup=True)  # 12 → 11, same batch
    feed.send(b'{"n":4}', packet=9, connection=5, dup=True, topic=f"{TOPIC}/d")  # 13: other topic
    feed.send(b'{"n":4}', packet=9, connection=6, dup=True)  # 14 → 11
    feed.flush()
    progress = drain(settings)
    marked = query(
        settings,
        "SELECT kafka_offset, duplicate_of FROM message WHERE duplicate_of IS NOT NULL"
        " UNION ALL SELECT kafka_offset, duplicate_of FROM quarantine WHERE duplicate_of IS NOT NULL ORDER BY 1",
    )
    assert marked == [(5, 1), (6, 2), (8, 1), (12, 11), (14, 11)]
    assert progress.partitions[0].duplicates == 5
    # 15 records, 2 broken; n of offsets 0 1 3 4 7 9 10 11 13; the receive times differ, so all are values of their own
    assert query(settings, "SELECT count(*) FROM measurement_named WHERE metric = 'n'") == [(9,)]
    check_books(settings)


def test_bad_records_are_kept_whole(settings: Settings, feed: Feed) -> None:
    long_topic = TOPIC + "/" + "".join(f"{number:x}" for number in range(12_000))
    records: list[tuple[bytes | str | None, bytes | None, str]] = [
        (TOPIC, None, "empty_payload"),
        (TOPIC, b"", "empty_payload"),
        (None, b"{}", "topic_mismatch"),
        (b"a\xff\0b", b'{"x":1}', "topic_mismatch"),
        ("other/topic", b"\0\xff", "topic_mismatch"),
        (TOPIC, b"\xff", "not_utf8"),
        (TOPIC, b'{"a":"\\u0000"}', "nul_character"),
        (TOPIC, b'{"a\\u0000":1}', "nul_character"),
        (TOPIC, b'{"ts":0,"a":1}', "time_out_of_range"),
        (TOPIC, b'{"a":' + b"[" * 100 + b"]" * 100 + b"}", "too_deep"),
        (long_topic, b'{"a":1}', "bad_name"),  # longer than an index entry
        (TOPIC, b"{}", ""),
    ]
    for header in (True, False):
        for topic, payload, _ in records:
            feed.send(payload, topic=topic, header=header)
    feed.flush()
    progress = drain(settings)
    rows = query(
        settings, "SELECT kafka_offset, reason, topic, topic_bytes, payload, tenant_id, client_id FROM quarantine_named ORDER BY 1"
    )
    expected = [(offset, *records[offset % len(records)]) for offset in range(2 * len(records)) if records[offset % len(records)][2]]
    assert len(rows) == len(expected)
    for row, (offset, topic, payload, reason) in zip(rows, expected, strict=True):
        raw = topic.encode() if isinstance(topic, str) else topic or b""
        assert row[:2] == (offset, reason)
        assert (row[3] or row[2].encode()) == raw
        assert row[4] == (payload or b"")
        assert row[5] == ("1968193631353446400" if raw.startswith(TOPIC.encode()) else "")
        assert row[6] == ("ingest" if offset < len(records) else None)
    assert query(settings, "SELECT topic FROM quarantine WHERE topic_bytes IS NOT NULL LIMIT 1") == [("a\\xff\\x00b",)]
    assert sum(progress.reasons.values()) == len(expected)
    check_books(settings)


def test_a_flood_of_names_is_bounded_per_project(settings: Settings, feed: Feed) -> None:
    settings = settings.model_copy(update={"max_series_per_project": 5})
    feed.send(b'{"a":1,"b":1,"c":1}')
    feed.send(b'{"a":1,"d":1,"e":1,"f":1}')  # would be six: whole message refused
    feed.send(b'{"a":1,"d":1,"e":1}')  # five
    feed.send(b'{"g":1}')
    feed.send(b'{"a":2,"e":2}')
    feed.send(b'{"g":1}', topic=TOPIC + "9")  # another project
    for number in range(8):  # sources are bounded too: 1 exists
        feed.send(b"{}", topic=f"{TOPIC}/device-{number}")
    feed.flush()
    for _ in range(2):
        drain(settings)
        rows = query(settings, "SELECT kafka_offset FROM quarantine WHERE reason = 'series_limit' ORDER BY 1")
        assert [row[0] for row in rows][:6] == [1, 3, 10, 11, 12, 13]
        check_books(settings)
        feed.send(b'{"g":1}')
        feed.send(b'{"a":3}')
        feed.flush()
    assert query(settings, "SELECT count(*) FROM series") == [(6,)]
    detail = query(settings, "SELECT detail FROM quarantine WHERE kafka_offset = 1 AND kafka_partition = 0")[0][0]
    assert "IOT_MAX_SERIES_PER_PROJECT" in detail
