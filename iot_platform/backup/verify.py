"""Whether every state since the oldest backup can be restored: pgBackRest's own verification, and what it does not see."""

import re
import time
from dataclasses import dataclass, field
from typing import Final

from iot_platform.backup.archive import Archive, Hole, segment_number
from iot_platform.backup.errors import BackupError
from iot_platform.backup.host import DatabaseHost
from iot_platform.backup.listing import Repository, in_utc, read_archive, read_repository

LATE_SECONDS: Final = 600.0
"""WAL that waits longer than this for its archiving is told of: ten times what archive_timeout lets pass."""
_ARCHIVER: Final = """
SELECT failed_count, coalesce(extract(epoch FROM last_failed_time), 0), coalesce(extract(epoch FROM last_archived_time), 0),
    pg_walfile_name(pg_current_wal_lsn()), current_setting('archive_mode'), coalesce(last_archived_wal, '') FROM pg_stat_archiver"""
_SEGMENT: Final = re.compile(r"[0-9A-F]{24}")
_STATUS: Final = re.compile(r"^status: (\w+)", re.MULTILINE)


@dataclass(frozen=True)
class Archiver:
    """What the running server says. Times are seconds since the epoch, 0 for never; `archived`: the file that it archived last."""

    failures: int
    last_failed_at: float
    last_archived_at: float
    segment: str
    on: bool
    archived: str


@dataclass
class Verification:
    """`problems`: why something cannot be restored, or soon cannot; `unknown`: what could not be looked at."""

    repository: Repository
    holes: list[Hole] = field(default_factory=list)
    segments: int = 0
    timelines: tuple[int, ...] = ()
    archiver: Archiver | None = None
    waiting: int = 0
    problems: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def verify(host: DatabaseHost, *, checksums: bool = True) -> Verification:
    """Look for what is missing; with `checksums`, read the whole repository too. Blocks as long as that takes.

    Raises:
        BackupError: the repository cannot be read.
    """
    repository = read_repository(host)
    found = Verification(repository)
    try:
        found.archiver = read_archiver(host)  # before the archive is: what it has archived by then must be there
    except BackupError as error:
        found.unknown.append(f"how the server's archiving goes: {error}")
    archive = read_archive(host, repository.archive_id)
    found.holes = archive.holes(repository.backups)
    found.segments, found.timelines = sum(map(len, archive.segments.values())), tuple(sorted(archive.segments))
    found.problems += [f"hole in the archive: {hole.text}" for hole in found.holes]
    found.problems += [f"backup {backup.label} has pages with wrong checksums" for backup in repository.backups if backup.broken]
    if not repository.backups:
        found.problems.append("there is no backup yet: `iot backup create`")
    if checksums:
        _verify_checksums(host, found)
    if found.archiver is not None:
        _judge_archiving(found, found.archiver, archive)
    return found


def read_archiver(host: DatabaseHost) -> Archiver:
    """How the running server's archiving goes.

    Raises:
        BackupError: the server does not answer.
    """
    failures, failed, archived, segment, mode, name = host.sql(_ARCHIVER)[0]
    return Archiver(int(failures), float(failed), float(archived), segment, mode != "off", name)


def _verify_checksums(host: DatabaseHost, found: Verification) -> None:
    said = host.pgbackrest("verify", "--output=text", "--verbose")
    status = _STATUS.search(said)
    if status is None or status[1] != "ok":
        wrong = [line.strip() for line in said.splitlines() if re.search(r"(missing|invalid|other): [1-9]|status: (?!ok|valid)", line)]
        found.problems.append(f"pgbackrest verify: {'; '.join(wrong) or said.strip()[:300] or 'no answer'}")


def _judge_archiving(found: Verification, archiver: Archiver, archive: Archive) -> None:
    if not archiver.on:
        found.problems.append("archive_mode is off: there is no WAL behind the newest backup")
        return
    timeline = int(archiver.segment[:8], 16)
    there = archive.segments.get(timeline, frozenset())
    found.waiting = max(0, segment_number(archiver.segment) - 1 - max(there, default=segment_number(archiver.segment) - 1))
    if _SEGMENT.fullmatch(archiver.archived) and segment_number(archiver.archived) not in archive.segments.get(
        int(archiver.archived[:8], 16), frozenset()
    ):
        found.problems.append(
            f"the server says that it archived {archiver.archived}, which the repository does not have: its archive_command writes"
            " somewhere else"
        )
        return
    newest = max(archiver.last_archived_at, archive.newest_at)  # a crash resets the server's statistics
    if archiver.last_failed_at > archiver.last_archived_at:
        found.problems.append(
            f"archiving fails: {found.waiting} WAL segment(s) wait, the last attempt at {in_utc(archiver.last_failed_at)}"
        )
    elif found.waiting and time.time() - newest > LATE_SECONDS:
        found.problems.append(f"{found.waiting} WAL segment(s) wait; the last one was archived at {in_utc(newest)}")
