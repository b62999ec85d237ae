"""The job that keeps the rollups."""

import dagster as dg

roll_up_measurements = dg.define_asset_job(
    "roll_up_measurements",
    selection=dg.AssetSelection.assets("measurement_1h", "measurement_1d"),
    description="Brings the hourly and daily rollups up to date, and compares samples with measurement.",
    tags={"dagster/max_runtime": "900"},
)
