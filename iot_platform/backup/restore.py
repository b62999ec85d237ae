"""Restoring the database into an empty folder, and finding out what was restored: exit code 0 of the tools says nothing about it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from psycopg2.extensions import parse_dsn

from iot_platform.backup import heartbeat as heartbeats
from iot_platform.backup.archive import Archive, Backup, Hole, choose, segment_number
from iot_platform.backup.errors import BackupError
from iot_platform.backup.heartbeat import Heartbeat
from iot_platform.backup.host import DatabaseHost
from iot_platform.backup.listing import Repository, in_utc, read_archive, read_repository
from iot_platform.backup.restored_server import Recovery, RestoredServer
from iot_platform.database import DatabaseError, connect
from iot_platform.database.errors import DatabaseUnreachableError
from iot_platform.kafka.errors import KafkaUnavailableError
from iot_platform.kafka.group_offsets import write_noted
from iot_platform.kafka.watermarks import WORK_SECONDS, TopicOffsets
from iot_platform.settings import Settings
from iot_platform.telemetry.drain.offsets import OffsetRow
from iot_platform.telemetry.drain.partition_state import judge

Note = Callable[[str], None]
_LOCKS: Final = "/tmp/iot-restore"  # noqa: S108 - a restore need not wait for a backup, nor the reverse
_OFFSETS: Final = """
SELECT kafka_partition, next_offset, cluster_id, topic_id, first_offset, log_generation, leader_epoch, verified_epoch,
    extract(epoch FROM updated_at) FROM kafka_offset WHERE topic = :'topic' ORDER BY 1"""
# Rows against the ledger over the day before the newest one; and ids that the ledger would give out a second time within itself.
_BOOKS: Final = """
SELECT (SELECT count(*) FROM audit_offsets((SELECT max(updated_at) FROM kafka_offset) - interval '1 day') WHERE problem IS NOT NULL),
    coalesce((SELECT max(batch_id) FROM ledger), 0), (SELECT last_value FROM ledger_batch_id_seq)"""


@dataclass(frozen=True)
class Plan:
    """What is restored. `at`: None, all that the archive has; `timeline`: that recovery follows; `holes`: of it, behind the backup."""

    backup: Backup
    timeline: int
    lineage: tuple[int, ...]
    at: datetime | None
    holes: tuple[Hole, ...]
    why: str

    @property
    def options(self) -> tuple[str, ...]:
        """pgBackRest's: everything that it would choose is named."""
        chosen = (f"--set={self.backup.label}", f"--target-timeline={self.timeline}")
        if self.at is None:
            return (*chosen, "--type=default")
        target = self.at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f+00")
        return (*chosen, "--type=time", f"--target={target}", "--target-action=promote")


