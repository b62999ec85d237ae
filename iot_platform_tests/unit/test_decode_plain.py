"""Cases of the decode contract's rules beyond the binding vectors."""

import gc
import json
import time
from datetime import datetime

import pytest

from iot_platform.settings import Settings
from iot_platform.telemetry.decode import DecodeRules, Message, Quarantined, decode_one
from iot_platform_tests.support.feeds.decode_cases import NOW

RULES = DecodeRules.from_settings(Settings())
TOPIC = b"mtic/msg/client/realtime/t/p"
DEEP = 100_000


def reason(payload: bytes, topic: bytes = TOPIC) -> str | None:
    outcome = decode_one(RULES, topic, payload, NOW)
    return str(outcome.reason) if isinstance(outcome, Quarantined) else None


def message(payload: str, topic: bytes = TOPIC) -> Message:
    outcome = decode_one(RULES, topic, payload.encode(), NOW)
    assert isinstance(outcome, Message), outcome
    return outcome


def values(payload: str, topic: bytes = TOPIC) -> dict[str, object]:
    return {item.metric: item.value if item.value_text is None else item.value_text for item in message(payload, topic).measurements}


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"[" * DEEP + b"]" * DEEP, "too_deep"),
        (b"[" * DEEP, "not_json"),
        (b'{"a":' * DEEP + b"1" + b"}" * DEEP, "too_deep"),
        (b'{"a":' * DEEP + b"1" + b"}" * (DEEP - 1), "not_json"),
        (b'{"a":' * DEEP + b"01" + b"}" * DEEP, "not_json"),
        (b"[" * 33 + b'"\\ud800"' + b"]" * 33, "bad_unicode"),
        (b'{"a":' + b"[" * 31 + b"]" * 31 + b"}", None),
        (b'{"a":' + b"[" * 32 + b"]" * 32 + b"}", "too_deep"),
        (b'{"a":' + b"[" * 40 + b"]" * 40 + b',"a":1}', "too_deep"),
        (b'{"a":"' + b"[" * 40 + b'"}', None),
        (b'"' + b'\\"' * 1_000_000 + b"[" * 50, "not_json"),
        (b"\xef\xbb\xbf{}", "not_json"),
        (b'{"a":1}\x00', "not_json"),
        (b'{"a":"\t"}', "not_json"),
        (b'{"a":+1}', "not_json"),
        (b'{"a":.5}', "not_json"),
        (b'{"a":1.}', "not_json"),
        (b"{'a':1}", "not_json"),
        (b'{"a":1}//', "not_json"),
        (b'{"\\ud800":1}', "bad_unicode"),
        (b'{"a":"\\ud800","a":1}', "bad_unicode"),
        (b'{"a":"\\udc00\\ud800"}', "bad_unicode"),
        (b'{"a":"\\ud83d\\ude00"}', None),
        (b"\xed\xa0\x80", "not_utf8"),
        (b"[]", "not_object"),
        (b"[{}]", "not_object"),
        (b'[[{"metric":"a","value":1}]]', "not_object"),
        (b"[1e999]", "not_object"),
        (b'{"a":1e999,"a":1}', "not_finite"),
        (b'{"a":[[-1e999]]}', "not_finite"),
        (b'{"ts":' + b"9" * 400 + b"}", "not_finite"),
        (b'{"a":1e999,"b":"\\u0000"}', "not_finite"),
        (b'{"a":["\\u0000"],"a":1,"":2}', "nul_character"),
        (b'{"a":"\\\\u0000"}', None),
        (b'{"deviceId":"' + b"d" * 257 + b'"}', "bad_name"),
        (b'{"":null}', None),
        (b'{"":1,"a":{"b":1},"a.b":1}', "bad_name"),
        (b'[{"metric":"","value":1}]', "bad_name"),
        (b'[{"metric":"t","value":1,"ts":"1795427998"},{"metric":"t","value":2,"ts":"2026-11-23T09:59:58Z"}]', "duplicate_metric"),
        (b'[{"metric":"t","value":1,"ts":"x"},{"metric":"t","value":2,"ts":"x"}]', "duplicate_metric"),
        (b'[{"metric":"t","value":1,"ts":"x"},{"metric":"t","value":2,"ts":"y"}]', "bad_timestamp"),
        (b'{"points":[{"id":"a","value":1}],"a":2}', "duplicate_metric"),
        (b'{"ts":1,"points":[{"id":"a","value":1,"ts":"x"}]}', "bad_timestamp"),
        (b'{"ts":"+1795427998"}', "bad_timestamp"),
        (b'{"ts":"1795427998.5"}', None),
        (b'{"ts":"1795427998."}', "bad_timestamp"),
        (b'{"ts":".5"}', "bad_timestamp"),
        (b'{"ts":"1795427998,5"}', "bad_timestamp"),
        (b'{"ts":"-1795427998.5"}', "bad_timestamp"),
        (b'{"ts":"1.795427998e9"}', "bad_timestamp"),
        (b'{"ts":" 1795427998"}', "bad_timestamp"),
        (b'{"ts":"1795427998.123Z"}', "bad_timestamp"),
        (b'{"ts":"0.' + b"9" * 1_000_000 + b'"}', "time_out_of_range"),
        (b'{"ts":"' + b"9" * 1_000_000 + b'.5"}', "time_out_of_range"),
        (b'{"ts":""}', "bad_timestamp"),
        (b'{"ts":true}', "bad_timestamp"),
        (b'{"ts":"2026-11-23T24:00:00Z"}', "bad_timestamp"),
        (b'{"ts":"2026-11-23T09:59:60Z"}', "bad_timestamp"),
        (b'{"ts":"2026-02-29T09:59:00Z"}', "bad_timestamp"),
        (b'{"ts":"2026-11-23t09:59:00z"}', "bad_timestamp"),
        (b'{"ts":"2026-11-23T09:59:00+24:00"}', "bad_timestamp"),
        (b'{"ts":"2026-11-23T09:59Z"}', None),
        (b'{"ts":"' + b"9" * 1_000_000 + b'"}', "time_out_of_range"),
        (b'{"ts":1e-999}', "time_out_of_range"),
    ],
)
def test_reason(payload: bytes, expected: str | None) -> None:
    assert reason(payload) == expected


