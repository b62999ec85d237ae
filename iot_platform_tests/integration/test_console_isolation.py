"""Nobody reads another tenant through the console: not by any parameter, cursor, session or role; it reads no telemetry by itself."""

import asyncio
import itertools
from base64 import urlsafe_b64encode
from typing import Any

import psycopg
import psycopg2
import pytest

from iot_platform.api.problems import Problem
from iot_platform_tests.integration.test_console_reads import span
from iot_platform_tests.support.feeds.drain import query
from iot_platform_tests.support.feeds.tenants import OTHER, OWN, SECRET
from iot_platform_tests.support.servers.console import Console, path_of

LISTS = ("/projects", "/series", "/messages", "/quarantine", "/balance", "/incidents", "/rules", "/marks", "/export", "/history",
         "/series-info", "/series-info/changes", "/trace")  # fmt: skip
RANGE = ("/messages", "/quarantine", "/balance", "/marks", "/export", "/history")
NAMED = {
    "/series": ("project", "device", "search"),
    "/messages": ("project", "device"),
    "/quarantine": ("project", "reason"),
    "/marks": ("project", "device"),
    "/history": ("project", "device", "metric"),
    "/export": ("project", "device", "metric"),
    "/series-info": ("project", "device", "metric"),
    "/series-info/changes": ("project", "device", "metric"),
}
"""Which of them take which names."""
ODD = (
    "secret-project",
    "' OR tenant_id = 'secret-tenant' --",
    "'; SET ROLE iot_reader; --",
    "%",
    "_",
    "\\",
    "$1",
    "%(project)s",
    "{project}",
    "租户\u202e",
    "\U0001f600",
    "../../secret-tenant",
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
)


def _whole(rest: str, **more: str) -> dict[str, str]:
    parameters = span() if rest in RANGE else {}
    if rest in NAMED and rest != "/series":
        parameters |= {"project": "plant-0"}
    if rest in ("/history", "/series-info", "/series-info/changes"):
        parameters |= {"device": "pump-0", "metric": "flow"}
    if rest == "/trace":
        parameters |= {"partition": "0", "offset": "0"}
    return parameters | more


def test_no_parameter_leads_to_another_tenant(console: Console) -> None:
    for browser in (console.reader, console.browser("own")):
        for rest in LISTS:
            assert browser.ask(path_of(OTHER, rest), **_whole(rest)).problem == "no-such-tenant"
            answer = browser.ask(path_of(OWN, rest), **_whole(rest))
            assert answer.status in (200, 404), (rest, answer.body)
            assert not SECRET.search(answer.body.decode("utf-8", "replace")), rest
    reader = console.reader
    for (rest, names), odd in itertools.product(NAMED.items(), ODD):
        for name in names:
            answer = reader.ask(path_of(OWN, rest), **_whole(rest, **{name: odd}))
            assert answer.status in (200, 404), (rest, name, odd, answer.body)
            found = answer.body.decode("utf-8", "replace").replace(odd, "")
            assert not SECRET.search(found), (rest, name, odd)
    boss = console.browser("boss")
    for odd in (*ODD, "secret-tenant%00", "nobody", f"{OWN} ", f"{OWN}/../{OTHER}"):
        assert boss.ask(path_of(odd, "/projects")).status in (404, 422)


def test_what_another_tenant_has_does_not_show_in_its_own_records(console: Console) -> None:
    """Partition and offset name everybody's records: only the owner of one is told of it, and nobody whether there is one."""
    reader = console.reader
    records = query(console.settings, "SELECT kafka_partition, kafka_offset FROM message_named WHERE tenant_id = %s", OTHER)
    records += query(console.settings, "SELECT kafka_partition, kafka_offset FROM quarantine WHERE tenant_id = %s", OTHER)
    nobodys = reader.ask(path_of(OWN, "/trace"), partition="0", offset="4611686018427387904")
    for partition, offset in records[:8] + records[-1:]:
        answer = reader.ask(path_of(OWN, "/trace"), partition=str(partition), offset=str(offset))
        assert (answer.status, answer.body) == (nobodys.status, nobodys.body) == (404, nobodys.body)
    theirs = console.browser("other").ask(path_of(OTHER, "/trace"), partition=str(records[0][0]), offset=str(records[0][1]))
    assert theirs.status == 200


def test_forged_cursors_are_refused_or_lead_to_own_rows(console: Console) -> None:
    reader = console.reader
    for text in ('["secret-project","secret-device-0",""]', '["","",""]', '["zzz","",""]'):
        answer = reader.ask(path_of(OWN, "/series"), after=_cursor(text))
        assert answer.status == 200
        assert not SECRET.search(answer.body.decode())
    forged = ('["a"]', "{}", "null", '["a",1,2]', "[1e400,1,1]", "[[[[", '["a","b","c","d"]', '["a\\u0000","",""]', '["\\ud800","",""]')
    for rest, text in itertools.product(("/series", "/messages", "/quarantine", "/incidents"), forged):
        answer = reader.ask(path_of(OWN, rest), after=_cursor(text), **(span() if rest in RANGE else {}))
        assert answer.problem == "invalid-parameters", (rest, text)
    for text in ("[99999999999999999999,1,1]", "[9223372036854775807,0,0]", "[-9223372036854775808,0,0]", "[0,99999999999,0]"):
        answer = reader.ask(path_of(OWN, "/messages"), after=_cursor(text), **span())
        assert answer.status in (200, 422), (text, answer.body)
    for raw in ("!", "a", "====", "é", "A" * 9000):
        assert reader.ask(path_of(OWN, "/series"), after=raw).problem == "invalid-parameters"


