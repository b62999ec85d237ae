"""Logging in to the console, what a session and a key may do, and how it all ends."""

import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from iot_platform.accounts import keys, users
from iot_platform.accounts.passwords import hashed
from iot_platform.api.limits import FREE_FAILURES, Buckets
from iot_platform.database import connect
from iot_platform.settings import Settings
from iot_platform.tenants import console_login
from iot_platform_tests.integration.test_cli_questions import iot
from iot_platform_tests.support.feeds.drain import query
from iot_platform_tests.support.feeds.tenants import OTHER, OWN
from iot_platform_tests.support.servers.console import PASSWORD, Console, path_of


def test_a_session_from_login_to_logout(console: Console) -> None:
    browser = console.browser()
    nobody = browser.ask("/session")
    assert (nobody.problem, nobody.document["oidc"]) == ("not-logged-in", {"enabled": False, "label": ""})
    browser.log_in("operator")
    cookie = browser.cookies["iot_session"]
    session = browser.ask("/session").document
    assert session["user"] == {"name": "operator", "display_name": "operator", "role": "operator"}
    assert session["tenants"] == [{"tenant": OWN, "name": OWN, "role": "operator"}]
    stored = query(console.settings, "SELECT encode(token_sha256, 'escape') FROM console_session")
    assert cookie not in str(stored)
    browser.log_in("operator")
    assert browser.cookies["iot_session"] != cookie, "each login has a token of its own"
    old = console.browser()
    old.cookies["iot_session"] = cookie
    assert old.ask("/session").problem == "not-logged-in", "and ends the one that the browser had"
    assert browser.ask("/session", "DELETE").status == 204
    assert query(console.settings, "SELECT count(*) FROM console_session WHERE token_sha256 = sha256(%s)", cookie.encode()) == [(0,)]
    assert browser.ask("/session").problem == "not-logged-in"


def test_the_cookie_is_kept_from_scripts_and_other_sites(console: Console) -> None:
    said = console.browser().ask("/session", "POST", {"name": "own", "password": PASSWORD}).headers["set-cookie"]
    assert {"HttpOnly", "SameSite=lax", "Path=/"} <= set(said.split("; "))
    assert "Secure" not in said
    proxied = {"X-Forwarded-Proto": "https"}
    answer = console.browser().ask("/session", "POST", {"name": "own", "password": PASSWORD}, proxied)
    assert "Secure" in answer.headers["set-cookie"].split("; ")
    assert "max-age" in answer.headers["strict-transport-security"]


def test_changes_need_the_token(console: Console) -> None:
    browser = console.browser("boss")
    token = browser.csrf
    for wrong in ("", "0" * 64, "é"):
        browser.csrf = wrong
        assert browser.ask("/session", "DELETE").problem == "wrong-csrf-token"
        assert browser.ask("/users", "POST", {"name": "mallory", "password": PASSWORD}).problem == "wrong-csrf-token"
    browser.csrf = token
    assert browser.ask("/users", "POST", {"name": "wang", "password": PASSWORD}).status == 201


def test_wrong_passwords_lock_a_name_and_tell_nothing(console: Console) -> None:
    """The same answers whether there is such a user or not; the right password does not help while it is locked."""
    for name in ("own", "nobody"):
        browser = console.browser()
        wrong = {"name": name, "password": "wrong " * 3}
        answers = [browser.ask("/session", "POST", wrong) for _ in range(FREE_FAILURES)]
        assert [answer.problem for answer in answers] == ["wrong-password"] * FREE_FAILURES
        locked = browser.ask("/session", "POST", wrong | {"password": PASSWORD})
        assert locked.problem == "locked"
        assert 0 < int(locked.headers["retry-after"]) <= 61
        assert "iot_session" not in browser.cookies
    query(console.settings, "UPDATE console_user SET locked_until = now() - interval '1 second' WHERE name = 'own'")
    console.browser("own")
    assert query(console.settings, "SELECT failures, locked_until FROM console_user WHERE name = 'own'") == [(0, None)]