@pytest.mark.parametrize(("names", "expected"), [(1000, None), (1001, "too_many_values")])
def test_a_thousand_values(names: int, expected: str | None) -> None:
    members = ",".join(f'"m{n}":{n}' for n in range(names))
    assert reason(b'{"ts":"2026-11-23T09:59:58Z","x":null,"y":{},' + members.encode() + b"}") == expected


def test_topic_reasons_come_first() -> None:
    assert reason(b"", b"other") == "topic_mismatch"
    assert reason(b"{}", b"\xff") == "topic_mismatch"
    assert reason(b"", b"mtic/msg/client/realtime/t\x00/p") == "empty_payload"
    assert reason(b"{}", b"mtic/msg/client/realtime/t\x00/p") == "nul_character"


def test_megabytes_are_classified_quickly() -> None:
    started = time.monotonic()
    assert reason(b'{"a":"' + b"x" * 10_000_000 + b'"}') is None
    assert reason(b'{"a":[' + b"1," * 3_000_000 + b"1]}") is None
    assert reason(b"\x22" * 10_000_000) == "not_json"
    assert time.monotonic() - started < 20


def test_arrays_are_compact_json_text() -> None:
    assert values('{"a":[ 1.50, 1E5, -0, "\\u00e9é", {"k" : null} ,[ ]]}') == {"a": '[1.5,100000.0,0,"éé",{"k":null},[]]'}
    assert values('{"a":[[{"id":"m","value":1}]]}') == {"a": '[[{"id":"m","value":1}]]'}


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("0.12345678901234567890", "0.12345678901234567890"),
        ("123456789.123456789123", "123456789.123456789123"),
        ("9007199254740993.0", "9007199254740993.0"),
        ("9007199254740993", "9007199254740993"),
        ("12345678901234567890123456789", "12345678901234567890123456789"),
        ("1.2345678901234567890e-5", "1.2345678901234567890e-5"),
        ("1e-400", "1e-400"),
        ("0e-99999999999999999999999", "0.0"),
        ("1e-99999999999999999999999", "1e-99999999999999999999999"),
        ("0.30000000000000004", "0.30000000000000004"),
        ("0.300000000000000040", "0.30000000000000004"),
        ("0.1000000000000000000000000", "0.1"),
        ("-0.000", "-0.0"),
        ("5e-324", "5e-324"),
    ],
)
def test_numbers_in_arrays_keep_their_digits(written: str, text: str) -> None:
    assert values(f'{{"a":[{written}],"b":[{{"x":[1.50,{written}]}}]}}') == {"a": f"[{text}]", "b": f'[{{"x":[1.5,{text}]}}]'}


