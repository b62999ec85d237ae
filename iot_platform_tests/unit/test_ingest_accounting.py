"""The daemon's accounting: it adds up in every answer, across every kill, and never claims what is not in Kafka or the spool."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import structlog

from ingest_daemon.accounting import AWAIT_SECONDS, CAPACITY, Accounting, Turn
from ingest_daemon.connections import KEPT, Oldest, in_kafka
from ingest_daemon.errors import SettingsError

NOTHING: Mapping[int, int] = {}


def turn(in_flight: int = 0, **moved: int) -> Turn:
    none = dict.fromkeys(Turn._fields, 0)
    return Turn(**{**none, "in_flight": in_flight, "in_doubt": in_flight, "last_received_us": 1_700_000_000_000_000, **moved})


def answer(accounting: Accounting) -> dict[str, Any]:
    """What /accounting says; the identity holds in each."""
    found: dict[str, Any] = json.loads(accounting.snapshot().to_json())
    places = ("delivered", "spooled", "dead_lettered", "in_flight", "given_up", "missing")
    assert found["received"] == sum(found[place] for place in places), found
    assert all(found[name] >= 0 for name in (*places, "received"))
    return found


class Books:
    """An accounting of one folder that can be killed: whatever is not in its files is forgotten."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = 1000.0
        self.made: list[Accounting] = []

    def open(self, spooled: int = 0, oldest: Oldest = None) -> Accounting:
        accounting = Accounting(self.folder, "c", spooled, oldest, keep_seconds=0, clock=lambda: self.now)
        self.made.append(accounting)
        return accounting


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Books]:
    made = Books(tmp_path)
    yield made
    for accounting in made.made:
        accounting._finished.close()
        accounting._file.close()


def only(found: dict[str, Any]) -> tuple[int, int, int, bool]:
    (connection,) = found["connections"]
    return connection["received"], connection["settled"], connection["in_kafka"], connection["open"]


def test_what_is_counted_and_listed(books: Books) -> None:
    accounting = books.open()
    accounting.opened(1_700_000_000_000_000, session_lost=False)
    number = 1_700_000_000_000_000
    accounting.record(turn(10, received=10), (number, 10), NOTHING, None)
    accounting.record(turn(3, delivered=4, dead_lettered=1, spooled=2), (number, 10), {number: 7}, (number, 6))
    found = answer(accounting)
    assert {name: found[name] for name in ("received", "delivered", "dead_lettered", "spooled", "in_flight")} == {
        "received": 10,
        "delivered": 4,
        "dead_lettered": 1,
        "spooled": 2,
        "in_flight": 3,
    }
    assert found["client_id"] == "c"
    assert found["reported_at"].endswith("Z")
    assert only(found) == (10, 7, 5, True)
    accounting.record(turn(0, delivered=3, unspooled=1, unspooled_dead_lettered=1), None, {number: 10}, None)
    accounting.closed(number, 10)
    assert only(answer(accounting)) == (10, 10, 10, False)
    again = books.open()
    assert answer(again) | {"reported_at": ""} == answer(accounting) | {"reported_at": ""}


def test_messages_in_flight_at_a_kill_are_awaited_and_redelivered_ones_take_their_place(books: Books) -> None:
    first = books.open()
    first.opened(1, session_lost=False)
    first.record(turn(5, received=5), (1, 5), NOTHING, None)
    second = books.open()
    assert answer(second)["awaiting_redelivery"] == 5
    second.opened(2, session_lost=False)
    second.record(turn(4, received=4, redelivered=3, resumed=3), (2, 4), NOTHING, None)
    found = answer(second)
    assert (found["received"], found["in_flight"], found["awaiting_redelivery"]) == (6, 6, 2)
    second.record(turn(0, received=3, redelivered=3, resumed=3, delivered=7), (2, 7), {2: 7}, None)
    found = answer(second)
    assert (found["received"], found["delivered"], found["in_flight"]) == (7, 7, 0)
    assert [(c["number"], c["settled"]) for c in found["connections"]] == [(1, 0), (2, 7)]


def test_a_lost_session_gives_up_what_was_awaited(books: Books) -> None:
    first = books.open()
    first.opened(1, session_lost=False)
    first.record(turn(5, received=5), (1, 5), NOTHING, None)
    second = books.open()
    with structlog.testing.capture_logs() as logs:
        second.opened(2, session_lost=True)
    assert [(entry["event"], entry["messages"]) for entry in logs] == [("given_up", 5)]
    found = answer(second)
    assert (found["given_up"], found["in_flight"], found["sessions_lost"]) == (5, 0, 1)
    assert answer(books.open())["given_up"] == 5


