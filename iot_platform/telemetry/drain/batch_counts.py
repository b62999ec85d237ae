"""Counts a batch: per partition for the ledger, per hour, project and partition for accounting_1h."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from psycopg2.extras import execute_values

from iot_platform.database.interval import interval
from iot_platform.telemetry.counters import COUNTERS, Counts
from iot_platform.telemetry.decode.result import LocalTimesOfRecord
from iot_platform.telemetry.drain.catalog import Project
from iot_platform.telemetry.drain.progress import PartitionProgress, Progress, ProjectProgress
from iot_platform.telemetry.drain.values import ADDED, CONFLICT, CONFLICTING, DUPLICATE, has_outcome
from iot_platform.telemetry.records import Generations, LastRecord, Ranges

HOUR_US: Final = 3_600_000_000

_LEDGER: Final = """
INSERT INTO ledger (kind, kafka_topic, topic_id, run_id, kafka_partition, log_generation, leader_epoch, from_offset, to_offset,
    empty_offsets, messages, duplicates, quarantined, measurements, measurement_duplicates, measurement_conflicts, first_received_at,
    last_received_at) VALUES %s RETURNING kafka_partition, batch_id"""
_TIME: Final = "'epoch'::timestamptz + %s::interval"
_LEDGER_ROW: Final = f"('drain', {', '.join(['%s'] * 15)}, {_TIME}, {_TIME})"
_ACCOUNTING: Final = """
INSERT INTO accounting_1h AS a (hour, tenant_id, project_id, kafka_partition, messages, duplicates, quarantined,
    measurements, measurement_duplicates, measurement_conflicts, first_offset, last_offset, conflict_example, last_received_at,
    last_committed_at) VALUES %s
ON CONFLICT (hour, tenant_id, project_id, kafka_partition) DO UPDATE SET
    messages = a.messages + excluded.messages,
    duplicates = a.duplicates + excluded.duplicates,
    quarantined = a.quarantined + excluded.quarantined,
    measurements = a.measurements + excluded.measurements,
    measurement_duplicates = a.measurement_duplicates + excluded.measurement_duplicates,
    measurement_conflicts = a.measurement_conflicts + excluded.measurement_conflicts,
    first_offset = least(a.first_offset, excluded.first_offset),
    last_offset = greatest(a.last_offset, excluded.last_offset),
    conflict_example = coalesce(a.conflict_example, excluded.conflict_example),
    last_received_at = greatest(a.last_received_at, excluded.last_received_at),
    last_committed_at = excluded.last_committed_at"""
_ACCOUNTING_ROW: Final = f"({_TIME}, {', '.join(['%s'] * 11)}, %s::jsonb, {_TIME}, clock_timestamp())"


@dataclass(slots=True)
class Group(Counts):
    """Records of one hour (µs of its start), project and partition. `conflict_at`: the first conflict among the measurements (-1: none);
    `conflict_example`: what conflict_examples made of it, JSON."""

    hour: int = 0
    project: Project = ("", "")
    partition: int = 0
    first_offset: int = 0
    last_offset: int = 0
    last_received_at: int = 0
    conflict_at: int = -1
    conflict_example: str | None = None


@dataclass(slots=True)
class Outcome:
    """What a batch became; complete before its commit, counted as progress after it."""

    ranges: Ranges
    groups: list[Group]
    reasons: Counter[str]
    partition: npt.NDArray[np.int32]  # [n]
    received_at: npt.NDArray[np.int64]  # [n]
    bad: npt.NDArray[np.bool_]  # [n]
    empty: dict[int, int] = field(default_factory=dict)
    last: dict[int, LastRecord] = field(default_factory=dict)
    generations: Generations = field(default_factory=dict)
    local_times: list[LocalTimesOfRecord] = field(default_factory=list)
    batches: dict[int, int] = field(default_factory=dict)
    """Partition → the ledger's batch_id."""

    def by_partition(self) -> dict[int, Counts]:
        """Sums per Kafka partition of the ranges."""
        sums = {partition: Counts() for partition in self.ranges}
        for group in self.groups:
            sums[group.partition].add(group)
        return sums


