"""Which history is wanted: fleet, period, number of measurements; checked, with the defaults of each."""

from dataclasses import asdict, dataclass
from typing import Any, Final

DAY_US: Final = 86_400_000_000
TENANTS, PROJECTS, SERIES, MEASUREMENTS = 100, 100, 100_000, 50_500_000
"""The fleet unless options say otherwise: 100 tenants of 100 projects with 100,000 series in all, 561 measurements of each in 90 days."""
DENSEST_SECONDS: Final = 900
"""A small fleet's measurements are, unless a number is asked for, no closer than this on average."""


class HistoryError(Exception):
    """The history cannot be written as asked; the message says why and what to do. Never retry."""


@dataclass(frozen=True)
class HistoryOptions:
    """A history: the same options give the same measurements. `start_us` (µs since the epoch) to `end_us`, without it.

    Raises:
        HistoryError: they contradict each other; the message names the option.
    """

    seed: int
    start_us: int
    end_us: int
    tenants: int = TENANTS
    projects: int = PROJECTS
    """Of each tenant."""
    devices: int = 0
    """Of each project on average; 0: as many as `series` needs."""
    series: int = 0
    """In all; 0: what the devices have, else SERIES (small fleets: 150 for each project)."""
    measurements: int = 0
    """In all, about; 0: MEASUREMENTS for a fleet of SERIES in 90 days, fewer or denser for others."""

    def __post_init__(self) -> None:
        if self.end_us <= self.start_us:
            raise HistoryError("--history must be a period such as 90d or 12h")
        if self.tenants < 1 or self.projects < 1:
            raise HistoryError("--tenants and --projects must be at least 1")
        if self.series and self.series < 5 * self.tenants * self.projects:
            raise HistoryError(f"--series must be at least 5 for each of the {self.tenants * self.projects:,} projects")
        if self.devices and self.series:
            raise HistoryError("--devices and --series exclude each other: a device has two to five series")

    @property
    def days(self) -> float:
        """Length of the period."""
        return (self.end_us - self.start_us) / DAY_US

    def wanted_measurements(self, series: int) -> int:
        """How many measurements a fleet of so many series gets."""
        usual = MEASUREMENTS * self.days / 90 * max(1.0, series / SERIES)
        return self.measurements or max(series, int(min(usual, series * self.days * DAY_US / 1e6 / DENSEST_SECONDS)))

    def as_json(self) -> dict[str, Any]:
        """What distinguishes one history from another, except the seed and the period."""
        return {name: value for name, value in asdict(self).items() if name not in ("seed", "start_us", "end_us")}
