"""A simulated history: the same seed gives the same rows, whatever interrupts it, and the audit finds nothing amiss."""

import os
import signal
import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from typing import Any

import dagster as dg
import psycopg2
import pytest

from iot_platform.audit import run_audit
from iot_platform.cli import simulate_history
from iot_platform.cli.errors import CliError
from iot_platform.database import connect
from iot_platform.orchestration.dynamic_partitions import PROJECT, TENANT, sync_projects
from iot_platform.orchestration.partition_keys import project_key
from iot_platform.rollups import roll_up
from iot_platform.settings import Settings, exports
from iot_platform.simulator.history import HistoryError, HistoryOptions
from iot_platform.simulator.history.fill import HistoryFill, HistoryProgress
from iot_platform.simulator.history.names import utc_time
from iot_platform.simulator.history.options import DAY_US
from iot_platform.telemetry.sums import project_figures
from iot_platform.tenants.deletion import delete_tenant
from iot_platform_tests.support.feeds.drain import Feed, drain, query
from iot_platform_tests.support.feeds.rollups import RollupFeed, days, hours

END_US = 1_764_000_000_000_000
SMALL = HistoryOptions(7, END_US - 6 * DAY_US, END_US, tenants=2, projects=3, series=60, measurements=9_000)
ROWS = """
SELECT extract(epoch FROM m.time)::text, s.tenant_id, s.project_id, s.device_id, s.metric, s.unit, m.value, m.value_int, m.value_text
FROM {} m JOIN series s USING (series_id) ORDER BY 2, 3, 4, 5, 1"""
SUMS = "SELECT hour, tenant_id, project_id, kafka_partition, messages, measurements FROM accounting_1h ORDER BY 1, 2, 3, 4"
KILLED = """
import os, signal
from iot_platform.settings import get_settings
from iot_platform.simulator.history.fill import HistoryFill
from iot_platform_tests.integration.test_history import SMALL
slices = 0
def kill(progress):
    global slices
    slices += 1
    if slices == 3:
        os.kill(os.getpid(), signal.SIGKILL)
HistoryFill(get_settings(), SMALL, on_progress=kill).run()
"""


def fill(settings: Settings, options: HistoryOptions = SMALL, **more: Any) -> HistoryProgress:
    return HistoryFill(settings, options, **more).run()


def content(settings: Settings) -> list[list[tuple[Any, ...]]]:
    """All that a history writes, by names: ids depend on what was there before."""
    return [query(settings, text) for text in (ROWS.format("measurement"), ROWS.format("series_latest"), SUMS)]


def check_consistent(settings: Settings) -> None:
    """What holds after any drain, but for the ledger: a history has no batches."""
    newest = "(SELECT DISTINCT ON (series_id) * FROM measurement ORDER BY series_id, time DESC)"
    assert query(settings, ROWS.format("series_latest")) == query(settings, ROWS.format(newest))
    for table, column in (("series", "series_count"), ("source", "source_count")):
        counted = query(settings, f"SELECT tenant_id, project_id, count(*) FROM {table} GROUP BY 1, 2 ORDER BY 1, 2")
        assert counted == query(settings, f"SELECT tenant_id, project_id, {column} FROM project ORDER BY 1, 2")
    assert query(settings, "SELECT * FROM audit_measurements() WHERE problem IS NOT NULL") == []
    result = run_audit(settings, wait_seconds=0)
    assert result.ok, result.differences


def test_the_owner_makes_its_books_when_they_are_needed(settings: Settings) -> None:
    there = "SELECT count(*) FROM pg_namespace WHERE nspname = 'simulation'"
    assert query(settings, there) == [(0,)]
    with pytest.raises(HistoryError, match="set IOT_DATABASE_ADMIN_URL"):
        fill(settings.model_copy(update={"database_admin_url": settings.database_url}))
    assert query(settings, there) == [(0,)]
    assert fill(settings).finished
    assert query(settings, there) == [(1,)]


