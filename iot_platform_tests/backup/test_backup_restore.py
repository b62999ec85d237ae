"""The database is killed and its disk is lost: what a restore brings back, and that the drain makes good the rest, exactly once."""

import os
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from iot_platform.backup.archive import Hole
from iot_platform.backup.create import create
from iot_platform.backup.drill import AnotherDrillError, drill, require_read_only
from iot_platform.backup.errors import BackupError
from iot_platform.backup.host import DatabaseHost
from iot_platform.backup.listing import read_archive, read_repository
from iot_platform.backup.restore import restore
from iot_platform.backup.verify import verify
from iot_platform.database import connect
from iot_platform.local.errors import LocalStackError
from iot_platform.metrics.backup_look import look_at_backups
from iot_platform.metrics.database_looks import look_at_database
from iot_platform.metrics.values import Values
from iot_platform.orchestration.backup_run import back_up, evaluate_archive, practise, request, request_drill
from iot_platform.rollups.advance import roll_up
from iot_platform.rollups.check import choose_sample, compare
from iot_platform.settings import Settings, exports
from iot_platform.telemetry.errors import DataGoneError
from iot_platform.tenants.access import grant
from iot_platform_tests.support.feeds.drain import TOPIC, delete_records, drain, query
from iot_platform_tests.support.feeds.readings import Publisher
from iot_platform_tests.support.feeds.tenants import open_login
from iot_platform_tests.support.servers.backed_up import BackedUp, quiet
from iot_platform_tests.support.waiting import eventually

pytestmark = [pytest.mark.backup, pytest.mark.timeout(900)]


TENANT = TOPIC.split("/")[-2]


def test_killed_database_is_restored_to_a_time_and_again(backed_up: BackedUp) -> None:
    settings, publisher = backed_up.settings, Publisher(backed_up.settings)
    publisher.send_and_drain(200)
    roll_up(settings)
    with closing(connect(settings, "admin")) as owner:
        login = grant(owner, TENANT)
    backed_up.back_up_fully()
    publisher.send_and_drain(300)
    at = backed_up.now()
    publisher.send_and_drain(150)
    backed_up.note_heartbeat()
    assert create(settings, "incr").type == "incr"
    data = backed_up.kill()

    report = restore(settings, data, quiet, at=at)
    assert report.problems == []
    assert (report.plan.timeline, report.recovery.left, report.recovery.timeline) == (1, 1, 2)
    assert report.plan.backup.type == "full", "the newer one ended after the target"
    assert (report.missing_messages, report.lost_messages) == (150, 0)
    assert report.recovery.last_commit_at is not None
    assert report.recovery.last_commit_at <= at.timestamp()
    assert report.recovery.stopped_at is not None
    assert report.recovery.stopped_at > at.timestamp()
    newest = read_repository(backed_up.host).backups[-1]
    assert (newest.type, newest.timeline) == ("full", 2), "a full backup follows"

    backed_up.start()
    assert len(publisher.stored) == 500
    with closing(open_login(settings, login)) as session, session.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM tenant.message")
        assert cursor.fetchone() == (500,)
    publisher.send_and_drain(100)  # behind the 150 that wait in Kafka
    publisher.require_equal()
    roll_up(settings)
    assert compare(settings, choose_sample(settings)).different == 0

    # Once more: without a heartbeat since, the newest backup tells the timeline.
    publisher.send_and_drain(80)
    backed_up.switch_wal()
    publisher.send_and_drain(40)
    data = backed_up.kill()
    report = restore(settings, data, quiet)
    assert (report.plan.timeline, report.recovery.left, report.recovery.timeline) == (2, 2, 3)
    assert report.problems == []
    backed_up.start()
    drain(settings)
    publisher.require_equal()
    assert len(query(settings, "SELECT batch_id FROM ledger")) == query(settings, "SELECT count(DISTINCT batch_id) FROM ledger")[0][0]
    found = verify(backed_up.host)
    assert (found.problems, found.unknown) == ([], [])
    assert found.timelines == (1, 2, 3)


def test_times_that_cannot_be_restored_are_told(backed_up: BackedUp) -> None:
    settings, publisher = backed_up.settings, Publisher(backed_up.settings)
    publisher.send_and_drain(20)
    with pytest.raises(BackupError, match="no backups yet"):
        drill(settings, backed_up.folder / "drill", quiet)
    before = backed_up.now()
    create(settings, "full")
    with pytest.raises(BackupError, match="is running"):
        restore(settings, backed_up.folder / "other", quiet)
    with pytest.raises(BackupError, match="the oldest backup ended at"):
        drill(settings, backed_up.folder / "drill", quiet, at=before)
    ahead = datetime.fromtimestamp(time.time() + 3600, UTC)
    with pytest.raises(BackupError, match="is not yet"):
        drill(settings, backed_up.folder / "drill", quiet, at=ahead)
    assert not (backed_up.folder / "drill").exists()
    (backed_up.folder / "full").mkdir()
    (backed_up.folder / "full" / "file").touch()
    with pytest.raises(BackupError, match="is not empty"):
        drill(settings, backed_up.folder / "full", quiet)
    assert (backed_up.folder / "full" / "file").exists()


