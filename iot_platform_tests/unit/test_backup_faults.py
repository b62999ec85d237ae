"""What pgBackRest and the folders of restores say, and what is made of it: each answer was seen of the real program."""

import json
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from iot_platform.backup.archive import Archive
from iot_platform.backup.create import create
from iot_platform.backup.drill import Drills, due, require_read_only
from iot_platform.backup.errors import BackupError
from iot_platform.backup.host import DatabaseHost
from iot_platform.backup.listing import Repository, read_repository
from iot_platform.backup.restore import make_plan
from iot_platform.backup.verify import Archiver, Verification, _judge_archiving
from iot_platform.settings import Settings

NOW = datetime(2026, 11, 30, tzinfo=UTC)


def backup(label: str, *, broken: bool = False) -> dict[str, Any]:
    return {
        "label": label,
        "type": "full",
        "timestamp": {"start": 100, "stop": 200},
        "lsn": {"start": "0/1", "stop": "0/2"},
        "archive": {"start": "0" * 24, "stop": "0" * 24},
        "info": {"size": 1, "repository": {"delta": 1}},
        "database": {"id": 1},
        "error": broken,
    }


def stanza(*backups: dict[str, Any], code: int = 0, message: str = "ok") -> str:
    database = [{"version": "17", "id": 1, "system-id": 7}] if code == 0 else []
    repository = [{"key": 1, "status": {"code": code, "message": message}}]
    status = {"code": code, "message": "other" if code else "ok"}
    return json.dumps(
        [{"name": "iot", "db": database, "archive": [], "backup": list(backups), "cipher": "none", "repo": repository, "status": status}]
    )


def settings_of(folder: Path, script: str) -> Settings:
    """Whose pgBackRest is a script."""
    program = folder / "pgbackrest"
    program.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
    program.chmod(0o755)
    return Settings(backup_exec=f"env PATH={folder}:/usr/bin:/bin", backup_config="/c")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("[ProtocolError] HTTP request failed with 403 (Forbidden):\n*** Path/Query ***:", r"cannot be read: .*403 \(Forbidden\)$"),
        ("[FormatError] unable to load info file '/backup.info':\nFormatError: x", "passphrase may be another one"),
    ],
)
def test_a_repository_that_cannot_be_read_is_not_one_without_a_stanza(tmp_path: Path, said: str, told: str) -> None:
    (tmp_path / "info").write_text(stanza(code=99, message=said), "utf-8")
    with pytest.raises(BackupError, match=told):
        read_repository(DatabaseHost.of(settings_of(tmp_path, f"cat {tmp_path}/info")))


def test_bytes_of_a_wrong_passphrase_and_warnings_are_no_reason_to_fail_otherwise(tmp_path: Path) -> None:
    (tmp_path / "info").write_text(stanza(code=99, message="[FormatError] x \\u0001").replace("\\\\u0001", "\x01"), "utf-8")
    script = (
        f'case "$*" in *--log-level-console=off*) ;; *) echo "P00   WARN: environment contains invalid option" ;; esac; cat {tmp_path}/info'
    )
    with pytest.raises(BackupError, match="cannot be read"):
        read_repository(DatabaseHost.of(settings_of(tmp_path, script)))


def test_a_backup_of_damaged_pages_is_no_success(tmp_path: Path) -> None:
    (tmp_path / "info").write_text(stanza(), "utf-8")
    (tmp_path / "after").write_text(stanza(backup("20261130-025125F", broken=True)), "utf-8")
    script = f'case "$*" in *info*) cat {tmp_path}/info ;; *) mv {tmp_path}/after {tmp_path}/info ;; esac'
    with pytest.raises(BackupError, match=r"20261130-025125F was made, but pages .* wrong checksums"):
        create(settings_of(tmp_path, script), "full")


@pytest.mark.parametrize(
    "said",
    [
        "[041]: unable to open file '/mnt/iot-drill' for write: [30] Read-only file system",
        "[041]: unable to open file '/mnt/iot-drill' for write: [13] Permission denied",
        "[039]: HTTP request failed with 403 (Forbidden):",
    ],
)
def test_a_refusal_is_what_a_drill_wants(tmp_path: Path, said: str) -> None:
    require_read_only(DatabaseHost.of(settings_of(tmp_path, f'echo "P00  ERROR: {said}"; exit 41')))


