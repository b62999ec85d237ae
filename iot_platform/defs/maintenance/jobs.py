"""Jobs that keep the database and Dagster's own history small."""

import dagster as dg

from iot_platform.orchestration import backup_run, compression_run, retention_run
from iot_platform.orchestration.action_watch import run_actions
from iot_platform.orchestration.run_history import purge_runs
from iot_platform.resources.platform import PlatformResource


@dg.op
def purge_runs_and_events(context: dg.OpExecutionContext, platform: PlatformResource) -> None:
    """Delete finished runs older than IOT_DAGSTER_HISTORY_DAYS with their events, but no run that an asset partition still shows."""
    result = purge_runs(context.instance, platform.settings().dagster_history_days)
    context.log.info("deleted %d runs, kept %d old ones that an asset partition shows", result.deleted, result.kept)


@dg.job(description="Deletes old runs and their events from Dagster's storage; each asset partition keeps its newest materialization.")
def purge_dagster_history() -> None:
    """One op."""
    purge_runs_and_events()


@dg.op
def carry_out_replays(context: dg.OpExecutionContext, platform: PlatformResource) -> None:
    """Do the replays that users of the console asked for, one after the other."""
    run_actions(context, platform.settings())


@dg.job(
    tags={"dagster/max_runtime": "43200"},
    description="Replays quarantined messages as users of the console asked; console_action has the progress. Safe to kill and to repeat.",
)
def carry_out_actions() -> None:
    """One op."""
    carry_out_replays()


remove_old_rows = dg.define_asset_job(
    "remove_old_rows",
    selection=dg.AssetSelection.assets(retention_run.ASSET),
    tags={"dagster/max_runtime": "7200"},
    description="Removes what is older than the retention policies keep, as `iot retention run` does.",
)

compress_old_chunks = dg.define_asset_job(
    "compress_old_chunks",
    selection=dg.AssetSelection.assets(compression_run.ASSET),
    description="Compresses old chunks and looks ahead at the disk. Safe to repeat, and to stop at any point.",
)

practise_restore = dg.define_asset_job(
    backup_run.DRILL_JOB,
    selection=dg.AssetSelection.assets(backup_run.DRILL_ASSET),
    tags={"dagster/max_runtime": "43200"},
    description="Restores the newest backup for practice, as `iot backup drill` does.",
)

back_up_database = dg.define_asset_job(
    backup_run.JOB,
    selection=dg.AssetSelection.assets(backup_run.ASSET),
    tags={"dagster/max_runtime": "43200"},
    description="Makes the backup that is due, as `iot backup create` does, and looks for holes in the archived WAL.",
)
