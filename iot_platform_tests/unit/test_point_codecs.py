"""Codecs of formats that name their values themselves: options that mean nothing, and more values than a message may have."""

import gzip
import json
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import cbor2
import pytest

from iot_platform.settings import Settings, SettingsError
from iot_platform.telemetry.decode import DecodeRules, Message, Quarantined, decode_one
from iot_platform.telemetry.decode.codecs.sparkplug_codec import COMPRESSED
from iot_platform.telemetry.decode.sparkplug.payload_pb2 import Payload
from iot_platform_tests.support.feeds.decode_cases import NOW
from iot_platform_tests.support.feeds.sparkplug import TEXT, metric, nbirth, payload

TOPIC = b"spBv1.0/p/NDATA/node"


def rules(**entry: Any) -> DecodeRules:
    return DecodeRules.from_settings(Settings(topic_codecs=({"topic": "spBv1.0/{project}/+/{device...}", "tenant": "t", **entry},)))


@pytest.mark.parametrize(
    ("entry", "error"),
    [
        ({"codec": "line_protocol", "precision": "m"}, r"\[0\]\.precision: "),
        ({"codec": "line_protocol", "metric": "{measurement}"}, r"\[0\]\.metric: must have \{field\}"),
        ({"codec": "line_protocol", "tags": "keep"}, r"\[0\]\.tags: "),
        ({"codec": "senml_json", "precision": "s"}, r"\[0\]\.precision: Extra inputs are not permitted"),
        ({"codec": "sparkplug_b", "rebirth": True}, r"\[0\]\.rebirth: Extra inputs are not permitted"),
    ],
)
def test_an_option_that_means_nothing_is_named(entry: dict[str, Any], error: str) -> None:
    with pytest.raises(SettingsError, match=r"IOT_TOPIC_CODECS" + error):
        rules(**entry)


@pytest.mark.parametrize(
    ("codec", "body"),
    [
        ("line_protocol", b"m " + b",".join(b"f%d=1" % number for number in range(1001))),
        ("senml_json", json.dumps([{"n": str(number), "v": 1} for number in range(1001)]).encode()),
        ("senml_cbor", cbor2.dumps([{0: str(number), 2: 1} for number in range(1001)])),
        ("sparkplug_b", payload(1, *(metric(1.0, name=str(number)) for number in range(1001)), timestamp=NOW // 1000)),
        ("sparkplug_b", payload(1, *(metric(1.0, name=str(number)) for number in range(100_001)), timestamp=NOW // 1000)),
    ],
)
def test_more_values_than_a_message_may_have(codec: str, body: bytes) -> None:
    outcome = decode_one(rules(codec=codec), TOPIC, body, NOW)
    assert isinstance(outcome, Quarantined)
    assert outcome.reason == "too_many_values"


def test_a_birth_has_a_limit_of_its_own() -> None:
    body = nbirth(*(metric(1.0, name=str(number)) for number in range(100_001)))
    outcome = decode_one(rules(codec="sparkplug_b"), b"spBv1.0/p/NBIRTH/node", body, NOW)
    assert isinstance(outcome, Quarantined)
    assert outcome.reason == "too_many_values"
    assert "at most 100000" in outcome.detail


@pytest.mark.parametrize(("algorithm", "pack"), [("GZIP", gzip.compress), ("DEFLATE", zlib.compress)])
def test_a_compressed_body_has_the_bound_of_the_setting(algorithm: str, pack: Callable[[bytes], bytes]) -> None:
    inner = payload(1, metric("x" * 4000, name="text", datatype=TEXT), timestamp=NOW // 1000)
    body = Payload(
        timestamp=NOW // 1000, seq=1, uuid=COMPRESSED, body=pack(inner), metrics=[metric(algorithm, name="algorithm", datatype=TEXT)]
    ).SerializeToString()
    entry = {"topic": "spBv1.0/{project}/+/{device...}", "tenant": "t", "codec": "sparkplug_b"}

    def decoded(most: int) -> Message | Quarantined:
        return decode_one(DecodeRules.from_settings(Settings(topic_codecs=(entry,), max_decompressed_bytes=most)), TOPIC, body, NOW)

    whole, bounded = decoded(len(inner)), decoded(len(inner) - 1)
    assert isinstance(whole, Message)
    assert [item.metric for item in whole.measurements] == ["text"]
    assert isinstance(bounded, Quarantined)
    assert (bounded.reason, f"IOT_MAX_DECOMPRESSED_BYTES {len(inner) - 1}" in bounded.detail) == ("too_large", True)


def test_a_small_payload_of_many_values_takes_little_memory() -> None:
    """16 MB of lines in 32 kB: reading stops where it is known that there are too many."""
    body = gzip.compress(b"m a=1,b=2\n" * 1_600_000)
    assert len(body) < 65_536
    one = rules(codec="line_protocol", compression="gzip")
    tracemalloc.start()
    try:
        outcome = decode_one(one, TOPIC, body, NOW)
        assert tracemalloc.get_traced_memory()[1] < 64 * 1024 * 1024
    finally:
        tracemalloc.stop()
    assert isinstance(outcome, Quarantined)
