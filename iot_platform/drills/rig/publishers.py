"""The publishers of a drill: seeded simulations in processes of their own, and single messages; all remember what was acknowledged."""

import contextlib
import ctypes
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from iot_platform.settings import Settings, exports
from iot_platform.simulator.connection import Broker, Connection, Delivery
from iot_platform.simulator.fleet import FleetOptions
from iot_platform.simulator.generator import Generator
from iot_platform.simulator.message import Message
from iot_platform.simulator.record import Published, read_record

MIX: Final = {
    "tenants": 2, "projects": 3, "devices": 20, "late": 0.02, "duplicate": 0.02, "malformed": 0.03, "conflict": 0.01, "skew": 0.05,
    "heartbeat": 0.02,
}  # fmt: skip
SETTLE_SECONDS: Final = 60.0
_PR_SET_PDEATHSIG: Final = 1


class FleetError(Exception):
    """A publisher of the drill failed, or not in time. The drill fails."""


@dataclass
class _Simulation:
    record: Path
    process: subprocess.Popen[bytes]
    output: Path
    until: float = 0.0  # time.monotonic() before which it is not asked to end
    file: IO[bytes] | None = None
    lines: int = 0
    end_requested: bool = False

    def acknowledged(self) -> int:
        """Settled messages so far; follows the record."""
        if self.file is None and self.record.exists():
            self.file = self.record.open("rb")
        if self.file is not None:
            while chunk := self.file.read(1 << 20):
                self.lines += chunk.count(b"\n")
        return max(0, self.lines - 1)