def test_repository_of_another_database_is_refused(backed_up: BackedUp) -> None:
    create(backed_up.settings, "full")
    backed_up.kill()
    with pytest.raises(LocalStackError, match=r"has backups of another database.*iot backup restore"):
        backed_up.start()


def test_kafka_that_has_forgotten_is_told_and_stops_the_drain(backed_up: BackedUp) -> None:
    settings, publisher = backed_up.settings, Publisher(backed_up.settings)
    publisher.send_and_drain(100)
    backed_up.back_up_fully()
    at = backed_up.now()
    publisher.send_and_drain(100)
    backed_up.note_heartbeat()
    backed_up.switch_wal()
    delete_records(settings, 0, 70)
    report = restore(settings, backed_up.kill(), quiet, at=at)
    assert (report.missing_messages, report.lost_messages) == (100, 20)
    assert "iot offsets accept --partition 0" in " ".join(report.problems)
    backed_up.start()
    with pytest.raises(DataGoneError, match=r"offsets 50\.\.69.*iot offsets accept --partition 0"):
        drain(settings)


def test_a_partition_that_kafka_cannot_give_from_its_beginning_is_told(backed_up: BackedUp) -> None:
    """A state of before the first batch: the drain begins where Kafka does, as on the first day, and nobody else would say what is lost."""
    settings, publisher = backed_up.settings, Publisher(backed_up.settings)
    backed_up.back_up_fully()
    at = backed_up.now()
    publisher.send_and_drain(100)
    backed_up.note_heartbeat()
    backed_up.switch_wal()
    delete_records(settings, 0, 30)
    report = restore(settings, backed_up.kill(), quiet, at=at)
    assert (report.missing_messages, report.lost) == (100, {0: (0, 30)})
    assert "partition 0: the state is of before its first batch, and Kafka begins at offset 30" in " ".join(report.problems)


def test_drill_leaves_no_trace_and_cannot_write(backed_up: BackedUp) -> None:
    settings, publisher = backed_up.settings, Publisher(backed_up.settings)
    publisher.send_and_drain(50)
    create(settings, "full")
    publisher.send_and_drain(50)
    backed_up.note_heartbeat()
    backed_up.switch_wal()
    before = names(backed_up)
    folder = backed_up.folder / "drill"
    report = drill(settings, folder, quiet)
    assert (report.problems, report.missing_messages, sum(report.offsets.values())) == ([], 0, 100)
    assert not folder.exists()
    ((passed, label),) = query(settings, "SELECT problems = '{}', backup_label FROM backup_drill")
    assert (passed, label) == (True, report.plan.backup.label)
    assert written_by_others(backed_up, before) == []

    # Whatever it tries, with its access.
    host = DatabaseHost.of(settings, read_only=True)
    backed_up.host.sql("SELECT pg_logical_emit_message(true, 'test', 'begins a segment, which is not archived yet')")
    ((segment,),) = backed_up.host.sql("SELECT current_setting('data_directory') || '/pg_wal/' || pg_walfile_name(pg_current_wal_lsn())")
    for command, arguments in (("archive-push", (segment,)), ("backup", ())):
        with pytest.raises(BackupError, match="Read-only file system"):
            host.pgbackrest(command, arguments=arguments)
    with pytest.raises(BackupError, match="could write into the repository"):
        require_read_only(backed_up.host)
    assert written_by_others(backed_up, before) == []


def names(database: BackedUp) -> set[str]:
    """Every file of the repository."""
    return {str(path.relative_to(database.repository)) for path in database.repository.rglob("*") if path.is_file()}


def written_by_others(database: BackedUp, before: set[str]) -> list[str]:
    """Files that are gone, or that came and are not WAL of the one server that may write there; its archive_timeout goes on meanwhile."""
    after = names(database)
    return sorted(before - after) + sorted(name for name in after - before if not name.startswith("archive/iot/17-1/00000001"))


