"""Books of a replayed batch: ledger rows of kind replay and accounting_1h, both as changes against what was counted before."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from psycopg2.extras import execute_values

from iot_platform.database.interval import interval
from iot_platform.telemetry.counters import COUNTERS, Counts
from iot_platform.telemetry.drain import batch_counts
from iot_platform.telemetry.drain.batch_counts import Group
from iot_platform.telemetry.drain.conflict_examples import ConflictExamples
from iot_platform.telemetry.drain.values import ADDED, CONFLICTING, DUPLICATE
from iot_platform.telemetry.partitions import topic_of_partition
from iot_platform.telemetry.replay.plan import Bools, Work
from iot_platform.telemetry.retries import LedgerKey

_LEDGER: Final = """
INSERT INTO ledger (kind, kafka_topic, topic_id, run_id, detail, log_generation, kafka_partition, from_offset, to_offset, messages,
    duplicates, quarantined, measurements, measurement_duplicates, measurement_conflicts, first_received_at, last_received_at) VALUES %s"""
_TIME: Final = "'epoch'::timestamptz + %s::interval"
_LEDGER_ROW: Final = f"('replay', {', '.join(['%s'] * 14)}, {_TIME}, {_TIME})"
_COUNTED: Final = """
SELECT (extract(epoch FROM a.hour) * 1000000)::bigint, a.tenant_id, a.project_id, a.kafka_partition, a.messages, a.duplicates,
    a.quarantined, a.measurements, a.measurement_duplicates, a.measurement_conflicts
