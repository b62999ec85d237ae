"""How a rollup run and its check show in Dagster."""

from collections.abc import Iterator

import dagster as dg

from iot_platform.rollups import RollupResult, roll_up
from iot_platform.rollups.check import Comparison, choose_sample, compare
from iot_platform.settings import Settings

HOURS, DAYS = "measurement_1h", "measurement_1d"
CHECK = "rollup_equals_measurement"


def run_rollups(context: dg.AssetExecutionContext, settings: Settings) -> Iterator[dg.MaterializeResult]:  # type: ignore[type-arg]
    """Bring both rollups up to date; they are kept together, whichever was selected."""
    result = roll_up(settings)
    context.log.info("rollups: %s", result.as_json())
    for key in (HOURS, DAYS):
        if dg.AssetKey(key) in context.op_execution_context.selected_asset_keys:
            yield dg.MaterializeResult(asset_key=key, metadata=_metadata(result))


def _metadata(result: RollupResult) -> dict[str, dg.MetadataValue]:
    shown: dict[str, dg.MetadataValue] = {
        "rows": dg.MetadataValue.int(result.rows),
        "buckets": dg.MetadataValue.int(result.changed),
        "notes": dg.MetadataValue.int(result.notes),
        "notes_beyond_retention": dg.MetadataValue.int(result.discarded),
        "notes_left": dg.MetadataValue.int(result.notes_left),
        "seconds": dg.MetadataValue.float(result.seconds),
        "batches": dg.MetadataValue.int(result.batches),
        "complete": dg.MetadataValue.bool(result.complete),
    }
    for name, time in (("threshold_before", result.threshold_before), ("threshold", result.threshold_after)):
        if time is not None:
            shown[name] = dg.MetadataValue.timestamp(time)
    return shown | ({"hindered": dg.MetadataValue.text(result.hindered)} if result.hindered else {})


def evaluate_rollups(settings: Settings) -> dg.AssetCheckResult:
    """Compare a sample."""
    found = compare(settings, choose_sample(settings))
    return dg.AssetCheckResult(
        check_name=CHECK,
        asset_key=HOURS,
        passed=not found.different,
        severity=dg.AssetCheckSeverity.ERROR,
        metadata={"hours_compared": found.hours, "differences": found.different, **_examples(found)},
        description=f"{found.different} bucket(s) differ from measurement; `iot rollup rebuild` repairs them" if found.different else None,
    )


def _examples(found: Comparison) -> dict[str, dg.MetadataValue]:
    return {"examples": dg.MetadataValue.json(found.examples)} if found.examples else {}
