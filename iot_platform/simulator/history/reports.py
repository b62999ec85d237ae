"""When each device of a history reported: at its cadence, a little late, with lost reports and hours offline."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from iot_platform.simulator.history import chance
from iot_platform.simulator.history.devices import HistoryFleet, Ints

HOUR_US: Final = 3_600_000_000
OFFLINE_SHARE: Final = 0.015
"""Of the stretches (six hours, or eight reports) of a device; LOST of its single reports."""
LOST: Final = 1024
"""One report in so many is lost."""
LATEST_MS: Final = 900


@dataclass(frozen=True, slots=True)
class Reports:
    """Reports ordered by device and time. `number` counts a device's reports since the epoch, lost ones included."""

    device: Ints
    number: Ints
    time_us: Ints

    def __len__(self) -> int:
        return len(self.device)


class Calendar:
    """Tells the reports of any period, in any order; periods that touch give each report once."""

    def __init__(self, fleet: HistoryFleet) -> None:
        self._fleet = fleet
        self._every = fleet.cadence * 1_000_000
        numbers = np.arange(len(fleet.cadence), dtype=np.int64)
        phase = chance.uniform(chance.scatter(chance.key(fleet.options.seed, "phase"), numbers))
        self._phase = (phase * self._every).astype(np.int64) // 1000 * 1000
        self._stretch = np.maximum(6 * HOUR_US, 8 * self._every)
        self._late_ms = np.minimum(LATEST_MS, self._every // 10_000)
        self._report_key, self._gap_key = (chance.key(fleet.options.seed, name) for name in ("report", "offline"))

    def between(self, start_us: int, end_us: int, devices: Ints | None = None) -> Reports:
        """Reports due from start to end, without it, of all devices or of some (ascending)."""
        chosen = np.arange(len(self._every), dtype=np.int64) if devices is None else devices
        every, phase = self._every[chosen], self._phase[chosen]
        first = -((phase - start_us) // every)  # the first at or after the start
        count = np.maximum(-((phase - end_us) // every) - first, 0)
        ends = np.cumsum(count)
        device = np.repeat(chosen, count)
        number = np.arange(int(ends[-1]) if len(ends) else 0) + np.repeat(first - (ends - count), count)
        return self._present(device, number)

    def _present(self, device: Ints, number: Ints) -> Reports:
        due = self._phase[device] + number * self._every[device]
        bits = chance.scatter(self._report_key, device, number)
        stretch = due // self._stretch[device]
        offline = chance.uniform(chance.scatter(self._gap_key, device, stretch)) < OFFLINE_SHARE
        here = ((bits & np.uint64(LOST - 1)) != 0) & ~offline
        here &= (due >= self._fleet.born_us[device]) & (due < self._fleet.gone_us[device])
        late = (bits >> np.uint64(20)).astype(np.int64) % (self._late_ms[device] + 1) * 1000
        rows = np.flatnonzero(here)
        return Reports(device[rows], number[rows], due[rows] + late[rows])


def last_reports(calendar: Calendar, start_us: int, end_us: int, step_us: int, devices: int) -> Reports:
    """The last report of each device in the period; devices without any are missing. Looks backwards, step by step."""
    missing: Ints = np.arange(devices, dtype=np.int64)
    found: list[Reports] = []
    while end_us > start_us and len(missing):
        begin = max(start_us, end_us - step_us)
        reports = calendar.between(begin, end_us, missing)
        last: npt.NDArray[np.intp] = (
            np.flatnonzero(np.append(reports.device[1:] != reports.device[:-1], True)) if len(reports) else np.zeros(0, np.intp)
        )
        found.append(Reports(reports.device[last], reports.number[last], reports.time_us[last]))
        missing = np.setdiff1d(missing, reports.device[last], assume_unique=True)
        end_us = begin
    device = np.concatenate([part.device for part in found])
    order = np.argsort(device)
    columns = (np.concatenate([getattr(part, name) for part in found])[order] for name in ("number", "time_us"))
    return Reports(device[order], *columns)
