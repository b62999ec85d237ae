"""What a tenant's views cost beside the same question to the owner's views, on millions of measurements.

`python -m bench.tenant_views OWNER_URL [million rows]`: OWNER_URL is a migrated, empty database as its owner, who may create roles.
Fills it (20 tenants, 2,000 series, 27 days), prints the fastest and the median of 15 runs, and fails unless the plans use the unique index
and exclude chunks.
"""

import json
import statistics
import sys
import time
from typing import Any

import psycopg2
from psycopg2.extensions import make_dsn, parse_dsn

from iot_platform.tenants.access import grant, revoke
from iot_platform_tests.support.oracles.query_plans import nodes

TENANT = "tenant-7"
FILL = """
INSERT INTO project (tenant_id, project_id) SELECT 'tenant-' || t, 'project-' || p FROM generate_series(1, 20) t, generate_series(1, 5) p;
INSERT INTO series (identity, tenant_id, project_id, device_id, metric)
SELECT sha256(concat_ws('/', t, p, d, m)::bytea), 'tenant-' || t, 'project-' || p, concat_ws('-', 'device', t, p, d), m
FROM generate_series(1, 20) t, generate_series(1, 5) p, generate_series(1, 5) d,
     unnest(ARRAY['temperature', 'humidity', 'pressure', 'flow']) m;
INSERT INTO measurement (time, series_id, value)
SELECT timestamptz '2025-06-01 00:00+0' + g * interval '27 days' / {points}, series_id, g % 97
FROM generate_series(0, {points} - 1) g, series ORDER BY series_id, 1;
INSERT INTO series_latest (time, series_id, value) SELECT '2025-06-27 23:59+0', series_id, 1 FROM series;
"""
QUESTIONS = {
    "a metric of a device, 2 days": "SELECT time, value FROM {measurement} WHERE {mine}"
    " device_id = 'device-7-2-3' AND metric = 'flow' AND time >= '2025-06-10' AND time < '2025-06-12' ORDER BY time",
    "a project, 1 day, hourly": "SELECT {bucket}('1 hour', time), metric, avg(value) FROM {measurement} WHERE {mine}"
    " project_id = 'project-2' AND time >= '2025-06-10' AND time < '2025-06-11' GROUP BY 1, 2",
    "a metric of a device, all": "SELECT time, value FROM {measurement} WHERE {mine} device_id = 'device-7-2-3' AND metric = 'flow'",
    "everything, counted": "SELECT count(*) FROM {measurement} WHERE {mine} true",
    "latest values of a project": "SELECT * FROM {latest} WHERE {mine} project_id = 'project-2'",
}
OWNER = {"measurement": "measurement_named", "latest": "latest_named", "bucket": "time_bucket", "mine": f"tenant_id = '{TENANT}' AND"}
LOGIN = {"measurement": "tenant.measurement", "latest": "tenant.latest", "bucket": "tenant.time_bucket", "mine": ""}


def main(url: str, millions: float) -> None:
    owner = psycopg2.connect(url)
    with owner.cursor() as cursor:
        cursor.execute(FILL.format(points=int(millions * 1e6 / 2000)))
    owner.commit()
    owner.autocommit = True
    owner.cursor().execute("VACUUM ANALYZE")
    login = grant(owner, TENANT)
    tenant = psycopg2.connect(make_dsn(**parse_dsn(url) | {"user": login.role, "password": login.password}))
    tenant.autocommit = True
    for name, question in QUESTIONS.items():
        direct, own = (_times(session, question.format(**names)) for session, names in ((owner, OWNER), (tenant, LOGIN)))
        print(f"{name:32} owner {direct}   tenant {own}")
    _check_plan(tenant, QUESTIONS["a metric of a device, 2 days"].format(**LOGIN))
    tenant.close()
    owner.autocommit = False
    revoke(owner, TENANT)


def _times(session: Any, question: str) -> str:
    taken = []
    for _ in range(15):
        with session.cursor() as cursor:
            began = time.perf_counter()
            cursor.execute(question)
            cursor.fetchall()
            taken.append((time.perf_counter() - began) * 1000)
    return f"{min(taken):8.2f} / {statistics.median(taken):8.2f} ms"


def _check_plan(session: Any, question: str) -> None:
    """Two of the 27 chunks, each by the unique index, with series and time in its condition."""
    with session.cursor() as cursor:
        cursor.execute("EXPLAIN (FORMAT JSON) " + question)
        scans = [node for node in nodes(cursor.fetchone()[0]) if "chunk" in node.get("Relation Name", "")]
    assert len(scans) == 2, json.dumps(scans)
    assert all("series_id_time_key" in node["Index Name"] and '"time" >=' in node["Index Cond"] for node in scans), json.dumps(scans)
    print("plan: 2 chunks, by the unique index (series_id, time)")


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 5)
