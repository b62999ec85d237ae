"""Restoring the newest backup for practice, with the right to read only; what came of it is kept in the table `backup_drill`."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import psycopg2

from iot_platform.backup.errors import BackupError
from iot_platform.backup.heartbeat import Heartbeat, read_live
from iot_platform.backup.host import DatabaseHost
from iot_platform.backup.restore import Report, examine, fetch, make_plan
from iot_platform.backup.restored_server import RestoredServer
from iot_platform.backup.verify import LATE_SECONDS
from iot_platform.database import DatabaseError, connect
from iot_platform.database.errors import LockTimeoutError
from iot_platform.database.locks import advisory_lock
from iot_platform.settings import Settings

LOCK: Final = "backup-drill"
_PROBE: Final = "iot-drill"
# The one answer of a folder and of S3 that says so; every other one (away, wrong key, no such bucket) says nothing about rights.
_REFUSED: Final = re.compile(r"Read-only file system|Permission denied|failed with 403 \(Forbidden\)")
_NEWEST: Final = "SELECT started_at, problems FROM backup_drill ORDER BY started_at DESC LIMIT 1"
_PASSED: Final = "SELECT max(started_at) FROM backup_drill WHERE problems = '{}'"
_RECORD: Final = """
INSERT INTO backup_drill (started_at, seconds, backup_label, committed_at, missing_messages, lost_messages, problems)
VALUES (%s, %s, %s, %s, %s, %s, %s)"""


class AnotherDrillError(BackupError):
    """A drill is at work; it would be taken for what a killed one left. Retry when it has ended."""


@dataclass(frozen=True)
class Drills:
    """What is kept of drills: when the newest one began, why it failed (none: passed), and when the last one began that was passed."""

    newest_at: datetime | None
    problems: tuple[str, ...]
    passed_at: datetime | None


def drill(settings: Settings, folder: Path, note: Callable[[str], None], *, at: datetime | None = None) -> Report:
    """Restore into a scratch folder, examine it, remove it. Nothing can get into the repository: the copy does not archive, and whatever
    runs here may only read, which is tried out first. What a drill left that was killed is removed. Without a time `at` the result is
    kept in the table `backup_drill`, where the database can be reached.

    Raises:
        AnotherDrillError: one is at work.
        BackupError: nothing usable was restored, or the repository could have been written.
    """
    began, began_at = time.monotonic(), datetime.now(UTC)

    def keep(report: Report | None, problems: list[str]) -> None:
        if at is None:
            _record(settings, note, (began_at, time.monotonic() - began, *_figures(report), problems))

    try:
        with _alone(settings):
            report = _practise(settings, folder, note, at)
    except AnotherDrillError:
        raise
    except BackupError as error:
        keep(None, [str(error)])
        raise
    keep(report, report.problems)
    return report


def read_drills(settings: Settings) -> Drills:
    """What is kept of drills.

    Raises:
        DatabaseError, psycopg2.Error: the database does not answer.
    """
    with closing(connect(settings, application_name="iot-backup")) as connection, connection.cursor() as cursor:
        cursor.execute(_NEWEST)
        newest = cursor.fetchone() or (None, ())
        cursor.execute(_PASSED)
        passed = cursor.fetchone()
    return Drills(newest[0], tuple(newest[1]), passed[0] if passed else None)


def due(drills: Drills, settings: Settings, now: datetime) -> bool:
    """Whether the last drill that was passed is IOT_BACKUP_DRILL_DAYS old (an hour less: a daily schedule is as often early as late)."""
    return drills.passed_at is None or now - drills.passed_at >= timedelta(days=settings.backup_drill_days, hours=-1)


def scratch_folder(settings: Settings) -> Path:
    """Where copies are restored to, unless somebody says another place; on the database's machine."""
    return (settings.backup_drill_dir or settings.local_dir / "data" / "backup-drill").absolute()


def require_read_only(host: DatabaseHost) -> None:
    """What runs with this access cannot write into the repository.

    Raises:
        BackupError: it can (what was written to find out is removed again), or nobody can tell.
    """
    try:
        host.run("pgbackrest", f"--config={host.config}", "repo-put", _PROBE, text="of a drill")
    except BackupError as error:
        if _REFUSED.search(str(error)):
            return
        raise
    host.run("pgbackrest", f"--config={host.config}", "repo-rm", _PROBE, check=False)
    raise BackupError(
        "a drill could write into the repository: its copy might archive into it, and the next real restore would follow the copy. Name a"
        " login that may only read: IOT_BACKUP_S3_READER_KEY_FILE, or IOT_BACKUP_DRILL_CONFIG (docs/backup.md)"
    )


def _practise(settings: Settings, folder: Path, note: Callable[[str], None], at: datetime | None) -> Report:
    host, reader = DatabaseHost.of(settings, folder, read_only=True), DatabaseHost.of(settings, read_only=True)
    require_read_only(reader)
    plan, beat, problems = make_plan(settings, reader, at, None, _live(settings))
    note(f"restoring backup {plan.backup.label} into {folder}, then the WAL of timeline {plan.timeline} ({plan.why})")
    host.make_scratch()
    try:
        host.require_room(plan.backup.database_bytes)
        seconds = fetch(host, plan, "--archive-mode=off")
        note(f"restored in {seconds:.1f} s; starting it, and waiting for the end of its recovery")
        began = time.monotonic()
        with RestoredServer(host, archives=False) as server:
            report = examine(settings, server, plan, beat, problems)
            report.restore_seconds, report.recovery_seconds = seconds, time.monotonic() - began
    except BaseException:
        with suppress(BackupError):
            host.remove_scratch()
        raise
    host.remove_scratch()
    if at is None and beat is not None and beat.committed_at - report.committed_at > LATE_SECONDS:
        minutes = (beat.committed_at - report.committed_at) / 60
        report.problems.append(f"the archive is {minutes:.0f} minutes behind the database: so much would be missing after a disk was lost")
    return report


@contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    """The only drill of this database; also without the lock where the database cannot be reached, because then a drill may be urgent."""
    with ExitStack() as stack:
        try:
            connection = stack.enter_context(closing(connect(settings, application_name="iot-backup-drill")))
            stack.enter_context(advisory_lock(connection, LOCK, 0))
        except LockTimeoutError as error:
            raise AnotherDrillError(f"a drill of this database is at work: {error}") from error
        except (DatabaseError, psycopg2.Error):
            pass
        yield


def _live(settings: Settings) -> Heartbeat | None:
    """None where the database is away: then the copy is compared with the heartbeat, as after a real loss."""
    try:
        return read_live(settings)
    except (DatabaseError, psycopg2.Error):
        return None


def _figures(report: Report | None) -> tuple[object, ...]:
    if report is None:
        return None, None, None, None
    committed_at = datetime.fromtimestamp(report.committed_at, UTC) if report.committed_at else None
    missing = report.missing_messages if report.heartbeat is not None else None
    return report.plan.backup.label, committed_at, missing, report.lost_messages


def _record(settings: Settings, note: Callable[[str], None], row: tuple[object, ...]) -> None:
    """Without it the drill is as good, but nobody is told of the next one that is missing."""
    try:
        with closing(connect(settings, application_name="iot-backup")) as connection, connection, connection.cursor() as cursor:
            cursor.execute(_RECORD, row)
    except (DatabaseError, psycopg2.Error) as error:
        note(f"the drill is not kept in backup_drill: {' '.join(str(error).split())}")
