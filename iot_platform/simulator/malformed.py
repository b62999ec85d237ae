"""Messages that must end in quarantine, each with the one reason it must be given."""

import json
import random
from collections.abc import Callable
from typing import Final

from iot_platform.simulator.fleet import Device, TopicTemplate

FAR_OFF_SECONDS: Final = (0, 86_400, 978_307_200, 4_102_444_800)  # 1970, 2001 and 2100: clocks that were never set


def _truncated(rng: random.Random) -> bytes:
    whole = json.dumps({"temp": round(rng.uniform(0, 50), 2), "ok": True, "state": "running", "list": [1, 2]}).encode()
    return whole[: rng.randrange(1, len(whole))]


def _clock(rng: random.Random) -> bytes:
    return json.dumps({"ts": rng.choice(FAR_OFF_SECONDS), "temp": round(rng.uniform(0, 50), 2)}).encode()


# kind -> (reason, payload)
PAYLOADS: Final[dict[str, tuple[str, Callable[[random.Random], bytes]]]] = {
    "truncated": ("not_json", _truncated),
    "nan": ("not_json", lambda rng: b'{"temp":%s,"seq":%d}' % (rng.choice((b"NaN", b"Infinity", b"-Infinity")), rng.randrange(10**6))),
    "text": ("not_json", lambda rng: b"temp=%d" % rng.randrange(100)),
    "two_documents": ("not_json", lambda rng: b'{"a":%d}{"b":2}' % rng.randrange(10**6)),
    "empty": ("empty_payload", lambda _: b""),
    "not_utf8": ("not_utf8", lambda rng: b'{"name":"' + bytes((rng.randrange(0x80, 0xC0), 0xFF, 0xFE)) + b'"}'),
    "nul": ("nul_character", lambda rng: b'{"name":"x\\u0000y","seq":%d}' % rng.randrange(10**6)),
    "surrogate": ("bad_unicode", lambda rng: b'{"name":"\\ud800","seq":%d}' % rng.randrange(10**6)),
    "scalar": ("not_object", lambda rng: rng.choice((b"42", b'"hello"', b"null", b"true", b"[1,2,3]"))),
    "overflow": ("not_finite", lambda rng: b'{"temp":1e%d}' % rng.randrange(400, 999)),
    "deep": ("too_deep", lambda rng: b'{"a":' * 40 + b"%d" % rng.randrange(100) + b"}" * 40),
    "no_name": ("bad_name", lambda rng: b'{"":%d}' % rng.randrange(10**6)),
    "collision": ("duplicate_metric", lambda rng: b'{"a":{"b":%d},"a.b":2}' % rng.randrange(10**6)),
    "bad_time": ("bad_timestamp", lambda rng: b'{"ts":"yesterday","temp":%d}' % rng.randrange(100)),
    "far_off_clock": ("time_out_of_range", _clock),
    "flood": ("too_many_values", lambda _: json.dumps({f"m{index}": index for index in range(1001)}).encode()),
}
WEIGHTS: Final = {"truncated": 4, "empty": 4, "not_utf8": 4, "nan": 3, "nul": 3, "far_off_clock": 4}
TOPICS: Final = ("unknown_topic", "empty_level")
KINDS: Final = (*PAYLOADS, *TOPICS)
_WEIGHTS: Final = [WEIGHTS.get(kind, 4 if kind in TOPICS else 1) for kind in KINDS]


def build(device: Device, template: TopicTemplate, rng: random.Random) -> tuple[str, str, bytes, str]:
    """One malformed message in the device's name: (kind, topic, payload, reason)."""
    kind = rng.choices(KINDS, _WEIGHTS)[0]
    if kind in TOPICS:
        root = template.root()
        topic = f"{root}/{device.tenant}" if kind == "unknown_topic" else f"{root}//{device.project}"
        return kind, topic.removeprefix("/"), b'{"temp":%d}' % rng.randrange(100), "topic_mismatch"
    reason, payload = PAYLOADS[kind]
    return kind, device.topic, payload(rng), reason
