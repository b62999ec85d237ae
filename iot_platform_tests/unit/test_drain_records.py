"""Kafka records as columns, whatever their timestamps; and a flood of topics is noticed by the lane that must bound it."""

import time

import numpy as np
import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME, TIMESTAMP_NOT_AVAILABLE, Message

from iot_platform.settings import Settings
from iot_platform.telemetry.decode import Decoder, DecodeRules
from iot_platform.telemetry.records import to_records


def message(kind: int, milliseconds: int) -> Message:
    return Message("t", 0, 5, b"k", b"v", None, None, (kind, milliseconds), 0.0, 1)


@pytest.mark.parametrize("milliseconds", [-(2**63), -1, 0, 10**11, 4_102_444_800_000, 2**53, 2**63 - 1])
def test_a_kafka_timestamp_that_no_clock_shows_becomes_now(milliseconds: int) -> None:
    before = time.time_ns() // 1000
    found = to_records([message(TIMESTAMP_CREATE_TIME, milliseconds), message(TIMESTAMP_NOT_AVAILABLE, 0)], {0: (5, 6)})
    assert (before <= found.envelope.received_at).all()
    assert (found.envelope.received_at <= time.time_ns() // 1000).all()


def test_a_kafka_timestamp_is_the_receive_time_of_a_record_without_header() -> None:
    found = to_records([message(TIMESTAMP_CREATE_TIME, 1_795_428_000_123)], {0: (5, 6)})
    assert found.envelope.received_at.tolist() == [1_795_428_000_123_000]


def test_every_topic_counts_as_a_name() -> None:
    decoder = Decoder(DecodeRules.from_settings(Settings()))
    topics = [f"nobody/knows/{number}".encode() for number in range(50)]
    decoder.decode(topics, [b"{}"] * 50, np.full(50, 1_795_428_000_000_000))
    assert not decoder.sources
    assert decoder.names >= 50
