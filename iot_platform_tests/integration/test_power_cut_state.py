"""What the ingest daemon has on its disk after a power cut: spool, connection number, books; each alone, at random moments."""

import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ingest_daemon import unacknowledged
from ingest_daemon.accounting_file import HEAD_BYTES, AccountingFile
from ingest_daemon.spool_store import SpoolStore
from ingest_daemon.state_dir import StateDir
from iot_platform.drills.rig.power_disk import Names, PowerDisk, obstacle, power_disk
from iot_platform_tests.support.waiting import eventually

pytestmark = pytest.mark.skipif(bool(obstacle()), reason=obstacle() or "can mount")
ROUNDS = 5
LIMIT_BYTES = 1 << 30
SPOOL = """
import itertools, struct, sys
from pathlib import Path
from ingest_daemon.spool_store import SpoolStore
from ingest_daemon.state_dir import StateDir
state = StateDir(Path(sys.argv[1]), "daemon")
store = SpoolStore(state.spool_file, 1 << 30)
for first in itertools.count(store.last_id + 1, 7):
    entries = [(id, 1, id, b"topic", struct.pack("!iq", 0, id), b"v" * (id % 3000)) for id in range(first, first + 7)]
    store.write(entries, [])
    print(first + 6, flush=True)
"""
NUMBERS = """
import sys
from pathlib import Path
from ingest_daemon.state_dir import StateDir
state = StateDir(Path(sys.argv[1]), "daemon", lambda: 0.0)  # the clock was set back: only the file knows
while True:
    print(state.next_connection(), flush=True)
"""
BOOKS = """
import itertools, struct, sys
from pathlib import Path
from ingest_daemon.accounting_file import HEAD_BYTES, AccountingFile
file = AccountingFile(Path(sys.argv[1]) / "accounting", 20_000)
number = int.from_bytes(file.body[:8]) if file.body else 0
for number in itertools.count(number + 1):
    file.buffer[HEAD_BYTES:] = number.to_bytes(8) * 2500
    file.write(HEAD_BYTES + 20_000)
    if number % 50 == 0:
        file.copy(HEAD_BYTES + 20_000)
        file.sync()
        print(number, flush=True)
"""

UNACKNOWLEDGED = """
import itertools, sys
from pathlib import Path
import structlog
from ingest_daemon.state_dir import StateDir
from ingest_daemon.unacknowledged import SLOTS, Unacknowledged
def end_at_warnings(_log, level, _event):
    if level == "warning":
        sys.exit()  # the disk won't: what it goes on to say holds for the memory only
    raise structlog.DropEvent
structlog.configure(processors=[end_at_warnings])
path = StateDir(Path(sys.argv[1]), "daemon").unacknowledged_file
for number in itertools.count(int(sys.argv[2])):
    kept = Unacknowledged(path)
    kept.opened(number, [])
    print(f"opened {number}", flush=True)
    kept.write(1, [1 << 16 | 0xFFFF, number] * SLOTS, number)
    kept.close()
    print(f"closed {number}", flush=True)
"""


@pytest.fixture(params=["journal", "strict"])
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[PowerDisk]:
    names: Names = request.param
    with power_disk(tmp_path / "disk", tmp_path / "work", names=names, sync_microseconds=500) as mounted:
        yield mounted


def cut_while(program: str, disk: PowerDisk, seed: int) -> int:
    """Run it on the disk until the power goes; the last number that it printed."""
    return int(printed_until_cut(program, disk, seed)[-1])


def printed_until_cut(program: str, disk: PowerDisk, seed: int, *arguments: object) -> list[str]:
    """Run it on the disk until the power goes; the lines that it printed."""
    rng = random.Random(seed)
    output = disk.folder.with_name("printed")
    with output.open("w") as out:
        child = subprocess.Popen(
            [sys.executable, "-c", program, str(disk.folder / "below" / "state"), *map(str, arguments)], stdout=out, stderr=subprocess.PIPE
        )
    wanted = rng.randrange(1, 30)
    eventually(lambda: child.poll() is not None or output.read_text().count("\n") >= wanted)
    disk.cut()
    child.kill()
    child.communicate(timeout=20)
    disk.back(seed, 50)
    return output.read_text().splitlines()


def test_the_spool_keeps_what_it_has_written(disk: PowerDisk) -> None:
    path = disk.folder / "below" / "state" / "spool-daemon.sqlite"
    for seed in range(ROUNDS):
        written = cut_while(SPOOL, disk, seed)
        with closing(SpoolStore(path, LIMIT_BYTES)) as store:
            found = [row[0] for row in store.read(0, 1_000_000, LIMIT_BYTES)]
            assert found == list(range(1, len(found) + 1))
            assert written <= len(found)
            assert len(found) <= written + 7  # what was under way


def test_a_connection_number_is_never_used_twice(disk: PowerDisk) -> None:
    last = 0
    for seed in range(ROUNDS):
        before, last = last, cut_while(NUMBERS, disk, seed)
        assert last > before
        with closing(StateDir(disk.folder / "below" / "state", "daemon", lambda: 0.0)) as state:
            number = state.next_connection()
        assert number > last
        last = number


def test_the_books_are_as_old_as_their_last_sync_or_newer(disk: PowerDisk) -> None:
    (disk.folder / "below" / "state").mkdir(parents=True)
    disk.sync()
    for seed in range(ROUNDS):
        synced = cut_while(BOOKS, disk, seed)
        with closing(AccountingFile(disk.folder / "below" / "state" / "accounting", 20_000)) as file:
            assert file.body is not None
            number = int.from_bytes(file.body[:8])
            assert file.body == number.to_bytes(8) * 2500
            assert synced <= number
            assert len(file.buffer) == HEAD_BYTES + 20_000


def test_what_the_broker_may_send_again_is_whole_and_of_the_last_connection_or_counts_as_none(
    disk: PowerDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unacknowledged, "boot", lambda: 12345)  # the host has started anew
    number = 0
    for seed in range(2 * ROUNDS):
        what, last = printed_until_cut(UNACKNOWLEDGED, disk, seed, number + 1)[-1].split()
        left = unacknowledged.Unacknowledged(disk.folder / "below" / "state" / "unacknowledged-daemon").left
        if left is None:
            continue
        number = int(last)
        assert left.number in ((number,) if what == "opened" else (number, number + 1))
        assert {(digest, time - sequence) for sequence, digest, _, _, time in left.slots} == {(left.number, left.number)}
        assert len(left.slots) == unacknowledged.SLOTS
        number = left.number
