"""Every query of grafana/dashboards on a real database, as the role Grafana logs in with: it has rows, is quick, and reads views only."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from grafana.source.queries import SOURCE
from ingest_daemon.home import PACKAGES
from iot_platform.database import connect
from iot_platform.settings import Settings
from iot_platform_tests.support.feeds.accountant import Accountant
from iot_platform_tests.support.feeds.dashboards import CHOICES, fill
from iot_platform_tests.support.feeds.drain import query
from iot_platform_tests.support.oracles.grafana_macros import Range, Value, duration_ms, expand

LIMIT_MS = 200
ATTEMPTS = 3
VIEWS = {
    "audit_daemon",
    "batch_named",
    "latest_named",
    "measurement_1d_named",
    "measurement_1h_named",
    "measurement_by_series",
    "message_named",
    "partition_progress",
    "project_named",
    "quality_incident_named",
    "quality_named",
    "quality_open",
    "quality_progress",
    "quarantine_named",
    "series_named",
    "source_named",
    "traffic_1h",
}
PERIODS = (timedelta(hours=1), timedelta(hours=6), timedelta(days=7), timedelta(days=200))
HISTORIES = ("panel Values", "panel History of the metric")
WHOLE: dict[timedelta, Callable[[datetime], bool]] = {
    PERIODS[0]: lambda time: time.second % 10 != 0,  # the step of an hour's range on 500 points
    PERIODS[2]: lambda time: (time.minute, time.second) != (0, 0),
    PERIODS[3]: lambda time: (time.hour, time.minute, time.second) != (0, 0, 0),
}
# Which relations a query reads, as the database itself parsed it: those its view depends on.
DEPENDENCIES = """
SELECT DISTINCT c.relname FROM pg_rewrite r
JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass
    AND d.refobjid <> r.ev_class
JOIN pg_class c ON c.oid = d.refobjid
WHERE r.ev_class = 'probe'::regclass"""


@dataclass(frozen=True)
class Question:
    """One query of a dashboard, and how its panel asks it."""

    place: str
    sql: str
    points: int = 1000
    least_ms: int = 1


def questions(path: Path) -> Iterator[Question]:
    """Variables, annotations and panels of one dashboard that ask the database."""
    board = json.loads(path.read_text("utf-8"))
    for variable in board["templating"].get("list", []):
        if variable["datasource"] != SOURCE.to_json():
            continue
        yield Question(f"{path.name}: variable {variable['name']}", variable["query"])
    for mark in board["annotations"].get("list", []):
        yield Question(f"{path.name}: annotation {mark['name']}", mark["target"]["rawSql"])
    for panel in board["panels"]:
        for target in panel.get("targets", []) if panel.get("datasource") == SOURCE.to_json() else []:
            least = duration_ms(panel["interval"]) if "interval" in panel else 1
            yield Question(f"{path.name}: panel {panel['title']}", target["rawSql"], int(panel.get("maxDataPoints", 1000)), least)


QUESTIONS = [item for path in sorted((PACKAGES / "grafana" / "dashboards").glob("*.json")) for item in questions(path)]


def ask(connection: Any, sql: str) -> list[tuple[Any, ...]]:
    """Its rows; a query beyond the limit is asked again, and fails when that happens each time."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql)
                return list(cursor.fetchall())
        except psycopg2.errors.QueryCanceled:
            connection.rollback()
            if attempt == ATTEMPTS:
                raise
    raise AssertionError


def relations(connection: Any, sql: str) -> set[str]:
    """What the query reads."""
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE TEMPORARY VIEW probe AS SELECT 1 FROM ({sql}) q")
        cursor.execute(DEPENDENCIES)
        found = {name for (name,) in cursor.fetchall()}
    connection.rollback()
    return found


def test_every_query_has_rows_is_quick_and_reads_views_only(settings: Settings, accountant: Accountant) -> None:
    fill(settings, accountant)
    query(settings, "ANALYZE")
    now = datetime.now(UTC) + timedelta(seconds=1)
    wrong: list[str] = []
    read: set[str] = set()
    with closing(connect(settings, "reader")) as reader, closing(connect(settings, "admin")) as owner:
        with reader.cursor() as cursor:
            cursor.execute("SELECT current_user")
            assert cursor.fetchone() == ("iot_reader",)
            cursor.execute(f"SET statement_timeout = '{LIMIT_MS}ms'")
            cursor.execute("SET jit = off")  # as migrations set it for the database; the test's is a copy, and copies lose that
        reader.commit()
        for item in QUESTIONS:
            for period in PERIODS:
                sql = expand(item.sql, Range(now - period, now, item.points, item.least_ms), CHOICES, {})
                try:
                    found = ask(reader, sql)
                except psycopg2.Error as error:
                    wrong.append(f"{item.place}, {period}: {error}")
                    reader.rollback()
                    continue
                reader.rollback()
                if period in WHOLE and item.place.endswith(HISTORIES) and any(WHOLE[period](row[0]) for row in found):
                    wrong.append(f"{item.place}, {period}: not the rollup that belongs to this range")
                if not found or not any(value is not None for row in found for value in row):
                    wrong.append(f"{item.place}, {period}: no rows")
            used = relations(owner, sql)
            read |= used
            if used - VIEWS:
                wrong.append(f"{item.place} reads {sorted(used - VIEWS)}")
    assert wrong == []
    assert read == VIEWS


@pytest.mark.parametrize("choice", ["All", "several", "a quote"])
def test_every_way_to_choose_is_valid_sql(settings: Settings, choice: str) -> None:
    """All inserts its value as it is, several are a list, and an id may hold what SQL knows as a sign."""
    now = datetime.now(UTC)
    with closing(connect(settings, "reader")) as reader, reader.cursor() as cursor:
        for item in QUESTIONS:
            board = json.loads((PACKAGES / "grafana" / "dashboards" / item.place.split(":")[0]).read_text("utf-8"))
            variables = {variable["name"]: variable for variable in board["templating"].get("list", [])}
            values: dict[str, Value] = {}
            for name, variable in variables.items():
                values[name] = {"several": ["a", "b"], "a quote": "o'neil; \\ --", "All": "a"}[choice] if variable["multi"] else "o'neil"
            every = (
                {name: variable["allValue"] for name, variable in variables.items() if variable.get("includeAll")}
                if choice == "All"
                else {}
            )
            cursor.execute(expand(item.sql, Range(now - timedelta(hours=6), now, item.points, item.least_ms), values, every))
            cursor.fetchall()
