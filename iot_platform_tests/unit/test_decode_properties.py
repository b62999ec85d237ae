"""Any bytes give a classified outcome, and the columnar path gives the plain decoder's. IOT_TEST_EXAMPLES multiplies the examples."""

import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iot_platform.settings import Settings
from iot_platform.telemetry.decode import Decoder, DecodeRules, Message, Quarantined, Reason, decode_one
from iot_platform.telemetry.decode.clocks import NO_TIME, clock_column
from iot_platform.telemetry.decode.document import Real
from iot_platform.telemetry.decode.reasons import DETAIL_CHARACTERS
from iot_platform.telemetry.decode.times import parse_time
from iot_platform_tests.support.feeds.decode_cases import NOW, Records, flat, outcomes, realistic
from iot_platform_tests.support.feeds.decode_fuzz import TOPICS, batch, mutate

EXAMPLES = int(os.environ.get("IOT_TEST_EXAMPLES", "1"))
RULES = DecodeRules.from_settings(Settings())
TOPIC = b"mtic/msg/client/realtime/t/p"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


def assert_classified(topic: bytes | None, payload: bytes | None, received_at: int = NOW) -> None:
    outcome = decode_one(RULES, topic, payload, received_at)
    if isinstance(outcome, Quarantined):
        assert outcome.reason in Reason
        assert 0 < len(outcome.detail) <= DETAIL_CHARACTERS
        assert outcome.detail.isprintable()
    else:
        assert isinstance(outcome, Message)
        for item in outcome.measurements:
            assert item.value is None or np.isfinite(item.value)
            assert item.value is not None or item.value_text is not None


def assert_agrees(records: Records, rules: DecodeRules = RULES) -> None:
    decoder = Decoder(rules)
    for _ in range(2):  # the second time all names are known
        decoded = decoder.decode(records.topics, records.payloads, records.received_at)
        batched = outcomes(decoder, decoded, len(records.topics))
        counted = []
        messages = zip(records.topics, records.payloads, records.received_at.tolist(), batched, strict=True)
        for row, (topic, payload, received, found) in enumerate(messages):
            outcome = decode_one(rules, topic, payload, received)
            if isinstance(outcome, Message) and (outcome.ambiguous_times or outcome.skipped_times):  # a batch lists them
                counted.append((row, outcome.ambiguous_times, outcome.skipped_times))
                outcome = replace(outcome, ambiguous_times=0, skipped_times=0)
            assert repr(found) == repr(outcome), (topic, payload)
        assert decoded.local_times == counted


@settings(max_examples=300 * EXAMPLES)
@given(topic=st.binary() | st.sampled_from(TOPICS), payload=st.binary() | st.none())
def test_any_bytes_are_classified(topic: bytes | None, payload: bytes | None) -> None:
    assert_classified(topic, payload)


@settings(max_examples=300 * EXAMPLES)
@given(st.text(max_size=60), st.integers(-(2**63), 2**63 - 1))
def test_any_topic_below_the_root_and_any_receive_time_are_classified(levels: str, received_at: int) -> None:
    topic = b"mtic/msg/client/realtime/" + levels.encode("utf-8", "surrogatepass")
    assert_classified(topic, b'{"deviceId":"d","t":1,"ts":1795427998}', received_at)
    named = RULES.topic_names(topic)
    if named is not None:
        parts = [named.tenant, named.project] + ([named.device] if named.device is not None else [])
        assert "/".join(part or "" for part in parts) == levels


@settings(max_examples=500 * EXAMPLES)
@given(json_values)
def test_any_json_is_classified(document: object) -> None:
    assert_classified(TOPIC, json.dumps(document).encode())
    assert_classified(TOPIC, json.dumps({"ts": document, "a": document}).encode())


