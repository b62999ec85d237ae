"""The host of some of a stack's programs, as far as a power cut goes: their data on one disk, their lives on one switch."""

import re
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from iot_platform.drills.rig.drill_run import DrillError, DrillRun
from iot_platform.drills.rig.drill_stack import INGEST
from iot_platform.drills.rig.power_disk import Fate, Names, PowerDisk, PowerDiskError, power_disk
from iot_platform.drills.rig.small_disk import move

SURVIVE_PERCENT: Final = 40
READY_SECONDS: Final = 300.0  # everything recovers at once
PROGRAMS: Final = ("mosquitto", "kafka", "postgresql", "dagster-code", "dagster-daemon", INGEST)
# By this the daemon knows that its host went down: what it had written but not synced is no longer there.
_NEW_BOOT: Final = 'mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"'
_RECEIPT: Final = re.compile(r"(?:Corruption found in segment|found log file corruption).*", re.IGNORECASE)


class PowerHost:
    """Cut the power, switch it on again; `fate` adds up what became of unsynced data."""

    def __init__(self, run: DrillRun, disk: PowerDisk, programs: Sequence[str]) -> None:
        self.programs = programs
        self.cuts = 0
        self.fate = Fate()
        self._run, self._stack, self._disk = run, run.stack, disk
        self._boot_id = run.stack.folder / "run" / "boot_id"
        self._new_boot()

    def cut(self) -> None:
        """From one moment to the next nothing more is written, and every program on the host is dead."""
        self._disk.cut()
        self._stack.kill_all(*(name for name in PROGRAMS if name not in self.programs))
        self.cuts += 1

    def back(self, *, ready: bool = True) -> None:
        """The disk is as the cut left it; every program starts at once. With `ready` waits until all serve."""
        self.fate += self._disk.back(self._run.rng.randrange(1 << 32), SURVIVE_PERCENT)
        self._new_boot()
        if "kafka" in self.programs:
            self._stack.recover_kafka()
        self.start(ready=ready)

    def start(self, *, ready: bool = True) -> None:
        """Every program that does not run."""
        for name in self.programs:
            self._stack.start(name, ready=False)
        for name in self.programs if ready else ():
            self._stack.await_ready(name, READY_SECONDS)

    def receipts(self) -> list[str]:
        """Kafka's lines about logs that ended in what was never whole."""
        return _RECEIPT.findall(self._stack.log("kafka"))

    def _new_boot(self) -> None:
        self._boot_id.write_text(f"{uuid.UUID(int=self._run.rng.getrandbits(128))}\n", "ascii")
        self._stack.ingest_wrapper = ("unshare", "--mount", "--propagation", "private", "sh", "-c", _NEW_BOOT, str(self._boot_id))


@contextmanager
def power_host(run: DrillRun, programs: Sequence[str], *folders: Path, names: Names = "journal") -> Iterator[PowerHost]:
    """For the length of the block the folders are on a disk whose power can be cut; the programs that use them are restarted when that
    begins and ends."""
    stack = run.stack
    stack.stop(*programs)
    try:
        with power_disk(stack.folder / "disk", stack.folder / "run", names=names, note=run.show) as disk:
            for folder in folders:
                _swap(folder, disk.folder / folder.name)
            disk.sync()
            host = PowerHost(run, disk, programs)
            host.start()
            yield host
            stack.stop(*programs)
            for folder in folders:
                folder.unlink()
                folder.mkdir()
                move(disk.folder / folder.name, folder, holes=True)
    except PowerDiskError as error:
        raise DrillError(str(error)) from error
    finally:
        stack.ingest_wrapper = ()
    for name in programs:
        stack.start(name)


def _swap(folder: Path, target: Path) -> None:
    target.mkdir()
    move(folder, target, holes=True)
    folder.rmdir()
    folder.symlink_to(target)
