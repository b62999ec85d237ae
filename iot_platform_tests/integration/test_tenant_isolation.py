"""What a tenant's login can find out about another tenant: nothing, on any way that PostgreSQL and TimescaleDB offer."""

import itertools
from typing import Any

import pytest

from iot_platform.database import connect
from iot_platform_tests.support.feeds.drain import query
from iot_platform_tests.support.feeds.tenants import OTHER, OWN, SECRET, TwoTenants, ask
from iot_platform_tests.support.oracles.query_plans import nodes

TOPIC, NO_TOPIC = f"mtic/msg/client/realtime/{OTHER}/secret-project", "mtic/msg/client/realtime/tenant-nobody/secret-project"

pytestmark = pytest.mark.sql

VIEWS = {
    "message": "message_named",
    "measurement": "measurement_named",
    "latest": "latest_named",
    "measurement_1h": "measurement_1h_named",
    "measurement_1d": "measurement_1d_named",
    "quarantine": "quarantine_named",
}
"""Views of schema tenant, and where the owner finds the same rows."""

REFUSED = [
    # other roles
    "SET ROLE iot_reader",
    "SET ROLE iot_writer",
    "SET ROLE iot_migrator",
    "SET ROLE postgres",
    "SET SESSION AUTHORIZATION iot_reader",
    "GRANT iot_reader TO SESSION_USER",
    "ALTER ROLE iot_tenant CREATEROLE",
    # tables and everybody else's views, by every statement that reads
    "TABLE public.measurement",
    "SELECT count(*) FROM public.series",
    "SELECT tenant_id FROM public.tenant_role",
    "SELECT * FROM public.measurement_named",
    "SELECT * FROM public.measurement_1h",
    "SELECT * FROM public.measurement_1h_stored",
    "EXPLAIN SELECT * FROM public.measurement WHERE value = 1",
    "PREPARE p AS SELECT * FROM public.message",
    "BEGIN; DECLARE c CURSOR FOR SELECT * FROM public.message",
    "COPY public.measurement TO STDOUT",
    "COPY (SELECT * FROM public.message) TO STDOUT",
    "COPY (SELECT * FROM tenant.latest) TO '/tmp/latest'",
    "COPY (SELECT 1) TO PROGRAM 'cat'",
    "DO $$ BEGIN PERFORM count(*) FROM public.message; END $$",
    "BEGIN; LOCK TABLE public.message IN ACCESS SHARE MODE",
    "SELECT * FROM tenant.measurement FOR UPDATE",
    "SELECT * FROM pg_statistic",
    "SELECT * FROM pg_authid",
    "SELECT public.approximate_row_count('public.measurement')",
    "SELECT public.audit_offsets('-infinity')",
    "SELECT public.show_chunks('public.measurement')",
    # files, programs, other servers
    "SELECT pg_read_file('postgresql.conf')",
    "SELECT pg_ls_dir('.')",
    "SELECT lo_import('/etc/passwd')",
    "SELECT lo_create(0)",
    "CREATE EXTENSION dblink",
    "CREATE EXTENSION postgres_fdw",
    "LOAD 'auto_explain'",
    "SET session_preload_libraries = 'auto_explain'",
    "SET log_statement = 'all'",
    # objects that lead views or functions astray
    "CREATE TEMP TABLE series (series_id integer)",
    "CREATE FUNCTION pg_temp.leak(text) RETURNS boolean LANGUAGE sql COST 0.0001 AS 'SELECT true'",
    "CREATE FUNCTION tenant.leak(text) RETURNS boolean LANGUAGE sql COST 0.0001 AS 'SELECT true'",
    "CREATE VIEW public.mine AS SELECT 1",
    "CREATE SCHEMA mine",
    "CREATE OR REPLACE FUNCTION tenant.current_tenant() RETURNS text LANGUAGE sql AS $$ SELECT 'secret-tenant' $$",
    "CREATE OR REPLACE VIEW tenant.latest AS SELECT 1",
    "ALTER VIEW tenant.latest RESET (security_barrier)",
    "ALTER VIEW tenant.latest SET (security_invoker)",
    "CREATE INDEX ON public.series (tenant_id)",
    "CREATE STATISTICS ON project_id, device_id FROM public.series",
    "CREATE PUBLICATION p FOR ALL TABLES",
    # writing, and standing in the way
    "INSERT INTO tenant.quarantine (received_at) VALUES (now())",
    "DELETE FROM tenant.quarantine",
    "UPDATE tenant.quarantine SET received_at = now()",
    "SELECT pg_advisory_lock(1)",
    "SELECT pg_logical_emit_message(false, 'fills', 'the log')",
    # TimescaleDB's own functions, of which some check no rights
    r"SELECT _timescaledb_functions.drop_chunk(oid) FROM pg_class WHERE relname LIKE '\_hyper\_%chunk'",
    r"SELECT _timescaledb_internal.drop_chunk(oid) FROM pg_class WHERE relname LIKE '\_hyper\_%chunk'",
    r"SELECT _timescaledb_functions.attach_osm_table_chunk(oid, oid) FROM pg_class WHERE relname LIKE '\_hyper\_%chunk'",
    "SELECT _timescaledb_functions.remove_dropped_chunk_metadata(1)",
    "SELECT _timescaledb_functions.stop_background_workers()",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename <> session_user",
]