BERLIN = DecodeRules.from_settings(Settings(default_timezone="Europe/Berlin"))


@pytest.mark.parametrize(
    ("received", "written", "utc", "counted"),
    [
        ("2026-10-25T00:31:00Z", "02:30:00", "2026-10-25T00:30:00Z", (1, 0)),  # the first time round: the second lies ahead
        ("2026-10-25T01:30:00Z", "02:30:00", "2026-10-25T01:30:00Z", (1, 0)),
        ("2026-10-25T01:29:59Z", "02:30:00", "2026-10-25T00:30:00Z", (1, 0)),
        ("2026-10-26T09:00:00Z", "02:30:00", "2026-10-25T01:30:00Z", (1, 0)),
        ("2026-10-25T00:29:00Z", "02:30:00", "2026-10-25T00:30:00Z", (1, 0)),  # a clock that is a minute fast
        ("2026-10-25T02:00:00Z", "03:00:00", "2026-10-25T02:00:00Z", (0, 0)),
        ("2026-10-25T02:00:00Z", "01:59:59", "2026-10-24T23:59:59Z", (0, 0)),
        ("2026-10-25T02:00:00Z", "02:30:00+02:00", "2026-10-25T00:30:00Z", (0, 0)),
    ],
)
def test_a_local_time_that_autumn_repeats(received: str, written: str, utc: str, counted: tuple[int, int]) -> None:
    assert local_time(received, f"2026-10-25T{written}") == (micros(utc), *counted)


@pytest.mark.parametrize(
    ("written", "utc", "skipped"), [("01:59:59", "00:59:59", 0), ("02:30:00", "01:30:00", 1), ("03:00:00", "01:00:00", 0)]
)
def test_a_local_time_that_spring_skips_moves_forward_by_the_gap(written: str, utc: str, skipped: int) -> None:
    assert local_time("2026-03-29T02:00:00Z", f"2026-03-29 {written}") == (micros(f"2026-03-29T{utc}Z"), 0, skipped)


def local_time(received: str, written: str) -> tuple[int, int, int]:
    outcome = decode_one(BERLIN, TOPIC, f'{{"ts":"{written}","t":1}}'.encode(), micros(received))
    assert isinstance(outcome, Message), outcome
    return outcome.measurements[0].time, outcome.ambiguous_times, outcome.skipped_times


def micros(utc: str) -> int:
    return round(datetime.fromisoformat(utc).timestamp()) * 1_000_000


NUMERIC = {
    "21.5": 21.5,
    "-3": -3.0,
    "1e3": 1000.0,
    "0012": "0012",
    "+5": "+5",
    " 5": " 5",
    "1_000": "1_000",
    "12,5": "12,5",
    "0x10": "0x10",
    "NaN": "NaN",
    "1e999": "1e999",
    "٣": "٣",
    "": "",
}


def test_numbers_in_strings_are_numbers_where_the_project_says_so() -> None:
    strings = {text: text for text in NUMERIC}
    payload = json.dumps({"deviceId": "7", "s": strings, "l": ["1"], "p": [{"id": "x", "value": "9007199254740993"}]}).encode()
    wanted = [{("t", "p"): True}, {("t", ""): True, ("t", "q"): False}, {("", ""): True}, {("t", "p"): True, ("t", ""): False}]
    others = [{("t", "q"): True, ("q", ""): True}, {("t", "p"): False, ("t", ""): True}, {("t", ""): False, ("", ""): True}]
    for choices in wanted + others:
        outcome = decode_one(DecodeRules.from_settings(Settings(), numbers_in_strings=choices), TOPIC, payload, NOW)
        assert isinstance(outcome, Message), outcome
        found = {item.metric: item for item in outcome.measurements}
        if choices not in wanted:
            assert all(item.value is None for item in outcome.measurements)
            continue
        for (text, value), item in zip(NUMERIC.items(), outcome.measurements, strict=False):
            assert (item.value if isinstance(value, float) else item.value_text) == value, text
        assert (found["x"].value_int, found["x"].value_text, found["l"].value_text) == (9007199254740993, None, '["1"]')