FROM accounting_1h a
JOIN (VALUES %s) v (hour, tenant_id, project_id, kafka_partition) USING (hour, tenant_id, project_id, kafka_partition)"""
_KEY: Final = f"({_TIME}, %s, %s, %s)"


@dataclass(frozen=True)
class Names:
    """How ledger rows name what was replayed."""

    topic: str
    topic_ids: dict[int, str]
    run_id: str


def write(cursor: Cursor, names: Names, work: Work) -> list[LedgerKey]:
    """Add what changed to ledger (one row for each partition's log) and accounting_1h, inside the caller's transaction; returns the keys of
    the ledger's rows, none if nothing changed. Restored records that a drain's batch counted are only named."""
    touched = work.leave | work.update | work.restore | work.stored & work.added
    records = work.plan.records
    groups: list[Group] = []
    rows: list[tuple[Any, ...]] = []
    for generation in np.unique(records.generation[touched]).tolist():
        of_log = records.generation == generation
        changes = _changes(work, of_log)
        groups = merged([*groups, *changes], [])
        rows += _rows(names, work, touched & of_log, changes, generation)
    if rows:
        execute_values(cursor, _LEDGER, rows, template=_LEDGER_ROW)
        groups = _bounded(cursor, groups)
        if work.values is not None:
            ConflictExamples().fill(cursor, groups, work.values, records)
        batch_counts.write_hours(cursor, groups)
    return [row[4:8] for row in rows]


def _rows(names: Names, work: Work, touched: Bools, groups: list[Group], generation: int) -> list[tuple[Any, ...]]:
    """Rows of ledger for the touched records, which are of one generation."""
    records = work.plan.records
    sums = {int(partition): Counts() for partition in np.unique(records.partition[touched])}
    for group in groups:
        sums[group.partition].add(group)
    rows: list[tuple[Any, ...]] = []
    for partition, counts in sorted(sums.items()):
        mine = touched & (records.partition == partition)
        offset, times = records.offset[mine], records.envelope.received_at[mine]
        place = (generation, partition, int(offset.min()), int(offset.max()) + 1)
        edges = (interval(times.min()), interval(times.max()))
        named = (topic_of_partition(partition, names.topic), names.topic_ids.get(partition, ""), names.run_id, _detail(work, mine))
        rows.append((*named, *place, *(getattr(counts, name) for name in COUNTERS), *edges))
    return rows


def _detail(work: Work, mine: Bools) -> str | None:
    what = "restored" if work.replayed.counted else "restored, counted by no batch before:"
    parts = {what: work.restore & mine, "reason brought up to date": work.update & mine}
    return "; ".join(f"{what} {int(mask.sum())}" for what, mask in parts.items() if mask.any()) or None


def _changes(work: Work, mine: Bools) -> list[Group]:
    """Of these records, what was counted before goes, what is true now comes."""
    everyone = np.arange(len(work.replayed))
    now = np.array([work.catalog.project_index(project) for project in work.projects(everyone)], np.int32)
    before = np.array([work.catalog.project_index(project) for project in work.replayed.project], np.int32)
    before_them = work.stored | work.restore & work.removed if work.replayed.counted else work.stored
    added = _groups(work, mine & before_them & work.added, now, bad=False, outcomes=ADDED)
    for group in added:  # the drain counted these messages, and their duplicates and conflicts
        group.messages = group.duplicates = group.measurement_conflicts = 0
    everything = (*{*ADDED, DUPLICATE, *CONFLICTING},)
    moved = _groups(work, mine & work.leave, now, bad=False, outcomes=everything)
    new = [*moved, *added, *_groups(work, mine & work.update, now, bad=True)]
    if not work.replayed.counted:
        is_bad = work.plan.is_bad
        new += _groups(work, mine & work.restore & ~is_bad, now, bad=False, outcomes=everything)
        new += _groups(work, mine & work.restore & is_bad, now, bad=True)
    return merged(new, _groups(work, mine & (work.leave | work.update), before, bad=True))


def _groups(work: Work, mask: Bools, project: Any, *, bad: bool, outcomes: tuple[int, ...] = ()) -> list[Group]:
    """The masked records as rows of one of the two tables, with their measurements of these outcomes."""
    rows, records = np.flatnonzero(mask), work.plan.records
    place = np.full(len(mask), -1, np.int32)
    place[rows] = np.arange(len(rows), dtype=np.int32)
    row_of = work.values.row if work.values is not None else np.zeros(0, np.int32)
    counted = np.isin(work.result, outcomes) & mask[row_of]
    groups = batch_counts.group(
        partition=records.partition[rows],
        offset=records.offset[rows],
        received_at=records.envelope.received_at[rows],
        project=project[rows],
        projects=work.catalog.projects,
        duplicate=work.plan.duplicate_of[rows] >= 0,
        bad=np.full(len(rows), bad),
        measurement_row=place[row_of[counted]],
        measurement_outcome=work.result[counted],
    )
    positions = np.flatnonzero(counted)
    for group in groups:
        if group.conflict_at >= 0:
            group.conflict_at = int(positions[group.conflict_at])
    return groups


def merged(plus: Iterable[Group], minus: Iterable[Group]) -> list[Group]:
    """The difference, one group for each hour, project and partition; those in which nothing changes are left out."""
    found: dict[tuple[Any, ...], Group] = {}
    for sign, groups in ((1, plus), (-1, minus)):
        for group in groups:
            key = (group.hour, group.project, group.partition)
            change = {name: sign * getattr(group, name) for name in COUNTERS}
            if key not in found:
                found[key] = replace(group, **change)
                continue
            known = found[key]
            known.add(Counts(**change))
            known.first_offset = min(known.first_offset, group.first_offset)
            known.last_offset = max(known.last_offset, group.last_offset)
            known.last_received_at = max(known.last_received_at, group.last_received_at)
            known.conflict_at = max(known.conflict_at, group.conflict_at)
    return [group for group in found.values() if any(getattr(group, name) for name in COUNTERS)]


def _bounded(cursor: Cursor, groups: list[Group]) -> list[Group]:
    """The groups without changes that would take a counter below zero, as where old rows of accounting_1h are gone."""
    falling = [group for group in groups if any(getattr(group, name) < 0 for name in COUNTERS)]
    if not falling:
        return groups
    keys = [(interval(group.hour), *group.project, group.partition) for group in falling]
    found = execute_values(cursor, _COUNTED, keys, template=_KEY, page_size=len(keys), fetch=True)
    counted = {(hour, (tenant, project), partition): counters for hour, tenant, project, partition, *counters in found}
    bounded = []
    for group in groups:
        now = counted.get((group.hour, group.project, group.partition), [0] * len(COUNTERS))
        bounded.append(replace(group, **{name: max(getattr(group, name), -count) for name, count in zip(COUNTERS, now, strict=True)}))
    return [group for group in bounded if any(getattr(group, name) for name in COUNTERS)]
