"""Codecs by topic: the setting, decompression within its bound, and any bytes through every codec."""

import gzip
import json
import resource
import tracemalloc
import zlib
from pathlib import Path
from random import Random
from typing import Any

import pytest

from iot_platform.settings import Settings, SettingsError
from iot_platform.telemetry.decode import DecodeRules, Message, Quarantined, Reason, decode_one
from iot_platform.telemetry.decode.codecs.table import CODECS
from iot_platform.telemetry.decode.reasons import DETAIL_CHARACTERS
from iot_platform_tests.support.feeds.decode_cases import NOW, Records
from iot_platform_tests.unit.test_decode_properties import EXAMPLES, assert_agrees

TOPIC = b"mtic/msg/client/realtime/t/p"
MIB = 1024 * 1024


def rules(*entries: dict[str, Any], **changed: Any) -> DecodeRules:
    return DecodeRules.from_settings(Settings(topic_codecs=entries, **changed))


def reason(found: Message | Quarantined) -> str | None:
    return str(found.reason) if isinstance(found, Quarantined) else None


@pytest.mark.parametrize(
    ("entry", "error"),
    [
        ({"codec": "cbor"}, r"IOT_TOPIC_CODECS\[1\]\.topic: Field required"),
        ({"topic": "a", "codec": "cbor0"}, r"\[1\]\.codec: must be one of json, cbor"),
        (
            {"topic": "a", "codec": "cbor", "compression": "brotli"},
            r"\[1\]\.compression: Input should be 'none', 'auto', 'gzip', 'zlib' or",
        ),
        ({"topic": "a", "codec": "cbor", "colour": "red"}, r"\[1\]\.colour: Extra inputs are not permitted"),
        ({"topic": "a", "codec": "scalar", "decimal": ";"}, r"\[1\]\.decimal: Input should be '.' or ','"),
        ({"topic": "a", "codec": "scalar", "true": ["ON", "off"]}, r"\[1\]\.: 'off' is in both `true` and `false`"),
        ({"topic": "a", "codec": "cbor", "skip_tags": [28]}, r"\[1\]\.skip_tags: tag 28 can not be skipped"),
        ({"topic": "a", "tenant": ""}, r"\[1\]\.tenant: String should have at least 1"),
        ({"topic": "a", "tenant": "厂" * 43, "project": "p"}, r"\[1\]\.tenant: must have 1 to 128 bytes"),
        ({"topic": ""}, r"\[1\]\.topic: must be an MQTT topic filter"),
        ({"topic": "a/#/b"}, r"\[1\]\.topic: \+ and # must be whole levels"),
        ({"topic": "a/b+"}, r"\[1\]\.topic: \+ and # must be whole levels"),
        ({"topic": "$share/g/a"}, r"\[1\]\.topic: must be an MQTT topic filter"),
        ({"topic": "a/{tenant}/{project}/{site}"}, r"\[1\]\.topic: \{site\} is none of \{tenant\}"),
        ({"topic": "a/{tenant}/{device...}"}, r'\[1\]\.topic: has no \{project\}, so add "project"'),
    ],
)
def test_an_entry_that_means_nothing_is_refused_by_name(entry: dict[str, Any], error: str) -> None:
    with pytest.raises(SettingsError, match=error):
        rules({"topic": "x"}, entry)


def test_a_pattern_names_a_metric_in_topic_codecs_only() -> None:
    with pytest.raises(SettingsError, match=r"IOT_TOPIC_PATTERN: \{metric\} is none of"):
        DecodeRules.from_settings(Settings(topic_pattern="{tenant}/{project}/{metric}"))


@pytest.mark.parametrize(
    ("filters", "topic", "tenant"),
    [
        (("a/+/c",), "a/b/c", "0"),
        (("a/#",), "a", "0"),
        (("a/#", "#"), "b/c", "1"),
        (("#",), "$SYS/x", None),
        (("+/+",), "a/b/c", None),
        (("a/{tenant}/{project}", "a/+/+"), "a/t/p", "0"),
        (("a/{tenant}/{project}", "a/#"), "a//p", "1"),
    ],
)
def test_the_first_entry_that_matches_counts(filters: tuple[str, ...], topic: str, tenant: str | None) -> None:
    entries = [{"topic": text, "codec": "json", "tenant": str(number), "project": "p"} for number, text in enumerate(filters)]
    found = rules(*entries).topic_names(topic.encode())
    assert (None if found is None else found.tenant) == tenant


