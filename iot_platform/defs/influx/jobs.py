"""The job that works a shift for one InfluxDB."""

import dagster as dg

follow_influx = dg.define_asset_job(
    "follow_influx",
    selection=dg.AssetSelection.assets("sink_offset"),
    description="Brings one InfluxDB what was committed since its last shift; the run's tag iot/sink names it where there are several.",
)