@dataclass
class Report:
    """What was restored. `offsets`: next offset by partition; `missing`: partition → offsets [from, to) that the heartbeat had and this has
    not; `lost`: those that Kafka does not have either, whenever they were drained. `problems`: why this is not what was asked for."""

    plan: Plan
    recovery: Recovery
    offsets: dict[int, int]
    committed_at: float
    heartbeat: Heartbeat | None
    missing: dict[int, tuple[int, int]] = field(default_factory=dict)
    lost: dict[int, tuple[int, int]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    restore_seconds: float = 0.0
    recovery_seconds: float = 0.0
    backup_seconds: float = 0.0

    @property
    def missing_messages(self) -> int:
        """How many were stored, by the heartbeat, and are not in this state."""
        return sum(end - start for start, end in self.missing.values())

    @property
    def lost_messages(self) -> int:
        """How many Kafka can no longer give."""
        return sum(end - start for start, end in self.lost.values())


def restore(
    settings: Settings,
    folder: Path,
    note: Note,
    *,
    at: datetime | None = None,
    timeline: int | None = None,
    prepare: Callable[[RestoredServer], None] | None = None,
) -> Report:
    """Restore for real: the new server archives from its first segment on, gets a full backup, and is stopped again, ready to be started in
    its place. Blocks as long as it takes. `prepare`: what else is done to it once it is examined.

    Raises:
        BackupError: nothing usable was restored; the folder keeps what there is, for a look.
    """
    host, archiver = DatabaseHost.of(settings, folder), DatabaseHost.of(settings)
    _require_stopped(settings, archiver)
    plan, beat, problems = make_plan(settings, archiver, at, timeline)
    note(f"restoring backup {plan.backup.label}, then the WAL of timeline {plan.timeline} ({plan.why})")
    host.make_folder()
    host.require_room(plan.backup.database_bytes)
    seconds = fetch(host, plan)
    note(f"restored in {seconds:.1f} s; starting it, and waiting for the end of its recovery")
    began = time.monotonic()
    with RestoredServer(host, archives=True) as server:
        report = examine(settings, server, plan, beat, problems)
        report.restore_seconds, report.recovery_seconds = seconds, time.monotonic() - began
        if prepare is not None:
            prepare(server)
        note("making a full backup of what was restored")
        began = time.monotonic()
        server.full_backup()
        report.backup_seconds = time.monotonic() - began
        server.require_writable()
    _note_anew(settings, read_repository(DatabaseHost.of(settings)).system_id, report)
    return report


def make_plan(
    settings: Settings, host: DatabaseHost, at: datetime | None, timeline: int | None, live: Heartbeat | None = None
) -> tuple[Plan, Heartbeat | None, list[str]]:
    """Which backup, and which timeline; with what the database holds (`live`) or held (the last heartbeat), and what is wrong before
    anything begins.

    Raises:
        BackupError: there is no backup for it.
    """
    if at is not None and at.timestamp() > time.time():
        raise BackupError(f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%SZ} is not yet: no archive reaches into the future")
    repository = read_repository(host)
    archive = read_archive(host, repository.archive_id)
    beat, problems = _heartbeat(settings, repository, live)
    chosen, why = (timeline, "as said") if timeline is not None else _timeline(repository, archive, beat)
    lineage = archive.lineage(chosen)
    backup = choose(repository.backups, lineage, at.timestamp() if at else None)
    if backup is None:
        first = min((item.stopped_at for item in repository.backups), default=None)
        oldest = f": the oldest backup ended at {in_utc(first + 1)}" if first else ""
        raise BackupError(f"no backup of timeline {chosen} ended before the time that is asked for{oldest}" if first else "no backups yet")
    numbers = tuple(number for number, _ in lineage)
    start = segment_number(backup.first_segment)
    holes = tuple(hole for hole in archive.holes(repository.backups) if hole.timeline in numbers and hole.last >= start)
    if at is None:  # a target that lies behind the hole is never reached, which is an error
        problems += [f"the archive has a hole, and nothing behind it can be restored: {hole.text}" for hole in holes]
    return Plan(backup, chosen, numbers, at, holes, why), beat, problems


def _timeline(repository: Repository, archive: Archive, beat: Heartbeat | None) -> tuple[int, str]:
    """The timeline of the database itself, as it was last seen: the highest one in the archive may be of somebody's copy."""
    newest = repository.backups[-1] if repository.backups else None
    if beat is not None and beat.timeline and (newest is None or beat.at > newest.stopped_at):
        return beat.timeline, "where the platform last saw the database"
    if newest is not None:
        return newest.timeline, "that of the newest backup"
    return archive.newest_timeline, "the newest in the archive"


def _heartbeat(settings: Settings, repository: Repository, live: Heartbeat | None) -> tuple[Heartbeat | None, list[str]]:
    try:
        beat = live or heartbeats.read_heartbeat(settings)
    except KafkaUnavailableError as error:
        return None, [f"what is missing cannot be told, because the heartbeat is not known: {error}"]
    if beat is None:
        return None, ["what is missing cannot be told: Kafka has no heartbeat of this database (IOT_KAFKA_DRAIN_GROUP)"]
    if beat.system_id and beat.system_id != repository.system_id:
        return None, [f"what is missing cannot be told: the platform's database is not the one of these backups, but ({beat.system_id})"]
    return beat, []


def fetch(host: DatabaseHost, plan: Plan, *more: str) -> float:
    """Copy the backup into the host's folder, without starting anything; the seconds that it took.

    Raises:
        BackupError: it was not copied whole.
    """
    began = time.monotonic()
    host.pgbackrest("restore", f"--pg1-path={host.inside}", f"--lock-path={_LOCKS}", *plan.options, *more)
    return time.monotonic() - began


def examine(settings: Settings, server: RestoredServer, plan: Plan, beat: Heartbeat | None, problems: list[str]) -> Report:
    """Await the end of the recovery, and find out what is there, with what was found wrong before.

    Raises:
        BackupError: nothing usable is there.
    """
    try:
        recovery = server.await_end()
    except BackupError as error:
        raise BackupError("; ".join((str(error), *(f"hole in the archive: {hole.text}" for hole in plan.holes)))) from error
    database = parse_dsn(settings.writer_url).get("dbname", "iot")
    rows = {row.partition: row for row in map(_offset_row, server.rows(_OFFSETS, database, topic=settings.kafka_topic))}
    report = Report(
        plan,
        recovery,
        {number: row.next_offset for number, row in rows.items()},
        max((row.updated_at for row in rows.values()), default=0.0),
        beat,
    )
    report.problems += problems
    if plan.timeline != recovery.left and (plan.at is None or recovery.left not in plan.lineage):
        report.problems.append(f"the recovery ended on timeline {recovery.left}, not on {plan.timeline}")
    if plan.at is not None and recovery.last_commit_at is not None and recovery.last_commit_at > plan.at.timestamp():
        report.problems.append(f"a transaction of {_shown(recovery.last_commit_at)} was restored, which is after the target")
    differences, batch, sequence = (int(value) for value in server.rows(_BOOKS, database)[0])
    if differences:
        report.problems.append(f"rows and ledger differ in {differences} place(s): `iot audit` names them")
    if batch > sequence:
        report.problems.append(f"the ledger's ids go to {batch}, but {sequence + 1} would be the next one")
    _compare(settings, report, rows)
    server.require_writable()
    return report


def _compare(settings: Settings, report: Report, rows: dict[int, OffsetRow]) -> None:
    """With the heartbeat, and with what Kafka still has."""
    if report.heartbeat is not None:
        for partition, offset in sorted(report.heartbeat.offsets.items()):
            restored = report.offsets.get(partition, 0)
            if restored < offset:
                report.missing[partition] = (restored, offset)
    try:
        with TopicOffsets(settings, WORK_SECONDS) as topic:
            identity, watermarks = topic.look()
    except KafkaUnavailableError as error:
        report.problems.append(f"whether Kafka still has what is missing is not known: {error}")
        return
    for partition, state in judge(identity, rows, watermarks).items():
        low = watermarks[partition].low if partition in watermarks else 0
        if partition in rows and rows[partition].next_offset < low:
            report.lost[partition] = (rows[partition].next_offset, low)
        if state.needs_person:
            report.problems.append(f"partition {partition}: {state.text}")
        # A state of before its first batch: the drain begins where Kafka does, as on the first day, and misses nothing.
        drained = report.heartbeat.offsets.get(partition, 0) if report.heartbeat else 0
        if partition not in rows and min(low, drained) > 0:
            report.lost[partition] = (0, min(low, drained))
            report.problems.append(
                f"partition {partition}: the state is of before its first batch, and Kafka begins at offset {low} now: what was stored of"
                " it before that offset is lost, and the drain will not say so"
            )


def _note_anew(settings: Settings, system_id: str, report: Report) -> None:
    """The heartbeat of the database that there is now; until the next one, the old one would be taken for its past."""
    text = heartbeats.text_of(system_id, report.recovery.timeline, report.committed_at)
    try:
        write_noted(settings, {partition: (offset, text) for partition, offset in report.offsets.items()})
    except KafkaUnavailableError as error:
        report.notes.append(f"the heartbeat in Kafka is still the one before ({error}); the drain's sensor notes the next one")


def _require_stopped(settings: Settings, host: DatabaseHost) -> None:
    """Neither where the platform reaches it, nor on its own machine, where that way does not matter."""
    try:
        connect(settings, application_name="iot-backup").close()
    except DatabaseUnreachableError:
        if host.run("psql", "-X", "-d", "postgres", "-c", "SELECT 1", check=False).returncode != 0:
            return
    except DatabaseError:  # it refuses us, so it runs
        pass
    raise BackupError(
        "the database of IOT_DATABASE_URL is running. A real restore goes on in its place, and two of them would archive into one"
        " repository: stop it first (local stack: `iot down`). To practise: `iot backup drill`"
    )


def _offset_row(values: list[str]) -> OffsetRow:
    partition, offset, cluster, topic, first, generation, epoch, verified, at = values
    return OffsetRow(
        int(partition),
        int(offset),
        cluster,
        topic,
        int(first),
        int(generation),
        int(epoch) if epoch else None,
        int(verified) if verified else None,
        updated_at=float(at),
    )


def _shown(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S.%fZ}"
