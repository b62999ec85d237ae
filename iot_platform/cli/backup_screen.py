"""What `iot backup` shows, for people and as JSON. All times are UTC."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from iot_platform.backup.listing import in_utc
from iot_platform.cli import terminal
from iot_platform.compression.formats import size

if TYPE_CHECKING:
    from rich.console import Console

    from iot_platform.backup.archive import Backup
    from iot_platform.backup.listing import Repository
    from iot_platform.backup.restore import Report
    from iot_platform.backup.verify import Verification


def as_dict(backup: "Backup") -> dict[str, Any]:
    """A backup for JSON: times as ISO 8601, sizes in bytes."""
    return {
        "label": backup.label,
        "type": backup.type,
        "started_at": _moment(backup.started_at),
        "stopped_at": _moment(backup.stopped_at),
        "timeline": backup.timeline,
        "wal_first": backup.first_segment,
        "wal_last": backup.last_segment,
        "database_bytes": backup.database_bytes,
        "repository_bytes": backup.repository_bytes,
        "broken": backup.broken,
    }


def line(backup: "Backup") -> str:
    """A backup in one line."""
    took = backup.stopped_at - backup.started_at
    return (
        f"{backup.label} ({backup.type}): {in_utc(backup.stopped_at)}, {size(backup.database_bytes)} in {took} s,"
        f" {size(backup.repository_bytes)} new in the repository"
    )


def repository_dict(repository: "Repository") -> dict[str, Any]:
    """For JSON."""
    return {
        "backups": [as_dict(backup) for backup in repository.backups],
        "wal_first": repository.first_wal,
        "wal_last": repository.last_wal,
        "encrypted": repository.encrypted,
        "system_id": repository.system_id,
    }


def show_repository(repository: "Repository", console: "Console") -> None:
    """A line for each backup; no table, because their names are what other commands want, whole."""
    head = _columns("backup", "type", "ended (UTC)", "database", "added", "timeline", "WAL from")
    lines = [head] if repository.backups else []
    for item in repository.backups:
        sizes = (size(item.database_bytes), size(item.repository_bytes))
        broken = " (broken)" if item.broken else ""
        lines.append(_columns(item.label, item.type, in_utc(item.stopped_at), *sizes, str(item.timeline), item.first_segment + broken))
    for shown in lines:
        console.print(shown, soft_wrap=True)
    wal = f"WAL {repository.first_wal} to {repository.last_wal}" if repository.last_wal else "no WAL"
    console.print(f"{wal}; {'encrypted' if repository.encrypted else 'not encrypted (IOT_BACKUP_CIPHER_FILE)'}", soft_wrap=True)


def verification_dict(found: "Verification") -> dict[str, Any]:
    """For JSON."""
    return {
        "ok": not found.problems and not found.unknown,
        "backups": len(found.repository.backups),
        "wal_segments": found.segments,
        "timelines": list(found.timelines),
        "holes": [asdict(hole) for hole in found.holes],
        "wal_waiting": found.waiting,
        "last_archived_at": _moment(found.archiver.last_archived_at) if found.archiver and found.archiver.last_archived_at else None,
        "archive_failures": found.archiver.failures if found.archiver else None,
        "problems": found.problems,
        "unknown": found.unknown,
    }


def show_verification(found: "Verification", console: "Console") -> None:
    """What was looked at, then what is wrong."""
    timelines = ", ".join(map(str, found.timelines)) or "none"
    console.print(f"{len(found.repository.backups)} backup(s), {found.segments} WAL segments, timeline(s) {timelines}")
    if found.archiver is not None:
        last = in_utc(found.archiver.last_archived_at) if found.archiver.last_archived_at else "never"
        failed = f"; {found.archiver.failures} attempt(s) failed since the statistics began" if found.archiver.failures else ""
        console.print(f"last WAL segment archived: {last}; {found.waiting} wait{failed}")
    _say(console, found.problems, "red")
    _say(console, found.unknown, "yellow")
    if not found.problems and not found.unknown:
        console.print("every state since the oldest backup can be restored")


def report_dict(report: "Report") -> dict[str, Any]:
    """For JSON."""
    plan, recovery = report.plan, report.recovery
    return {
        "ok": not report.problems,
        "backup": plan.backup.label,
        "target": plan.at,
        "timeline": recovery.timeline,
        "recovered_timeline": recovery.left,
        "last_commit_at": _moment(recovery.last_commit_at),
        "newest_row_committed_at": _moment(report.committed_at) if report.committed_at else None,
        "offsets": report.offsets,
        "heartbeat": {**asdict(report.heartbeat), "at": _moment(report.heartbeat.at)} if report.heartbeat else None,
        "missing_messages": report.missing_messages,
        "missing": {partition: {"from": start, "to": end} for partition, (start, end) in report.missing.items()},
        "lost_messages": report.lost_messages,
        "lost": {partition: {"from": start, "to": end} for partition, (start, end) in report.lost.items()},
        "seconds": {"restore": report.restore_seconds, "recovery": report.recovery_seconds, "backup": report.backup_seconds},
        "problems": report.problems,
        "notes": report.notes,
    }


def show_report(report: "Report", console: "Console") -> None:
    """What was restored, what is missing, what is wrong."""
    plan, recovery = report.plan, report.recovery
    target = f"the state at {plan.at:%Y-%m-%d %H:%M:%S.%fZ}" if plan.at else "all that the archive has"
    last = in_utc(recovery.last_commit_at) if recovery.last_commit_at else "none behind the backup"
    console.print(
        f"backup {plan.backup.label} and WAL of timeline {recovery.left}: {target}; the server writes timeline {recovery.timeline}",
        soft_wrap=True,
    )
    batch = in_utc(report.committed_at) if report.committed_at else "none"
    console.print(f"last transaction: {last}; last batch of messages: {batch}", soft_wrap=True)
    seconds = f"restored in {report.restore_seconds:.1f} s, recovered and examined in {report.recovery_seconds:.1f} s"
    console.print(seconds + (f", full backup in {report.backup_seconds:.1f} s" if report.backup_seconds else ""))
    if report.heartbeat is not None:
        where = "; ".join(f"partition {partition}: {start} to {end - 1}" for partition, (start, end) in report.missing.items())
        console.print(
            f"of what was stored at {in_utc(report.heartbeat.at)}, {report.missing_messages:,} message(s) are missing"
            + (f" ({where}): the drain takes them from Kafka again" if report.missing else ""),
            soft_wrap=True,
        )
    if report.lost:
        where = "; ".join(f"partition {partition}: {start} to {end - 1}" for partition, (start, end) in report.lost.items())
        console.print(f"[red]{report.lost_messages:,} of them Kafka no longer has ({where})[/red]", soft_wrap=True)
    _say(console, report.problems, "red")
    _say(console, report.notes, "yellow")


def _columns(*cells: str) -> str:
    label, kind, ended, database, added, timeline, wal = cells
    return f"{label:<33}  {kind:<4}  {ended:<20}  {database:>8}  {added:>8}  {timeline:>8}  {wal}"


def _say(console: "Console", texts: list[str], colour: str) -> None:
    for text in texts:
        console.print(f"[{colour}]{terminal.escape(text)}[/{colour}]", soft_wrap=True)


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
