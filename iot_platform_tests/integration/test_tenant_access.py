"""`iot tenant grant|revoke|access` as an operator runs them, and what becomes of logins."""

import json
import stat
from pathlib import Path

import psycopg2
import pytest
from psycopg2.extensions import parse_dsn

from iot_platform.database import connect
from iot_platform.files import SQL
from iot_platform.settings import Settings
from iot_platform.tenants.access import Granted, TenantAccessError, grant, list_access, revoke
from iot_platform_tests.integration.test_cli_questions import iot
from iot_platform_tests.support.feeds.drain import query
from iot_platform_tests.support.feeds.tenants import open_login
from iot_platform_tests.support.servers.stack import Servers

pytestmark = pytest.mark.sql

ODD = "a'b\"; DROP ROLE iot_tenant; -- 租户 " + "x" * 100


def _said(output: str) -> dict[str, str]:
    return dict(line.split(maxsplit=1) for line in output.splitlines())


def test_grant_is_repeatable_rotates_and_is_revoked(settings: Settings, tmp_path: Path) -> None:
    first = iot(settings, "tenant", "grant", ODD)
    assert first.returncode == 0, first.stderr
    said = _said(first.stdout)
    login = Granted(ODD, said["login"].split()[0], True, said["password"], False, ())
    assert "no message of tenant" in first.stderr
    old = open_login(settings, login)
    again = _said(iot(settings, "tenant", "grant", ODD, "--connections", "3").stdout)
    assert (again["login"], "unchanged" in again["password"]) == (f"{login.role} (was there)", True)
    file = tmp_path / "password"
    rotated = iot(settings, "tenant", "grant", ODD, "--rotate", "--password-file", str(file)).stdout
    password = file.read_text().strip()
    assert (stat.S_IMODE(file.stat().st_mode), len(password) >= 32, password in rotated) == (0o600, True, False)
    with pytest.raises(psycopg2.OperationalError, match="authentication failed"):
        open_login(settings, login)
    with pytest.raises(psycopg2.OperationalError), old.cursor() as cursor:
        cursor.execute("SELECT 1")
    session = open_login(settings, Granted(ODD, login.role, False, password, False, ()))
    listed = json.loads(iot(settings, "tenant", "access", "--json").stdout)
    assert (listed["tenant"], listed["login"], listed["connections"], listed["connection_limit"]) == (ODD, login.role, 1, 10)
    assert login.role in iot(settings, "tenant", "access").stdout
    assert "is gone" in iot(settings, "tenant", "revoke", ODD).stdout
    with pytest.raises(psycopg2.OperationalError), session.cursor() as cursor:
        cursor.execute("SELECT 1")
    assert query(settings, "SELECT count(*) FROM pg_roles WHERE rolname = %s", login.role) == [(0,)]
    assert "1 to 1,024 bytes" in iot(settings, "tenant", "grant", "x" * 1025).stderr
    assert "has no login" in iot(settings, "tenant", "revoke", ODD).stdout
    assert "no tenant has a login" in iot(settings, "tenant", "access").stdout


def test_names_and_server_tell_nothing(settings: Settings) -> None:
    owner = connect(settings, "admin")
    granted = grant(owner, "acme")
    assert "acme" not in granted.role
    assert granted.password not in repr(granted)
    assert not {"postgres", "template1"} & set(granted.elsewhere), "the local stack's superuser takes that from PUBLIC"
    ((attributes,),) = query(settings, "SELECT row_to_json(r)::text FROM pg_roles r WHERE rolname = %s", granted.role)
    attributes = json.loads(attributes)
    assert attributes["rolconnlimit"] == 10
    assert {"statement_timeout=30s", "search_path=tenant", "default_transaction_read_only=on"} <= set(attributes["rolconfig"])
    assert revoke(owner, "acme") == granted.role
    owner.close()


