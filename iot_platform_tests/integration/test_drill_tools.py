"""What drills break for real: a disk that is full, a clock that is wrong."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ingest_daemon.state_dir import StateDir
from iot_platform.drills.rig import fake_clock, small_disk
from iot_platform.drills.rig.fake_clock import FakeClock
from iot_platform_tests.support.waiting import eventually

CHILD = """
import sys
from pathlib import Path
from iot_platform.drills.rig.small_disk import small_disk
with small_disk(Path(sys.argv[1]), 1 << 20) as disk:
    (disk.folder / "theirs").write_text("x")
    print("mounted", flush=True)
    sys.stdin.read()
"""
WAITER = """
import threading, time, sys
from confluent_kafka import Producer  # its threads wait on the wall clock
begun = time.monotonic()
producer = Producer({"bootstrap.servers": "127.0.0.1:1", "log_level": 0})
for line in sys.stdin:
    producer.poll(0.2)
    threading.Event().wait(0.01)
    print(time.time(), time.monotonic() - begun, flush=True)
"""

needs_mount = pytest.mark.skipif(bool(small_disk.obstacle()), reason=small_disk.obstacle() or "can mount")


def clock_obstacle() -> str:
    try:
        return ", ".join(fake_clock.missing_packages())
    except fake_clock.FakeClockError as error:
        return str(error)


@needs_mount
def test_small_disk_fills_and_gives_room_and_keeps_what_was_there(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    folder.mkdir(mode=0o750)
    os.chown(folder, 1234, 1235)
    (folder / "before").write_bytes(b"1")
    with small_disk.small_disk(folder, 2 << 20) as disk:
        assert (folder.stat().st_uid, folder.stat().st_gid, folder.stat().st_mode & 0o777) == (1234, 1235, 0o750)
        assert (folder / "before").read_bytes() == b"1"
        disk.fill()
        with pytest.raises(OSError, match="No space left"):
            (folder / "more").write_bytes(bytes(5000))
        disk.make_room()
        (folder / "during").write_bytes(bytes(1 << 20))
    assert not folder.is_mount()
    assert sorted(path.name for path in folder.iterdir()) == ["before", "during", "more"]
    assert (folder / "during").read_bytes() == bytes(1 << 20)
    assert folder.stat().st_uid == 1234


@needs_mount
def test_small_disk_goes_when_the_block_fails(tmp_path: Path) -> None:
    folder = tmp_path / "spool"

    def interrupted() -> None:
        with small_disk.small_disk(folder, 1 << 20) as disk:
            disk.fill()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not folder.is_mount()
    assert list(tmp_path.iterdir()) == [folder]


@needs_mount
def test_small_disk_of_a_killed_drill_is_found_and_removed(tmp_path: Path) -> None:
    folder = tmp_path / "spool of a drill"  # the blank is an octal escape in the list of mounts
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"mounted\n"
        small_disk.remove_leftovers()
        assert folder.is_mount()  # its owner lives
    finally:
        child.send_signal(signal.SIGKILL)
        child.communicate()
    small_disk.remove_leftovers()
    assert not folder.is_mount()


@pytest.mark.skipif(bool(clock_obstacle()), reason=clock_obstacle() or "has a compiler")
def test_fake_clock_is_followed_at_once_and_librdkafka_still_waits_the_right_time(tmp_path: Path) -> None:
    with FakeClock(tmp_path) as clock:
        clock.set(3600)
        command = [sys.executable, "-c", WAITER]
        child = subprocess.Popen(
            command, env={**os.environ, **clock.environment}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        try:
            assert child.stdin is not None
            assert child.stdout is not None
            for offset in (3600, -3600, -365 * 86400, 0):
                clock.set(offset)
                child.stdin.write("\n")
                said = [float(text) for text in child.stdout.readline().split()]
                assert said[0] - time.time() == pytest.approx(offset, abs=2)
            assert said[1] < 10  # a deadline that isn't the fake clock's would be an hour away
        finally:
            child.kill()
            child.communicate()


@pytest.mark.skipif(bool(clock_obstacle()), reason=clock_obstacle() or "has a compiler")
def test_a_wait_under_way_follows_a_jump_as_it_does_with_the_kernels_clock(tmp_path: Path) -> None:
    program = "from confluent_kafka import Producer\np = Producer({'bootstrap.servers': '127.0.0.1:1', 'log_level': 0})\np.poll(30)\n"
    with FakeClock(tmp_path) as clock:
        child = subprocess.Popen([sys.executable, "-c", program], env={**os.environ, **clock.environment})
        try:
            begun = time.monotonic()
            while child.poll() is None and time.monotonic() - begun < 25:
                clock.set(3600 * (1 + time.monotonic() - begun))  # jumps ahead all the time: one of them hits the wait
                time.sleep(0.05)
            assert eventually(lambda: child.poll() == 0, 1)
        finally:
            child.kill()
            child.wait()


@needs_mount
def test_connection_numbers_go_on_when_the_disk_is_full(tmp_path: Path) -> None:
    with small_disk.small_disk(tmp_path / "state", 1 << 20) as disk:
        state = StateDir(disk.folder, "one")
        first = state.next_connection()
        disk.fill()
        second = state.next_connection()
        state.close()
        again = StateDir(disk.folder, "one", clock=lambda: 0.0)  # a clock in the past: only the file knows
        assert first < second < again.next_connection()
        again.close()