def test_a_plausible_fleet_that_the_audit_accepts(settings: Settings) -> None:
    progress = fill(settings)
    assert progress.finished
    assert abs(progress.written - 9_000) < 1_800
    check_consistent(settings)
    ((rows, series, projects, texts, flags, big, first, last),) = query(
        settings,
        "SELECT count(*), count(DISTINCT series_id), count(DISTINCT (tenant_id, project_id)), count(*) FILTER (WHERE value IS NULL),"
        " count(*) FILTER (WHERE value_text IN ('true', 'false')), count(value_int),"
        " (extract(epoch FROM min(time)) * 1000000)::bigint, (extract(epoch FROM max(time)) * 1000000)::bigint"
        " FROM measurement JOIN series USING (series_id)",
    )
    assert (rows, series, projects) == (progress.written, 60, 6)
    assert texts > 0
    assert flags > 0
    assert big > 0
    assert SMALL.start_us <= first
    assert last < SMALL.end_us + 1_000_000
    falling = (
        "SELECT count(*) FROM (SELECT value - lag(value) OVER (PARTITION BY series_id ORDER BY time) AS step FROM measurement"
        " JOIN series USING (series_id) WHERE metric IN ('energy', 'pulses', 'uptime_hours')) s WHERE step < 0"
    )
    assert query(settings, falling) == [(0,)], "a meter ran backwards"
    assert query(settings, "SELECT count(*) FROM measurement_named WHERE metric = 'temperature' AND NOT value BETWEEN -40 AND 85") == [(0,)]


