"""Devices and series of a history, with their tenants and projects, as columns; and how often each device reported."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from iot_platform.simulator.fleet import TopicTemplate, seeded_id
from iot_platform.simulator.history import chance
from iot_platform.simulator.history.models import MODELS, Metric
from iot_platform.simulator.history.options import SERIES, HistoryError, HistoryOptions

Ints = npt.NDArray[np.int64]

CADENCES: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 14400, 21600, 28800, 43200, 86400, 172800, 604800)
"""Seconds between two reports of a device: what people configure."""
EAGERNESS: Final = ((4.0, 0.10), (2.0, 0.15), (1.0, 0.45), (0.5, 0.20), (0.25, 0.10))
"""Relative rate → share of the devices."""
LATE_SHARE, EARLY_SHARE = 0.03, 0.02
"""Devices that were installed during the history, and that were taken away."""
PRESENT: Final = 0.967
"""Share of reports that arrive: what is left by LATE_SHARE, EARLY_SHARE and the gaps of reports.py."""


@dataclass(slots=True)
class HistoryFleet:
    """Devices ordered by tenant and project, series by device; columns of n devices or m series."""

    options: HistoryOptions
    topics: TopicTemplate
    project: Ints = field(init=False)  # [n] number of its project, tenants one after the other
    model: Ints = field(init=False)  # [n] position in MODELS
    index: Ints = field(init=False)  # [n] number within its project
    cadence: Ints = field(init=False)  # [n] seconds
    born_us: Ints = field(init=False)  # [n] first report not before
    gone_us: Ints = field(init=False)  # [n] last report before
    device: Ints = field(init=False)  # [m]
    metric: Ints = field(init=False)  # [m] position in the model's metrics

    def __post_init__(self) -> None:
        options, seed = self.options, self.options.seed
        projects = options.tenants * options.projects
        sizes = np.array([len(model.metrics) for model in MODELS], np.int64)
        weights = [model.weight for model in MODELS]
        limits = np.cumsum(weights) / sum(weights)
        wanted = 0 if options.devices else options.series or min(max(SERIES, 5 * projects), 150 * projects)
        count = options.devices * projects or wanted
        numbers = np.arange(count, dtype=np.int64)
        draw = chance.uniform(chance.scatter(chance.key(seed, "model"), numbers))
        self.model = np.searchsorted(limits, draw, side="right").astype(np.int64)
        ends = np.cumsum(sizes[self.model])
        if wanted:  # as many devices as it takes; the last may lack some metrics
            count = int(np.searchsorted(ends, wanted)) + 1
            self.model, ends, numbers = self.model[:count], np.minimum(ends[:count], wanted), numbers[:count]
        if count < projects:
            raise HistoryError(f"{count:,} devices are not enough for {projects:,} projects: raise --series or --devices")
        self.device = np.repeat(numbers, np.diff(ends, prepend=0))
        self.metric = np.arange(len(self.device)) - np.repeat(ends - np.diff(ends, prepend=0), np.diff(ends, prepend=0))
        self.project = _spread(seed, count, projects)
        firsts = np.searchsorted(self.project, np.arange(projects))
        self.index = numbers - firsts[self.project]
        self._appear(numbers)
        self.cadence = self._cadences(numbers)

    def _appear(self, numbers: Ints) -> None:
        start, end = self.options.start_us, self.options.end_us
        draw = chance.uniform(chance.scatter(chance.key(self.options.seed, "life"), numbers))
        late, early = draw < LATE_SHARE, draw >= 1 - EARLY_SHARE
        self.born_us = np.where(late, start + (draw / LATE_SHARE * 0.8 * (end - start)).astype(np.int64), start)
        self.gone_us = np.where(early, end - ((1 - draw) / EARLY_SHARE * 0.5 * (end - start)).astype(np.int64), end)

    def _cadences(self, numbers: Ints) -> Ints:
        """Around the rate that gives the wanted number of measurements, each device between two usual cadences, by lot."""
        seconds = (self.options.end_us - self.options.start_us) / 1e6
        series = np.bincount(self.device, minlength=len(numbers))
        draw = chance.uniform(chance.scatter(chance.key(self.options.seed, "eagerness"), numbers))
        rates, shares = zip(*EAGERNESS, strict=True)
        position = np.searchsorted(np.cumsum(shares)[:-1], draw, side="right")
        rate = np.array(rates)[position]
        wanted = self.options.wanted_measurements(len(self.device))
        ideal = seconds * PRESENT * float((series * rate).sum()) / wanted / rate
        usual = np.array(CADENCES, np.float64)
        ideal = np.clip(ideal, usual[0], usual[-1])
        above = np.clip(np.searchsorted(usual, ideal, side="left"), 1, len(usual) - 1)
        short, long = usual[above - 1], usual[above]
        chosen = (1 / ideal - 1 / long) / (1 / short - 1 / long)  # so that the mean rate is the ideal one
        lot = chance.uniform(chance.scatter(chance.key(self.options.seed, "cadence"), numbers))
        return np.where(lot < chosen, short, long).astype(np.int64)

    def __len__(self) -> int:
        return len(self.device)

    @property
    def expected(self) -> int:
        """About how many measurements there will be."""
        seconds = (self.options.end_us - self.options.start_us) / 1e6
        return int((seconds / self.cadence[self.device]).sum() * PRESENT)

    def project_names(self) -> list[tuple[str, str]]:
        """(tenant, project) of each project number."""
        seed, options = self.options.seed, self.options
        tenants = [seeded_id(seed, "history", tenant) for tenant in range(options.tenants)]
        return [
            (tenants[tenant], seeded_id(seed, "history", tenant, project))
            for tenant in range(options.tenants)
            for project in range(options.projects)
        ]

    def device_name(self, device: int) -> str:
        """Id of a device, unique in its project."""
        return f"{MODELS[self.model[device]].name}-{self.index[device] + 1:04}"

    def metrics(self) -> Iterator[Metric]:
        """The metric of each series."""
        for model, metric in zip(self.model[self.device].tolist(), self.metric.tolist(), strict=True):
            yield MODELS[model].metrics[metric]


def _spread(seed: int, devices: int, projects: int) -> Ints:
    """The project of each device: every project has one at least, some ten times as many as others."""
    draw = chance.uniform(chance.scatter(chance.key(seed, "project size"), np.arange(projects, dtype=np.int64)))
    weight = np.cumsum(0.3 + 2.4 * draw**3)
    ends = np.floor(weight / weight[-1] * (devices - projects) + 0.5).astype(np.int64) + np.arange(1, projects + 1)
    return np.repeat(np.arange(projects, dtype=np.int64), np.diff(ends, prepend=0))