def test_redeliveries_that_never_come_are_given_up_in_the_end(books: Books) -> None:
    first = books.open()
    first.opened(1, session_lost=False)
    first.record(turn(5, received=5), (1, 5), NOTHING, None)
    second = books.open()
    books.now += 10 * AWAIT_SECONDS  # no connection: the broker could not send them
    second.record(turn(), None, NOTHING, None)
    second.opened(2, session_lost=False)
    books.now += AWAIT_SECONDS / 2
    second.record(turn(2, received=2, redelivered=2, resumed=2), (2, 2), NOTHING, None)
    books.now += AWAIT_SECONDS + 1  # nothing more was read meanwhile: perhaps they are still on their way
    second.record(turn(2), None, NOTHING, None)
    assert answer(second)["awaiting_redelivery"] == 3
    second.record(turn(0, delivered=2), None, {2: 2}, None)
    found = answer(second)
    assert (found["given_up"], found["in_flight"], found["awaiting_redelivery"]) == (3, 0, 0)


@pytest.mark.parametrize(
    ("rows", "delivered", "missing", "awaiting"),
    [
        (10, 0, 0, 4),  # as recorded
        (13, 0, 0, 1),  # three of those in flight had been spooled
        (16, 0, 0, 0),  # and two that were not recorded yet
        (8, 2, 0, 4),  # two had been delivered and deleted
        (5, 3, 2, 4),  # at most three can have been
        (0, 3, 7, 4),
    ],
)
def test_rows_of_the_spool_after_a_kill(books: Books, rows: int, delivered: int, missing: int, awaiting: int) -> None:
    first = books.open()
    first.opened(1, session_lost=False)
    first.record(turn(4, received=14, spooled=10, in_doubt=7), (1, 14), {1: 10}, (1, 1))
    with structlog.testing.capture_logs() as logs:
        found = answer(books.open(rows, (1, 1) if rows else None))
    assert (found["delivered"], found["missing"], found["in_flight"], found["spooled"]) == (delivered, missing, awaiting, rows)
    alarms = [entry for entry in logs if entry["event"] == "spool_entries_missing"]
    assert [entry["messages"] for entry in alarms] == ([missing] if missing else [])
    assert answer(books.open(rows, None))["missing"] == missing


def test_a_spool_that_comes_back_is_missing_no_more(books: Books) -> None:
    first = books.open()
    first.record(turn(0, received=12, delivered=2, spooled=10), None, NOTHING, (1, 3))
    assert answer(books.open(0, None))["missing"] == 10
    with structlog.testing.capture_logs() as logs:
        found = answer(books.open(7, (1, 6)))
    assert (found["received"], found["missing"], found["spooled"]) == (12, 3, 7)
    assert [entry["messages"] for entry in logs if entry["event"] == "spool_entries_back"] == [7]
    assert answer(books.open(10, (1, 3)))["missing"] == 0


def test_rows_that_left_the_spool_in_the_second_before_a_power_cut_are_no_loss(books: Books) -> None:
    first = books.open()
    first.record(turn(0, received=1000, spooled=1000), None, NOTHING, (1, 1))
    first._totals.boot += 1  # as if written before the host went down
    first._write()
    with structlog.testing.capture_logs() as logs:
        found = answer(books.open(100, (1, 901)))
    assert (found["delivered"], found["missing"], found["spooled"]) == (900, 0, 100)
    assert [entry["event"] for entry in logs] == ["accounting_older_than_spool"]
    assert answer(books.open(0, None))["missing"] == 100  # the same host again: nothing explains it


def test_a_restarted_host_explains_nothing_after_a_clean_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Accounting(tmp_path, "c", 0, None)
    first.record(turn(0, received=10, spooled=10), None, NOTHING, (1, 1))
    first.close()
    monkeypatch.setattr("ingest_daemon.accounting.boot", lambda: 1)
    second = Accounting(tmp_path, "c", 9, (1, 2))
    assert answer(second)["missing"] == 1
    second.close()


def test_a_connection_that_broke_before_its_last_messages_were_recorded_stays_unfinished(books: Books) -> None:
    accounting = books.open()
    accounting.opened(1, session_lost=False)
    accounting.record(turn(0, received=2, delivered=2), (1, 2), {1: 2}, None)
    accounting.closed(1, 5)
    accounting.keep()
    accounting.record(turn(3, received=3), None, NOTHING, None)
    assert only(answer(accounting)) == (5, 2, 2, False)
    accounting.record(turn(0, delivered=3), None, {1: 5}, None)
    accounting.keep()
    assert only(answer(books.open())) == (5, 5, 5, False)


def test_a_lost_or_damaged_file_begins_anew_and_says_so(books: Books) -> None:
    first = books.open()
    first.opened(1, session_lost=False)
    first.record(turn(0, received=5, spooled=5), (1, 5), {1: 5}, (1, 1))
    path = first._file.path
    content = bytearray(path.read_bytes())
    content[4096:] = b"\x55" * len(content[4096:])
    path.write_bytes(content)
    with structlog.testing.capture_logs() as logs:
        found = answer(books.open(5, (1, 1)))
    assert "accounting_damaged" in [entry["event"] for entry in logs]
    assert (found["received"], found["spooled"], found["connections"]) == (5, 5, [])
    path.unlink()
    assert answer(books.open(3, (1, 1)))["received"] == 3


