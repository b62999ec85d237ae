"""A repository in S3, on a real S3 server by TLS: the same commands, and a drill's key that may only read."""

import hashlib
from pathlib import Path

import pytest

from iot_platform.backup.create import create
from iot_platform.backup.drill import drill, require_read_only
from iot_platform.backup.errors import BackupError
from iot_platform.backup.host import DatabaseHost
from iot_platform.backup.restore import restore
from iot_platform.backup.verify import verify
from iot_platform_tests.support.feeds.drain import drain
from iot_platform_tests.support.feeds.readings import Publisher
from iot_platform_tests.support.servers.backed_up import BackedUp, quiet

pytestmark = [
    pytest.mark.backup,
    pytest.mark.timeout(1200),  # the first time the server is built
    pytest.mark.parametrize("backed_up", ["s3"], indirect=True),
]


def objects(database: BackedUp) -> dict[str, str]:
    """Every object of the bucket, with the hash of what is in it, but for the WAL that production goes on archiving."""
    found = {str(path.relative_to(database.repository)): path for path in database.repository.rglob("*") if path.is_file()}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in found.items() if "/archive/iot/17-1/0" not in f"/{name}"}


def test_a_bucket_is_backed_up_to_and_restored_from(backed_up: BackedUp) -> None:
    settings, publisher = backed_up.settings, Publisher(backed_up.settings)
    publisher.send_and_drain(100)
    create(settings, "full")
    publisher.send_and_drain(50)
    assert create(settings, "incr").type == "incr"
    backed_up.note_heartbeat()
    backed_up.switch_wal()
    found = verify(backed_up.host)
    assert (found.problems, found.unknown, found.repository.encrypted) == ([], [], True)
    assert all(name.startswith("production/") for name in objects(backed_up)), "nothing but the prefix is written to"

    before = objects(backed_up)
    report = drill(settings, backed_up.folder / "drill", quiet)
    assert (report.problems, sum(report.offsets.values())) == ([], 150)
    the_drills_key_cannot_write(backed_up)
    assert objects(backed_up) == before

    report = restore(settings, backed_up.kill(), quiet)
    assert (report.problems, report.missing_messages, report.recovery.timeline) == ([], 0, 2)
    backed_up.start()
    drain(settings)
    publisher.require_equal()


def the_drills_key_cannot_write(database: BackedUp) -> None:
    """Whatever it tries."""
    reader = DatabaseHost.of(database.settings, read_only=True)
    assert reader.config != database.host.config
    require_read_only(reader)
    database.host.sql("SELECT pg_logical_emit_message(true, 'test', 'begins a segment, which is not archived yet')")
    ((segment,),) = database.host.sql("SELECT current_setting('data_directory') || '/pg_wal/' || pg_walfile_name(pg_current_wal_lsn())")
    newest = database.host.pgbackrest_json("info")[0]["backup"][-1]["label"]  # incremental: a full one would be refused as the last one
    attempts: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = [
        ("archive-push", (), (segment,)),
        ("backup", (), ()),
        ("expire", (f"--set={newest}",), ()),
    ]
    for command, options, arguments in attempts:
        with pytest.raises(BackupError, match=r"403|AccessDenied"):
            reader.pgbackrest(command, *options, arguments=arguments)
    for command, argument in (("repo-put", "archive/iot/archive.info"), ("repo-rm", "backup/iot/backup.info")):
        with pytest.raises(BackupError, match=r"403|AccessDenied"):
            reader.run("pgbackrest", f"--config={reader.config}", command, argument, text="x")
    with pytest.raises(BackupError, match=r"could write into the repository.*IOT_BACKUP_S3_READER_KEY_FILE"):
        require_read_only(database.host)


def test_a_server_that_is_away_or_refuses_is_told_and_no_reason_to_go_on(backed_up: BackedUp, tmp_path: Path) -> None:
    settings = backed_up.settings
    create(settings, "full")
    wrong = backed_up.host.run("cat", settings.backup_drill_config).stdout.replace("the-drills-secret", "another")
    config = settings.backup_drill_config.replace("drill.conf", "wrong.conf")
    backed_up.host.run("sh", "-c", 'umask 077; cat >"$1"', "sh", config, text=wrong)
    with pytest.raises(BackupError, match=r"the repository cannot be read: .*403 \(Forbidden\)"):  # it cannot write, indeed; nor read
        drill(settings.model_copy(update={"backup_drill_config": config}), tmp_path / "copy", quiet)
    backed_up.s3.stop()
    with pytest.raises(BackupError, match="repository does not answer"):  # it goes on trying for minutes
        backed_up.host.run("pgbackrest", f"--config={settings.backup_config}", "info", seconds=3)
    backed_up.s3.start()
    assert create(settings, "incr").type == "incr"
    assert not (tmp_path / "copy").exists()