def test_topics_of_other_codecs_and_columns_share_a_batch() -> None:
    mixed = rules({"topic": TOPIC.decode() + "/cbor", "codec": "cbor"}, {"topic": "x/{tenant}/{project}/{device}", "codec": "json"})
    messages = [(TOPIC + b"/d", b'{"ts":1795427998,"t":%d}' % number) for number in range(20)]
    messages += [(TOPIC + b"/cbor", bytes.fromhex("a2617401626162f5")), (TOPIC + b"/cbor", b"{}"), (b"x/t/p/d", b'{"t":1}')] * 9
    Random(1).shuffle(messages)
    assert_agrees(Records.of([*messages]), mixed)


@pytest.mark.parametrize(("compression", "window"), [("gzip", 31), ("auto", 31), ("zlib", 15), ("auto", 15), ("deflate", -15)])
def test_a_bomb_is_too_large_within_bounded_memory(compression: str, window: int) -> None:
    stream = zlib.compressobj(9, zlib.DEFLATED, window)
    head = stream.compress(bytes(MIB)) + stream.flush(zlib.Z_FULL_FLUSH)
    payload = head + (stream.compress(bytes(MIB)) + stream.flush(zlib.Z_FULL_FLUSH)) * 1023
    assert len(payload) < 2 * MIB
    one = rules({"topic": "#", "codec": "json", "compression": compression})
    tracemalloc.start()
    try:
        assert reason(decode_one(one, TOPIC, payload, NOW)) == "too_large"
        assert tracemalloc.get_traced_memory()[1] < 48 * MIB
    finally:
        tracemalloc.stop()


def test_the_bound_counts_all_members_together() -> None:
    one = rules({"topic": "#", "compression": "gzip"}, max_decompressed_bytes=2048)
    text = b'{"a":"' + b"x" * 2040 + b'"}'
    assert len(text) == 2048
    assert reason(decode_one(one, TOPIC, gzip.compress(text), NOW)) is None
    assert reason(decode_one(one, TOPIC, gzip.compress(text) + gzip.compress(b" "), NOW)) == "too_large"
    assert reason(decode_one(one, TOPIC, gzip.compress(text) + gzip.compress(b""), NOW)) is None


def test_many_empty_members_cost_little() -> None:
    one = rules({"topic": "#", "compression": "gzip"})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    assert reason(decode_one(one, TOPIC, gzip.compress(b"") * 400_000, NOW)) == "bad_compression"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - before < 20


def valid_payloads() -> list[tuple[str, list[dict[str, Any]], bytes, bytes]]:
    """(codec, entries, topic, payload) of all contract cases."""
    found = []
    for file in sorted((Path(__file__).parent.parent / "contract").glob("codec_vectors*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            case = json.loads(line)
            payload = bytes.fromhex(case["payload_hex"]) if "payload_hex" in case else case["payload"].encode()
            found.append((case["codecs"][0].get("codec", "json"), case["codecs"], case["topic"].encode(), payload))
    return found


def mutated(random: Random, payload: bytes) -> bytes:
    """Bits flipped, bytes changed, pieces cut out, doubled or put in."""
    data = bytearray(payload)
    for _ in range(random.choice([1, 1, 2, 5])):
        at = random.randrange(len(data) + 1)
        kind = random.randrange(5)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << random.randrange(8)
        elif kind == 1 and at < len(data):
            data[at] = random.choice([0, 0x7F, 0x80, 0x9F, 0xBF, 0xC1, 0xDF, 0xFF, random.randrange(256)])
        elif kind == 2:
            del data[at : at + random.randrange(4)]
        elif kind == 3:
            data[at:at] = data[at : at + random.randrange(16)]
        else:
            data[at:at] = random.randbytes(random.randrange(4))
    return bytes(data)


@pytest.mark.parametrize("codec", CODECS)
def test_any_bytes_are_classified_by_every_codec(codec: str) -> None:
    random = Random(codec)
    cases = [case for case in valid_payloads() if case[0] == codec and len(case[3]) < 2000]
    assert cases, "a codec has contract cases"
    tables = {json.dumps(entries): rules(*entries) for _, entries, _, _ in cases}
    for _ in range(4_000 * EXAMPLES):
        _, entries, topic, payload = random.choice(cases)
        data = mutated(random, payload) if random.random() < 0.9 else random.randbytes(random.randrange(1, 40))
        found = decode_one(tables[json.dumps(entries)], topic, data, NOW)
        if isinstance(found, Quarantined):
            assert found.reason in Reason
            assert 0 < len(found.detail) <= DETAIL_CHARACTERS
            assert found.detail.isprintable(), found.detail
        else:
            for item in found.measurements:
                assert item.value is None or item.value - item.value == 0.0
                assert item.value is not None or item.value_text is not None
