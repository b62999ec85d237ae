"""What kinds of devices a simulated fleet has, and what each measures."""

from dataclasses import dataclass
from typing import Final

ANALOG, COUNTER, BIG_COUNTER, FLAG, STATE = range(5)
"""Kinds of metrics: a physical quantity; a meter that only grows; one beyond 2^53; true or false; a text."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric of a model.

    ANALOG: value = base + amplitude·(daily wave) + drift·(wave of weeks) + noise, within low…high; `relative`: the three are shares of the
    base. COUNTER and BIG_COUNTER: `base` is the growth per hour. FLAG: `base` is the share of true. STATE: one of `states`, the first most
    often. Bases are a range, each series has its own.
    """

    name: str
    unit: str | None
    kind: int
    base: tuple[float, float]
    amplitude: float = 0.0
    noise: float = 0.0
    drift: float = 0.0
    low: float = -1e300
    high: float = 1e300
    decimals: int = 2
    states: tuple[str, ...] = ()
    relative: bool = False


@dataclass(frozen=True, slots=True)
class Model:
    """Devices of one kind: `weight` of them in a hundred."""

    name: str
    weight: int
    metrics: tuple[Metric, ...]


_BATTERY: Final = Metric("battery_volts", "V", ANALOG, (3.3, 3.9), 0.02, 0.01, 0.15, 2.9, 4.2, 3)
_RSSI: Final = Metric("rssi", "dBm", ANALOG, (-95, -55), 1.5, 3.0, 2.0, -120, -30, 0)

MODELS: Final = (
    Model(
        "climate",
        38,
        (
            Metric("temperature", "°C", ANALOG, (14, 26), 4.0, 0.25, 3.0, -40, 85),
            Metric("humidity", "%", ANALOG, (35, 65), 9.0, 1.2, 6.0, 0, 100, 1),
            _BATTERY,
        ),
    ),
    Model(
        "meter",
        22,
        (
            Metric("energy", "kWh", COUNTER, (0.2, 9.0), decimals=3),
            Metric("power", "W", ANALOG, (200, 6000), 0.6, 0.08, 0.1, 0, 20_000, 1, relative=True),
            Metric("voltage", "V", ANALOG, (228, 233), 1.5, 0.6, 0.5, 200, 260, 1),
        ),
    ),
    Model(
        "machine",
        16,
        (
            Metric("state", None, STATE, (0, 0), states=("running", "idle", "stopped", "fault", "maintenance", "待机")),
            Metric("running", None, FLAG, (0.55, 0.95)),
            Metric("rpm", "1/min", ANALOG, (900, 2900), 0.05, 0.01, 0.02, 0, 6000, 0, relative=True),
            Metric("vibration", "mm/s", ANALOG, (0.8, 3.5), 0.3, 0.15, 0.4, 0, 40, 3, relative=True),
            Metric("bearing.temperature", "°C", ANALOG, (40, 70), 5.0, 0.4, 3.0, 0, 140, 1),
        ),
    ),
    Model(
        "tank",
        14,
        (
            Metric("level", "%", ANALOG, (30, 80), 12.0, 0.3, 10.0, 0, 100, 1),
            Metric("valve.open", None, FLAG, (0.05, 0.4)),
            Metric("pressure", "bar", ANALOG, (1.5, 6.0), 0.05, 0.01, 0.03, 0, 16, 3, relative=True),
        ),
    ),
    Model(
        "flow",
        5,
        (Metric("pulses", None, BIG_COUNTER, (500, 90_000)), Metric("flow", "m³/h", ANALOG, (2, 40), 0.5, 0.05, 0.1, 0, 80, relative=True)),
    ),
    Model("gateway", 5, (_RSSI, Metric("uptime_hours", "h", COUNTER, (1, 1), decimals=0))),
)