@settings(max_examples=500 * EXAMPLES)
@given(
    st.text() | st.from_regex(r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?(Z|[+-][0-9]{2}:?[0-9]{2})?\Z")
)
def test_any_text_is_a_time_or_none(text: str) -> None:
    micros = parse_time(text, RULES.zone)
    assert micros is None or isinstance(micros, int)


@settings(max_examples=300 * EXAMPLES)
@given(st.datetimes(), st.integers(-23 * 60 - 59, 23 * 60 + 59), st.sampled_from("T "), st.sampled_from(["", ":"]))
def test_iso_times_are_read_as_written(time: datetime, offset: int, separator: str, colon: str) -> None:
    sign, (hours, minutes) = "-" if offset < 0 else "+", divmod(abs(offset), 60)
    text = time.isoformat(separator, "microseconds") + f"{sign}{hours:02}{colon}{minutes:02}"
    expected = (time.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) - offset * 60_000_000
    assert parse_time(text, RULES.zone) == expected


@settings(max_examples=50 * EXAMPLES)
@given(st.lists(st.tuples(st.integers(0, 2**31 - 1), st.from_regex(r"\A[0-9]{1,9}\Z")), min_size=1, max_size=50))
def test_fractions_of_seconds_are_rounded_exactly_or_left_to_the_plain_decoder(written: list[tuple[int, str]]) -> None:
    tokens = [f"{seconds}.{fraction}" for seconds, fraction in written]
    for token, micros in zip(tokens, clock_column([float(token) for token in tokens], UTC).tolist(), strict=True):
        assert micros in (NO_TIME, parse_time(Real(token), UTC))


@settings(max_examples=25 * EXAMPLES)
@given(st.integers(0, 2**32))
def test_columns_agree_with_the_plain_decoder_on_odd_batches(seed: int) -> None:
    assert_agrees(batch(seed))


@settings(max_examples=3 * EXAMPLES)
@given(st.integers(0, 2**32))
def test_columns_agree_with_the_plain_decoder_on_mutated_fleets(seed: int) -> None:
    random = Random(seed)
    messages = [random.choice([flat, realistic])(random) for _ in range(400)]
    assert_agrees(Records.of([(topic, mutate(random, payload) if random.random() < 0.1 else payload) for topic, payload in messages]))


@settings(max_examples=3 * EXAMPLES)
@given(st.integers(0, 2**32))
def test_columns_agree_with_the_plain_decoder_on_mutated_vectors(seed: int) -> None:
    random = Random(seed)
    messages: list[tuple[bytes | None, bytes | None]] = []
    for line in (Path(__file__).parent.parent / "contract" / "vectors.jsonl").read_text(encoding="utf-8").splitlines():
        case = json.loads(line)
        payload = bytes.fromhex(case["payload_hex"]) if "payload_hex" in case else case["payload"].encode()
        messages += [(case["topic"].encode(), payload)] * 7 + [(case["topic"].encode(), mutate(random, payload)) for _ in range(3)]
    assert_agrees(Records.of(messages))


CONFIGURATIONS = [
    {"topic_pattern": "a/+/{device}/{tenant}/{project}"},
    {"topic_pattern": "{tenant}/{device...}", "project_pointers": ("/meta/project", "/project")},
    {"device_pointers": ("/meta/device", "/meta/ts", "/a~1b"), "time_pointers": ("/meta/ts", "/ts"), "default_timezone": "Asia/Shanghai"},
]


@pytest.mark.parametrize("changed", CONFIGURATIONS)
def test_columns_agree_with_the_plain_decoder_under_other_settings(changed: dict[str, object]) -> None:
    rules = DecodeRules.from_settings(Settings(**changed))  # type: ignore[arg-type]
    topics = [b"a/x/d/t/p", b"t/d1/d2", b"t", b"mtic/msg/client/realtime/t/p", b"mtic/msg/client/realtime/t/p/d"]
    payloads = [
        b'{"meta":{"device":"d1","project":"p1","ts":1795427998},"t":1}',
        b'{"meta":{"device":null,"project":7,"ts":"2026-11-23 17:59:58"},"t":"x"}',
        b'{"meta":{"device":{"x":1}},"project":"p","a/b":"d3","ts":"2026-11-23T09:59:58Z","t":true}',
        b'[{"id":"m","value":1,"meta":{"ts":1795427998,"device":"q"}},{"id":"n","value":2,"ts":1795427998}]',
        b'{"meta":[{"id":"m","value":1,"a/b":"z"}],"project":"p"}',
    ]
    messages = [(topic, payload) for topic in topics for payload in payloads for _ in range(8)]
    assert_agrees(Records.of(messages), rules)


# What a parse hides, or a column may blur: each case stands among common records of the shape that it seems to have.
TRAPS = [
    ('{"a":1,"t":2}', ['{"a":' + "[" * deep + "]" * deep + ',"a":1,"t":2}' for deep in (31, 32, 40, 63, 200)]),
    ('{"a":1,"t":2}', ['{"a":' + '{"b":' * deep + "1" + "}" * deep + ',"a":1,"t":2}' for deep in (31, 32, 33, 64)]),
    ('{"a":1,"t":2}', ['{"a":["]",' * 20 + "1" + "]}" * 20, '{"a":"' + "[" * 50 + '","a":1,"t":2}', '{"a":' + "9" * 400 + ',"a":1,"t":2}']),
    ('{"a":[[1]]}', ['{"a":' + "[" * deep + "]" * deep + "}" for deep in (31, 32, 62, 64)]),
    ('{"a":[[1]]}', ['{"a":[' + "{}," * 40 + "[]]}", '{"a":["\\u0000"]}', '{"a":[1e999]}', '{"a":[' + "9" * 309 + "]}"]),
    (
        '{"ts":1795427998.5,"t":1}',
        [
            f'{{"ts":1795427998.{part},"t":1}}'
            for part in ("1234565", "1234575", "7364554", "56849862", "12345649999", "1234562", "0000005")
        ],
    ),
    (
        '{"ts":1795427998.5,"t":1}',
        [f'{{"ts":{part},"t":1}}' for part in ("1795427998123.9", "-1795427998.5", "1e9", "3e9", "1.7954279981e9")],
    ),
    ('{"ts":{"s":1},"t":1}', ['{"ts":{"s":null},"t":1}', '{"ts":{},"t":1}', '{"ts":[],"t":1}', '{"ts":null,"t":1}']),
    (
        '{"ts":1795427998,"t":1}',
        [f'{{"ts":{n},"t":1}}' for n in (2**63, -(2**63), 10**11, 10**14, 10**17, 99_999_999_999, -9_223_372_036_854)],
    ),
    (
        '{"a":[1.5,0.25]}',
        [
            f'{{"a":[1.5,{digits}]}}'
            for digits in ("0.12345678901234567890", "123456789.123456789", "1e-400", "0.30000000000000004", "9" * 30)
        ],
    ),
    ('{"a":[1.5],"t":"x"}', ['{"a":[1.5],"t":"1.2345678901234567890e2"}', '{"a":[9007199254740993.0],"t":"x"}', '{"a":[1.50],"t":"a0e1"}']),
    (
        '{"ts":"1795427998.123","t":1}',
        [f'{{"ts":"{text}","t":1}}' for text in ("1795427998123.5", "1795427998.1234565", "1795427998.", ".5", "-1.5", "1e9", "1.5.5")],
    ),
    (
        '{"a":1.5}',
        [
            '{"a":-0.0}',
            '{"a":-0}',
            '{"a":9007199254740992}',
            '{"a":9007199254740993}',
            '{"a":9007199254740993.0}',
            '{"a":1e-400}',
            '{"a":123456789012345678}',
        ],
    ),
]


@pytest.mark.parametrize(("common", "odd"), TRAPS)
def test_columns_agree_with_the_plain_decoder_on_what_a_parse_hides(common: str, odd: list[str]) -> None:
    payloads = [common, common, *odd] * 8
    assert_agrees(Records.of([(TOPIC, payload.encode()) for payload in payloads]))


@pytest.mark.parametrize("received_at", [-(2**63), -1, 0, NOW, 2**62, 2**63 - 1])
@pytest.mark.parametrize("window", [0, 7_776_000, 10**10])
def test_columns_agree_with_the_plain_decoder_whatever_the_host_clock_says(received_at: int, window: int) -> None:
    rules = DecodeRules.from_settings(Settings(time_window_past_seconds=window, time_window_future_seconds=window))
    texts = ["1795427998", "0", "-1", str(10**30), str(2**63), '"9999-12-31T23:59:59Z"', '"0001-01-01T00:00:00Z"', "null", "-1e300"]
    records = Records.of([(TOPIC, f'{{"ts":{text},"t":1}}'.encode()) for text in texts for _ in range(8)])
    records.received_at[:] = received_at
    assert_agrees(records, rules)


@settings(max_examples=20 * EXAMPLES)
@given(st.lists(st.datetimes(datetime(1950, 1, 1), datetime(2100, 1, 1)), min_size=8, max_size=60), st.sampled_from("T "))  # noqa: DTZ001
def test_local_times_of_a_column_are_those_of_the_plain_decoder(times: list[datetime], separator: str) -> None:
    for name in ("Europe/Berlin", "Asia/Shanghai", "Australia/Lord_Howe", "UTC"):
        zone = ZoneInfo(name)
        edges = [datetime(2026, 3, 29, 2, 30), datetime(2026, 10, 25, 2, 30), datetime(2026, 4, 5, 1, 45)]  # noqa: DTZ001 - offset changes
        texts = [time.isoformat(separator, "milliseconds") for time in [*times, *edges]]
        expected = [parse_time(text, zone) for text in texts]
        assert clock_column(texts, zone).tolist() == [NO_TIME if micros is None else micros for micros in expected]
        assert name in ("Asia/Shanghai", "UTC") or None in expected


@settings(max_examples=20 * EXAMPLES)
@given(st.integers(0, 2**32))
def test_texts_of_a_column_are_the_times_that_each_alone_is(seed: int) -> None:
    random = Random(seed)
    zone = ZoneInfo("Europe/Berlin")

    def written() -> str:
        date = random.choice(
            ["2026-02-28", "2026-02-29", "2024-02-29", "2100-02-29", "0000-01-01", "0001-01-01", "9999-12-31", "2026-13-01"]
        )
        clock = random.choice(["00:00:00", "23:59:59", "24:00:00", "12:60:00", "12:00:60", "07:05:03"])
        fraction = random.choice(["", ".", ".1", ".123", ".999999", ".1234567", ",5"])
        offset = random.choice(["Z", "z", "", "+00:00", "-08:30", "+23:59", "+24:00", "-05:60", "+0130"])
        text = list(date + random.choice("T t") + clock + fraction + offset)
        if random.random() < 0.5:
            text[random.randrange(len(text))] = random.choice("0179-+:.TZ ?é停/")
        return "".join(text)

    texts = [text for text in (written() for _ in range(20)) for _ in range(random.choice((1, 9)))]
    expected = [parse_time(text, zone) for text in texts]
    assert clock_column(texts, zone).tolist() == [NO_TIME if micros is None else micros for micros in expected]


def test_columns_agree_with_the_plain_decoder_on_the_days_when_clocks_change() -> None:
    rules = DecodeRules.from_settings(Settings(default_timezone="Australia/Lord_Howe"))  # by half an hour, at 2 o'clock
    for day in (datetime(2026, 4, 5), datetime(2026, 10, 4)):  # noqa: DTZ001 - local on purpose
        texts = [(day + timedelta(minutes=4 * step)).isoformat() for step in range(80)]
        records = Records.of([(TOPIC, f'{{"ts":"{text}","t":1}}'.encode()) for text in texts])
        for hours in (13, 15, 16, 18):
            records.received_at[:] = round((day - timedelta(days=1) + timedelta(hours=hours)).replace(tzinfo=UTC).timestamp()) * 10**6
            assert_agrees(records, rules)


@settings(max_examples=10 * EXAMPLES)
@given(st.integers(0, 2**32))
def test_columns_agree_with_the_plain_decoder_where_strings_are_numbers(seed: int) -> None:
    random = Random(seed)
    texts = ["21.5", "-3", "1e3", "0012", "auto", "", "1e999", "9007199254740993", "9" * 400, "1.50", "-0", "-0.0", "NaN"]

    def written() -> str:
        return random.choice([f'"{random.choice(texts)}"', "1", "true", "null", '["1"]', "2.5"])

    payloads = [f'{{"a":"{random.choice(texts[:4])}","b":{written()},"c":"x"}}' for _ in range(60)]
    payloads += [f'[{{"id":"m","value":{written()}}},{{"id":"n","value":"{random.choice(texts)}"}}]' for _ in range(60)]
    topics = [TOPIC, b"mtic/msg/client/realtime/t/q", b"mtic/msg/client/realtime/u/p/d"]
    records = Records.of([(random.choice(topics), payload.encode()) for payload in payloads])
    for choices in ({("t", "p"): True}, {("t", ""): True, ("t", "q"): False}, {("", ""): True}, {("u", "p"): True, ("t", "q"): True}):
        assert_agrees(records, DecodeRules.from_settings(Settings(), numbers_in_strings=choices))
