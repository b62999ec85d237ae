"""The sensors that keep tenants out of everybody's way, and do what users of the console ask for."""

import dagster as dg

from iot_platform.defs.maintenance.jobs import carry_out_actions
from iot_platform.orchestration.action_watch import watch_actions
from iot_platform.orchestration.tenant_session_watch import watch_tenant_sessions
from iot_platform.resources.platform import PlatformResource


@dg.sensor(
    asset_selection=dg.AssetSelection.assets("retention_removed"),
    minimum_interval_seconds=1,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Ends sessions of tenants' logins that stay in a transaction too long: they keep locks that retention and migrations wait "
    "for, and let the server's notifications pile up. Requests no runs.",
)
def tenant_sessions(platform: PlatformResource) -> dg.SkipReason:
    """One tick: up to TICK_SECONDS of looking."""
    return watch_tenant_sessions(platform.settings())


@dg.sensor(
    job=carry_out_actions,
    minimum_interval_seconds=1,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Does what users of the console asked for (table console_action): short writes at once, replays by a run of "
    "carry_out_actions.",
)
def console_actions(platform: PlatformResource) -> dg.SensorResult:
    """One tick: up to TICK_SECONDS of looking."""
    return watch_actions(platform.settings())
