"""Log files as records: the end of several in order of time, and what is added to them."""

import heapq
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Final

from iot_platform.diagnostics.log_lines import Record, begins, parse, plain

LOOK_SECONDS: Final = 0.2
READ_BYTES: Final = 64 << 20
"""Of each file: no more of its end is looked through."""
WHOLE_SECONDS: Final = 0.5
"""A record at the end of a file may go on for so long."""


def records(program: str, lines: Iterable[str]) -> Iterator[Record]:
    """The records of lines, each with what belongs to it."""
    waiting: list[str] = []
    for line in map(plain, lines):
        if waiting and begins(line):
            yield parse(program, "\n".join(waiting))
            waiting = []
        waiting.append(line.rstrip("\n"))
    if waiting:
        yield parse(program, "\n".join(waiting))


def last_records(files: Iterable[Path], count: int, takes: Callable[[Record], bool]) -> list[Record]:
    """The last `count` records of each file that `takes` takes, all in order of time. One without a time keeps its place in its file."""
    streams = []
    for file in files:
        kept: deque[Record] = deque(maxlen=count)
        for path in (file.with_name(f"{file.name}.1"), file):  # rotated a moment ago, perhaps
            if path.exists():
                with path.open("rb") as opened:
                    kept.extend(record for record in records(file.stem, _end(opened)) if takes(record))
        streams.append([(when, number, record) for number, (when, record) in enumerate(_timed(kept))])
    return [record for _, _, record in heapq.merge(*streams, key=lambda item: item[0])]


def _timed(found: Iterable[Record]) -> Iterator[tuple[float, Record]]:
    when = 0.0
    for record in found:
        when = max(when, record.at.timestamp()) if record.at else when
        yield when, record


def _end(opened: IO[bytes]) -> Iterator[str]:
    size = os.fstat(opened.fileno()).st_size
    if size > READ_BYTES:
        opened.seek(size - READ_BYTES)
        opened.readline()  # the rest of a line
    for line in opened:
        yield line.decode("utf-8", "replace")


def follow(names: Callable[[], Iterable[Path]], stop: Callable[[], bool] = lambda: False) -> Iterator[Record]:
    """What is added from now on, also to files that come later, or anew under an old name. Ends when `stop` says so."""
    tails = {file: _Tail(file, from_end=True) for file in names()}
    while not stop():
        found = [record for tail in list(tails.values()) for record in tail.new()]
        yield from sorted(found, key=lambda record: record.at.timestamp() if record.at else time.time())
        for file in names():
            tails.setdefault(file, _Tail(file, from_end=False))
        if not found:
            time.sleep(LOOK_SECONDS)


class _Tail:
    """One file that grows, is emptied, or is replaced."""

    def __init__(self, file: Path, *, from_end: bool) -> None:
        self._file = file
        self._inode = self._position = 0
        self._part = b""
        self._waiting: list[str] = []
        self._grew_at = 0.0
        if from_end and file.exists():
            status = file.stat()
            self._inode, self._position = status.st_ino, status.st_size

    def new(self) -> list[Record]:
        """Records that are whole by now."""
        lines = self._lines()
        found: list[Record] = []
        for line in lines:
            if self._waiting and begins(line):
                found.append(self._record())
            self._waiting.append(line)
        now = time.monotonic()
        self._grew_at = now if lines else self._grew_at
        if self._waiting and now - self._grew_at >= WHOLE_SECONDS:
            found.append(self._record())
        return found

    def _record(self) -> Record:
        lines, self._waiting = self._waiting, []
        return parse(self._file.stem, "\n".join(lines))

    def _lines(self) -> list[str]:
        try:
            with self._file.open("rb") as opened:
                status = os.fstat(opened.fileno())
                data = b""
                if status.st_ino != self._inode:
                    data = self._rest_of_rotated()
                if status.st_ino != self._inode or status.st_size < self._position:
                    self._inode, self._position = status.st_ino, 0
                    if not data:
                        self._part = b""
                opened.seek(self._position)
                added = opened.read(READ_BYTES)
        except OSError:
            return []
        self._position += len(added)
        *lines, self._part = (self._part + data + added).split(b"\n")
        return [plain(line.decode("utf-8", "replace")) for line in lines]

    def _rest_of_rotated(self) -> bytes:
        """What was written between the last look and the file's new name; empty where it is gone."""
        try:
            with self._file.with_name(f"{self._file.name}.1").open("rb") as opened:
                if os.fstat(opened.fileno()).st_ino != self._inode:
                    return b""
                opened.seek(self._position)
                return opened.read(READ_BYTES)
        except OSError:
            return b""