def test_a_password_that_cannot_be_written_changes_nothing(settings: Settings, tmp_path: Path) -> None:
    done = iot(settings, "tenant", "grant", "acme", "--password-file", str(tmp_path / "no" / "folder"))
    assert (done.returncode, "nothing was changed" in done.stderr) == (1, True)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    assert iot(settings, "tenant", "grant", "acme", "--password-file", str(link)).returncode == 1
    assert query(settings, "SELECT count(*) FROM tenant_role") == [(0,)]


def test_a_login_that_could_do_more_is_refused(settings: Settings, servers: Servers) -> None:
    owner = connect(settings, "admin")
    superuser = psycopg2.connect(servers.superuser_url(parse_dsn(settings.admin_url)["dbname"]))
    for function in ("_timescaledb_functions.drop_chunk(regclass)", "public.delete_job(integer)", "pg_catalog.pg_advisory_lock(bigint)"):
        superuser.cursor().execute(f"GRANT EXECUTE ON FUNCTION {function} TO PUBLIC")
        superuser.commit()
        with pytest.raises(TenantAccessError, match=rf"execute .*{function.split('.')[1].split('(')[0]}.*harden_database\.sql"):
            grant(owner, "acme")
    superuser.cursor().execute((SQL / "superuser/harden_database.sql").read_text("utf-8"))
    superuser.commit()
    superuser.close()
    query(settings, "GRANT SELECT ON measurement TO PUBLIC")
    with pytest.raises(TenantAccessError, match=r"could .*read or change public\.measurement"):
        grant(owner, "acme")
    query(settings, "REVOKE SELECT ON measurement FROM PUBLIC")
    query(settings, "GRANT SELECT (topic) ON source TO iot_tenant")
    with pytest.raises(TenantAccessError, match=r"public\.source"):
        grant(owner, "acme")
    assert list_access(owner) == []
    owner.close()


def test_without_the_right_to_make_roles_the_remedy_is_named(settings: Settings, servers: Servers) -> None:
    superuser = psycopg2.connect(servers.superuser_url())
    superuser.autocommit = True
    owner, name = connect(settings, "admin"), parse_dsn(settings.admin_url)["user"]
    try:
        superuser.cursor().execute(f"ALTER ROLE {name} NOCREATEROLE")
        with pytest.raises(TenantAccessError, match="ALTER ROLE owner CREATEROLE"):
            grant(owner, "acme")
    finally:
        superuser.cursor().execute(f"ALTER ROLE {name} CREATEROLE")
        superuser.close()
        owner.close()


def test_a_role_that_vanished_is_made_anew(settings: Settings) -> None:
    owner = connect(settings, "admin")
    first = grant(owner, "acme")
    query(settings, f"DROP ROLE {first.role}")
    assert [item.limit for item in list_access(owner)] == [None]
    second = grant(owner, "acme")
    assert (second.role, second.created, second.password is not None) == (first.role, True, True)
    open_login(settings, second).close()
    revoke(owner, "acme")
    owner.close()


def test_tenants_cannot_take_all_connections_and_temporary_files(settings: Settings, servers: Servers) -> None:
    superuser = psycopg2.connect(servers.superuser_url(parse_dsn(settings.admin_url)["dbname"]))  # a copied database lost its settings
    superuser.cursor().execute((SQL / "superuser/harden_database.sql").read_text("utf-8"))
    superuser.commit()
    superuser.close()
    owner = connect(settings, "admin")
    with open_login(settings, grant(owner, "acme")) as session, session.cursor() as cursor:
        cursor.execute("SHOW temp_file_limit")
        assert cursor.fetchone() == ("2GB",)
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            cursor.execute("SET temp_file_limit = -1")
    session.close()
    with owner.cursor() as cursor:
        cursor.execute("SHOW temp_file_limit")
        assert cursor.fetchone() != ("2GB",)
    owner.rollback()
    revoke(owner, "acme")
    owner.close()
    assert query(settings, "SELECT current_setting('reserved_connections')::integer >= 50") == [(True,)]
    usage = "SELECT pg_has_role(%s, 'pg_use_reserved_connections', 'USAGE')"
    assert [query(settings, usage, role) for role in ("iot_writer", "iot_reader", "iot_tenant")] == [[(True,)], [(True,)], [(False,)]]