@pytest.mark.parametrize(
    "said",
    [
        "[039]: HTTP request failed with 404 (Not Found):",
        "[039]: HTTP request failed with 500 (Internal Server Error):",
        "[049]: unable to connect to 's3.example:4403': [111] Connection refused",
        "[041]: unable to open file '/mnt/iot-drill' for write: [28] No space left on device",
    ],
)
def test_another_failure_says_nothing_about_rights(tmp_path: Path, said: str) -> None:
    with pytest.raises(BackupError, match=r"\[0\d\d\]"):
        require_read_only(DatabaseHost.of(settings_of(tmp_path, f'echo "P00  ERROR: {said}"; exit 41')))


def test_who_may_write_but_not_remove_could_write(tmp_path: Path) -> None:
    script = 'case "$*" in *repo-rm*) echo "P00  ERROR: [039]: HTTP request failed with 403 (Forbidden):"; exit 39 ;; esac'
    with pytest.raises(BackupError, match="could write into the repository"):
        require_read_only(DatabaseHost.of(settings_of(tmp_path, script)))


def test_a_time_that_is_not_yet_is_refused_before_anything_is_restored() -> None:
    with pytest.raises(BackupError, match="is not yet"):
        make_plan(Settings(), DatabaseHost("/no/such/command", "/c"), datetime.now(UTC) + timedelta(minutes=1), None)


def judged(archived: str, *, on: bool = True) -> list[str]:
    """Of a server that writes segment 7 of timeline 1, whose repository has 3 to 6."""
    found = Verification(Repository((), "17-1", "7", False, "", ""))
    archiver = Archiver(0, 0.0, time.time(), "000000010000000000000007", on, archived)
    _judge_archiving(found, archiver, Archive({1: frozenset(range(3, 7))}, {}, int(time.time())))
    return found.problems


def test_segments_that_are_archived_elsewhere_are_missed() -> None:
    """The archiver is well, and nothing has a hole: a disk that was mounted over, another configuration."""
    assert judged("000000010000000000000006") == []
    assert judged("") == judged("00000002.history") == [], "a server that has just been started"
    (problem,) = judged("000000010000000000000009")
    assert "000000010000000000000009, which the repository does not have" in problem
    assert judged("000000020000000000000006") != [], "the same number of another timeline"


def test_a_drill_is_due_when_the_last_good_one_is_a_week_old() -> None:
    settings = Settings()
    assert due(Drills(None, (), None), settings, NOW)
    assert due(Drills(NOW, ("failed",), NOW - timedelta(days=7, minutes=-30)), settings, NOW), "one that failed does not count"
    assert not due(Drills(NOW, (), NOW - timedelta(days=6)), settings, NOW)


def host(folder: Path) -> DatabaseHost:
    return DatabaseHost("env", "/c", folder)


def test_what_a_killed_drill_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "scratch"
    first = host(folder)
    first.make_scratch()
    assert first.inside == str(folder / "data")
    (folder / "data" / "PG_VERSION").touch()
    host(folder).make_scratch()
    assert list((folder / "data").iterdir()) == []
    host(folder).require_room(1)
    first.remove_scratch()
    assert not folder.exists()
    folder.mkdir()
    (folder / "PG_VERSION").touch()
    with pytest.raises(BackupError, match=r"is not empty \(PG_VERSION\), and no drill made that"):
        host(folder).make_scratch()
    assert (folder / "PG_VERSION").exists()


def test_a_folder_without_room_and_one_with_a_server_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BackupError, match=r"GB of room, and .* GB are needed"):
        host(tmp_path).require_room(1 << 60)
    (tmp_path / "postmaster.pid").write_text(f"{os.getpid()}\n/srv\n", "ascii")
    with pytest.raises(BackupError, match=rf"not empty.*process {os.getpid()}\): stop that first"):
        host(tmp_path).make_folder()
