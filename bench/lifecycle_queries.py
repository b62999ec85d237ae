"""The queries of people and dashboards that must stay quick on a large database, and the price of one late measurement."""

import random
import statistics
import time
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.database import connect
from iot_platform.settings import Settings

HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Timed:
    """Milliseconds of several runs, each for another device or project, as the client sees them; planning included."""

    what: str
    limit_ms: float | None
    rows: float
    median_ms: float
    worst_ms: float


QUERIES: tuple[tuple[str, float | None, str], ...] = (
    (
        "measurement_named: one device, one day",
        50,
        "SELECT time, metric, value FROM measurement_named WHERE tenant_id = %(tenant)s AND project_id = %(project)s"
        " AND device_id = %(device)s AND time >= %(day)s AND time < %(next)s ORDER BY time",
    ),
    (
        "measurement_named: one device, the last 24 hours",
        None,
        "SELECT time, metric, value FROM measurement_named WHERE tenant_id = %(tenant)s AND project_id = %(project)s"
        " AND device_id = %(device)s AND time > now() - interval '24 hours' ORDER BY time",
    ),
    (
        "measurement_named: one device, 90 days",
        None,
        "SELECT time, metric, value FROM measurement_named WHERE tenant_id = %(tenant)s AND project_id = %(project)s"
        " AND device_id = %(device)s AND time > now() - interval '90 days' ORDER BY time",
    ),
    (
        "measurement_named: the newest 100 of one series, no bound of time",
        None,
        "SELECT time, value FROM measurement_named WHERE series_id = %(series)s ORDER BY time DESC LIMIT 100",
    ),
    ("latest_named: one project", 20, "SELECT * FROM latest_named WHERE tenant_id = %(tenant)s AND project_id = %(project)s"),
    (
        "measurement_1h: one series, 90 days",
        100,
        "SELECT bucket, value_avg, value_min, value_max FROM measurement_1h WHERE series_id = %(series)s"
        " AND bucket > now() - interval '90 days' ORDER BY bucket",
    ),
    (
        "measurement_1h_named: one device, 90 days",
        None,
        "SELECT bucket, metric, value_avg FROM measurement_1h_named WHERE tenant_id = %(tenant)s AND project_id = %(project)s"
        " AND device_id = %(device)s AND bucket > now() - interval '90 days' ORDER BY bucket",
    ),
    (
        "measurement_1d_named: one project, 90 days",
        None,
        "SELECT bucket, device_id, metric, value_avg FROM measurement_1d_named WHERE tenant_id = %(tenant)s AND project_id = %(project)s"
        " AND bucket > now() - interval '90 days' ORDER BY bucket",
    ),
)


def time_queries(settings: Settings, runs: int) -> list[Timed]:
    """Every query over one connection of the reader's, `runs` times for random devices, after one run that is not counted."""
    with closing(connect(settings, "reader", "bench")) as connection:
        connection.autocommit = True
        places = _places(connection, runs + 1)
        return [_timed(connection, what, limit, text, places) for what, limit, text in QUERIES]


def _timed(connection: Connection, what: str, limit: float | None, text: str, places: list[dict[str, Any]]) -> Timed:
    times, rows = [], []
    for place in places:
        begun = time.perf_counter()
        with connection.cursor() as cursor:
            cursor.execute(text, place)
            rows.append(len(cursor.fetchall()))
        times.append((time.perf_counter() - begun) * 1000)
    return Timed(what, limit, statistics.median(rows[1:]), statistics.median(times[1:]), max(times[1:]))


def _places(connection: Connection, count: int) -> list[dict[str, Any]]:
    """Random series with their names, and a random day of the past weeks."""
    rng = random.Random(1)
    places = []
    with connection.cursor() as cursor:
        cursor.execute("SELECT min(series_id), max(series_id) FROM series")
        first, last = cursor.fetchone() or (0, 0)
        while len(places) < count:
            cursor.execute(
                "SELECT tenant_id, project_id, device_id, series_id FROM series WHERE series_id = %s", (rng.randint(first, last),)
            )
            if row := cursor.fetchone():
                day = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=rng.randint(1, 60))
                names = ("tenant", "project", "device", "series")
                places.append({**dict(zip(names, row, strict=True)), "day": day, "next": day + 24 * HOUR})
    return places


def time_late_row(settings: Settings, runs: int) -> list[Timed]:
    """One measurement of a month ago with its note as a drain writes it, and the rollups' batch that follows."""
    from iot_platform.database.locks import lock_key
    from iot_platform.telemetry.drain import rollup_notes

    insert, refresh = [], []
    with closing(connect(settings, application_name="bench")) as connection:
        places = _places(connection, runs + 1)
        for number, place in enumerate(places):
            at = place["day"] + timedelta(hours=3, microseconds=number * 7 + 1)
            begun = time.perf_counter()
            with connection, connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_xact_lock_shared(%s)", (lock_key(rollup_notes.THRESHOLD_LOCK),))
                cursor.execute("SELECT notes_below FROM rollup_state")
                cursor.execute("INSERT INTO measurement (time, series_id, value) VALUES (%s, %s, 1)", (at, place["series"]))
                note = (place["series"], at.replace(minute=0, second=0, microsecond=0))
                cursor.execute("INSERT INTO rollup_change (series_id, bucket) VALUES (%s, %s)", note)
            middle = time.perf_counter()
            with connection, connection.cursor() as cursor:
                cursor.execute("SELECT rollup_refresh(2000)")
            insert.append((middle - begun) * 1000)
            refresh.append((time.perf_counter() - middle) * 1000)
    return [
        Timed("one late measurement: insert, note, commit", None, 1, statistics.median(insert[1:]), max(insert[1:])),
        Timed(
            "one late measurement: rollup_refresh brings hour and day up to date", None, 1, statistics.median(refresh[1:]), max(refresh[1:])
        ),
    ]


def explain(settings: Settings) -> str:
    """The plan of each query, for a look by people."""
    with closing(connect(settings, "reader", "bench")) as connection, connection.cursor() as cursor:
        place = _places(connection, 1)[0]
        parts = []
        for what, _, text in QUERIES:
            cursor.execute("EXPLAIN (ANALYZE, BUFFERS) " + text, place)
            parts.append(f"-- {what}\n" + "\n".join(row[0] for row in cursor.fetchall()))
    return "\n\n".join(parts)


__all__ = ["QUERIES", "Timed", "explain", "time_late_row", "time_queries"]
