"""What devices of each model write, built side by side with the measurements that must come out of it."""

import json
import random
from collections.abc import Callable
from typing import Any, Final

from iot_platform.simulator.fleet import Device
from iot_platform.simulator.message import Expected, Measurement

STATES: Final = ("running", "stopped", "fault", "maintenance", "", "待机", 'said "ok"\n', "back\\slash")
EXTREMES: Final = (
    5e-324,
    1.7976931348623157e308,
    -1.7976931348623157e308,
    2.2250738585072014e-308,
    -0.0,
    0.1 + 0.2,
    1e22,
    123456789.123456789,
)
INTEGERS: Final = (
    9_223_372_036_854_775_807,
    -9_223_372_036_854_775_808,
    9_007_199_254_740_993,
    -9_007_199_254_740_993,
    9_007_199_254_740_992,
)
BEYOND: Final = (9_223_372_036_854_775_808, -9_223_372_036_854_775_809, 123_456_789_012_345_678_901_234_567_890)
INT64: Final = range(-(2**63), 2**63)


def number(metric: str, value: float, time_us: int | None = None, device: str | None = None) -> Measurement:
    """The measurement of a JSON number: exact as a double where it fits, as int64 where only that holds it, else as digits."""
    approximate = float(value)
    if isinstance(value, float) or (value in INT64 and int(approximate) == value):
        return Measurement(metric, approximate, time_us=time_us, device=device)
    if value in INT64:
        return Measurement(metric, approximate, value_int=value, time_us=time_us, device=device)
    return Measurement(metric, approximate, value_text=str(value), time_us=time_us, device=device)


class Body:
    """A JSON object under construction and the measurements it stands for; nested bodies share the list under a prefix."""

    def __init__(self, expected: list[Measurement], time_us: int | None, prefix: str = "") -> None:
        self.fields: dict[str, Any] = {}
        self.expected = expected
        self.time_us = time_us
        self._prefix = prefix

    def number(self, name: str, value: float) -> None:
        """A numeric field."""
        self.fields[name] = value
        self.expected.append(number(self._prefix + name, value, self.time_us))

    def flag(self, name: str, value: bool) -> None:
        """A boolean field."""
        self.fields[name] = value
        self.expected.append(Measurement(self._prefix + name, float(value), value_text="true" if value else "false", time_us=self.time_us))

    def text(self, name: str, value: str) -> None:
        """A string field."""
        self.fields[name] = value
        self.expected.append(Measurement(self._prefix + name, None, value_text=value, time_us=self.time_us))

    def nested(self, name: str) -> "Body":
        """An object field; its own fields are named name.field."""
        inner = Body(self.expected, self.time_us, f"{self._prefix}{name}.")
        self.fields[name] = inner.fields
        return inner


def _flat(body: Body, device: Device, rng: random.Random) -> None:
    body.number("temp", device.signals.reading(rng, "temp", -40, 125))
    body.number("humidity", device.signals.reading(rng, "humidity", 0, 100))
    body.number("rssi", device.signals.level(rng, "rssi", -120, -30))


def _mixed(body: Body, device: Device, rng: random.Random) -> None:
    _flat(body, device, rng)
    body.flag("ok", device.signals.held(rng, "ok", (True, True, True, False)))
    body.text("state", device.signals.held(rng, "state", STATES))
    if rng.random() < 0.1:
        body.fields["note"] = None


def _nested(body: Body, device: Device, rng: random.Random) -> None:
    env = body.nested("env")
    env.number("temp", device.signals.reading(rng, "temp", -40, 125))
    env.nested("hum").number("raw", device.signals.level(rng, "raw", 0, 4095))
    motor = body.nested("motor")
    motor.flag("on", device.signals.held(rng, "on", (True, False)))
    motor.text("mode", device.signals.held(rng, "mode", STATES))
    body.nested("empty")


def _unicode(body: Body, device: Device, rng: random.Random) -> None:
    body.number("温度", device.signals.reading(rng, "温度", -40, 125))
    body.text("note", rng.choice(("正常 ✓", "überhitzt", "e\u0301 combining", "🚀🌡️", "\u2028line")))


