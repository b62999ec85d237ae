"""Passwords of the local stack's roles are made once; a role that a release adds gets one, the others keep theirs."""

import json
import stat
from pathlib import Path

from iot_platform.local.passwords import ROLES, Passwords, console_key


def test_passwords_are_made_once(tmp_path: Path) -> None:
    file = tmp_path / "data" / "passwords.json"
    first = Passwords.load(file)
    assert Passwords.load(file) == first
    assert len({first.of(role) for role in ROLES}) == len(ROLES)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_role_of_a_later_release_gets_one(tmp_path: Path) -> None:
    file = tmp_path / "passwords.json"
    file.write_text(json.dumps({"postgres": "a", "iot_migrator": "b", "iot_writer": "c", "iot_reader": "d"}))
    found = Passwords.load(file)
    assert [found.of(role) for role in ("postgres", "iot_migrator", "iot_writer", "iot_reader")] == ["a", "b", "c", "d"]
    assert len(found.of("iot_console")) == 32
    assert Passwords.load(file) == found


def test_the_key_of_the_console_is_made_once(tmp_path: Path) -> None:
    file = console_key(tmp_path / "data" / "console.key")
    text = file.read_text()
    assert len(text) > 48
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert console_key(file).read_text() == text