def test_points() -> None:
    nested = '{"x":{"y":[{"metric":null,"id":7.50,"value":{"a":1,"b":{"c":true}}},{"id":"n","value":null},{"metric":3,"value":[1]}]}}'
    assert values(nested) == {"7.50.a": 1.0, "7.50.b.c": "true", "3": "[1]"}
    inner = '[{"metric":"o","value":[{"metric":"i","value":1,"unit":"C"}]}]'
    assert values(inner) == {"i": 1.0}


def test_a_point_names_its_own_device_below_a_gateway_topic_too() -> None:
    payload = '[{"metric":"a","value":1,"deviceId":"s-1"},{"metric":"a","value":1,"deviceId":"s-2"},{"metric":"a","value":1}]'
    assert [item.device for item in message(payload, TOPIC + b"/gw").measurements] == ["s-1", "s-2", "gw"]
    assert [item.device for item in message(payload).measurements] == ["s-1", "s-2", ""]


def test_digits_of_numeric_names() -> None:
    assert message('{"deviceId":1968193631353446400}').device == "1968193631353446400"
    assert message('{"deviceId":1.50e3}').device == "1.50e3"
    assert message('{"deviceId":null,"device_id":{},"clientId":9}').device == "9"


@pytest.mark.parametrize(
    ("written", "micros"),
    [
        ("1795427998.1234565", 1_795_427_998_123_456),
        ("1795427998.1234575", 1_795_427_998_123_458),
        ("1795427998.12345650000000000000000000000000001", 1_795_427_998_123_457),
        ("1.795427998e9", 1_795_427_998_000_000),
        ("1795427998123.9999", 1_795_427_998_123_999),
        ("1795427998123007.9", 1_795_427_998_123_007),
        ("1795427998123007999", 1_795_427_998_123_007),
        ('"0001795427998"', 1_795_427_998_000_000),
        ('"1795427998.123"', 1_795_427_998_123_000),
        ('"0001795427998.1234565"', 1_795_427_998_123_456),
        ('"1795427998.1234565' + "0" * 100 + '1"', 1_795_427_998_123_457),
        ('"1795427998.9999999"', 1_795_427_999_000_000),
        ('"1795427998123.9999"', 1_795_427_998_123_999),
        ('"1795427998123007.9"', 1_795_427_998_123_007),
        ('"1795427998123007999.9"', 1_795_427_998_123_007),
        ('"2026-11-23 09:59:58.1234569Z"', 1_795_427_998_123_456),
        ('"2026-11-23T07:29:58.5-0230"', 1_795_427_998_500_000),
    ],
)
def test_times(written: str, micros: int) -> None:
    assert message(f'{{"ts":{written},"t":1}}').measurements[0].time == micros


def test_time_source() -> None:
    assert message('{"ts":1795427998}').time_from_payload
    assert message('[{"metric":"a","value":1,"ts":1795427998}]').time_from_payload
    assert not message('[{"metric":"a","value":1,"ts":1795427998},{"metric":"b","value":1}]').time_from_payload
    assert not message('[{"metric":"a","value":null,"ts":1795427998}]').time_from_payload


def test_no_message_leaves_circles_behind() -> None:
    """A drain under load collects its garbage rarely: what each message leaves for the collector is memory until then."""
    payloads = [
        b'{"temp":21.5,"n":3,"deep":{"text":"\\u6e29"},"list":[1,2.5]}',
        b'[{"metric":"a","value":1.5},{"metric":"b","value":1e999}]',
        b'{"n":%s}' % (b"9" * 400),
        b'{"a":NaN}',
        b'{"a":',
        b"\xff",
        b'{"a":"\\ud800"}',
        b"[" * 40 + b"]" * 40,
    ]
    outcomes = [decode_one(RULES, TOPIC, payload, NOW) for payload in payloads]  # what is made once is there now
    while gc.collect():  # what others left
        pass
    gc.disable()
    try:
        outcomes = [decode_one(RULES, TOPIC, payload, NOW) for payload in payloads]
        assert gc.collect() == 0
    finally:
        gc.enable()
    assert [type(outcome) for outcome in outcomes] == [Message] + [Quarantined] * 7
