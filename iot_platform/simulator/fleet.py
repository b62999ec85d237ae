"""Who publishes: tenants, projects and devices with stable 19-digit ids, derived from the seed alone."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Final, Literal

from iot_platform.simulator.device_clock import STYLES, DeviceClock
from iot_platform.simulator.readings import Signals

Mix = Literal["realistic", "flat"]
FIRST_ID: Final = 1_968_193_631_353_446_400
LAST_ID: Final = 9_100_000_000_000_000_000
MAX_SKEW_US: Final = 50 * 60 * 1_000_000
DEVICE_FIELDS: Final = ("deviceId", "device_id", "clientId")

# model -> weight; what a model writes is in payloads.py
MODELS: Final[dict[str, int]] = {
    "flat": 34,
    "mixed": 22,
    "nested": 14,
    "points": 6,
    "batch": 4,
    "unicode": 7,
    "counter": 7,
    "extreme": 2,
    "arrays": 4,
}


class FleetError(Exception):
    """The options describe no fleet; the message names the option. Never retry."""


@dataclass(frozen=True)
class FleetOptions:
    """Size, mix and shares (fractions of messages; of devices for `skew` and `clockless`) of a fleet."""

    tenants: int = 3
    projects: int = 4
    devices: int = 50
    seed: int = 1
    mix: Mix = "realistic"
    late: float = 0.02
    duplicate: float = 0.01
    malformed: float = 0.01
    conflict: float = 0.0
    heartbeat: float = 0.02
    skew: float = 0.02
    clockless: float = 0.2
    retained: float = 0.0

    def __post_init__(self) -> None:
        for name in ("tenants", "projects", "devices"):
            if getattr(self, name) < 1:
                raise FleetError(f"--{name} must be at least 1")
        for name in ("late", "duplicate", "malformed", "conflict", "heartbeat", "skew", "clockless", "retained"):
            if not 0 <= getattr(self, name) <= 1:
                raise FleetError(f"--{name} is a share: it must be between 0 and 1")
        if self.late + self.malformed + self.conflict + self.heartbeat > 1:
            raise FleetError("--late, --malformed, --conflict and --heartbeat must not add up to more than 1")


@dataclass(slots=True)
class Device:
    """One device: where it publishes, what it sends and what its clock says (None: it sends no time).

    It is named by its topic, or by `field` of the payload; in both places the topic wins and the field is an ordinary value.
    """

    number: int
    tenant: str
    project: str
    name: str
    topic: str
    named_by_topic: bool
    field: str | None
    model: str
    time_field: str
    clock: DeviceClock | None
    signals: Signals = dataclass_field(default_factory=Signals)


class TopicTemplate:
    """Writes topics that fit the configured pattern (`IOT_TOPIC_PATTERN`).

    Raises:
        FleetError: the pattern names no tenant or no project, so topics alone cannot carry them. Never retry.
    """

    def __init__(self, pattern: str) -> None:
        self._levels = pattern.split("/")
        for name in ("{tenant}", "{project}"):
            if name not in self._levels:
                raise FleetError(f"the simulator needs {name} as a level of IOT_TOPIC_PATTERN, which is {pattern!r}")
        self.device_levels = "{device...}" if self._levels[-1] == "{device...}" else "{device}" if "{device}" in self._levels else None

    def render(self, tenant: str, project: str, device: str | None) -> str:
        """The topic; the trailing device levels are left out when `device` is None."""
        known = {"{tenant}": tenant, "{project}": project, "{device...}": device, "{device}": device, "+": "x"}
        levels = [known.get(level, level) for level in self._levels]
        return "/".join(level for level in levels if level is not None)

    def root(self) -> str:
        """The literal levels before the first name."""
        literal = [level for level in self._levels[: self._levels.index("{tenant}")] if not level.startswith("{")]
        return "/".join("x" if level == "+" else level for level in literal)


def seeded_id(seed: int, *path: object) -> str:
    """A 19-digit id that depends on the seed and the path only, so a larger fleet contains the smaller one."""
    return str(random.Random(f"{seed}/{'/'.join(map(str, path))}").randrange(FIRST_ID, LAST_ID))  # noqa: S311 - reproducible, no secret


def build_fleet(options: FleetOptions, template: TopicTemplate, start_us: int) -> Sequence[Device]:
    """All devices, ordered by tenant, project, device."""
    fleet: list[Device] = []
    for tenant_number in range(options.tenants):
        tenant = seeded_id(options.seed, "tenant", tenant_number)
        for project_number in range(options.projects):
            project = seeded_id(options.seed, "project", tenant_number, project_number)
            for device_number in range(options.devices):
                rng = random.Random(f"{options.seed}/{tenant_number}/{project_number}/{device_number}")  # noqa: S311 - as above
                fleet.append(_device(rng, options, template, start_us, len(fleet), tenant, project, device_number))
    return fleet


def _device(  # noqa: PLR0917 - its one call is just above
    rng: random.Random, options: FleetOptions, template: TopicTemplate, start_us: int, number: int, tenant: str, project: str, index: int
) -> Device:
    model = "flat" if options.mix == "flat" else rng.choices(list(MODELS), list(MODELS.values()))[0]
    names = {"unicode": f"传感器-{index:04}", "points": f"gateway-{index:04}", "batch": f"line{index % 5}/gateway-{index:04}"}
    name = names.get(model, f"sensor-{index:04}")
    field: str | None = rng.choice(DEVICE_FIELDS)
    in_topic = template.device_levels == "{device}" or ("/" in name) or (template.device_levels is not None and rng.random() < 0.3)
    if "/" in name and template.device_levels != "{device...}":
        name, in_topic = name.replace("/", "-"), template.device_levels is not None
    if in_topic and rng.random() < 0.8:
        field = None  # the other fifth repeats the name in the payload, where it must become an ordinary field
    elif not in_topic and model == "counter":
        name = str(index + 1)  # a device that names itself by a JSON number
    style = "milliseconds" if options.mix == "flat" else rng.choices(list(STYLES), [40, 10, 5, 8, 5, 5, 15, 7, 5])[0]
    has_clock = options.clockless < 1 if options.mix == "flat" else rng.random() < 1 - options.clockless
    skew_us = rng.randrange(-MAX_SKEW_US, MAX_SKEW_US) if rng.random() < options.skew else 0
    clock = DeviceClock(style, start_us, skew_us) if has_clock else None
    topic = template.render(tenant, project, name if in_topic else None)
    return Device(number, tenant, project, name, topic, in_topic, field, model, rng.choice(("ts", "ts", "timestamp", "time")), clock)