def test_a_tenant_sees_exactly_its_own_rows(two_tenants: TwoTenants) -> None:
    quality = query(two_tenants.settings, "SELECT to_regclass('tenant.quality') IS NOT NULL") == [(True,)]
    for view, named in (VIEWS | ({"quality": "quality_named"} if quality else {})).items():
        shared = [
            column
            for (column,) in query(
                two_tenants.settings,
                "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND attname IN"
                " (SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass) ORDER BY 1",
                f"tenant.{view}",
                f"public.{named}",
            )
        ]
        assert "tenant_id" in shared
        columns = ", ".join(shared)
        expected = query(two_tenants.settings, f"SELECT {columns} FROM {named} WHERE tenant_id = %s ORDER BY {columns}", OWN)
        assert two_tenants.ask(f"SELECT {columns} FROM tenant.{view} ORDER BY {columns}").rows == expected != []
        assert query(two_tenants.settings, f"SELECT count(*) FROM {named} WHERE tenant_id = %s", OTHER) != [(0,)]
        assert two_tenants.ask(f"SELECT count(*) FROM tenant.{view} WHERE tenant_id <> '{OWN}'").rows == [(0,)]
    assert two_tenants.ask("SELECT current_tenant()").rows == [(OWN,)]


def test_what_is_for_the_console_tells_of_own_rows_only(two_tenants: TwoTenants) -> None:
    """Views and functions that no *_named stands beside."""
    for view, expected in {
        "project": "SELECT project_id FROM project WHERE tenant_id = %s",
        "series": "SELECT project_id FROM series WHERE tenant_id = %s",
        "incident": "SELECT project_id FROM quality_incident WHERE tenant_id = %s",
        "accounting_1h": "SELECT project_id FROM accounting_1h WHERE tenant_id = %s",
    }.items():
        rows = two_tenants.ask(f"SELECT project_id FROM tenant.{view} ORDER BY 1").rows
        assert rows == sorted(query(two_tenants.settings, expected, OWN)) != [], view
    records = query(two_tenants.settings, "SELECT kafka_partition, kafka_offset, tenant_id FROM message_named")
    records += query(two_tenants.settings, "SELECT kafka_partition, kafka_offset, tenant_id FROM quarantine")
    connection = two_tenants.open()
    for partition, offset, tenant in records:
        answer = ask(connection, f"SELECT * FROM record({partition}, {offset})")
        assert (len(answer.rows) == 1) == (tenant == OWN), (partition, offset, tenant)
        assert not SECRET.search(answer.text)
    query(
        two_tenants.settings,
        "INSERT INTO audit_result VALUES ('p', now(), now(), 2, %s)",
        '[{"kind": "offsets", "place": "partition 0 offset 5", "text": "t"},'
        ' {"kind": "accounting", "place": "secret-tenant", "text": "x"}]',
    )
    names = "NULL", "'secret-project'", "'secret'"
    pages = [f"series_page({p}, NULL, NULL, {s}, NULL, NULL, NULL, 1000)" for p, s in itertools.product(names[:2], (names[0], names[2]))]
    for call in ("progress()", "runs('-infinity')", "audit()", "quality_rule", "series_info_change", *pages):
        answer = ask(connection, f"SELECT * FROM {call}")
        assert answer.code is None, (call, answer.text)
        assert not SECRET.search(answer.text), call
    connection.close()


