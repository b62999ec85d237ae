"""What an archive of WAL must hold so that every state can be restored, told from the names of its files alone.

pgBackRest's check, info and verify look at what is there; none of them misses a segment that never came.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

SEGMENT_BYTES: Final = 16 * 1024 * 1024
"""initdb's default. Another size has other names, which `Archive.of` refuses."""
_PER_LOG: Final = 0x100000000 // SEGMENT_BYTES
_SEGMENT: Final = re.compile(r"([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})-[0-9a-f]{40}(?:\.\w+)?")
_HISTORY: Final = re.compile(r"([0-9A-F]{8})\.history(?:\.\w+)?")


class StrangeNameError(Exception):
    """A name in the archive is of no WAL with segments of 16 MB. Never retry."""


@dataclass(frozen=True)
class Backup:
    """One backup, as pgBackRest lists it. Times are seconds since the epoch, whole ones; LSNs are bytes."""

    label: str
    type: str
    started_at: int
    stopped_at: int
    start_lsn: int
    stop_lsn: int
    first_segment: str
    last_segment: str
    database_bytes: int
    repository_bytes: int
    broken: bool

    @property
    def timeline(self) -> int:
        """That it was made on."""
        return int(self.first_segment[:8], 16)


@dataclass(frozen=True)
class Fork:
    """A timeline began at this LSN of its parent."""

    parent: int
    lsn: int


@dataclass(frozen=True)
class Hole:
    """Segments [first, last] of a timeline are missing."""

    timeline: int
    first: int
    last: int

    @property
    def text(self) -> str:
        """For people: the files' names."""
        count = self.last - self.first + 1
        names = segment_name(self.timeline, self.first) + ("" if count == 1 else f" to {segment_name(self.timeline, self.last)}")
        return f"timeline {self.timeline}: {count} WAL segment(s) missing, {names}"


@dataclass(frozen=True)
class Archive:
    """`segments`: numbers by timeline; `histories`: timeline → its forks, oldest first; `newest_at`: when the newest segment came."""

    segments: Mapping[int, frozenset[int]]
    histories: Mapping[int, tuple[Fork, ...]]
    newest_at: int = 0

    @classmethod
    def of(cls, names: Iterable[str], histories: Mapping[int, tuple[Fork, ...]], newest_at: int = 0) -> "Archive":
        """From the files' names.

        Raises:
            StrangeNameError: segments are not of 16 MB.
        """
        found: dict[int, set[int]] = {}
        for name in names:
            if match := _SEGMENT.fullmatch(name):
                timeline, log, number = (int(part, 16) for part in match.groups())
                if number >= _PER_LOG:
                    raise StrangeNameError(f"{name}: WAL segments are not of 16 MB, so holes cannot be told from their names")
                found.setdefault(timeline, set()).add(log * _PER_LOG + number)
        return cls({timeline: frozenset(numbers) for timeline, numbers in found.items()}, histories, newest_at)

    @property
    def newest_timeline(self) -> int:
        """The highest one that anybody archived on; 0 without any. That it is production's is not said."""
        return max({*self.segments, *self.histories}, default=0)

    def lineage(self, timeline: int) -> tuple[tuple[int, int | None], ...]:
        """The timelines that led to this one, each with the LSN at which it was left; last this one with None."""
        return (*((fork.parent, fork.lsn) for fork in self.histories.get(timeline, ())), (timeline, None))

    def holes(self, backups: Sequence[Backup]) -> list[Hole]:
        """Segments that are missing between what the backups need first and what came last, on every timeline."""
        found: list[Hole] = []
        for timeline in sorted({*self.segments, *(backup.timeline for backup in backups)}):
            there = self.segments.get(timeline, frozenset())
            needed = self._needed(timeline, backups)
            missing = [number for number in needed if number not in there]
            for number in missing:
                if found and found[-1].timeline == timeline and found[-1].last == number - 1:
                    found[-1] = Hole(timeline, found[-1].first, number)
                else:
                    found.append(Hole(timeline, number, number))
        return found

    def _needed(self, timeline: int, backups: Sequence[Backup]) -> range:
        own = [segment_number(backup.first_segment) for backup in backups if backup.timeline == timeline]
        ended = [segment_number(backup.last_segment) for backup in backups if backup.timeline == timeline]
        there = self.segments.get(timeline, frozenset())
        firsts = [min(there)] if there else []
        if own:
            firsts.append(min(own))
        forks = self.histories.get(timeline, ())
        if forks and any(usable(backup, self.lineage(timeline)) for backup in backups if backup.timeline != timeline):
            firsts.append(forks[-1].lsn // SEGMENT_BYTES)  # a backup of an ancestor is restored by way of the fork
        children = [
            history[-1].lsn // SEGMENT_BYTES - 1 for history in self.histories.values() if history and history[-1].parent == timeline
        ]
        lasts = [*([max(there)] if there else []), *ended, *children]
        return range(min(firsts), max(lasts) + 1) if firsts and lasts else range(0)


def usable(backup: Backup, lineage: Sequence[tuple[int, int | None]]) -> bool:
    """Whether a state on the lineage can be restored from the backup: it ended before its timeline was left."""
    return any(timeline == backup.timeline and (left is None or backup.stop_lsn <= left) for timeline, left in lineage)


def choose(backups: Sequence[Backup], lineage: Sequence[tuple[int, int | None]], before: float | None) -> Backup | None:
    """The newest sound backup of the lineage that had ended by then; None when there is none. pgBackRest chooses by time alone, and with a
    backup that ended after the target PostgreSQL quietly restores to that end."""
    fit = [
        backup
        for backup in backups
        if not backup.broken and usable(backup, lineage) and (before is None or backup.stopped_at + 1 <= before)
    ]
    return max(fit, key=lambda backup: backup.stopped_at, default=None)


def history_timeline(name: str) -> int | None:
    """The timeline of a history file; None for other files."""
    match = _HISTORY.fullmatch(name)
    return int(match[1], 16) if match else None


def parse_history(text: str) -> tuple[Fork, ...]:
    """The forks of a history file, oldest first."""
    forks = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0].isdigit():
            forks.append(Fork(int(words[0]), parse_lsn(words[1])))
    return tuple(forks)


def parse_lsn(text: str) -> int:
    """`1/A2000028` as a number of bytes."""
    high, low = text.split("/")
    return (int(high, 16) << 32) + int(low, 16)


def segment_number(name: str) -> int:
    """The number of a segment from its name, the timeline left out."""
    return int(name[8:16], 16) * _PER_LOG + int(name[16:24], 16)


def segment_name(timeline: int, number: int) -> str:
    """A segment's file name."""
    return f"{timeline:08X}{number // _PER_LOG:08X}{number % _PER_LOG:08X}"
