"""What pgbackrest.conf says, which kind of backup is due, and what is refused."""

from pathlib import Path

import pytest

from iot_platform.backup.archive import Backup
from iot_platform.backup.create import due
from iot_platform.backup.errors import BackupError
from iot_platform.backup.host import DatabaseHost
from iot_platform.backup.repository import Repository, Server, pgbackrest_conf, server_settings
from iot_platform.settings import Settings

SERVER = Server("/srv/17", "/srv/pgbackrest", 5432, "/srv/run")
DAY = 86400


def repository(folder: Path, **values: object) -> Repository:
    made = Repository.of(Settings(**values))  # type: ignore[arg-type]
    assert made is not None
    return made


def test_folder_with_a_passphrase(tmp_path: Path) -> None:
    (tmp_path / "passphrase").write_text("secret\n")
    made = repository(tmp_path, backup_repository="/backup/", backup_cipher_file=tmp_path / "passphrase", backup_keep_days=30)
    lines = pgbackrest_conf(made, SERVER).splitlines()
    assert {"repo1-path=/backup", "repo1-cipher-pass=secret", "repo1-retention-full=30", "pg1-path=/srv/17"} < set(lines)
    assert "repo1-path=/mnt" in pgbackrest_conf(made, SERVER, "/mnt").splitlines()
    assert not [line for line in lines if line.startswith("archive-push-queue-max")]


def test_s3_needs_its_key(tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="IOT_BACKUP_S3_ENDPOINT"):
        pgbackrest_conf(repository(tmp_path, backup_repository="s3://bucket/iot"), SERVER)
    key = tmp_path / "key"
    key.write_text("name")
    values = {"backup_repository": "s3://bucket/iot", "backup_s3_endpoint": "s3.example:9000", "backup_s3_key_file": key}
    with pytest.raises(BackupError, match="key:secret"):
        pgbackrest_conf(repository(tmp_path, **values), SERVER)
    key.write_text("name:se:cret\n")
    text = pgbackrest_conf(repository(tmp_path, **values), SERVER)
    for line in (
        "repo1-type=s3",
        "repo1-path=/iot",
        "repo1-s3-bucket=bucket",
        "repo1-s3-endpoint=s3.example:9000",
        "repo1-s3-key-secret=se:cret",
    ):
        assert line in text.splitlines()


def test_a_drills_configuration_has_the_key_that_may_only_read(tmp_path: Path) -> None:
    for name in ("writer", "reader"):
        (tmp_path / name).write_text(f"{name}:secret\n")
    values = {"backup_repository": "s3://bucket/iot", "backup_s3_endpoint": "s3.example", "backup_s3_key_file": tmp_path / "writer"}
    assert repository(tmp_path, **values).for_drills is None
    made = repository(tmp_path, **values, backup_s3_reader_key_file=tmp_path / "reader").for_drills
    assert made is not None
    assert "repo1-s3-key=reader" in pgbackrest_conf(made, SERVER).splitlines()
    folder = repository(tmp_path, backup_repository="/backup", backup_s3_reader_key_file=tmp_path / "reader")
    assert folder.for_drills is None, "it is shown read-only instead"


def test_passphrase_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(BackupError, match=r"IOT_BACKUP_CIPHER_FILE.*cannot be read"):
        pgbackrest_conf(repository(tmp_path, backup_repository="/backup", backup_cipher_file=tmp_path / "none"), SERVER)


def test_restored_server_archives_from_where_it_lies() -> None:
    assert "--pg1-path=/media archive-push %p" in server_settings("/c", "/media")["archive_command"]
    assert "pg1-path" not in server_settings("/c")["archive_command"]


def test_no_backups_are_set_up() -> None:
    with pytest.raises(BackupError, match="IOT_BACKUP_REPOSITORY"):
        DatabaseHost.of(Settings())


def test_command_that_does_not_exist_is_told() -> None:
    with pytest.raises(BackupError, match="IOT_BACKUP_EXEC"):
        DatabaseHost("/no/such/command {folder}", "/c").pgbackrest("info")


def test_arguments_reach_a_shell_behind_ssh_whole(tmp_path: Path) -> None:
    """As ssh does: one line, for a shell."""
    ssh = tmp_path / "ssh"
    ssh.write_text('#!/bin/sh\nshift\nexec sh -c "$*"\n')
    ssh.chmod(0o755)
    shown = DatabaseHost(f"{ssh} db.example", "/c").run("printf", "%s|", "a b", "it's", "$HOME").stdout
    assert shown == "a b|it's|$HOME|"


def test_errors_of_pgbackrest_are_one_sentence(tmp_path: Path) -> None:
    said = "P00   INFO: begin\nP00  ERROR: [055]: unable to load info file:\n             FileMissingError: x\n"
    program = tmp_path / "pgbackrest"
    program.write_text(f"#!/bin/sh\nprintf '%s' '{said}'\nexit 55\n")
    program.chmod(0o755)
    with pytest.raises(BackupError, match=r"^pgbackrest info: \[055\]: unable to load info file: FileMissingError: x$"):
        DatabaseHost(f"env PATH={tmp_path}:/usr/bin:/bin", "/c").pgbackrest("info")


def made(kind: str, started_at: int, *, broken: bool = False) -> Backup:
    return Backup(kind, kind, started_at, started_at + 60, 0, 0, "0" * 24, "0" * 24, 1, 1, broken)


def test_a_full_backup_is_due_weekly_and_differential_ones_between() -> None:
    settings, now = Settings(), 100.0 * DAY
    assert due((), settings, now) == "full"
    assert due((made("full", 93 * DAY + 1800),), settings, now) == "full", "the schedule of today is half an hour early"
    assert due((made("full", 94 * DAY), made("diff", 99 * DAY)), settings, now) == "diff"
    assert due((made("full", 94 * DAY, broken=True),), settings, now) == "full"