def test_every_other_way_is_refused(two_tenants: TwoTenants) -> None:
    connection = two_tenants.open()
    for statement in REFUSED:
        answer = ask(connection, statement)
        ask(connection, "ROLLBACK")
        assert answer.code is not None, f"not refused: {statement}: {answer.text}"
        assert answer.code in ("42501", "42704"), f"{statement}: {answer.text}"
        assert not SECRET.search(answer.text.replace(statement, "")), answer.text
    assert ask(connection, "SELECT dblink('', '')").code == "42883"
    connection.close()


def test_no_relation_of_the_whole_server_tells_anything(two_tenants: TwoTenants) -> None:
    """Tables, chunks, catalogs, statistics, TimescaleDB's schemas, information_schema: what can be read has nothing of the other tenant."""
    relations = query(
        two_tenants.settings,
        "SELECT format('%%I.%%I', n.nspname, c.relname), n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relkind IN ('r', 'v', 'm', 'p', 'f', 'S', 't') ORDER BY 1",
    )
    connection, owner = two_tenants.open(), connect(two_tenants.settings, "admin")
    read = []
    ask(owner, "SELECT 'secret-statement'", "PREPARE secret_one AS SELECT 1")
    for relation, schema in relations:
        answer = ask(connection, f"SELECT * FROM {relation}")
        seen = answer.text if answer.code is None else answer.text.replace(relation, "")
        assert not SECRET.search(seen), (relation, SECRET.search(seen))
        if answer.code is None:
            read.append((schema, relation))
        else:
            assert answer.code in ("42501", "0A000", "55000", "42809"), (relation, answer.text)  # the others: not for SELECT at all
    schemas = {schema for schema, _ in read}
    assert schemas - {"tenant", "pg_catalog", "information_schema"} == {
        schema for schema in schemas if schema.startswith(("_timescaledb_", "timescaledb_"))
    }
    assert not [relation for schema, relation in read if schema == "public" or "_hyper_" in relation or relation.startswith("pg_toast.")]
    connection.close()
    owner.close()


def test_the_session_decides_and_nothing_set_in_it(two_tenants: TwoTenants) -> None:
    two_tenants.superuser(
        "CREATE SCHEMA evil",
        "CREATE TABLE evil.tenant_role AS SELECT 'secret-tenant'::text AS tenant_id, rolname AS role_name FROM pg_roles",
        "CREATE TABLE evil.series AS TABLE public.series",
        "CREATE FUNCTION evil.current_tenant() RETURNS text LANGUAGE sql AS $$ SELECT 'secret-tenant' $$",
        "CREATE FUNCTION evil.eq(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT true'",
        "CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.eq)",
        "CREATE FUNCTION evil.eqname(name, name) RETURNS boolean LANGUAGE sql AS 'SELECT true'",
        "CREATE OPERATOR evil.= (LEFTARG = name, RIGHTARG = name, FUNCTION = evil.eqname)",
        "GRANT USAGE ON SCHEMA evil TO PUBLIC",
        "GRANT SELECT ON ALL TABLES IN SCHEMA evil TO PUBLIC",
    )
    for before in (
        ("SET search_path = evil, pg_catalog, tenant",),
        ("SET search_path = pg_temp, evil, tenant",),
        ("SET ROLE iot_tenant",),
        ("SET search_path = evil, pg_catalog", "SET ROLE iot_tenant", "SET plan_cache_mode = force_generic_plan"),
        ("PREPARE p AS SELECT 1 FROM tenant.latest", "SET ROLE iot_tenant", "EXECUTE p"),
        ("SET row_security = off",),
    ):
        for view in VIEWS:
            answer = two_tenants.ask(f"SELECT * FROM tenant.{view}", *before)
            assert answer.rows != []
            assert not SECRET.search(answer.text)
    prepared = two_tenants.ask("EXECUTE p", "PREPARE p AS SELECT * FROM tenant.message", "EXECUTE p", "SET ROLE iot_tenant")
    assert len(prepared.rows) == 60
    cursor = two_tenants.ask("FETCH ALL FROM c", "BEGIN", "DECLARE c CURSOR FOR SELECT * FROM tenant.message", "SET LOCAL ROLE iot_tenant")
    assert len(cursor.rows) == 60


