"""Logging in to the console through a real OpenID provider."""

from contextlib import closing
from pathlib import Path

import httpx2
import pytest

from iot_platform.accounts import tenants, users
from iot_platform.database import connect
from iot_platform.tenants import console_login
from iot_platform_tests.support.feeds.drain import query
from iot_platform_tests.support.feeds.tenants import OWN
from iot_platform_tests.support.servers.console import PASSWORD, Console
from iot_platform_tests.support.servers.openid import SECRET, openid_provider, walk


@pytest.mark.timeout(600)  # npm, the first time
def test_a_user_logs_in_through_the_provider_and_nobody_else(console: Console, tmp_path: Path) -> None:
    root = f"http://127.0.0.1:{console.port}"
    secret = tmp_path / "secret"
    secret.write_text(SECRET + "\n")
    with closing(connect(console.settings, "admin")) as owner:
        for name, password in (("lin@example.com", None), ("unverified@example.com", None), ("local@example.com", PASSWORD)):
            users.add(owner, name, password, by="test")
        tenants.grant(owner, console_login.read_key(console.settings), "lin@example.com", OWN, "viewer", by="test")
    with openid_provider(f"{root}/api/v1/oidc/callback", tmp_path) as issuer:
        update = {"oidc_issuer": issuer, "oidc_client_id": "console", "oidc_client_secret_file": secret, "oidc_label": "Example"}
        console.state.settings = console.settings.model_copy(update=update)
        assert console.browser().ask("/session").document["oidc"] == {"enabled": True, "label": "Example"}

        def log_in(browser: httpx2.Client, name: str) -> str:
            return walk(browser, f"{root}/api/v1/oidc/login?return_to=/t/{OWN}", name)

        with httpx2.Client(timeout=120) as browser:
            assert log_in(browser, "lin") == f"/t/{OWN}"
            session = browser.get(f"{root}/api/v1/session").json()
            assert (session["user"]["name"], [item["tenant"] for item in session["tenants"]]) == ("lin@example.com", [OWN])
            assert browser.get(f"{root}/api/v1/tenants/{OWN}/projects").status_code == 200
            # Coming back once more, as a reload of that page does.
            again = browser.get(f"{root}/api/v1/oidc/callback?code=x&state=y")
            assert (again.status_code, again.headers["location"]) == (302, "/login?problem=login-expired")
        # The account is known by its subject from then on, whatever the name is.
        query(console.settings, "UPDATE console_user SET name = 'lin' WHERE name = 'lin@example.com'")
        with httpx2.Client(timeout=120) as browser:
            assert log_in(browser, "lin") == f"/t/{OWN}"
        query(console.settings, "UPDATE console_user SET disabled = true WHERE name = 'lin'")
        outcomes = {}
        for name in ("lin", "unverified", "local", "nobody"):
            with httpx2.Client(timeout=120) as browser:
                outcomes[name] = log_in(browser, name).removeprefix("/login?problem=")
                assert browser.get(f"{root}/api/v1/session").status_code == 401
        assert outcomes == {"lin": "no-such-user", "unverified": "login-refused", "local": "no-such-user", "nobody": "no-such-user"}
        for away in ("https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)"):
            answer = httpx2.get(f"{root}/api/v1/oidc/login", params={"return_to": away}, timeout=120)
            assert answer.status_code == 422, away
