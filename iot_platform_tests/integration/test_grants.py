"""Roles have the rights on the list iot_platform_tests/contract/grants.json and no other."""

import json
from pathlib import Path

import pytest

from iot_platform.settings import Settings
from iot_platform_tests.support.feeds.drain import query
from iot_platform_tests.support.oracles.grants import dump, rights

pytestmark = pytest.mark.sql

CONSOLE = {"kafka_offset", "kafka_watermark", "ledger"} | {
    "console_tenant",
    "console_user",
    "console_grant",
    "console_session",
    "api_key",
    "console_action",
    "console_unknown_name",
    "decode_correction",
}
LISTED = Path(__file__).parents[1] / "contract" / "grants.json"


def test_every_right_is_listed(settings: Settings, tmp_path: Path) -> None:
    found = rights(settings.admin_url)
    listed = json.loads(LISTED.read_text("utf-8"))
    pairs = {(role, right) for role, all_rights in found.items() for right in all_rights}
    wanted = {(role, right) for role, all_rights in listed.items() for right in all_rights}
    file = tmp_path / "grants.json"
    file.write_text(dump(found), "utf-8")
    assert (pairs - wanted, wanted - pairs) == (set(), set()), f"(new, gone); if this is intended: cp {file} {LISTED}"


def test_public_has_nothing_and_only_the_owner_passes_rights_on(settings: Settings) -> None:
    found = rights(settings.admin_url)
    assert "PUBLIC" not in found
    assert set(found) == {"iot_writer", "iot_reader", "iot_tenant", "iot_console"}
    assert not [right for all_rights in found.values() for right in all_rights if "*" in right]
    console = [right for right in found["iot_console"] if right.split(" ")[0] not in ("database", "schema", "role:")]
    assert {right.split(":")[0].split(" ")[-1].removeprefix("public.").split(".")[0] for right in console} <= CONSOLE
    assert {right.split(" ")[0] for right in found["iot_tenant"]} == {"database", "schema", "view", "function", "role:"}
    assert all(" tenant" in right or right in ("database the database: CONNECT", "role: ") for right in found["iot_tenant"])


def test_chunks_have_no_rights_that_their_hypertable_has_not(settings: Settings) -> None:
    query(settings, "INSERT INTO measurement (time, series_id) VALUES (now(), 1)")
    rows = query(
        settings,
        "SELECT c.oid::regclass, a.* FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class h ON h.oid = i.inhparent"
        " CROSS JOIN aclexplode(c.relacl) a WHERE NOT EXISTS (SELECT FROM aclexplode(h.relacl) b"
        " WHERE (b.grantee, b.privilege_type) = (a.grantee, a.privilege_type))",
    )
    assert rows == []
    assert query(settings, "SELECT count(*) FROM pg_inherits WHERE inhparent = 'measurement'::regclass") != [(0,)]
