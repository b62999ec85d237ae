"""A history is a pure function of its options: any part of it, made in any order, is the same."""

import hashlib
import itertools
from dataclasses import replace

import numpy as np
import pytest

from iot_platform.settings import Settings
from iot_platform.simulator.fleet import TopicTemplate
from iot_platform.simulator.history import HistoryError, HistoryOptions
from iot_platform.simulator.history.devices import CADENCES, HistoryFleet
from iot_platform.simulator.history.options import DAY_US, MEASUREMENTS
from iot_platform.simulator.history.reports import Calendar, last_reports
from iot_platform.simulator.history.slices import Maker

END_US = 1_764_000_000_000_000
DIGEST = "786f89f0d7b30bc034f73659e7488d2bf4fab755a28efbdbad22d28feb86bcfc"
OPTIONS = HistoryOptions(3, END_US - 10 * DAY_US, END_US, tenants=2, projects=4, series=400, measurements=60_000)


def fleet_of(options: HistoryOptions = OPTIONS) -> HistoryFleet:
    return HistoryFleet(options, TopicTemplate(Settings().topic_pattern))


def test_the_bytes_are_those_of_every_machine() -> None:
    """Whoever changes this changes every history that was begun: they cannot be gone on with."""
    fleet = fleet_of()
    part = Maker(fleet, np.arange(1, len(fleet) + 1, dtype=np.int32)).make(OPTIONS.start_us, OPTIONS.start_us + DAY_US)
    names = "|".join("/".join(names) for names in fleet.project_names()) + fleet.device_name(17)
    assert hashlib.sha256(b"".join(part.rows) + names.encode()).hexdigest() == DIGEST


def test_parts_make_the_whole() -> None:
    calendar = Calendar(fleet_of())
    whole = calendar.between(OPTIONS.start_us, OPTIONS.end_us)
    edges = [OPTIONS.start_us, OPTIONS.start_us + 7, OPTIONS.start_us + DAY_US, OPTIONS.end_us - 3_600_000_001, OPTIONS.end_us]
    parts = [calendar.between(start, end) for start, end in itertools.pairwise(edges)]
    pairs = {(device, number) for part in parts for device, number in zip(part.device.tolist(), part.number.tolist(), strict=True)}
    assert sum(map(len, parts)) == len(pairs) == len(whole)
    assert pairs == set(zip(whole.device.tolist(), whole.number.tolist(), strict=True))
    same = whole.device[1:] == whole.device[:-1]
    assert (np.diff(whole.time_us)[same] > 0).all(), "a device's reports are not in order of time"
    last = last_reports(calendar, OPTIONS.start_us, OPTIONS.end_us, DAY_US, int(whole.device.max()) + 1)
    assert dict(zip(last.device.tolist(), last.time_us.tolist(), strict=True)) == dict(
        zip(whole.device.tolist(), whole.time_us.tolist(), strict=True)
    )


def test_sizes() -> None:
    fleet = fleet_of()
    assert len(fleet) == 400
    assert set(fleet.cadence.tolist()) <= set(CADENCES)
    assert np.bincount(fleet.project, minlength=8).min() >= 1, "a project has no device"
    assert abs(fleet.expected - 60_000) < 3_000
    reports = Calendar(fleet).between(OPTIONS.start_us, OPTIONS.end_us)
    assert abs(len(Maker(fleet, np.zeros(len(fleet), np.int32)).make(OPTIONS.start_us, OPTIONS.end_us).series) - fleet.expected) < 3_000
    assert (reports.time_us < OPTIONS.end_us + 1_000_000).all()


def test_the_fleet_of_the_defaults() -> None:
    options = HistoryOptions(1, END_US - 90 * DAY_US, END_US)
    fleet = fleet_of(options)
    assert len(fleet) == 100_000
    assert len(np.unique(fleet.project)) == 10_000
    assert 50_000_000 <= fleet.expected <= 1.02 * MEASUREMENTS
    assert len(fleet_of(replace(options, projects=3))) == 45_000, "small fleets have 150 series for each project"


def test_devices_for_each_project() -> None:
    fleet = fleet_of(replace(OPTIONS, series=0, devices=5))
    assert len(fleet.cadence) == 40


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"end_us": OPTIONS.start_us}, "--history must be a period"),
        ({"tenants": 0}, "--tenants and --projects must be at least 1"),
        ({"series": 39}, "--series must be at least 5 for each of the 8 projects"),
        ({"devices": 2}, "--devices and --series exclude each other"),
    ],
)
def test_contradictions(change: dict[str, int], message: str) -> None:
    with pytest.raises(HistoryError, match=message):
        replace(OPTIONS, **change)
