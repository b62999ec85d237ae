"""What the sensor tenant_sessions does in a tick: ends tenants' sessions that stay in a transaction too long."""

import time
from contextlib import closing
from typing import Final

import dagster as dg

from iot_platform.database import connect
from iot_platform.database.tenant_sessions import end_tenant_sessions
from iot_platform.orchestration.lag_watch import TICK_SECONDS
from iot_platform.settings import Settings

POLL_SECONDS: Final = 1.0
"""Behind a transaction that listens and never ends, the server's notifications pile up by 100 MB/s."""


def watch_tenant_sessions(settings: Settings) -> dg.SkipReason:
    """One tick: up to TICK_SECONDS of looking once a second.

    Raises:
        DatabaseError, psycopg2.Error: the database does not answer; the next tick tries again.
    """
    deadline, ended = time.monotonic() + TICK_SECONDS, 0
    with closing(connect(settings, application_name="dagster-tenant-sessions")) as connection:
        while True:
            ended += end_tenant_sessions(connection)
            if time.monotonic() + POLL_SECONDS >= deadline:
                return dg.SkipReason(f"{ended} sessions of tenants ended")
            time.sleep(POLL_SECONDS)