def test_sessions_end(console: Console) -> None:
    browser = console.user("leaving")
    for statement in (
        "UPDATE console_session SET expires_at = now() - interval '1 second'",
        "UPDATE console_session SET last_seen_at = now() - interval '13 hours'",
        "UPDATE console_user SET disabled = true WHERE name = 'leaving'",
        "DELETE FROM console_session",
    ):
        browser.log_in("leaving")
        assert browser.ask(path_of(OWN, "/rules")).status == 200
        query(console.settings, statement)
        assert browser.ask(path_of(OWN, "/rules")).problem == "not-logged-in"
        query(console.settings, "UPDATE console_user SET disabled = false")
    browser.log_in("leaving")
    with closing(connect(console.settings, "admin")) as owner:
        users.ungrant(owner, "leaving", OWN)
        assert browser.ask(path_of(OWN, "/rules")).problem == "no-such-tenant", "at once"
        users.change(owner, "leaving", password="another long one", by="test")
        assert browser.ask("/session").problem == "not-logged-in"
        users.remove(owner, "leaving")


def test_roles(console: Console) -> None:
    change = {"display_name": "x"}
    one = {"project": "plant-0", "device": "pump-0", "metric": "flow"}
    viewer, operator, boss = (console.browser(name) for name in ("own", "operator", "boss"))
    assert viewer.ask(path_of(OWN, "/series-info"), "PUT", change, **one).problem == "not-allowed"
    assert operator.ask(path_of(OWN, "/series-info"), "PUT", change, **one).status in (202, 501)
    for browser in (viewer, operator):
        assert browser.ask("/users").problem == "not-allowed"
        assert browser.ask(path_of(OWN, "/api-keys")).problem == "not-allowed"
    assert {"boss", "operator", "other", "own"} <= {item["name"] for item in boss.ask("/users").document["users"]}
    assert boss.ask(path_of(OTHER, "/rules")).problem == "no-such-tenant", "who manages users sees no tenant by that"
    assert console.browser("other").ask("/users").problem == "not-allowed", "nor does a tenant's admin manage users"


def test_users_are_managed_through_the_api(console: Console) -> None:
    boss = console.browser("boss")
    new: dict[str, Any] = {"name": "zhou", "display_name": "王工", "password": PASSWORD, "tenants": [{"tenant": OWN, "role": "viewer"}]}
    assert boss.ask("/users", "POST", new).document["tenants"] == [{"tenant": OWN, "role": "viewer"}]
    assert boss.ask("/users", "POST", new).problem == "conflict"
    assert boss.ask("/users", "POST", new | {"name": "li", "tenants": [{"tenant": "no login", "role": "viewer"}]}).problem == "not-found"
    assert boss.ask("/users", "POST", new | {"name": "li", "password": "short"}).problem == "invalid-parameters"
    zhou = console.browser("zhou")
    assert boss.ask("/users/zhou", "PATCH", {"tenants": [{"tenant": OTHER, "role": "viewer"}]}).status == 200
    assert [item["tenant"] for item in zhou.ask("/session").document["tenants"]] == [OTHER]
    assert boss.ask("/users/zhou", "PATCH", {"disabled": True}).status == 200
    assert zhou.ask("/session").problem == "not-logged-in"
    assert boss.ask("/users/boss", "PATCH", {"administrator": False}).problem == "conflict", "somebody must manage users"
    assert boss.ask("/users/nobody", "PATCH", {"disabled": True}).problem == "not-found"


def test_keys_read_one_tenant_until_they_end(console: Console) -> None:
    boss = console.browser("boss")
    made = boss.ask(path_of(OWN, "/api-keys"), "POST", {"name": "dashboards"}).document
    reader = console.reader
    reader.key = made["secret"]
    assert reader.ask(path_of(OWN, "/rules")).status == 200
    assert reader.ask(path_of(OTHER, "/rules")).problem == "no-such-tenant"
    assert reader.ask("/session").problem == "not-logged-in"
    assert reader.ask("/users").problem == "not-allowed"
    assert reader.ask(path_of(OWN, "/api-keys"), "POST", {"name": "more"}).problem == "not-allowed"
    listed = {item["name"]: item for item in boss.ask(path_of(OWN, "/api-keys")).document["keys"]}
    assert listed["dashboards"]["last_used_at"] is not None
    assert made["secret"] not in str(listed) + str(query(console.settings, "SELECT * FROM api_key"))
    other = console.browser("other")
    assert other.ask(path_of(OTHER, f"/api-keys/{made['key_id']}"), "DELETE").problem == "not-found", "of another tenant"
    query(console.settings, "UPDATE api_key SET expires_at = now() - interval '1 second' WHERE name = 'dashboards'")
    assert reader.ask(path_of(OWN, "/rules")).problem == "not-logged-in"
    with closing(connect(console.settings, "admin")) as owner:
        _, reader.key = keys.add(owner, OWN, "rotated", by="test")
        assert reader.ask(path_of(OWN, "/rules")).status == 200
        rotated = keys.rotate(owner, OWN, "rotated")
    assert reader.ask(path_of(OWN, "/rules")).problem == "not-logged-in"
    reader.key = rotated
    assert reader.ask(path_of(OWN, "/rules")).status == 200
    for wrong in ("iot_nonsense", "", "Basic abc", "iot_" + "A" * 5000):
        reader.key = wrong or "x"
        assert reader.ask(path_of(OWN, "/rules")).problem == "not-logged-in"


