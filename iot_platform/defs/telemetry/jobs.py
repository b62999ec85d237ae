"""The job that drains Kafka into the database."""

import dagster as dg

from iot_platform.defs.partitions import kafka_partitions

drain = dg.define_asset_job(
    "drain",
    selection=dg.AssetSelection.assets("message", "measurement", "quarantine"),
    partitions_def=kafka_partitions,
    description="Drains Kafka into message, measurement and quarantine. The sensor kafka_lag starts it as shifts that hand over to each "
    "other; launched by hand it drains the chosen partitions until they are caught up, then ends.",
)
