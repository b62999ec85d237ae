"""Makes slices of a history, ready to be copied."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from iot_platform.simulator.history.devices import HistoryFleet, Ints
from iot_platform.simulator.history.options import DAY_US
from iot_platform.simulator.history.reports import Calendar, last_reports
from iot_platform.simulator.history.values import Values


@dataclass(frozen=True, slots=True)
class Slice:
    """The measurements due from start to end (µs), without it: `rows` for COPY; their series and times; how many each project has."""

    start_us: int
    end_us: int
    rows: list[bytes]
    series: npt.NDArray[np.int32]
    time_us: Ints
    by_project: Ints
    tenants: list[str]
    projects: list[str]

    @property
    def count(self) -> int:
        """Measurements."""
        return len(self.series)


class Maker:
    """Makes any part of a history; `ids`: the database's id of each series of the fleet."""

    def __init__(self, fleet: HistoryFleet, ids: npt.NDArray[np.int32]) -> None:
        self._fleet, self._ids = fleet, ids
        self._calendar, self._values = Calendar(fleet), Values(fleet)
        names = fleet.project_names()
        self._tenants, self._projects = [tenant for tenant, _ in names], [project for _, project in names]

    def make(self, start_us: int, end_us: int) -> Slice:
        """All measurements of a stretch of time."""
        fleet = self._fleet
        reports = self._calendar.between(start_us, end_us)
        rows = self._values.rows(reports)
        by_project = np.bincount(fleet.project[fleet.device[rows.series]], minlength=len(self._projects))
        encoded = self._values.encode(rows, reports, self._ids)
        ids, times = self._ids[rows.series], reports.time_us[rows.report]
        return Slice(start_us, end_us, encoded, ids, times, by_project, self._tenants, self._projects)

    def latest(self) -> list[bytes]:
        """The last measurement of each series as rows for COPY: made again rather than looked for."""
        options = self._fleet.options
        reports = last_reports(self._calendar, options.start_us, options.end_us, DAY_US, len(self._fleet.cadence))
        return self._values.encode(self._values.rows(reports), reports, self._ids)
