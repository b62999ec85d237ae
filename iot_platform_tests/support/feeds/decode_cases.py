"""Seeded messages for tests and benchmarks of the decoder, and outcomes of a batch in the plain decoder's form."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import Any

import numpy as np

from iot_platform.telemetry.decode import DecodedBatch, Decoder, Measurement, Message, Quarantined

NOW = 1_795_428_000_250_000  # 2026-11-23T10:00:00.25Z
Outcome = Message | Quarantined


@dataclass(frozen=True)
class Records:
    topics: list[bytes | None]
    payloads: list[bytes | None]
    received_at: np.ndarray[tuple[int], np.dtype[np.int64]]

    @classmethod
    def of(cls, messages: Sequence[tuple[bytes | None, bytes | None]]) -> "Records":
        return cls([topic for topic, _ in messages], [payload for _, payload in messages], np.full(len(messages), NOW, np.int64))


def topic(number: int, device: str | None = None) -> bytes:
    """Each device belongs to one of 12 projects of 3 tenants."""
    levels = ["mtic/msg/client/realtime", str(1968193631353446400 + number % 3), str(1968193691042586624 + number % 12)]
    return "/".join(levels + ([device] if device else [])).encode()


def compact(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def iso(millis: int) -> str:
    return datetime.fromtimestamp(millis / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def flat(random: Random) -> tuple[bytes, bytes]:
    """117 bytes, 3 numbers: {"deviceId":…,"timestamp":…,"temperature":…,"humidity":…,"pressure":…}."""
    number = random.randrange(600)
    document = {
        "deviceId": f"line-7-sensor-{number:06}",
        "timestamp": NOW // 1000 - random.randrange(10_000_000),
        "temperature": round(random.uniform(-20, 60), 2),
        "humidity": round(random.uniform(0, 100), 2),
        "pressure": random.randrange(95_000, 105_000),
    }
    return topic(number), compact(document)


def realistic(random: Random) -> tuple[bytes, bytes]:
    """Strings, booleans, one nested object, ISO times; one in ten is a list of points."""
    millis = NOW // 1000 - random.randrange(10_000_000)
    number = random.randrange(600)
    device = f"gw-{number:05}"
    if random.random() < 0.1:
        points: list[dict[str, Any]] = [
            {"metric": f"channel{n}", "value": round(random.uniform(0, 400), 3), "ts": millis - n} for n in range(random.randrange(3, 9))
        ]
        if random.random() < 0.5:
            return topic(number, device), compact(points)
        return topic(number), compact({"deviceId": device, "ts": millis, "points": points, "rssi": -random.randrange(40, 90)})
    document = {
        "deviceId": device,
        "timestamp": iso(millis),
        "temp": round(random.uniform(-20, 60), 2),
        "running": random.random() < 0.9,
        "mode": random.choice(["auto", "manual", "停机"]),
        "battery": {"level": random.randrange(101), "volts": round(random.uniform(3, 4.2), 3)},
    }
    if random.random() < 0.2:
        document["alarm"] = random.choice([None, "over temperature"])
    return topic(number), compact(document)


def outcomes(decoder: Decoder, batch: DecodedBatch, count: int) -> list[Outcome]:
    """What the batch says of each record, for comparison with decode_one."""
    reasons = {row: Quarantined(reason, detail) for row, reason, detail in batch.reason}
    assert sorted(reasons) == [row for row, _, _ in batch.reason] == np.flatnonzero(batch.source_index < 0).tolist()
    assert (np.diff(batch.m_row) >= 0).all()
    assert set(range(len(batch.m_texts))) == set(batch.m_text[batch.m_text >= 0].tolist())
    assert (np.diff(batch.m_int_rows) > 0).all()
    ints = dict(zip(batch.m_int_rows.tolist(), batch.m_ints.tolist(), strict=True))
    texts = {at: batch.m_texts[text] for at, text in enumerate(batch.m_text.tolist()) if text >= 0}
    measured: list[list[Measurement]] = [[] for _ in range(count)]
    for at, row in enumerate(batch.m_row.tolist()):
        tenant, project, device, metric = decoder.series[batch.m_series[at]]
        assert (tenant, project) == decoder.sources[batch.source_index[row]][1:3]
        value = float(batch.m_value[at]) if batch.m_value_valid[at] else None
        measured[row].append(Measurement(device, metric, int(batch.m_time[at]), value, ints.get(at), texts.get(at)))
    found: list[Outcome] = []
    for row in range(count):
        if row in reasons:
            assert not measured[row]
            found.append(reasons[row])
            continue
        _, tenant, project, device = decoder.sources[batch.source_index[row]]
        found.append(Message(tenant, project, device, bool(batch.time_source[row]), tuple(measured[row])))
    return found