class Fleet:
    """Publishes straight to the broker. Each `start` has tenants of its own, by the drill's seed."""

    def __init__(self, settings: Settings, folder: Path, seed: int, rate: float | None, seconds: float | None) -> None:
        """`rate` and `seconds` override what a drill asks for."""
        self._settings = settings
        self.folder = folder
        self._seed = seed
        self._rate, self._seconds = rate, seconds
        self._numbers = itertools.count(1)
        self._simulations: list[_Simulation] = []
        self._finished = 0
        self._singles: list[Published] = []
        folder.mkdir(parents=True, exist_ok=True)

    # -- simulations -------------------------------------------------------------------------------------------
    def start(self, *, rate: float = 500, seconds: float = 20, **options: float | str) -> None:
        """Publish at this rate, in a process of its own, until `finish`, and for so long at least: a fault meets messages however slow the
        machine is. Returns with the first acknowledgement. Options as of `iot simulate` (late=0.1, mix="flat" …)."""
        rate, seconds = self._rate or rate, self._seconds or seconds
        number = next(self._numbers)
        record, output = self.folder / f"published-{number}.jsonl", self.folder / f"fleet-{number}.log"
        chosen = {**MIX, **options, "seed": self._seed + number, "rate": rate, "duration": 0, "record": record}
        arguments = [f"--{name.replace('_', '-')}={value}" for name, value in chosen.items()]
        passed = {name: value for name, value in os.environ.items() if not name.startswith("IOT_")}
        with output.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "iot_platform.cli.main", "simulate", *arguments],
                env=passed | exports(self._settings),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,  # Ctrl-C is for the drill, which ends it
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - sets one flag, touches no lock
            )
        simulation = _Simulation(record, process, output)
        self._simulations.append(simulation)
        self.await_acknowledged(self.acknowledged + 1)
        simulation.until = time.monotonic() + seconds

    @property
    def running(self) -> bool:
        """Whether one of them still publishes."""
        return any(each.process.poll() is None for each in self._simulations)

    @property
    def acknowledged(self) -> int:
        """Messages that the broker has acknowledged so far (or refused)."""
        return sum(each.acknowledged() for each in self._simulations) + len(self._singles)

    def await_acknowledged(self, count: int, seconds: float = 60) -> None:
        """Until so many messages of the drill are acknowledged, or the fleet has ended."""
        deadline = time.monotonic() + seconds
        while self.acknowledged < count and self.running:
            if time.monotonic() > deadline:
                raise FleetError(f"only {self.acknowledged} of {count} messages acknowledged within {seconds:g} s")
            time.sleep(0.05)

    def finish(self, seconds: float = SETTLE_SECONDS) -> None:
        """Let every simulation publish for its time, then end it; all it published must be acknowledged within so many seconds.

        Raises:
            FleetError: something was not, or a simulation broke.
        """
        for each in self._simulations[self._finished :]:
            with contextlib.suppress(subprocess.TimeoutExpired):
                each.process.wait(max(0.0, each.until - time.monotonic()))
            self._end(each)
            try:
                code = each.process.wait(seconds)
            except subprocess.TimeoutExpired as error:
                raise FleetError(f"the fleet has not ended after {seconds:.0f} s") from error
            if code:
                raise FleetError(f"the fleet failed: {each.output.read_text('utf-8', 'replace').strip()[-500:]}")
            self._finished += 1

    def stop(self) -> None:
        """Tell the simulations to end now, before their time; `finish` waits for that."""
        for each in self._simulations[self._finished :]:
            each.until = 0.0
            self._end(each)

    def stop_last(self) -> None:
        """The same for the simulation that was started last."""
        self._simulations[-1].until = 0.0
        self._end(self._simulations[-1])

    def _end(self, simulation: _Simulation) -> None:
        """A second signal would end it without waiting for acknowledgements."""
        if not simulation.end_requested:
            simulation.end_requested = True
            with contextlib.suppress(ProcessLookupError):
                simulation.process.send_signal(signal.SIGTERM)

    # -- single messages ---------------------------------------------------------------------------------------
    def messages(self, count: int, **options: float) -> list[Message]:
        """Messages of a fleet of their own, with what must become of them; nothing is published."""
        chosen = {**MIX, "late": 0, "duplicate": 0, "malformed": 0, "conflict": 0, **options}
        fleet = FleetOptions(**chosen, seed=self._seed + next(self._numbers))  # type: ignore[arg-type]
        start_us = time.time_ns() // 1_000_000 * 1000
        return list(itertools.islice(Generator(fleet, self._settings.topic_pattern, start_us, 1000).messages(), count))

    @contextlib.contextmanager
    def publisher(self, client_id: str = "") -> Iterator["Publisher"]:
        """A connection of one's own for exact packets: `publisher.publish(message)`, acknowledged when it returns."""
        connection = Publisher(self._settings, client_id or f"drill-{os.getpid()}-{time.time_ns() % 1_000_000}", self.add)
        try:
            yield connection
        finally:
            connection.close()

    def add(self, published: Published) -> None:
        """Remember a message that was published by other means."""
        self._singles.append(published)

    # -- afterwards --------------------------------------------------------------------------------------------
    def published(self) -> list[Published]:
        """Everything that the drill published, in order."""
        found: list[Published] = []
        for each in self._simulations:
            found += sorted(read_record(each.record), key=lambda item: item.message.number)
        return found + self._singles

    def close(self) -> None:
        """End what still runs."""
        for each in self._simulations:
            each.process.kill()
            each.process.wait()
            if each.file is not None:
                each.file.close()


class Publisher:
    """Publishes one message after the other and waits for each acknowledgement."""

    def __init__(self, settings: Settings, client_id: str, remember: Callable[[Published], None]) -> None:
        self._remember = remember
        self._settled: list[Delivery] = []
        self._connection = Connection(Broker.from_settings(settings), client_id, self._settled.append)
        self._connection.open()

    def publish(self, message: Message, seconds: float = 30) -> Published:
        """Publish, and wait for PUBACK."""
        deadline = time.monotonic() + seconds
        while not self._connection.ready:
            self._turn(deadline)
        self._settled.clear()
        self._connection.publish(message)
        while not self._settled:
            self._turn(deadline)
        delivery = self._settled[0]
        published = Published(message, delivery.acked_us is not None, delivery.refused is not None, delivery.sends, delivery.published_us)
        self._remember(published)
        return published

    def close(self) -> None:
        """Disconnect."""
        self._connection.close()

    def _turn(self, deadline: float) -> None:
        if time.monotonic() > deadline:
            raise FleetError("the broker did not acknowledge in time")
        self._connection.turn(True)
        time.sleep(0.002)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
