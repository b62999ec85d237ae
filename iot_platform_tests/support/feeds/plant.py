"""A small plant for the console to show: a day of one device with a gap, Chinese names, texts, and payloads that try to deceive."""

import gzip
import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from urllib.parse import urlsplit

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from iot_platform.settings import Settings

TENANT: Final = "1968193631353446400"
PROJECT: Final = "1968193631353446512"
DEVICE: Final = "1968193631353446777"
TOPIC: Final = f"mtic/msg/client/realtime/{TENANT}/{PROJECT}"
STEP_SECONDS: Final = 120
HOSTILE: Final = (
    b"not JSON at all",
    '{"deviceId":"\u202egnp.exe","t":1'.encode(),  # cut off, and right to left
    b'{"deviceId":"d","t":NaN}',
    b"\xff\xfe\x00\x01binary",
    b'{"deviceId":"d","ts":"1970-01-01T00:00:00Z","t":1}',
    b'{"deviceId":"<img src=x onerror=alert(1)>","t":',
)


ARCHIVE: Final = "archive"
"""A device with an hourly value of 90 days, which it sends now."""
COMPRESSED: Final = 30
"""Messages that are compressed, of which the platform's rules know nothing."""


@contextmanager
def publisher(settings: Settings) -> Iterator[Client]:
    """A connected client; all is acknowledged when the context ends."""
    parts = urlsplit(settings.mqtt_url.get_secret_value())
    client = Client(CallbackAPIVersion.VERSION2, "console-plant", protocol=MQTTProtocolVersion.MQTTv5)
    client.max_inflight_messages_set(0)
    client.connect(parts.hostname or "127.0.0.1", parts.port or 1883)
    client.loop_start()
    try:
        yield client
    finally:
        client.disconnect()
        client.loop_stop()


def readings(moment: float) -> dict[str, object]:
    """What the device measures at a moment."""
    phase = moment / 7200 * 2 * math.pi
    return {
        "deviceId": DEVICE, "ts": int(moment * 1000), "temperature": round(61.4 + 6 * math.sin(phase), 2),
        "pressure": round(1013.25 + 3 * math.cos(phase / 2), 2), "rpm": int(1450 + 20 * math.sin(phase * 3)), "state": "running",
    }  # fmt: skip


def publish_past(settings: Settings, hours: int = 26) -> int:
    """The device's past, with two hours missing, and everything else. The number of messages."""
    now = time.time()
    payloads = [
        json.dumps(readings(now - back)).encode() for back in range(hours * 3600, 0, -STEP_SECONDS) if not 9 * 3600 < back < 11 * 3600
    ]
    names = ("一号锅炉", "二号锅炉", "<script>alert(1)</script>", "a\u202eb\u200b")
    payloads += [json.dumps({"deviceId": name, "温度": 82.5, "阀门": "开", "<b>": 1}).encode() for name in names]
    payloads += HOSTILE
    payloads += [
        gzip.compress(json.dumps({"deviceId": "zipped", "ts": int((now - back) * 1000), "flow": back}).encode())
        for back in range(COMPRESSED)
    ]
    payloads += [
        json.dumps({"deviceId": ARCHIVE, "ts": int((now - hour * 3600) * 1000), "level": round(50 + 20 * math.sin(hour / 40), 2)}).encode()
        for hour in range(90 * 24)
    ]
    with publisher(settings) as client:
        for sent in [client.publish(TOPIC, payload, qos=1) for payload in payloads]:
            sent.wait_for_publish(120)
    return len(payloads)