def _counter(body: Body, device: Device, rng: random.Random) -> None:
    body.number("total", device.signals.counted(rng, "total", 2**53, 2**62, 10_000))
    body.number("limit", device.signals.held(rng, "limit", INTEGERS))
    body.number("uptime", device.signals.counted(rng, "uptime", 0, 10**9, 120))


def _extreme(body: Body, _device: Device, rng: random.Random) -> None:
    body.number("double", rng.choice(EXTREMES))
    body.number("beyond", rng.choice(BEYOND))


def _arrays(body: Body, device: Device, rng: random.Random) -> None:
    spectrum = [rng.randrange(1000) for _ in range(rng.randrange(4))]
    body.fields["spectrum"] = spectrum
    body.expected.append(Measurement("spectrum", None, value_text=json.dumps(spectrum, separators=(",", ":")), time_us=body.time_us))
    body.number("peak", device.signals.reading(rng, "peak", 0, 10))


FIELDS: Final[dict[str, Callable[[Body, Device, random.Random], None]]] = {
    "flat": _flat, "mixed": _mixed, "nested": _nested, "unicode": _unicode, "counter": _counter, "extreme": _extreme, "arrays": _arrays,
}  # fmt: skip


def build(device: Device, rng: random.Random, now_us: int, stamp: tuple[object, int] | None) -> tuple[bytes, Expected]:
    """One payload of the device with its expected outcome; `stamp` is the message's time, None where it says none."""
    expected: list[Measurement] = []
    body = Body(expected, None if stamp is None else stamp[1])
    if stamp is not None:
        body.fields[device.time_field] = stamp[0]
    elif rng.random() < 0.1:
        body.fields[device.time_field] = None
    if device.field is not None and device.model != "batch":
        _name_itself(device, body)
    document: object = body.fields
    if device.model == "batch":
        document = _batch(device, rng, now_us, expected)
    elif device.model == "points":
        _points(device, body, rng)
    else:
        FIELDS[device.model](body, device, rng)
    payload = _encode(document, rng)
    if device.model == "batch":
        source = "payload" if any(item.time_us is not None for item in expected) else "receive"
    else:
        source = "receive" if stamp is None else "payload"
    name = device.name if device.named_by_topic or device.model != "batch" else ""
    return payload, Expected(None, device.tenant, device.project, name, source, tuple(expected))  # type: ignore[arg-type]


def _name_itself(device: Device, body: Body) -> None:
    assert device.field is not None  # noqa: S101 - the caller's branch
    if device.named_by_topic:
        body.text(device.field, device.name)
    else:
        body.fields[device.field] = int(device.name) if device.name.isdigit() else device.name


def _points(device: Device, body: Body, rng: random.Random) -> None:
    """A gateway that reports for itself and for the sensors behind it (named after it: no two gateways share a sensor)."""
    points: list[dict[str, Any]] = []
    for index in range(rng.randrange(1, 5)):
        value = device.signals.reading(rng, f"channel{index}", 0, 1000)
        child = f"{device.name}.{index}" if rng.random() < 0.5 else None
        points.append({rng.choice(("metric", "id")): f"channel{index}", "value": value} | ({} if child is None else {"deviceId": child}))
        body.expected.append(number(f"channel{index}", value, body.time_us, child))
    body.fields["points"] = points
    body.number("rssi", device.signals.level(rng, "rssi", -120, -30))


def _batch(device: Device, rng: random.Random, now_us: int, expected: list[Measurement]) -> list[dict[str, Any]]:
    """A list of points of one metric, each with its own time where the device has a clock."""
    points: list[dict[str, Any]] = []
    for index in range(rng.randrange(1, 6)):
        metric = "flow" if device.clock else f"flow{index}"
        value = device.signals.reading(rng, metric, 0, 1000)
        point: dict[str, Any] = {"metric": metric, "value": value}
        time_us = None
        if device.clock:
            point[device.time_field], time_us = device.clock.stamp(now_us, rng)
        points.append(point)
        expected.append(number(metric, value, time_us))
    return points


def _encode(document: object, rng: random.Random) -> bytes:
    style = rng.random()
    if style < 0.9:
        return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    return json.dumps(document, ensure_ascii=style < 0.95, indent=None if style < 0.97 else 1).encode()