@pytest.mark.parametrize("byte", [0, 4, 8, 16, 40, 136, 150])
def test_a_torn_write_leaves_the_turn_before(books: Books, byte: int) -> None:
    accounting = books.open()
    accounting.opened(1, session_lost=False)
    for sequence in (1, 2):
        accounting.record(turn(0, received=1, delivered=1), (1, sequence), {1: sequence}, None)
    content = bytearray(accounting._file.path.read_bytes())
    slots = [accounting._file._offset(slot) for slot in range(2)]
    newest = max(slots, key=lambda at: int.from_bytes(content[at + 8 : at + 16], "little"))
    content[newest + byte] ^= 0xFF
    accounting._file.path.write_bytes(content)
    found = answer(books.open())
    assert found["received"] == 1
    assert only(found) == (1, 1, 1, False)


def test_the_synced_copy_serves_when_both_others_are_torn(books: Books) -> None:
    accounting = books.open()
    accounting.opened(1, session_lost=False)
    accounting.record(turn(0, received=1, delivered=1), (1, 1), {1: 1}, None)
    accounting.keep()
    accounting.record(turn(0, received=1, delivered=1), (1, 2), {1: 2}, None)
    content = bytearray(accounting._file.path.read_bytes())
    for slot in range(2):
        content[accounting._file._offset(slot) + 20] ^= 0xFF
    accounting._file.path.write_bytes(content)
    assert answer(books.open())["received"] == 1


def test_a_foreign_file_is_refused_by_name(books: Books) -> None:
    (books.folder / "accounting-c").write_bytes(b"something else" * 1000)
    with pytest.raises(SettingsError, match="IOT_INGEST_STATE_DIR"):
        books.open()


def test_an_error_of_the_program_is_told_once(books: Books) -> None:
    accounting = books.open()
    accounting.opened(1, session_lost=False)
    with structlog.testing.capture_logs() as logs:
        accounting.record(turn(3, received=5), (1, 5), NOTHING, None)
        accounting.record(turn(2, delivered=1), None, {1: 1}, None)
        accounting.record(turn(0, delivered=4), None, {1: 5}, None)
    assert [(entry["event"], entry["messages"]) for entry in logs] == [("accounting_differs", 2), ("accounting_differs", 0)]


@pytest.mark.parametrize(
    ("number", "oldest", "expected"),
    [(5, None, 90), (5, (6, 1), 90), (5, (5, 51), 50), (5, (5, 200), 90), (5, (4, 7), 20), (5, (5, 1), 20)],
)
def test_what_is_certainly_in_kafka(number: int, oldest: Oldest, expected: int) -> None:
    assert in_kafka(number, 90, 20, oldest) == expected


def test_ten_thousand_connections_are_listed_and_older_ones_forgotten(books: Books) -> None:
    accounting = books.open()
    for number in range(1, KEPT + 501):
        accounting.opened(number, session_lost=False)
        accounting.record(turn(0, received=2, delivered=2), (number, 2), {number: 2}, None)
        accounting.closed(number, 2)
        if number % 400 == 0:
            accounting.keep()
    accounting.keep()
    for asked in (accounting, books.open()):
        found = answer(asked)
        assert found["received"] == 2 * (KEPT + 500)
        assert [connection["number"] for connection in found["connections"]] == list(range(501, KEPT + 501))
        assert {connection["in_kafka"] for connection in found["connections"]} == {2}


def test_too_many_unfinished_connections_freeze_the_oldest_and_claim_nothing_false(books: Books) -> None:
    accounting = books.open()
    count = CAPACITY + 50
    for number in range(1, count + 1):
        accounting.opened(number, session_lost=False)
        accounting.record(turn(2 * number - min(number, 1), received=2, delivered=int(number == 1)), (number, 2), {1: 1}, None)
    before = answer(accounting)["connections"]
    assert [connection["number"] for connection in before] == list(range(1, count + 1))
    accounting.keep()
    everything = dict.fromkeys(range(1, count + 1), 2)
    accounting.record(turn(0, delivered=2 * count - 1), None, everything, None)
    accounting.closed(count, 2)
    accounting.keep()
    for asked in (accounting, books.open()):
        connections = answer(asked)["connections"]
        assert [connection["number"] for connection in connections] == list(range(1, count + 1))
        assert [connection["settled"] for connection in connections] == [1] + [0] * 49 + [2] * CAPACITY
        assert all(connection["in_kafka"] == connection["settled"] for connection in connections)