def test_leaky_functions_see_own_rows_only(two_tenants: TwoTenants) -> None:
    """As if a tenant could make functions: conditions that talk, or fail, on what they are given."""
    two_tenants.superuser(
        "CREATE SCHEMA tool",
        "CREATE FUNCTION tool.leak(anyelement) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS"
        " $$ BEGIN RAISE NOTICE 'saw %', $1; RETURN true; END $$",
        "GRANT USAGE ON SCHEMA tool TO PUBLIC",
    )
    connection = two_tenants.open()
    for view, columns in {
        "measurement": ("device_id", "value", "value_text", "time"),
        "latest": ("device_id", "value", "value_text"),
        "measurement_1h": ("device_id", "value_max", "bucket"),
        "measurement_1d": ("device_id", "value_max"),
        "message": ("topic", "device_id", "convert_from(payload, 'UTF8')"),
        "quarantine": ("topic", "convert_from(payload, 'UTF8')", "reason"),
    }.items():
        for column, nestloop in itertools.product(columns, ("on", "off")):
            answer = ask(connection, f"SELECT count(*) FROM tenant.{view} WHERE tool.leak({column})", f"SET enable_nestloop = {nestloop}")
            assert "saw " in answer.text
            assert not SECRET.search(answer.text), (view, column)
    for condition in (
        "1 / (value - 7731773) > 0",
        "1 / (CASE WHEN device_id LIKE 'secret%' THEN 0 ELSE 1 END) > 0",
        "CASE WHEN value_text LIKE '5ec%' THEN value_text::integer > 0 ELSE true END",
    ):
        assert ask(connection, f"SELECT count(*) FROM tenant.measurement WHERE {condition}").code is None, condition
    own = ask(connection, "SELECT count(*) FROM tenant.measurement WHERE 1 / (value - 1.5) > 0")
    assert own.code == "22012", "an own row may fail: the conditions above are evaluated"
    failing = ask(connection, "SELECT count(*) FROM tenant.measurement WHERE value_text::integer > 0")
    assert "open" in failing.text
    assert not SECRET.search(failing.text)
    connection.close()


PLANNERS = [
    (),
    ("SET enable_nestloop = off",),
    ("SET enable_nestloop = off", "SET enable_hashjoin = off"),
    ("SET enable_indexscan = off", "SET enable_indexonlyscan = off"),
    ("SET enable_seqscan = off",),
    ("SET enable_bitmapscan = off", "SET enable_indexscan = off"),
]

GUESSES = [  # a condition that a row of the other tenant meets, and one that no row of anybody meets
    ("measurement", "device_id = '{}'", "secret-device-1", "nobody-device-1"),
    ("measurement", "metric = '{}'", "secret_flow", "nobody_flow"),
    ("measurement", "project_id = '{}'", "secret-project", "nobody-project"),
    ("measurement", "tenant_id = '{}'", OTHER, "tenant-nobody"),
    ("measurement", "value = {}", "7731773", "7731774"),
    ("measurement", "value > {}", "7731770.5", "9730.5"),
    ("measurement", "value_text = '{}'", "5ec1e7 word", "nobodys wor"),
    ("measurement", "value_text > '{}'", "5ec1e6", "5ec1e9"),
    ("measurement", "time = '{}'", "other", "nobody"),
    ("latest", "device_id = '{}'", "secret-device-1", "nobody-device-1"),
    ("latest", "value > {}", "7731770.5", "9730.5"),
    ("latest", "time = '{}'", "other", "nobody"),
    ("measurement_1h", "device_id = '{}'", "secret-device-1", "nobody-device-1"),
    ("measurement_1h", "value_max > {}", "7731770.5", "9730.5"),
    ("measurement_1d", "value_max > {}", "7731770.5", "9730.5"),
    ("message", "device_id = '{}'", "secret-device-1", "nobody-device-1"),
    ("message", "topic = '{}'", TOPIC, NO_TOPIC),
    ("message", "payload > '{}'", "{\"deviceId\":\"s", "{\"deviceId\":\"z"),
    ("project", "project_id = '{}'", "secret-project", "nobody-project"),
    ("series", "device_id = '{}'", "secret-device-1", "nobody-device-1"),
    ("series", "metric = '{}'", "secret_flow", "nobody_flow"),
    ("accounting_1h", "project_id = '{}'", "secret-project", "nobody-project"),
    ("incident", "message = '{}'", "secret-device-1 is silent", "nobody-device-1 is silent"),
    ("quarantine", "topic = '{}'", TOPIC, NO_TOPIC),
    ("quarantine", "payload = '{}'", "secret bad bytes", "nobody bad bytes"),
    ("quarantine", "payload > '{}'", "secret", "txcret"),
]  # fmt: skip


