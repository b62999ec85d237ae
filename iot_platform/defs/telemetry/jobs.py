"""Jobs of the telemetry stage: draining, and checking what was drained."""

import dagster as dg

drain = dg.define_asset_job(
    "drain",
    selection=dg.AssetSelection.assets("message", "measurement", "quarantine").without_checks(),
    description="Drains Kafka into message, measurement and quarantine. The sensor kafka_lag starts it as shifts that hand over to each "
    "other; launched by hand it drains the chosen partitions until they are caught up, then ends.",
)

check_telemetry = dg.define_asset_job(
    "check_telemetry",
    selection=dg.AssetSelection.checks_for_assets("message", "quarantine"),
    description="Evaluates the checks of the drained tables, so that their state is known while no shift runs.",
)
