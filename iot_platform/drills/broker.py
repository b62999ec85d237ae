"""Drills: the MQTT broker is restarted, killed, and loses its sessions."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from iot_platform.drills.rig.drill_run import DrillError, DrillRun
from iot_platform.drills.rig.drill_stack import INGEST
from iot_platform.drills.rig.publishers import Publisher
from iot_platform.drills.rig.registry import drill
from iot_platform.simulator.message import Message
from iot_platform.simulator.record import Published

BROKER: Final = "mosquitto"
MESSAGES: Final = 150
ROUNDS: Final = 5
SESSIONS_LOST: Final = "iot_ingest_mqtt_sessions_lost_total"


@drill("mosquitto_restarted", "the MQTT broker restarted, its queues on disk", group="broker")
def mosquitto_restarted(run: DrillRun) -> None:
    """A broker that saves its sessions when it is stopped loses nothing: the daemon resumes its session, the broker sends again what was
    under way."""
    lost = _sessions_lost(run)
    run.fleet.start(rate=500, seconds=15)
    run.await_stored(run.rng.randrange(500, 1500))
    with run.fault("broker restarted"):
        run.stack.restart(BROKER)
    run.fleet.finish()
    run.await_stored(run.fleet.acknowledged)
    run.check(_sessions_lost(run) == lost, "the daemon's session did not survive an orderly restart")


@drill("mosquitto_killed", "kill -9 of the MQTT broker, between two saves of its queues", group="broker")
def mosquitto_killed(run: DrillRun) -> None:
    """Killed, Mosquitto forgets what changed since its last save: messages that it took and had not delivered are lost, and delivered ones
    may come again without DUP. It does not know; what the daemon had acknowledged is stored, and the session goes on."""
    lost = _sessions_lost(run)
    run.fleet.start(rate=500, seconds=5)
    run.fleet.finish()
    run.await_stored(run.fleet.acknowledged)
    with _daemon_away(run):
        _publish(run, run.fleet.messages(MESSAGES), may_come_twice=True)
        saved = _save(run)
    run.await_stored(run.fleet.acknowledged)
    once, copies = run.stored(), run.stored_with_copies()
    with run.fault("kill -9 of the broker after it delivered what its last save holds undelivered"):
        _kill(run)
    if _database(run) == saved:
        run.await_true("the broker sends again what it forgot", lambda: run.stored_with_copies() >= copies + MESSAGES, 300)
        marked = MESSAGES - (run.stored() - once)
        run.note(f"{MESSAGES} delivered and acknowledged messages came again without DUP, {marked} of them were recognised")
    with _daemon_away(run), run.fault("kill -9 of the broker before it saved what it took"):
        _lose(run)
    run.fleet.start(rate=500, seconds=5)
    run.fleet.finish()
    run.check(_sessions_lost(run) == lost, "the daemon's session was in the broker's file, and yet not resumed")


@drill("mosquitto_session_lost", "the MQTT broker loses its sessions", group="broker")
def mosquitto_session_lost(run: DrillRun) -> None:
    """What the broker kept for us is gone with its file, and that is detected: the daemon counts the lost session, warns, subscribes anew,
    and goes on. What it had acknowledged is stored."""
    run.fleet.start(rate=500, seconds=5)
    run.fleet.finish()
    run.await_stored(run.fleet.acknowledged)
    lost, logged = _sessions_lost(run), run.stack.log(INGEST).count("session_lost")
    with _daemon_away(run), run.fault("broker restarted without its file"):
        _publish(run, run.fleet.messages(MESSAGES))
        run.stack.stop(BROKER)
        session_file(run).unlink()
        run.stack.start(BROKER)
        run.expect_lost(MESSAGES, "the broker had them in a session that it lost")
    run.check(_sessions_lost(run) == lost + 1, f"{SESSIONS_LOST} is {_sessions_lost(run)}, not {lost + 1}")
    run.check(run.stack.accounting()["sessions_lost"] == lost + 1, "/accounting does not count the lost session")
    run.check(run.stack.log(INGEST).count("session_lost") == logged + 1, "the daemon's log does not say that the session is lost")
    run.fleet.start(rate=500, seconds=5)
    run.fleet.finish()


# -- steps -----------------------------------------------------------------------------------------------------
@contextmanager
def _daemon_away(run: DrillRun) -> Iterator[None]:
    """The ingest daemon left in good order; the broker keeps messages for it."""
    run.stack.stop(INGEST)
    yield
    run.stack.start(INGEST)


def _publish(run: DrillRun, messages: list[Message], *, may_come_twice: bool = False) -> None:
    def remember(published: Published) -> None:
        run.fleet.add(replace(published, sends=published.sends + 1) if may_come_twice else published)

    publisher = Publisher(run.settings, f"drill-{time.time_ns() % 1_000_000}", remember)
    try:
        for message in messages:
            publisher.publish(message)
    finally:
        publisher.close()


def _lose(run: DrillRun) -> None:
    """Publish right after a save and kill the broker before the next one; its file tells whether that worked. Leaves it running."""
    for _ in range(ROUNDS):
        saved = _save(run)
        messages = run.fleet.messages(MESSAGES)
        _publish(run, messages)
        run.stack.kill(BROKER)
        lost = _database(run) == saved  # the one that is started next saves nothing for a while
        run.stack.await_ready(BROKER)
        if lost:
            run.expect_lost(len(messages), "the broker took them after its last save")
            return
    raise DrillError(f"the broker saved its queues {ROUNDS} times just when it should not")


def _kill(run: DrillRun) -> None:
    run.stack.kill(BROKER)
    run.stack.await_ready(BROKER)
    run.stack.await_ready(INGEST)


def _save(run: DrillRun) -> tuple[int, int]:
    """Have the broker save what it has now."""
    before = _database(run)
    os.kill(run.stack.pid(BROKER), signal.SIGUSR1)
    run.await_true("the broker saves its queues", lambda: _database(run) != before)
    return _database(run)


def _database(run: DrillRun) -> tuple[int, int]:
    """Changes with each save; (0, 0) before the first."""
    try:
        status = session_file(run).stat()
    except FileNotFoundError:
        return 0, 0
    return status.st_ino, status.st_mtime_ns


def session_file(run: DrillRun) -> Path:
    """What the broker saved of its sessions and queues."""
    return run.stack.folder / "data" / BROKER / "mosquitto.db"


def _sessions_lost(run: DrillRun) -> int:
    return int((run.stack.metrics() or {}).get(SESSIONS_LOST, 0))
