"""The disk that drills cut the power of: what outlives a cut and what does not, by real system calls."""

import ctypes
import mmap
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from iot_platform.drills.rig import power_disk, small_disk
from iot_platform.drills.rig.power_disk import Names, PowerDisk

pytestmark = pytest.mark.skipif(bool(power_disk.obstacle()), reason=power_disk.obstacle() or "can mount")
PAGE = 4096
CHILD = """
import sys
from pathlib import Path
from iot_platform.drills.rig.power_disk import power_disk
with power_disk(Path(sys.argv[1]), Path(sys.argv[2])) as disk:
    (disk.folder / "theirs").write_text("x")
    print("mounted", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., PowerDisk]]:
    with ExitStack() as several:

        def mounted(names: Names = "journal") -> PowerDisk:
            folder = tmp_path / f"disk {len(list(tmp_path.iterdir()))}"
            return several.enter_context(power_disk.power_disk(folder, tmp_path / "work", names=names))

        yield mounted


@pytest.fixture
def disk(mount: Callable[..., PowerDisk]) -> PowerDisk:
    return mount()


def cut(disk: PowerDisk, seed: int = 1, survive_percent: int = 0) -> power_disk.Fate:
    disk.cut()
    return disk.back(seed, survive_percent)


def sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    os.fsync(opened)
    os.close(opened)


# -- content ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("how", [os.fsync, os.fdatasync])
def test_written_data_is_seen_at_once_and_outlives_a_cut_once_synced(disk: PowerDisk, how: Callable[[int], None]) -> None:
    path = disk.folder / "file"
    with path.open("wb", buffering=0) as file:
        file.write(b"synced")
        how(file.fileno())
        file.write(b" not")
        os.pwrite(file.fileno(), b"S", 0)
        assert path.read_bytes() == b"Synced not"
        fate = cut(disk)
    assert path.read_bytes() == b"synced"
    assert (fate.files, fate.pages, fate.survived, fate.torn) == (1, 1, 0, 0)


def test_neither_sync_nor_sync_file_range_nor_closing_counts(disk: PowerDisk) -> None:
    (disk.folder / "file").write_bytes(b"written and closed")
    with (disk.folder / "file").open("r+b") as file:
        assert ctypes.CDLL(None).sync_file_range(file.fileno(), ctypes.c_int64(0), ctypes.c_int64(0), 7) == 0
    os.sync()
    sync(disk.folder)
    cut(disk)
    assert (disk.folder / "file").read_bytes() == b""  # the name was synced


@pytest.mark.parametrize("flag", [os.O_SYNC, os.O_DSYNC])
def test_synchronous_writes_outlive_a_cut(disk: PowerDisk, flag: int) -> None:
    file = os.open(disk.folder / "file", os.O_WRONLY | os.O_CREAT | flag)
    os.write(file, b"synced")
    cut(disk)
    with suppress(OSError):
        os.close(file)
    assert (disk.folder / "file").read_bytes() == b"synced"


def test_stores_to_a_mapping_outlive_a_cut_once_synced(disk: PowerDisk) -> None:
    path = disk.folder / "mapped"
    with path.open("w+b") as file:
        file.truncate(3 * PAGE)
        with mmap.mmap(file.fileno(), 3 * PAGE) as mapped:
            mapped[0:5] = b"first"
            mapped.flush()  # msync(MS_SYNC)
            mapped[PAGE : PAGE + 6] = b"second"
            assert path.read_bytes()[PAGE : PAGE + 6] == b"second"
            os.fdatasync(file.fileno())
            mapped[0:5] = mapped[2 * PAGE : 2 * PAGE + 5] = b"third"
            cut(disk)
    assert path.read_bytes() == b"first".ljust(PAGE, b"\0") + b"second".ljust(2 * PAGE, b"\0")


def test_sizes_go_back_with_their_content(disk: PowerDisk) -> None:
    content = os.urandom(5 * PAGE + 100)
    names = ("shorter", "emptied", "longer", "preallocated", "rewritten")
    for name in names:
        (disk.folder / name).write_bytes(content)
        sync(disk.folder / name)
    os.truncate(disk.folder / "shorter", PAGE + 7)
    (disk.folder / "emptied").open("wb").close()
    os.truncate(disk.folder / "longer", 9 * PAGE)
    with (disk.folder / "preallocated").open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, 20 * PAGE)
    (disk.folder / "rewritten").write_bytes(b"new")
    cut(disk)
    assert [(disk.folder / name).read_bytes() == content for name in names] == [True] * 5
    os.truncate(disk.folder / "shorter", PAGE + 7)
    os.truncate(disk.folder / "shorter", 2 * PAGE)
    sync(disk.folder / "shorter")
    cut(disk)
    assert (disk.folder / "shorter").read_bytes() == content[: PAGE + 7].ljust(2 * PAGE, b"\0")


def test_a_cut_in_the_middle_of_a_sync_finds_nothing_synced(tmp_path: Path) -> None:
    with power_disk.power_disk(tmp_path / "disk", tmp_path / "work", sync_microseconds=30_000_000) as disk:
        (disk.folder / "file").touch()
        disk.sync()
        program = "import os, sys; f = os.open(sys.argv[1], os.O_WRONLY); os.write(f, b'x'); print(flush=True); os.fsync(f)"
        child = subprocess.Popen([sys.executable, "-c", program, str(disk.folder / "file")], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        disk.cut()
        assert b"Input/output error" in child.communicate(timeout=20)[1]
        disk.back(1)
        assert (disk.folder / "file").read_bytes() == b""


# -- names -----------------------------------------------------------------------------------------------------
def make_names(folder: Path) -> Path:
    """A folder with synced files, then changes of names; returns the last file, which is written but not synced."""
    for name in ("kept", "renamed", "replaced", "removed"):
        (folder / name).write_text(name)
        sync(folder / name)
    sync(folder)
    (folder / "renamed").rename(folder / "anew")
    (folder / "kept").replace(folder / "replaced")
    (folder / "removed").unlink()
    (folder / "below").mkdir()
    (folder / "below" / "linked").hardlink_to(folder / "anew")
    (folder / "symbolic").symlink_to("anew")
    last = folder / "below" / "last"
    last.write_text("last")
    return last


def seen(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


BEFORE = {name: name for name in ("kept", "renamed", "replaced", "removed")}
AFTER = {"anew": "renamed", "replaced": "kept", "below/linked": "renamed", "symbolic": "renamed", "below/last": "last"}


@pytest.mark.parametrize("names", ["journal", "strict"])
def test_names_go_back_unless_something_was_synced(mount: Callable[..., PowerDisk], names: Names) -> None:
    disk = mount(names)
    make_names(disk.folder)
    assert seen(disk.folder) == AFTER
    cut(disk)
    assert seen(disk.folder) == BEFORE


def test_with_a_journal_any_sync_keeps_all_earlier_names(disk: PowerDisk) -> None:
    sync(make_names(disk.folder))
    (disk.folder / "later").touch()
    cut(disk)
    assert seen(disk.folder) == AFTER
    assert (disk.folder / "anew").stat().st_nlink == 2


def test_a_strict_disk_keeps_names_only_once_their_folder_was_synced(mount: Callable[..., PowerDisk]) -> None:
    disk = mount("strict")
    last = make_names(disk.folder)
    sync(last)
    cut(disk)
    assert seen(disk.folder) == BEFORE
    (disk.folder / "one").touch()
    (disk.folder / "kept").rename(disk.folder / "two")
    sync(disk.folder)
    (disk.folder / "three").touch()
    cut(disk)
    assert set(seen(disk.folder)) == BEFORE.keys() - {"kept"} | {"one", "two"}


def test_files_that_were_removed_while_open_can_still_be_used(disk: PowerDisk) -> None:
    with (disk.folder / "file").open("w+b", buffering=0) as file:
        (disk.folder / "file").unlink()
        file.write(b"still here")
        assert os.pread(file.fileno(), 100, 0) == b"still here"
        (disk.folder / "file").write_bytes(b"another")
        assert os.pread(file.fileno(), 100, 0) == b"still here"


def test_owners_and_modes_count_also_for_other_users(disk: PowerDisk) -> None:
    disk.folder.chmod(0o711)
    own, other = disk.folder / "own", disk.folder / "other"
    own.mkdir()
    other.mkdir()
    os.chown(own, 1234, 1234)
    disk.sync()
    cut(disk)
    tried = ["sh", "-c", "touch mine && ! touch ../other/theirs"]
    done = subprocess.run(tried, cwd=own, user=1234, group=1234, extra_groups=[], check=False, capture_output=True, text=True)
    assert (done.returncode, "Permission denied" in done.stderr, (own / "mine").stat().st_uid) == (0, True, 1234)


# -- what survives by chance -----------------------------------------------------------------------------------
def write(path: Path, content: bytes, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content)


def survivors(disk: PowerDisk, seed: int) -> dict[str, bytes]:
    for number in range(20):
        path = disk.folder / f"{number}"
        path.write_bytes(b"o" * 10 * PAGE)
        sync(path)
        if number % 2:
            write(path, b"n" * 10 * PAGE, 10 * PAGE)
            write(path, b"n" * 4 * PAGE, PAGE)
        else:
            path.write_bytes(b"n" * 4 * PAGE)
    fate = cut(disk, seed, 70)
    assert fate.survived
    assert fate.torn
    return {path.name: path.read_bytes() for path in disk.folder.iterdir()}


def test_some_of_the_rest_survives_in_part_and_the_same_for_the_same_seed(mount: Callable[..., PowerDisk]) -> None:
    first = survivors(mount(), 7)
    assert survivors(mount(), 7) == first
    assert survivors(mount(), 8) != first
    sectors = {content[at : at + 512] for content in first.values() for at in range(0, len(content) - 511, 512)}
    assert sectors == {b"o" * 512, b"n" * 512, bytes(512)}
    for name, content in first.items():
        if int(name) % 2 == 0:  # cut short and written anew: as it was, or as it became
            assert content in (b"o" * 10 * PAGE, b"n" * 4 * PAGE)
        else:
            assert content[:PAGE] == b"o" * PAGE
            assert 10 * PAGE <= len(content) <= 20 * PAGE
    assert any(content.count(b"n") % PAGE > 0 for content in first.values())


# -- programs --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("synchronous", "least"), [("FULL", 200), ("OFF", 0)])
def test_sqlite_keeps_what_it_committed_and_only_because_it_syncs(disk: PowerDisk, synchronous: str, least: int) -> None:
    path = disk.folder / "queue.sqlite"
    for seed in range(5):
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute("CREATE TABLE IF NOT EXISTS entry (id INTEGER PRIMARY KEY, value BLOB)")
        sync(disk.folder)
        for _ in range(200):
            connection.execute("INSERT INTO entry (value) VALUES (randomblob(300))")
        fate = cut(disk, seed, 50 if least else 0)
        connection.close()
        with closing(sqlite3.connect(path)) as again:
            if least:
                assert again.execute("PRAGMA integrity_check").fetchone() == ("ok",)
                assert again.execute("SELECT count(*) FROM entry").fetchone() == (least * (seed + 1),)
            else:
                assert again.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
                assert fate.pages


# -- mounts ----------------------------------------------------------------------------------------------------
def test_the_mount_goes_when_the_block_fails_also_with_a_file_open(tmp_path: Path) -> None:
    def interrupted() -> None:
        with power_disk.power_disk(tmp_path / "disk", tmp_path / "work") as disk:
            opened.append(os.open(disk.folder / "file", os.O_RDWR | os.O_CREAT))
            raise KeyboardInterrupt

    opened: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not (tmp_path / "disk").exists()
    with pytest.raises(OSError, match=r"not connected|Input/output"):
        os.write(opened[0], b"x")
    with suppress(OSError):
        os.close(opened[0])


def test_a_disk_that_was_killed_says_so_and_leaves_no_mount(tmp_path: Path) -> None:
    def killed() -> None:
        with power_disk.power_disk(tmp_path / "disk", tmp_path / "work") as disk:
            os.kill(disk.pid, signal.SIGKILL)
            disk.cut()

    with pytest.raises(power_disk.PowerDiskError, match="ended by itself"):
        killed()
    assert not (tmp_path / "disk").exists()


def test_the_disk_of_a_killed_drill_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(folder), str(tmp_path / "work")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"mounted\n"
    assert (folder / "theirs").read_text() == "x"
    child.kill()
    child.communicate()
    small_disk.remove_leftovers()
    assert not folder.is_mount()
    assert list(folder.iterdir()) == []