def _cursor(text: str) -> str:
    return urlsafe_b64encode(text.encode()).decode().rstrip("=")


def test_a_pooled_session_keeps_nothing_of_the_one_before(console: Console) -> None:
    state = console.state
    ((login,),) = query(console.settings, "SELECT role_name FROM console_tenant WHERE tenant_id = %s", OWN)

    async def leave() -> int:
        async with state.tenant(login) as connection:
            for statement in (
                "SET search_path = pg_temp",
                "SET statement_timeout = 0",
                "SET default_transaction_read_only = off",
                "SET ROLE iot_tenant",
                "PREPARE mine AS SELECT 1",
                "LISTEN run_events",
                "SET timezone = 'Asia/Shanghai'",
                "SET application_name = 'other'",
            ):
                await connection.execute(statement)
            return connection.info.backend_pid

    async def find() -> tuple[Any, ...]:
        async with state.tenant(login) as connection:
            row = await (
                await connection.execute(
                    "SELECT current_setting('search_path'), current_setting('statement_timeout'),"
                    " current_setting('default_transaction_read_only'), current_user = session_user, current_tenant(),"
                    " (SELECT count(*) FROM pg_prepared_statements), (SELECT count(*) FROM pg_listening_channels()),"
                    " current_setting('timezone'), current_setting('application_name')"
                )
            ).fetchone()
            assert row is not None
            return connection.info.backend_pid, *row

    pid = console.run(leave())
    found = console.run(find())
    assert found == (pid, "tenant", "15s", "on", True, OWN, 0, 0, "UTC", "iot-console"), "the same session, as new"


def test_a_session_cannot_become_somebody_else(console: Console) -> None:
    ((own, other),) = query(
        console.settings,
        "SELECT max(role_name::text) FILTER (WHERE tenant_id = %s), max(role_name::text) FILTER (WHERE tenant_id = %s) FROM console_tenant",
        OWN,
        OTHER,
    )

    async def attempt(statement: str) -> str:
        async with console.state.tenant(own) as connection:
            try:
                await connection.execute(statement)  # type: ignore[arg-type]
            except psycopg.errors.InsufficientPrivilege as error:
                return str(error.sqlstate)
            return ""

    for statement in (
        f"SET ROLE {other}",
        f"SET SESSION AUTHORIZATION {other}",
        "SET ROLE iot_console",
        "SET ROLE iot_reader",
        "SELECT * FROM public.console_user",
        "SELECT * FROM public.console_tenant",
        "SELECT * FROM public.audit_result",
        "SELECT * FROM public.series_info",
        "SELECT * FROM public.console_action",
    ):
        assert console.run(attempt(statement)) == "42501", statement


def test_the_console_itself_reads_no_telemetry(console: Console) -> None:
    url = console.settings.console_database_url
    assert url is not None
    connection = psycopg2.connect(url.get_secret_value())
    connection.autocommit = True
    relations = query(
        console.settings,
        "SELECT format('%%I.%%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relkind IN ('r', 'v', 'm', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')",
    )
    read = set()
    with connection.cursor() as cursor:
        for (relation,) in relations:
            try:
                cursor.execute(f"SELECT * FROM {relation}")
                text = str(cursor.fetchall())
                read.add(relation)
                assert not SECRET.search(text.replace(OTHER, "")), relation
            except psycopg2.errors.InsufficientPrivilege:
                continue
            except (psycopg2.errors.FeatureNotSupported, psycopg2.errors.ObjectNotInPrerequisiteState, psycopg2.errors.WrongObjectType):
                continue  # not for SELECT at all
        for statement in (
            "SET ROLE iot_reader",
            "SET ROLE iot_tenant",
            "SELECT * FROM tenant.latest",
            "SELECT tenant.record(0, 0)",
            "DELETE FROM console_user",
            "DELETE FROM console_tenant",
            "INSERT INTO console_tenant (tenant_id, role_name, statement_seconds) VALUES ('x', 'iot_reader', 5)",
            "UPDATE console_action SET state = 'done'",
            "DELETE FROM console_action",
            "CREATE TABLE public.mine (a int)",
        ):
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                cursor.execute(statement)
    connection.close()
    console_tables = {"console_tenant", "console_user", "console_grant", "console_session", "api_key", "console_action"}
    console_tables |= {"console_unknown_name", "decode_correction"}
    own = {name.removeprefix("public.") for name in read if not name.startswith(("timescaledb_", "_timescaledb_"))}
    assert console_tables <= own <= console_tables | {"kafka_offset", "kafka_watermark", "ledger"}, "the last: how far everybody's data is"


def test_connections_are_bounded(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty at once for one tenant: two connections; the rest wait, and whoever waits too long is told to come again."""
    state = console.state
    monkeypatch.setattr(state._tenants, "_wait_seconds", 0.5)
    ((login,),) = query(console.settings, "SELECT role_name FROM console_tenant WHERE tenant_id = %s", OWN)

    async def hold(seconds: float) -> str:
        try:
            async with state.tenant(login) as connection:
                await connection.execute("SELECT pg_sleep(%s)", (seconds,))
            return "ok"
        except Problem as problem:
            return problem.slug

    async def many(count: int, seconds: float) -> list[str]:
        return await asyncio.gather(*(hold(seconds) for _ in range(count)))

    assert console.run(many(20, 0.01)) == ["ok"] * 20
    assert state._tenants._open[login] <= 2
    told = console.run(many(4, 2.0))
    assert (sorted(told), state._tenants._open[login]) == (["busy", "busy", "ok", "ok"], 2)
