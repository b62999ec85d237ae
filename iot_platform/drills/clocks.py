"""Drills: the clock of the ingest daemon's host is wrong, and set while the daemon runs."""

import os
from typing import Final

from iot_platform.drills.rig.drill_run import DrillError, DrillRun
from iot_platform.drills.rig.drill_stack import INGEST
from iot_platform.drills.rig.fake_clock import FakeClock, FakeClockError, missing_packages
from iot_platform.drills.rig.registry import drill
from iot_platform.local.install import install_packages

HOUR: Final = 3600.0
YEAR: Final = 365 * 24 * HOUR
CLOCKS: Final = {"1 h ahead": HOUR, "1 h behind": -HOUR, "a year behind": -YEAR, "right": 0.0}
HOLD_SECONDS: Final = 3.0
TOLERANCE_SECONDS: Final = 30.0
# Messages without times of their own take the daemon's: what must become of them is certain whatever its clock says.
TIMELESS: Final[dict[str, float]] = {"clockless": 1, "late": 0, "conflict": 0, "malformed": 0, "skew": 0}


def obstacle() -> str:
    """Why no clock can be set wrong here; "" where it can (root installs the compiler)."""
    try:
        missing = missing_packages()
    except FakeClockError as error:
        return str(error)
    return f"needs a compiler: apt-get install {' '.join(missing)}" if missing and os.geteuid() != 0 else ""


@drill("clock_set_while_running", "the daemon's clock is set: 1 h ahead, 1 h back, a year back", group="clocks", obstacle=obstacle)
def clock_set_while_running(run: DrillRun) -> None:
    """A clock that jumps under a running daemon disturbs neither the flow of messages nor their numbering, and the daemon says how far it
    is from Kafka's."""
    clock = _on_a_fake_clock(run)
    pid, number = run.stack.pid(INGEST), _connection(run)
    with run.fault(f"the daemon's clock {', then '.join(CLOCKS)}"):
        for seconds in CLOCKS.values():
            stored = run.stored()
            clock.set(seconds)
            run.hold(HOLD_SECONDS)
            run.await_stored(stored + 100)
            if seconds == HOUR:
                run.await_true("the daemon finds its clock wrong", lambda: abs(_offset(run) - HOUR) < TOLERANCE_SECONDS)
    run.fleet.finish()
    run.check(run.stack.pid(INGEST) == pid, "the daemon did not live through it")
    run.check(_connection(run) == number, "the MQTT connection did not live through it")


@drill("clock_wrong_at_restart", "kill -9 and restart under each wrong clock", group="clocks", obstacle=obstacle)
def clock_wrong_at_restart(run: DrillRun) -> None:
    """Connection numbers keep growing when the clock went back: what a killed daemon leaves is redelivered, recognised and counted."""
    clock = _on_a_fake_clock(run)
    with run.fault(f"kill -9 of the daemon, its clock {', then '.join(CLOCKS)}"):
        for name, seconds in CLOCKS.items():
            before, stored = _connection(run), run.stored()
            clock.set(seconds)
            run.stack.kill(INGEST)
            run.stack.await_ready(INGEST)
            run.check(_connection(run) > before, f"clock {name}: connection {_connection(run)} follows {before}")
            run.await_stored(stored + 100)
    run.fleet.finish()


def clock_of_daemon(run: DrillRun) -> FakeClock:
    """A clock that the daemon goes by from its next start on, right for the moment. Raises DrillError."""
    try:
        install_packages(missing_packages(), run.stack.folder / "logs" / "install.log", run.show)
        clock = FakeClock(run.stack.folder / "clock", run.show)
    except FakeClockError as error:
        raise DrillError(str(error)) from error
    run.stack.ingest_environment.update(clock.environment)
    return clock


def _on_a_fake_clock(run: DrillRun) -> FakeClock:
    """The daemon on a clock of its own, and messages on their way."""
    clock = clock_of_daemon(run)
    run.stack.restart(INGEST)
    run.fleet.start(rate=400, **TIMELESS)
    run.await_stored(500)
    return clock


def _offset(run: DrillRun) -> float:
    """How far the daemon says that its clock is ahead of Kafka's, in seconds."""
    return (run.stack.metrics() or {}).get("iot_ingest_clock_offset_seconds", 0.0)


def _connection(run: DrillRun) -> int:
    """Number of the newest MQTT connection."""
    return int(run.stack.accounting()["connections"][-1]["number"])
