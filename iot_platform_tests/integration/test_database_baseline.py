"""A database made by the first chain of migrations, with rows in every table, is taken over whole, whatever interrupts it."""

import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import psycopg2
import pytest

from iot_platform.database import MigrationError, SchemaError, connect, migrate, pending
from iot_platform.database.baseline import FILE
from iot_platform.database.migrate import require_migrated
from iot_platform.files import SQL
from iot_platform.retention import run_retention
from iot_platform.rollups import roll_up
from iot_platform.settings import Settings, exports
from iot_platform.tenants.access import grant
from iot_platform.tenants.deletion import delete_tenant
from iot_platform_tests.support.feeds.drain import query
from iot_platform_tests.support.feeds.tenants import drop_roles, open_login
from iot_platform_tests.support.servers.first_chain import FIRST_CHAIN
from iot_platform_tests.support.servers.stack import Servers
from iot_platform_tests.support.waiting import eventually

RENAMED: Final = {name: f"value_{name}" for name in ("count", "min", "max", "sum", "avg", "first", "last")}
"""Columns of measurement_1h and measurement_1d, and of what stores them."""
ROLLUPS: Final = ("measurement_1h", "measurement_1d")
ADDED_COLUMNS: Final[dict[str, dict[str, Any]]] = {
    "accounting_1h": {"conflict_example": None},
    "message": {"time_shift_us": None},
    "measurement": {"flags": None},
    "series_latest": {"flags": None},
    "quality_incident": {
        "silenced_until": None, "silence_reason": "", "silenced_by": "", "acknowledged_at": None, "acknowledged_by": "",
    },
}  # fmt: skip
ADDED_TABLES: Final = (
    "project_option", "sparkplug_birth", "sparkplug_node", "backup_drill", "database_backup", "console_tenant", "console_user",
    "console_grant", "console_session", "api_key", "console_action", "audit_result", "series_info", "series_info_change",
    "console_unknown_name", "decode_correction",
    "import_file", "sink", "sink_offset", "sink_range", "sink_replay", "sink_series", "sink_refused", "sink_backfill",
)  # fmt: skip
"""By migrations after the baseline."""
TABLES: Final = """
SELECT oid::regclass::text FROM pg_class
WHERE relkind = 'r' AND relname <> 'schema_migration' AND relnamespace::regnamespace::text IN ('public', 'simulation')
UNION ALL SELECT unnest(ARRAY['measurement_1h', 'measurement_1d']) ORDER BY 1"""
PROBLEMS: Final = """
SELECT problem FROM audit_offsets('-infinity') WHERE problem IS NOT NULL
UNION ALL SELECT problem FROM audit_measurements() WHERE problem IS NOT NULL"""
WAITS: Final = (
    "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE a.application_name = 'iot-migrate' AND NOT l.granted"
)


def contents(settings: Settings) -> dict[str, list[str]]:
    """Every row of every table, and of the rollups as they are read."""
    return {table: _rows(settings, table) for (table,) in query(settings, TABLES)}


def _rows(settings: Settings, table: str) -> list[str]:
    return sorted(json.dumps(row, sort_keys=True) for (row,) in query(settings, f"SELECT to_jsonb(t) FROM {table} t"))


def expected(before: dict[str, list[str]], after: Settings) -> dict[str, list[str]]:
    """What the new schema makes of these rows: the baseline, then the migrations after it, which may add quality rules."""
    rows: dict[str, list[dict[str, Any]]] = {table: [json.loads(row) for row in found] for table, found in before.items()}
    for row in rows["quality_cadence"]:
        del row["pause_seconds"]
    for table in rows.keys() & {*ROLLUPS, *(f"{name}_stored" for name in ROLLUPS)}:
        rows[table] = [{RENAMED.get(name, name): value for name, value in row.items()} for row in rows[table]]
    rows["simulation.history"] = rows.pop("simulated_history")
    for table, columns in ADDED_COLUMNS.items():
        rows[table] = [row | columns for row in rows[table]]
    rows |= {table: [] for table in ADDED_TABLES}
    if "measurement_1h_stored" not in before:  # Community had continuous aggregates: what they said is stored, as far as it is over
        rows["rollup_state"] = [json.loads(row) for row in _rows(after, "rollup_state")]
        for name, threshold in zip(ROLLUPS, ("threshold", "threshold_1d"), strict=True):
            rows[f"{name}_stored"] = [row for row in rows[name] if row["bucket"] < rows["rollup_state"][0][threshold]]
            assert rows[f"{name}_stored"]
    for row in rows["compression_policy"]:
        row["segment_rows"] = 40
    known = {row["rule"] for row in rows["quality_rule"]}
    rows["quality_rule"] += [rule for rule in map(json.loads, _rows(after, "quality_rule")) if rule["rule"] not in known]
    return {table: sorted(json.dumps(row, sort_keys=True) for row in found) for table, found in rows.items()}


def schema(settings: Settings) -> str:
    """Tables, indexes, constraints, views, functions with their bodies, and all comments."""
    render = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "schema.py"))["sql_text"]
    with closing(psycopg2.connect(settings.admin_url)) as connection:
        return str(render(connection, bodies=True))