def test_a_drill_that_was_killed_is_made_anew(backed_up: BackedUp) -> None:
    """Its server goes on, and its files lie there: the next drill ends and removes both."""
    settings, publisher = backed_up.settings, Publisher(backed_up.settings)
    publisher.send_and_drain(20)
    create(settings, "full")
    folder = backed_up.folder / "drill"
    command = [str(Path(sys.executable).with_name("iot")), "backup", "drill", f"--scratch={folder}"]
    with subprocess.Popen(command, env={**os.environ, **exports(settings)}, cwd=backed_up.folder) as killed:
        lock = folder / "data" / "postmaster.pid"
        eventually(lambda: lock.exists() and lock.read_text("ascii"), 120)
        pid = int(lock.read_text("ascii").split()[0])
        with pytest.raises(AnotherDrillError):
            drill(settings, folder, quiet)
        killed.kill()
    assert Path("/proc", str(pid)).exists(), "the copy's server outlives its drill"
    eventually(lambda: query(settings, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'iot-backup-drill'") == [(0,)])
    report = drill(settings, folder, quiet)
    assert (report.problems, sum(report.offsets.values())) == ([], 20)
    assert not Path("/proc", str(pid)).exists()
    assert not folder.exists()


def test_hole_in_the_archive_is_found(backed_up: BackedUp) -> None:
    settings, publisher = backed_up.settings, Publisher(backed_up.settings)
    publisher.send_and_drain(10)
    create(settings, "full")
    for _ in range(4):
        publisher.send_and_drain(10)
        backed_up.switch_wal()
    assert verify(backed_up.host).problems == []
    behind = backed_up.now()
    publisher.send_and_drain(10)
    backed_up.switch_wal()
    archive = read_archive(backed_up.host, read_repository(backed_up.host).archive_id)
    lost = sorted(archive.segments[1])[-3]
    name = f"{1:08X}{lost // 256:08X}{lost % 256:08X}"
    (path,) = backed_up.repository.rglob(f"{name}-*")
    path.unlink()
    found = verify(backed_up.host)
    assert found.holes == [Hole(1, lost, lost)]
    assert name in found.problems[0]
    assert "status: ok" in backed_up.host.pgbackrest("verify", "--output=text", "--verbose"), "which is why we look ourselves"
    report = drill(settings, backed_up.folder / "drill", quiet)
    assert "hole" in " ".join(report.problems)
    assert sum(report.offsets.values()) < 60, "recovery ends at the hole, without an error"
    with pytest.raises(BackupError, match=f"the archive ends before the target.*hole.*{name}"):
        drill(settings, backed_up.folder / "drill", quiet, at=behind)


def test_archive_that_is_refused_is_told(backed_up: BackedUp) -> None:
    publisher = Publisher(backed_up.settings)
    create(backed_up.settings, "full")
    folder = backed_up.repository / "archive"
    folder.rename(backed_up.repository / "away")
    folder.touch()
    publisher.send_and_drain(10)
    backed_up.host.sql("SELECT pg_switch_wal()")
    eventually(lambda: int(backed_up.host.sql("SELECT failed_count FROM pg_stat_archiver")[0][0]) > 0, 60)
    folder.unlink()
    (backed_up.repository / "away").rename(folder)
    eventually(lambda: verify(backed_up.host, checksums=False).problems == [], 120)
    drain(backed_up.settings)
    publisher.require_equal()


def test_dagster_and_the_exporter_tell_of_backups(backed_up: BackedUp) -> None:
    settings = backed_up.settings
    assert isinstance(request(Settings()), dg.SkipReason)
    assert isinstance(request(settings), dg.RunRequest)
    values = Values()
    look_at_backups(settings, values)
    assert values.get("iot_backup_last_success_timestamp_seconds")["full",] == 0
    first, second = back_up(settings), back_up(settings)
    assert [(result.metadata or {})["type"] for result in (first, second)] == ["full", "diff"]
    assert evaluate_archive(settings).passed
    look_at_backups(settings, values)
    look_at_database(settings, values)
    seen = values.get("iot_backup_last_success_timestamp_seconds")
    for kind in ("full", "diff"):
        assert time.time() - 300 < seen[kind,] <= time.time() + 1
    assert seen["incr",] == 0
    assert isinstance(request_drill(settings), dg.RunRequest)
    assert values.get("iot_backup_drill_last_success_timestamp_seconds")[()] == 0
    checks = [practise(settings).check_results for settings in (settings, settings.model_copy(update={"backup_drill_config": "/none"}))]
    assert [result.passed for results in checks for result in results or ()] == [True, False]
    assert isinstance(request_drill(settings), dg.SkipReason)
    look_at_database(settings, values)
    assert time.time() - 300 < values.get("iot_backup_drill_last_success_timestamp_seconds")[()] <= time.time() + 1
    assert values.get("iot_backup_drill_failed")[()] == 1
    assert values.get("iot_wal_archive_failures")[()] == 0
    assert time.time() - 300 < values.get("iot_wal_archive_last_success_timestamp_seconds")[()] <= time.time() + 1
