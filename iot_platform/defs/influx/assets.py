"""How far each InfluxDB is in the ledger."""

from collections.abc import Iterator

import dagster as dg

from iot_platform.orchestration.influx_run import CHECK, run_shift
from iot_platform.resources.platform import PlatformResource


@dg.asset(
    group_name="influx",
    kinds={"influxdb"},
    deps=[dg.AssetDep(name, partition_mapping=dg.AllPartitionMapping()) for name in ("message", "measurement")],
    check_specs=[
        dg.AssetCheckSpec(CHECK, asset="sink_offset", description="The sink has what was committed 5 minutes ago: not late, no trouble.")
    ],
)
def sink_offset(context: dg.AssetExecutionContext, platform: PlatformResource) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:  # type: ignore[type-arg]
    """How far an InfluxDB (IOT_INFLUX_URL) is in the ledger: a shift brings it every measurement that is committed, with the value that the
    main store has, and moves its offsets when it has answered 204. Safe to run at any time, to kill and to repeat; `iot influx compare`
    proves that both stores agree."""
    yield from run_shift(context, platform.settings())