@pytest.mark.both_editions
def test_nothing_is_lost_and_the_schema_is_that_of_a_fresh_database(first_chain: Settings, settings: Settings) -> None:
    before = contents(first_chain)
    assert [table for table, rows in before.items() if not rows] == query_empty(before)
    with pytest.raises(SchemaError, match="run `iot migrate`"):
        require_migrated(connect(first_chain))

    applied = migrate(first_chain)

    assert applied[0] == FILE
    numbered = [name for name in applied if name.startswith("migrations/")]
    assert numbered == [
        f"migrations/{path.name}" for path in sorted((SQL / "migrations").iterdir()) if path.name[:4] > FILE.split("/")[1][:4]
    ]
    assert contents(first_chain) == expected(before, first_chain)
    assert schema(first_chain) == schema(settings)
    assert migrate(first_chain) == pending(first_chain) == []
    require_migrated(connect(first_chain))
    # What is repeatable has a checksum of TimescaleDB's release, too.
    files = "SELECT name, CASE WHEN name LIKE 'migrations/%%' THEN checksum END FROM schema_migration WHERE name <> %s ORDER BY 1"
    assert query(first_chain, files, FILE) == query(settings, files, FILE)
    assert defaults(first_chain) == defaults(settings)


def defaults(settings: Settings) -> list[tuple[Any, ...]]:
    """The quality rules as they come, but for one that the fixture's operator changed."""
    columns = "rule, metric, enabled, severity, threshold, window_seconds, clear_seconds, hold_seconds, parameters, description"
    return query(settings, f"SELECT {columns} FROM quality_rule WHERE tenant_id = '' AND (rule, metric) <> ('range', 'rssi') ORDER BY 1, 2")


def query_empty(before: dict[str, list[str]]) -> list[str]:
    """The fixture has rows in all tables but these: logins are the server's; Community keeps its own books of rollups."""
    return [table for table in before if table == "tenant_role" or (table == "rollup_change" and "measurement_1h_stored" not in before)]


def test_a_database_that_was_taken_over_works(first_chain: Settings, servers: Servers) -> None:
    with closing(connect(first_chain, "admin")) as owner:
        login = grant(owner, "acme")
    own = query(first_chain, "SELECT count(*) FROM measurement JOIN series USING (series_id) WHERE tenant_id = 'acme'")
    assert query(first_chain, PROBLEMS) == []
    migrate(first_chain)
    assert query(first_chain, PROBLEMS) == []
    with closing(open_login(first_chain, login)) as session, session.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM tenant.measurement")
        assert cursor.fetchall() == own != [(0,)]
    drop_roles(servers, login)
    roll_up(first_chain)
    assert query(first_chain, "SELECT count(*) FROM rollup_change") == [(0,)]
    delete_tenant(first_chain, "going", requested_by="test")
    run_retention(first_chain)
    assert query(first_chain, PROBLEMS) == []


@pytest.mark.apache_only("Community's first chain is on PGlite, which has one session")
@pytest.mark.parametrize("table", ["quality_cadence", "source"], ids=["before the commit", "after it"])
def test_killed_in_the_middle_it_completes(first_chain: Settings, settings: Settings, table: str) -> None:
    """The baseline drops the views and then changes quality_cadence; the files after it make views that read source."""
    before = contents(first_chain)
    files = "SELECT name, checksum FROM schema_migration ORDER BY 1"
    recorded = query(first_chain, files)
    with closing(psycopg2.connect(first_chain.admin_url)) as blocker, blocker.cursor() as cursor:
        cursor.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        environment = {**os.environ, **exports(first_chain)}
        child = subprocess.Popen([sys.executable, "-m", "iot_platform.cli.main", "migrate"], env=environment, stdout=subprocess.DEVNULL)
        eventually(lambda: query(first_chain, WAITS) == [(1,)], 60)
        child.send_signal(signal.SIGKILL)
        assert child.wait(30) == -signal.SIGKILL
        blocker.rollback()
    eventually(lambda: query(first_chain, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'iot-migrate'") == [(0,)], 30)
    if table == "quality_cadence":
        assert query(first_chain, files) == recorded
        assert contents(first_chain) == before
    else:
        assert query(first_chain, files) != recorded
    migrate(first_chain)
    assert contents(first_chain) == expected(before, first_chain)
    assert schema(first_chain) == schema(settings)


def test_a_chain_that_is_not_complete_is_refused(first_chain: Settings) -> None:
    query(first_chain, "DELETE FROM schema_migration WHERE name LIKE 'migrations/0036%%' OR name LIKE 'migrations/0037%%'")
    with pytest.raises(
        MigrationError, match=r"28 of the 30 .* lacks migrations/0036_pre_add_log_generation.sql and 1 more: bring it up to"
    ):
        migrate(first_chain)
    assert query(first_chain, "SELECT to_regclass('measurement_named') IS NOT NULL") == [(True,)], "nothing was touched"


def test_a_chain_that_was_changed_or_went_on_is_refused(first_chain: Settings) -> None:
    query(first_chain, "INSERT INTO schema_migration VALUES ('migrations/0038_pre_add_own.sql', 'x')")
    with pytest.raises(MigrationError, match=r"0038_pre_add_own.sql, which this version does not know"):
        migrate(first_chain)
    query(first_chain, "UPDATE schema_migration SET checksum = 'x' WHERE name LIKE 'migrations/0003%%'")
    with pytest.raises(MigrationError, match=r"0003_pre_create_message.sql is not the one"):
        migrate(first_chain)


def test_what_others_built_on_our_views_stops_it(first_chain: Settings) -> None:
    query(first_chain, "CREATE VIEW mine AS SELECT * FROM measurement_named")
    with pytest.raises(MigrationError, match=r"rolled back .*view mine depends on view measurement_named"):
        migrate(first_chain)
    query(first_chain, "DROP VIEW mine")
    assert migrate(first_chain)


def test_the_first_chain_is_kept_as_it_was(tmp_path: Path) -> None:
    copy = shutil.copytree(FIRST_CHAIN, tmp_path / "sql")
    listed = (SQL / "baseline" / "first_chain.sha256").read_bytes()
    subprocess.run(["sha256sum", "--check", "--strict"], input=listed, cwd=copy, check=True, capture_output=True)
