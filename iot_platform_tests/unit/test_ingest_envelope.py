"""The header's layout, byte for byte, and connection numbers."""

import struct
from pathlib import Path

import pytest

from ingest_daemon import envelope
from ingest_daemon.errors import SettingsError
from ingest_daemon.state_dir import StateDir


def test_layout() -> None:
    packed = envelope.pack(0x3B, 513, 1_700_000_000_123_456, 1_700_000_000_000_001, 42, "wärme".encode())  # DUP, QoS 1, RETAIN
    assert struct.unpack("!BBHqqQ", packed[:28]) == (1, 0b0111, 513, 1_700_000_000_123_456, 1_700_000_000_000_001, 42)
    assert packed[28:] == "wärme".encode()


@pytest.mark.parametrize(("first_byte", "flags"), [(0x30, 0), (0x31, 0b10), (0x32, 0b100), (0x3A, 0b101), (0x34, 0b1000), (0x3B, 0b111)])
def test_flags(first_byte: int, flags: int) -> None:
    assert envelope.FLAGS_OF_FIRST_BYTE[first_byte] == flags


def test_connection_numbers_follow_the_clock_in_microseconds_and_never_repeat(tmp_path: Path) -> None:
    now = 1000.9
    numbers = StateDir(tmp_path, "a/b c", clock=lambda: now)
    assert numbers.last_connection is None
    assert [numbers.next_connection(), numbers.next_connection()] == [1_000_900_000, 1_000_900_001]
    numbers.close()
    now = 5.0  # the clock was set back
    again = StateDir(tmp_path, "a/b c", clock=lambda: now)
    assert (again.last_connection, again.next_connection()) == (1_000_900_001, 1_000_900_002)
    again.close()


def test_connection_numbers_grow_from_those_in_seconds(tmp_path: Path) -> None:
    (tmp_path / "connection-one").write_text("1763942400")
    numbers = StateDir(tmp_path, "one", clock=lambda: 1_763_942_400.000001)
    assert numbers.next_connection() == 1_763_942_400_000_001
    numbers.close()


def test_a_second_daemon_on_the_same_state_is_refused(tmp_path: Path) -> None:
    first = StateDir(tmp_path, "one")
    with pytest.raises(SettingsError, match="IOT_INGEST_CLIENT_ID"):
        StateDir(tmp_path, "one")
    StateDir(tmp_path, "two").close()
    first.close()
    StateDir(tmp_path, "one").close()


def test_an_unusable_state_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="IOT_INGEST_STATE_DIR"):
        StateDir(tmp_path / "file", "one")
    (tmp_path / "connection-one").write_text("many")
    with pytest.raises(SettingsError, match="IOT_INGEST_STATE_DIR"):
        StateDir(tmp_path, "one")


def test_the_mqtt_version_is_remembered_for_the_broker_that_accepted_it(tmp_path: Path) -> None:
    state = StateDir(tmp_path, "c")
    assert state.protocol_at("broker:1883") is None
    state.remember_protocol("3.1.1", "broker:1883")
    state.close()
    again = StateDir(tmp_path, "c")
    assert again.protocol_at("broker:1883") == "3.1.1"
    assert again.protocol_at("another:1883") is None
    again.close()


def test_a_state_directory_without_a_version_is_of_a_release_that_had_5_only(tmp_path: Path) -> None:
    state = StateDir(tmp_path, "c")
    state.next_connection()
    assert state.protocol_at("broker:1883") == "5"