def test_explain_does_not_tell_right_guesses_from_wrong_ones(two_tenants: TwoTenants) -> None:
    """Neither the estimates nor the rows that a filter removed depend on what others have, however the planner is bent."""
    ((own,),) = query(two_tenants.settings, "SELECT count(*) FROM measurement_named WHERE tenant_id = %s", OWN)
    ((moment,),) = query(two_tenants.settings, "SELECT max(time) FROM measurement_named WHERE tenant_id = %s", OTHER)
    moments = {"other": moment.isoformat(), "nobody": moment.replace(microsecond=1).isoformat()}
    connection = two_tenants.open()
    for planner in PLANNERS:
        ask(connection, "SET jit = off", "RESET ALL", "SET max_parallel_workers_per_gather = 0")
        ask(connection, "SELECT 1", *planner)
        for view, condition, *guesses in GUESSES:
            right, wrong = (_plan(connection, view, condition.format(moments.get(guess, guess))) for guess in guesses)
            if condition.startswith("time"):  # how rows spread over time is no secret, and the planner needs it
                right, wrong = _without(right, "Rows", "Cost"), _without(wrong, "Rows", "Cost")
            assert right == wrong, (planner, view, condition)
            if "SET enable_seqscan = off" in planner and view == "measurement":
                assert max(_touched(right)) <= own, (view, condition)
    connection.close()


def _plan(connection: Any, view: str, condition: str) -> Any:
    """EXPLAIN (ANALYZE, VERBOSE) without times, and without the condition's own constant."""
    explain = "EXPLAIN (ANALYZE, VERBOSE, BUFFERS OFF, TIMING OFF, SUMMARY OFF, FORMAT JSON)"
    answer = ask(connection, f"{explain} SELECT * FROM tenant.{view} WHERE {condition}")
    assert answer.code is None, answer.text
    return _without(answer.rows[0][0], "Cond", "Filter", "Time", "Memory", "Space Used")


def _without(node: Any, *endings: str) -> Any:
    """The plan without properties of these names; counts (Actual Rows, Rows Removed by Filter) always stay."""
    if isinstance(node, dict):
        kept = ("Actual Rows", "Actual Loops")
        return {
            key: _without(value, *endings)
            for key, value in node.items()
            if key in kept or key.startswith("Rows Removed") or not key.endswith(endings)
        }
    return [_without(item, *endings) for item in node] if isinstance(node, list) else node


def _touched(plan: Any) -> list[int]:
    """Rows that each scan of a table looked at."""
    removed = ((node, sum(value for key, value in node.items() if key.startswith("Rows Removed"))) for node in nodes(plan))
    return [(node["Actual Rows"] + rows) * node["Actual Loops"] for node, rows in removed if "Relation Name" in node]


def test_conditions_reach_the_index_and_exclude_chunks(two_tenants: TwoTenants) -> None:
    """On many chunks and series (bench/tenant_views.py does it on millions of rows)."""
    query(
        two_tenants.settings,
        "INSERT INTO measurement SELECT timestamptz '2025-03-01 00:00+0' + n * interval '6 hours', s.series_id, n"
        " FROM generate_series(0, 119) n, series s",
    )
    query(two_tenants.settings, "ANALYZE measurement")
    condition = "device_id = 'pump-1' AND metric = 'flow' AND time >= '2025-03-10 09:00' AND time < '2025-03-12 09:00'"
    answer = two_tenants.ask(
        f"EXPLAIN (FORMAT JSON) SELECT time, value FROM measurement WHERE {condition} ORDER BY time", "SET enable_seqscan = off"
    )
    scans = [node for node in nodes(answer.rows[0][0]) if "_chunk" in node.get("Relation Name", "")]
    assert len(scans) == 3
    assert all("measurement_series_id_time_key" in node["Index Name"] for node in scans)
    assert all("series_id =" in node["Index Cond"] for node in scans)
    # What a chunk fulfils as a whole need not be asked of it (TimescaleDB 2.28).
    assert all(any(sign in node["Index Cond"] for node in scans) for sign in ('"time" >=', '"time" <'))
    (series,) = [node for node in nodes(answer.rows[0][0]) if node.get("Relation Name") == "series"]
    assert all(name in series["Index Cond"] for name in ("tenant_id", "device_id", "metric"))
