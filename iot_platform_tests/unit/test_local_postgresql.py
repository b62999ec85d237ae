"""Which PostgreSQL the local stack takes, and what it says when it can't take one."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from iot_platform.backup.repository import Repository
from iot_platform.local import postgresql
from iot_platform.local.errors import LocalStackError
from iot_platform.local.passwords import ROLES, Passwords
from iot_platform.local.postgresql import PostgresqlServer
from iot_platform.local.postgresql_install import Installation, find_installed
from iot_platform.settings import Settings


def _installed(root: Path, major: str, timescaledb: str | None) -> None:
    bin_dir = root / "usr/lib/postgresql" / major / "bin"
    bin_dir.mkdir(parents=True)
    (bin_dir / "initdb").touch()
    extensions = root / "usr/share/postgresql" / major / "extension"
    extensions.mkdir(parents=True)
    if timescaledb:
        (extensions / "timescaledb.control").write_text(f"comment = 'x'\ndefault_version = '{timescaledb}'\n")
    passwd = root / "etc/passwd"
    passwd.parent.mkdir(exist_ok=True)
    passwd.write_text("root:x:0:0::/root:/bin/sh\npostgres:x:107:109::/var/lib/postgresql:/bin/sh\n")


def _server(folder: Path) -> PostgresqlServer:
    return PostgresqlServer(folder, folder / "cache", 5432, Passwords(dict.fromkeys(ROLES, "secret")))


def test_newest_with_a_sound_timescaledb_is_taken(tmp_path: Path) -> None:
    _installed(tmp_path, "15", "2.19.3")
    _installed(tmp_path, "16", "2.20.0-dev")
    _installed(tmp_path, "17", "2.19.0")  # drops rows on ON CONFLICT into compressed chunks
    _installed(tmp_path, "18", None)
    assert find_installed(tmp_path) == Installation(tmp_path, "/usr/lib/postgresql/16/bin", "16", 107, 109)


def test_nothing_suitable_is_none(tmp_path: Path) -> None:
    _installed(tmp_path, "17", "2.9.9")
    assert find_installed(tmp_path) is None


def test_no_server_and_no_root_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(postgresql, "find_installed", lambda: None)
    monkeypatch.setattr(postgresql, "debian_codename", lambda: "bookworm")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(LocalStackError, match=r"run `iot up` as root.*IOT_DATABASE_URL"):
        _server(tmp_path).missing_packages()


def test_debian_13_needs_its_own_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(postgresql, "find_installed", lambda: None)
    monkeypatch.setattr(postgresql, "debian_codename", lambda: "trixie")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert set(_server(tmp_path).missing_packages()) == {"postgresql-17", "postgresql-17-timescaledb"}


def test_backups_need_pgbackrest_on_debian_13(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(postgresql, "find_installed", lambda: None)
    monkeypatch.setattr(postgresql, "debian_codename", lambda: "trixie")
    monkeypatch.setattr(postgresql, "which", lambda _name: None)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    server = replace(_server(tmp_path), repository=Repository.of(Settings(backup_repository="/backup")))
    assert set(server.missing_packages()) == {"postgresql-17", "postgresql-17-timescaledb", "pgbackrest"}


def test_data_of_another_major_version_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    root = tmp_path / "root"
    _installed(root, "17", "2.19.3")
    found = find_installed(root)
    assert found is not None
    monkeypatch.setattr(postgresql, "find_installed", lambda: Installation(found.root, found.bin_dir, "17", os.getuid(), os.getgid()))
    (tmp_path / "data" / "postgresql" / "16").mkdir(parents=True)
    with pytest.raises(LocalStackError, match="holds data of PostgreSQL 16, but 17 is installed"):
        _server(tmp_path).prepare(lambda _: None)
    assert not (tmp_path / "data" / "postgresql" / "17").exists()
