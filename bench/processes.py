"""What the supervised programs of a running `make up` use, with all their descendants: read from /proc."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Process:
    """CPU seconds since its start, proportional set size (bytes), open handles, threads; whether multiprocessing has spawned it."""

    cpu_seconds: float
    pss_bytes: int
    handles: int
    threads: int
    spawned: bool = False


def stat(pid: int) -> tuple[str, list[str]]:
    """A process's name and what follows it in /proc/PID/stat, from its state on. Raises OSError: it has ended."""
    head, tail = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)
    return head.split("(", 1)[1], tail.split()


def descendants() -> dict[int, list[int]]:
    """Child pids of every pid."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        pid = int(entry.parent.name)
        with suppress(OSError):
            children.setdefault(int(stat(pid)[1][1]), []).append(pid)
    return children


def tree(pid: int, children: dict[int, list[int]]) -> Iterator[int]:
    """This process and all that descend from it."""
    yield pid
    for child in children.get(pid, []):
        yield from tree(child, children)


def read(pid: int) -> Process | None:
    """None: it has ended."""
    folder = Path(f"/proc/{pid}")
    try:
        _, fields = stat(pid)
        command = (folder / "cmdline").read_bytes()
        rollup = (folder / "smaps_rollup").read_text()
        handles = sum(1 for _ in (folder / "fd").iterdir())
    except OSError:
        return None
    pss = next(int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Pss:"))
    return Process((int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND, pss, handles, int(fields[17]), b"spawn_main(" in command)


def split_runs(processes: dict[int, Process], server: int) -> tuple[dict[int, Process], dict[int, Process]]:
    """A Dagster code server's tree without its runs, and the runs: each one is a child that multiprocessing has spawned."""
    runs = {pid: process for pid, process in processes.items() if pid != server and process.spawned}
    return {pid: process for pid, process in processes.items() if pid not in runs}, runs


def read_trees(programs: dict[str, int]) -> dict[str, dict[int, Process]]:
    """By program, whose pid is given: its processes by pid."""
    children = descendants()
    return {name: {pid: found for pid in tree(root, children) if (found := read(pid))} for name, root in programs.items()}


def server_cpu(pid: int, name: str) -> float:
    """CPU seconds of the server that this process belongs to (its topmost ancestor of this name), with all its descendants and those that
    have ended; 0 if there is no such process on this machine."""
    top = 0
    while pid > 1:
        try:
            found, fields = stat(pid)
        except OSError:
            return 0.0
        if found == name:
            top = pid
        pid = int(fields[1])
    ticks = 0
    for each in tree(top, descendants()) if top else ():
        with suppress(OSError):
            ticks += sum(map(int, stat(each)[1][11:15]))
    return ticks / TICKS_PER_SECOND