def test_twice_beside_a_drain_and_after_kill(settings: Settings) -> None:
    """Killed in the third slice, then stopped by hand, then finished: the same as in one go, beside messages of others."""
    environment = {**os.environ, **exports(settings)}
    killed = subprocess.run([sys.executable, "-c", KILLED], env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    ((there, finished),) = query(settings, "SELECT measurements, finished_at IS NOT NULL FROM simulation.history")
    assert there == query(settings, "SELECT count(*) FROM measurement")[0][0] > 0
    assert not finished
    feed = Feed(settings)
    feed.send(b'{"temp": 21.5}')
    feed.flush()
    drain(settings)
    stop = threading.Event()
    stopped = fill(settings, on_progress=lambda _: stop.set(), stop=stop)
    assert not stopped.finished
    assert stopped.there == there
    done = fill(settings)
    assert done.finished
    assert done.there == there + stopped.written
    check_consistent(settings)
    assert fill(settings).written == 0, "a finished history is written again"
    feed.send(b'{"temp": 22.5}')
    feed.flush()
    drain(settings)
    check_consistent(settings)
    messages = "DELETE FROM {} WHERE series_id IN (SELECT series_id FROM series WHERE metric = 'temp')"
    for table in ("measurement", "series_latest"):
        query(settings, messages.format(table))
    query(settings, "DELETE FROM accounting_1h WHERE kafka_partition >= 0")
    interrupted = content(settings)
    query(settings, "TRUNCATE measurement, series_latest, accounting_1h, simulation.history, series, source, project, ledger, message")
    fill(settings)
    assert content(settings) == interrupted


@pytest.mark.parametrize("kept_hours", [False, True])
def test_a_large_one_takes_the_rollups_back_rather_than_note_every_hour(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, kept_hours: bool
) -> None:
    """Not where retention has removed measurements, whose hours are in the stored rows only."""
    monkeypatch.setattr("iot_platform.simulator.history.fill.MANY", 1_000)
    feed = RollupFeed(psycopg2.connect(settings.admin_url))
    (one,) = feed.series(1)
    hour = utc_time(SMALL.start_us).replace(minute=0) + timedelta(hours=2)
    feed.insert([(hour, one, 1.0, None)])
    roll_up(settings)
    if kept_hours:
        mark = hour + timedelta(hours=1)
        feed.rows(
            "INSERT INTO retention_mark (table_name, tenant_id, project_id, removed_before) VALUES ('measurement', 't', 'p', %s)", mark
        )
        feed.rows("DELETE FROM measurement WHERE series_id = %s", one)
    before = feed.shown("measurement_1h")
    fill(settings)
    assert bool(feed.noted()) == kept_hours
    assert roll_up(settings).complete
    shown = feed.shown("measurement_1h")
    assert {key: shown[key] for key in before} == before != {}
    expected = hours(feed.measurements()) | before
    assert shown == expected
    assert feed.shown("measurement_1d") == days(expected)
    feed.connection.close()


def test_the_seed_decides(settings: Settings) -> None:
    fill(settings)
    one = content(settings)
    query(settings, "TRUNCATE measurement, series_latest, accounting_1h, simulation.history, series, source, project")
    fill(settings, replace(SMALL, seed=8))
    other = content(settings)
    assert {row[1] for row in one[0]}.isdisjoint({row[1] for row in other[0]}), "two seeds share a tenant"
    assert [row[6:] for row in one[0]] != [row[6:] for row in other[0]]


def test_another_history_is_refused(settings: Settings) -> None:
    fill(settings)
    before = content(settings)
    with pytest.raises(HistoryError, match=r"another history of seed 7: 2025-11-18T16:00Z .* measurements 9,000.* take another --seed"):
        fill(settings, replace(SMALL, measurements=8_000))
    with pytest.raises(CliError, match="has not come yet"):
        simulate_history.fill("2d", "2999-12-31", {}, quiet=True)
    moved = replace(SMALL, start_us=SMALL.start_us + DAY_US, end_us=SMALL.end_us + DAY_US)
    with pytest.raises(HistoryError, match="another history of seed 7"):
        fill(settings, moved)
    assert fill(settings, moved, period_is_fixed=False).written == 0, "without --start the history that is there decides"
    query(settings, "DELETE FROM simulation.history")
    with pytest.raises(HistoryError, match=r"exists already, but not from a history: take another --seed"):
        fill(settings)
    assert content(settings) == before


def test_after_its_tenants_were_deleted(settings: Settings) -> None:
    fill(settings)
    before = content(settings)
    tenants = [row[0] for row in query(settings, "SELECT DISTINCT tenant_id FROM project ORDER BY 1")]
    delete_tenant(settings, tenants[0], requested_by="test")
    with pytest.raises(HistoryError, match=rf"1 of the 2 tenants .* \({tenants[0]}\): take another --seed, or .* each of: {tenants[1]}\)"):
        fill(settings)
    delete_tenant(settings, tenants[1], requested_by="test")
    check_consistent(settings)

    def deletes(_: HistoryProgress) -> None:  # between two slices, while the next one is made
        delete_tenant(settings, tenants[0], requested_by="test")

    with pytest.raises(HistoryError, match="1 of the 2 tenants"):
        fill(settings, on_progress=deletes)
    delete_tenant(settings, tenants[1], requested_by="test")
    check_consistent(settings)
    assert query(settings, "SELECT count(*) FROM measurement") == [(0,)]
    assert fill(settings).finished
    assert content(settings) == before
    check_consistent(settings)


def test_its_projects_appear_as_partitions(settings: Settings) -> None:
    fill(settings)
    with dg.instance_for_test() as instance:
        added, count = sync_projects(instance, settings)
        assert len(added) == count == 6
        assert set(instance.get_dynamic_partitions(PROJECT)) == {project_key(*item) for item in added}
        assert len(instance.get_dynamic_partitions(TENANT)) == 2
        assert sync_projects(instance, settings) == ([], 6)
        instance.delete_dynamic_partition(PROJECT, project_key(*added[0]))
        instance.add_dynamic_partitions(PROJECT, ["gone/gone"])
        assert sync_projects(instance, settings) == ([added[0]], 6), "a key of something that is gone hides a project"
    with closing(connect(settings)) as connection:
        figures = project_figures(connection, added)
    assert sum(item.measurements for item in figures.values()) == query(settings, "SELECT count(*) FROM measurement")[0][0]
    assert all(item.offsets == {} for item in figures.values()), "a history shows Kafka offsets"
