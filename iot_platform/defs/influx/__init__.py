"""Stage 6, optional: InfluxDB servers that follow the ledger."""

import dagster as dg

from iot_platform.defs.influx.assets import sink_offset
from iot_platform.defs.influx.jobs import follow_influx
from iot_platform.defs.influx.sensors import influx_lag

DEFINITIONS = dg.Definitions(assets=[sink_offset], jobs=[follow_influx], sensors=[influx_lag])