def test_too_many_requests_are_put_off(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console.state, "requests", Buckets(0.001, 3))
    answers = [console.reader.ask(path_of(OWN, "/rules")) for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429]
    assert int(answers[-1].headers["retry-after"]) > 1
    assert console.browser("own").ask("/session").status == 200, "somebody else"


def test_accounts_on_the_command_line(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("short\n")
    refused = iot(settings, "console", "user", "add", "lin", "--password-file", str(file))
    assert (refused.returncode, "12 to 1024 characters" in refused.stderr) == (1, True)
    file.write_text(PASSWORD + "\n")
    assert iot(settings, "console", "user", "add", "lin", "--password-file", str(file)).returncode == 0
    assert "already" in iot(settings, "console", "user", "add", "lin", "--password-file", str(file)).stderr
    granted = iot(settings, "console", "user", "grant", "lin", "acme", "--role", "operator", "--called", "一号工厂")
    assert (granted.stdout, "no message of tenant acme" in granted.stderr) == ("user lin sees tenant acme as operator\n", True)
    assert "a / or is ." in iot(settings, "console", "user", "grant", "lin", "a/b").stderr
    assert "no user nobody" in iot(settings, "console", "user", "grant", "nobody", "acme").stderr
    key = iot(settings, "console", "key", "add", "acme", "reports", "--days", "1").stdout.strip()
    assert key.startswith("iot_")
    assert "reports" in iot(settings, "console", "key", "list").stdout
    listed = iot(settings, "console", "user", "list").stdout
    assert ("lin" in listed, "acme (operator)" in listed, key in listed) == (True, True, False)
    gone = iot(settings, "console", "user", "revoke", "--whole-tenant", "acme")
    assert "out of the console" in gone.stdout, gone.stderr
    assert query(settings, "SELECT (SELECT count(*) FROM api_key), (SELECT count(*) FROM console_grant)") == [(0, 0)]
    assert query(settings, "SELECT count(*) FROM pg_roles WHERE rolname IN (SELECT role_name FROM console_tenant)") == [(0,)]
    assert iot(settings, "console", "user", "remove", "lin").returncode == 0


def test_a_new_key_of_the_console_needs_new_grants_only(console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other.key"
    other.write_text("k" * 64)
    changed = console.settings.model_copy(update={"console_key_file": other})
    monkeypatch.setattr(console.state, "_key", console_login.read_key(changed))
    console.run(console.state._tenants.close_idle(0))
    assert console.reader.ask(path_of(OWN, "/rules")).problem == "database-unavailable"
    with closing(connect(changed, "admin")) as owner, owner.cursor() as cursor:
        console_login.ensure(cursor, console_login.read_key(changed), OWN)
        owner.commit()
    assert console.reader.ask(path_of(OWN, "/rules")).status == 200
    monkeypatch.undo()
    with closing(connect(console.settings, "admin")) as owner, owner.cursor() as cursor:
        console_login.ensure(cursor, console_login.read_key(console.settings), OWN)
        owner.commit()


def test_hashes_are_as_owasp_wants_them() -> None:
    assert hashed(PASSWORD).startswith("$argon2id$v=19$m=19456,t=2,p=1$")


def test_without_its_settings_it_says_which(tmp_path: Path) -> None:
    environment = {"IOT_LOCAL_DIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "iot_platform.api"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
    assert done.returncode == 2
    assert "IOT_CONSOLE_DATABASE_URL is not set" in done.stderr
