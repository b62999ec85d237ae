"""Purges Dagster's run history without losing what the UI shows: delete_run takes a run's materializations with it."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import dagster as dg
from dagster import DagsterEventType, DagsterRunStatus, EventRecordsFilter, RunsFilter

from iot_platform.orchestration.lag_watch import JOB

_FINISHED: Final = [DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED]
_PAGE: Final = 500
_NEWEST_DRAINS: Final = 20


@dataclass(frozen=True)
class Purged:
    """What a purge did."""

    deleted: int
    kept: int


def purge_runs(instance: dg.DagsterInstance, older_than_days: float, now: datetime | None = None) -> Purged:
    """Delete finished runs created before then. Kept: runs with the newest materialization of any asset partition, and the newest drains
    (the sensor derives run keys from them)."""
    before = (now or datetime.now(UTC)) - timedelta(days=older_than_days)
    keep = runs_of_latest_materializations(instance)
    keep |= {run.run_id for run in instance.get_runs(RunsFilter(job_name=JOB), limit=_NEWEST_DRAINS)}
    old = _run_ids(instance, before)
    doomed = [run_id for run_id in old if run_id not in keep]
    for run_id in doomed:
        instance.delete_run(run_id)
    return Purged(len(doomed), len(old) - len(doomed))


def runs_of_latest_materializations(instance: dg.DagsterInstance) -> set[str]:
    """Ids of the runs that hold the newest materialization of an asset, or of one of its partitions."""
    runs: set[str] = set()
    ids: list[int] = []
    for asset_key in instance.all_asset_keys():
        latest = instance.get_latest_materialization_event(asset_key)
        if latest is not None:
            runs.add(latest.run_id)
        ids += instance.event_log_storage.get_latest_storage_id_by_partition(asset_key, DagsterEventType.ASSET_MATERIALIZATION).values()
    for start in range(0, len(ids), _PAGE):
        wanted = EventRecordsFilter(event_type=DagsterEventType.ASSET_MATERIALIZATION, storage_ids=ids[start : start + _PAGE])
        runs |= {record.run_id for record in instance.event_log_storage.get_event_records(wanted)}
    return runs


def _run_ids(instance: dg.DagsterInstance, before: datetime) -> list[str]:
    """Finished runs created before then, collected before the first is deleted so that paging is not disturbed."""
    found: list[str] = []
    cursor: str | None = None
    while True:
        page = instance.get_run_ids(RunsFilter(statuses=_FINISHED, created_before=before), cursor=cursor, limit=_PAGE)
        found += page
        if len(page) < _PAGE:
            return found
        cursor = page[-1]