def group(
    *,
    partition: npt.NDArray[np.int32],
    offset: npt.NDArray[np.int64],
    received_at: npt.NDArray[np.int64],
    project: npt.NDArray[np.int32],
    projects: list[Project],
    duplicate: npt.NDArray[np.bool_],
    bad: npt.NDArray[np.bool_],
    measurement_row: npt.NDArray[np.int32],
    measurement_outcome: npt.NDArray[np.uint8],
) -> list[Group]:
    """Count n records (columns) and their measurements (record and outcome of each). One that is kept beside another value is a measurement
    and a conflict."""
    if not len(partition):
        return []
    hour = received_at // HOUR_US
    first_hour = int(hour.min())
    key = ((hour - first_hour) * len(projects) + project) * (int(partition.max()) + 1) + partition
    _, example, member = np.unique(key, return_index=True, return_inverse=True)
    count = len(example)
    of_measurement = member[measurement_row]
    sums = {
        "messages": np.bincount(member[~bad], minlength=count),
        "duplicates": np.bincount(member[duplicate], minlength=count),
        "quarantined": np.bincount(member[bad], minlength=count),
        "measurements": np.bincount(of_measurement[has_outcome(measurement_outcome, ADDED)], minlength=count),
        "measurement_duplicates": np.bincount(of_measurement[measurement_outcome == DUPLICATE], minlength=count),
        "measurement_conflicts": np.bincount(of_measurement[has_outcome(measurement_outcome, CONFLICTING)], minlength=count),
    }
    last_offset, last_received = np.zeros(count, np.int64), np.zeros(count, np.int64)
    first_offset = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(first_offset, member, offset)
    np.maximum.at(last_offset, member, offset)
    np.maximum.at(last_received, member, received_at)
    conflict_at = _first_of_each(of_measurement, measurement_outcome == CONFLICT, count)
    return [
        Group(
            **_counters_at(sums, index),
            hour=int(hour[row]) * HOUR_US,
            project=projects[project[row]],
            partition=int(partition[row]),
            first_offset=int(first_offset[index]),
            last_offset=int(last_offset[index]),
            last_received_at=int(last_received[index]),
            conflict_at=conflict_at[index],
        )
        for index, row in enumerate(example.tolist())
    ]


def _counters_at(sums: dict[str, npt.NDArray[np.intp]], index: int) -> dict[str, Any]:
    return {name: int(sums[name][index]) for name in COUNTERS}


def _first_of_each(member: npt.NDArray[np.intp], chosen: npt.NDArray[np.bool_], count: int) -> list[int]:
    """Of each of `count` groups, the first chosen position; -1 where none is."""
    first = np.full(count, -1)
    positions = np.flatnonzero(chosen)
    if len(positions):
        groups, at = np.unique(member[positions], return_index=True)
        first[groups] = positions[at]
    found: list[int] = first.tolist()
    return found


def write(cursor: Cursor, outcome: Outcome, topic: str, topic_id: str, run_id: str) -> None:
    """Add the batch to ledger and accounting_1h, inside the caller's transaction."""
    sums = outcome.by_partition()
    ledger: list[tuple[Any, ...]] = []
    for partition, (start, end) in sorted(outcome.ranges.items()):
        times = outcome.received_at[outcome.partition == partition]
        edges = (interval(times.min()), interval(times.max())) if len(times) else (None, None)
        empty = outcome.empty.get(partition, 0)
        epoch = outcome.last[partition].leader_epoch if partition in outcome.last else None
        ledger.append(
            (
                topic,
                topic_id,
                run_id,
                partition,
                outcome.generations.get(partition, 0),
                epoch,
                start,
                end,
                empty,
                *_counters(sums[partition]),
                *edges,
            )
        )
    outcome.batches = dict(execute_values(cursor, _LEDGER, ledger, template=_LEDGER_ROW, fetch=True))
    write_hours(cursor, outcome.groups)


def write_hours(cursor: Cursor, groups: list[Group]) -> None:
    """Add groups to accounting_1h, always in the same order of rows, so that two writers never wait for each other in a circle."""
    rows = [
        (
            interval(item.hour),
            *item.project,
            item.partition,
            *_counters(item),
            item.first_offset,
            item.last_offset,
            item.conflict_example,
            interval(item.last_received_at),
        )
        for item in sorted(groups, key=lambda item: (item.hour, item.project, item.partition))
    ]
    if rows:
        execute_values(cursor, _ACCOUNTING, rows, template=_ACCOUNTING_ROW, page_size=1000)


def add(progress: Progress, outcome: Outcome, now_us: int) -> None:
    """Count a committed batch."""
    for partition, (start, end) in outcome.ranges.items():
        item = progress.partitions.get(partition)
        if item is None:
            item = progress.partitions[partition] = PartitionProgress(from_offset=start)
        mine = outcome.partition == partition
        item.to_offset, item.batches, item.last_committed_at = end, item.batches + 1, now_us
        if mine.any():
            times = outcome.received_at[mine]
            item.first_received_at = min(int(times.min()), item.first_received_at or int(times.min()))
            item.last_received_at = max(int(times.max()), item.last_received_at or 0)
            item.note_freshness(now_us - times)
            item.note_quality(outcome.bad[mine])
        progress.changed_partitions.add(partition)
    for part in outcome.groups:
        progress.partitions[part.partition].add(part)
        project = progress.projects.setdefault(part.project, ProjectProgress(tenant=part.project[0], project=part.project[1]))
        project.add(part)
        project.last_received_at = max(part.last_received_at, project.last_received_at or 0)
        first, last = project.offsets.get(part.partition, (part.first_offset, part.last_offset))
        project.offsets[part.partition] = (min(first, part.first_offset), max(last, part.last_offset))
        progress.changed_projects.add(part.project)
    progress.reasons.update(outcome.reasons)
    for row, ambiguous, skipped in outcome.local_times:
        item = progress.partitions[int(outcome.partition[row])]
        item.ambiguous_times += ambiguous
        item.skipped_times += skipped


def _counters(counts: Counts) -> tuple[int, ...]:
    return tuple(getattr(counts, name) for name in COUNTERS)
