"""What is sent in the background: in order, bounded, told in the caller's thread, nothing behind what failed."""

import threading

import pytest

from iot_platform.influx.delivery import Delivered
from iot_platform.influx.errors import InfluxConfigError, InfluxRefusedError, InfluxUnavailableError
from iot_platform.influx.sender import MOST_PARCELS, Parcel, Sender


class Server:
    """Keeps what it takes; waits for `go` before each answer; refuses or fails by the line's name."""

    def __init__(self) -> None:
        self.go = threading.Semaphore(0)
        self.began = threading.Semaphore(0)
        self.kept: list[str] = []

    def write(self, body: bytes) -> None:
        self.began.release()
        assert self.go.acquire(timeout=30)
        lines = body.decode().split("\n")
        if "away" in lines:
            raise InfluxUnavailableError("away")
        if "wrong" in lines:
            raise InfluxConfigError("wrong")
        if "bad" in lines:
            raise InfluxRefusedError("bad")
        self.kept += lines


@pytest.fixture
def server() -> Server:
    return Server()


def test_what_is_ready_is_sent_while_the_caller_goes_on(server: Server) -> None:
    sender, done, threads = Sender(server), list[str](), set[threading.Thread]()

    def parcel(name: str) -> Parcel:
        def note(_: Delivered) -> None:
            done.append(name)
            threads.add(threading.current_thread())

        return Parcel([name], note)

    for number in range(MOST_PARCELS):
        sender.put(parcel(str(number)))  # returns although nothing was answered
    assert server.began.acquire(timeout=30)
    assert (server.kept, done) == ([], [])
    server.go.release(2)
    sender.put(parcel("2"))
    assert done[:1] == ["0"], "room is made by what is done"
    server.go.release(9)
    sender.flush()
    assert (server.kept, done, threads) == (["0", "1", "2"], ["0", "1", "2"], {threading.current_thread()})
    sender.close()


def test_what_is_refused_is_told_by_its_position_and_deletions_go_first(server: Server) -> None:
    server.go.release(99)
    sender, found = Sender(server), list[Delivered]()
    sender.put(Parcel(["a", "bad", "c"], found.append, [lambda: server.kept.append("deleted")]))
    sender.flush()
    assert [position for position, _ in found[0].refused] == [1]
    assert server.kept == ["deleted", "a", "c"]
    sender.close()


def test_nothing_behind_a_failure_is_sent_and_the_sender_works_again(server: Server) -> None:
    server.go.release(99)
    sender, done = Sender(server), list[Delivered]()
    sender.put(Parcel(["wrong"], done.append))
    sender.put(Parcel(["behind"], done.append))
    with pytest.raises(InfluxConfigError):
        sender.flush()
    assert (server.kept, done) == ([], [])
    sender.put(Parcel(["again"], done.append))
    sender.flush()
    assert (server.kept, len(done)) == (["again"], 1)
    sender.close()


def test_who_waits_hears_of_repetitions_and_may_give_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iot_platform.influx.delivery.FIRST_PAUSE_SECONDS", 0.001)
    server.go.release(999)
    heard, stop = list[str](), threading.Event()

    def hear(text: str) -> None:
        heard.append(text)
        if len(heard) == 5:
            stop.set()

    sender = Sender(server, stopped=stop.is_set, on_retry=hear)
    sender.put(Parcel(["away"], lambda _: None))
    with pytest.raises(InfluxUnavailableError):
        sender.flush()
    assert heard[:5] == ["away"] * 5
    sender.close()
