"""The job that judges what is new."""

import dagster as dg

evaluate_quality = dg.define_asset_job(
    "evaluate_quality",
    selection=dg.AssetSelection.assets("quality_result"),
    description="Judges what was committed since the last evaluation, and tells every rule's state as a check.",
)
