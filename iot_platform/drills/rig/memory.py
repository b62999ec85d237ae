"""Process trees and memory of a drill's stack, read from /proc."""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final

from iot_platform.local.program import MARKER

EVERY_SECONDS: Final = 2.0
RUN_WORKER: Final = "drain"
"""Name under which Dagster's run workers are shown: children of the code server, or orphans after its death."""


def children() -> dict[int, list[int]]:
    """Process id → ids of its children, zombies left out."""
    found: dict[int, list[int]] = defaultdict(list)
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with suppress(OSError, ValueError, IndexError):
                fields = (process / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
                if fields[0] != "Z":
                    found[int(fields[1])].append(int(process.name))
    return found


def descendants(pid: int, tree: Mapping[int, list[int]] | None = None) -> list[int]:
    """All processes below one, nearest first."""
    tree = children() if tree is None else tree
    found = list(tree.get(pid, ()))
    for each in found:
        found += tree.get(each, ())
    return found


def run_workers(local_dir: Path, tree: Mapping[int, list[int]] | None = None) -> list[int]:
    """Dagster's run workers of the stack with this folder, including those with a new parent."""
    wanted = f"{MARKER}={local_dir}".encode()
    found = []
    for pid in sorted(pid for several in (children() if tree is None else tree).values() for pid in several):
        with suppress(OSError):
            process = Path("/proc") / str(pid)
            if b"multiprocessing.spawn" in (process / "cmdline").read_bytes() and wanted in (process / "environ").read_bytes().split(b"\0"):
                found.append(pid)
    return found


def pss_bytes(pid: int) -> int:
    """Memory of a process, its share of shared pages only; 0 if it has gone."""
    with suppress(OSError):
        for line in (Path("/proc") / str(pid) / "smaps_rollup").read_text("ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


@dataclass(frozen=True)
class Sample:
    """Memory in bytes of each program with all its processes, at a time.monotonic()."""

    at: float
    programs: Mapping[str, int]


@dataclass
class MemorySampler:
    """Samples the programs of a stack from a thread of its own. `pids` gives the main process of each program (0: not running)."""

    local_dir: Path
    pids: Callable[[], Mapping[str, int]]
    samples: list[Sample] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._run, name="memory", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End, and wait for it."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def peaks(self, since: float) -> dict[str, int]:
        """Most bytes of each program since a time.monotonic()."""
        found: dict[str, int] = {}
        for sample in [item for item in self.samples if item.at >= since]:
            for name, size in sample.programs.items():
                found[name] = max(found.get(name, 0), size)
        return found

    def growth(self, begin: float, end: float) -> dict[str, tuple[int, int]]:
        """Median bytes of each program in the first and in the last third of a period; only of programs seen in both."""
        third = (end - begin) / 3
        first, last = self._medians(begin, begin + third), self._medians(end - third, end)
        return {name: (first[name], last[name]) for name in first if name in last}

    def _medians(self, begin: float, end: float) -> dict[str, int]:
        sizes: dict[str, list[int]] = defaultdict(list)
        for sample in [item for item in self.samples if begin <= item.at <= end]:
            for name, size in sample.programs.items():
                sizes[name].append(size)
        return {name: int(median(several)) for name, several in sizes.items()}

    def _run(self) -> None:
        while not self._stop.wait(EVERY_SECONDS):
            self.samples.append(self._sample())

    def _sample(self) -> Sample:
        tree = children()
        workers = run_workers(self.local_dir, tree)
        programs = {}
        for name, pid in self.pids().items():
            if pid:
                programs[name] = sum(pss_bytes(each) for each in (pid, *descendants(pid, tree)) if each not in workers)
        if workers:
            programs[RUN_WORKER] = sum(map(pss_bytes, workers))
        return Sample(time.monotonic(), {name: size for name, size in programs.items() if size})
