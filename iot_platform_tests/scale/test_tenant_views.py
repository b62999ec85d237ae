"""A tenant's dashboard queries on millions of rows of all tenants: by the indexes, and only the chunks of the time asked for."""

from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.database import connect
from iot_platform.rollups import roll_up
from iot_platform.settings import Settings
from iot_platform.simulator.history import HistoryOptions
from iot_platform.simulator.history.fill import HistoryFill
from iot_platform.simulator.history.options import DAY_US
from iot_platform.tenants.access import grant
from iot_platform_tests.support.feeds.drain import query
from iot_platform_tests.support.feeds.tenants import drop_roles, open_login
from iot_platform_tests.support.oracles.query_plans import nodes
from iot_platform_tests.support.servers.stack import Servers

pytestmark = pytest.mark.scale
ROWS: Final = 5_000_000
DAYS: Final = 30


@pytest.mark.timeout(900)
def test_a_tenants_queries_use_the_indexes(settings: Settings, servers: Servers) -> None:
    end = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    end_us = int(end.timestamp()) * 1_000_000
    options = HistoryOptions(3, end_us - DAYS * DAY_US, end_us, tenants=20, projects=5, series=5_000, measurements=ROWS * 21 // 20)
    assert HistoryFill(settings, options).run().written >= ROWS
    assert roll_up(settings, 600).complete
    query(settings, "ANALYZE")
    tenant, project, device = query(settings, "SELECT tenant_id, project_id, device_id FROM series WHERE metric = 'temperature' LIMIT 1")[0]
    with closing(connect(settings, "admin")) as owner:
        login = grant(owner, tenant)
    place = {"project": project, "device": device, "since": end - timedelta(days=12), "until": end - timedelta(days=10)}
    with closing(open_login(settings, login)) as session:
        one = "project_id = %(project)s AND device_id = %(device)s AND metric = 'temperature'"
        scans = chunks(session, f"SELECT time, value FROM measurement WHERE {one} AND time >= %(since)s AND time < %(until)s", place)
        assert len(scans) in {2, 3}, "two days"
        assert all("series_id_time_key" in scan["Index Name"] and '"time" >=' in scan["Index Cond"] for scan in scans)
        scans = chunks(session, f"SELECT bucket, value_avg FROM measurement_1h WHERE {one} AND bucket >= %(since)s", place)
        stored = [scan for scan in scans if "Index Cond" in scan and "bucket >=" in scan["Index Cond"]]
        assert stored
        assert all("series_id" in scan["Index Cond"] for scan in scans), "of one series, stored and live"
        (plan,) = explain(session, "SELECT * FROM latest WHERE project_id = %(project)s", place)
        tables = {scan["Relation Name"]: scan["Node Type"] for scan in nodes(plan) if "Relation Name" in scan}
        assert tables["series"] != "Seq Scan", tables
    drop_roles(servers, login)


def explain(session: Connection, text: str, parameters: dict[str, Any]) -> list[Any]:
    """The plan."""
    with session.cursor() as cursor:
        cursor.execute("EXPLAIN (FORMAT JSON) " + text, parameters)
        return list(cursor.fetchone()[0])  # type: ignore[index]


def chunks(session: Connection, text: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    """The scans of chunks in a query's plan; there is at least one, and all are by an index."""
    found = [node for node in nodes(explain(session, text, parameters)) if "_chunk" in node.get("Relation Name", "")]
    assert found
    assert all("Index Name" in node for node in found), found
    return found
