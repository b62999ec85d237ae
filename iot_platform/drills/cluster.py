"""Drills: three Kafka brokers of which some die or are restarted. Nothing is lost or doubled.
Each program that waits names the broker it waits for."""

import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from iot_platform.diagnostics.doctor_drain import drain_findings
from iot_platform.diagnostics.doctor_kafka import topic_findings
from iot_platform.diagnostics.status import Status, collect
from iot_platform.drills.rig.drill_run import DrillError, DrillRun
from iot_platform.drills.rig.drill_stack import INGEST
from iot_platform.drills.rig.kafka_cluster import BROKERS, KafkaCluster, name_of, replicas
from iot_platform.drills.rig.registry import drill
from iot_platform.kafka.errors import KafkaUnavailableError
from iot_platform.local.kafka import pinned_version
from iot_platform.settings import Settings

RATE: Final = 200
BEGIN_SECONDS: Final = 600.0  # a Dagster run starts in seconds, on a busy machine in minutes
ELECTION_SECONDS: Final = 120.0
"""Kafka takes a broker for dead after 9 s without a heartbeat, and needs a few more if it led the controllers."""
FLOW_SECONDS: Final = 300.0
IN_SYNC_SECONDS: Final = 240.0
SAID_SECONDS: Final = 240.0
OUTAGE_SECONDS: Final = 20.0
NEXT_KAFKA: Final = "4.4.0"
"""The release after the one that the stack installs."""
_FEATURE: Final = re.compile(r"Feature: (\S+) .*FinalizedVersionLevel: (\S+)")
_PAUSE: Final = """
SELECT coalesce(extract(epoch FROM max(pause)), 0) FROM (
    SELECT committed_at, committed_at - lag(committed_at) OVER (ORDER BY committed_at) AS pause FROM ledger
    WHERE batch_id > %s AND kind = 'drain'
) pauses WHERE committed_at >= %s
"""
_TICKS: Final = """
SELECT tick_body FROM dagster.job_ticks WHERE timestamp >= %s AND status = 'FAILURE' AND tick_body LIKE '%%kafka_lag%%' ORDER BY id DESC
"""


@drill("broker_killed", "kill -9 of each of three Kafka brokers, one after the other", group="cluster", fresh=True, brokers=3)
def broker_killed(run: DrillRun) -> None:
    """The other two lead on within seconds of their election: messages flow while one broker is away, `iot status` names it, and it catches
    up when it is back. The active controller is one of the three."""
    _begin(run)
    first = run.rng.choice(sorted(replicas(run.settings, run.settings.kafka_topic).values(), key=lambda item: item.leader)).leader
    with Daemon(run) as daemon:
        for number in [first, *(each for each in range(1, BROKERS + 1) if each != first)]:
            _kill_and_start(run, number)
    run.fleet.finish()
    daemon.report()
    _note_pause(run)


@drill("two_brokers_killed", "kill -9 of two of three Kafka brokers", group="cluster", fresh=True, brokers=3)
def two_brokers_killed(run: DrillRun) -> None:
    """min.insync.replicas=2: Kafka confirms nothing more, so the daemon spools; daemon, `iot status` and drain name the brokers that are
    missing, and a lag that nobody knows is not called 0. With the brokers back all goes on by itself."""
    _begin(run)
    left = run.rng.randrange(1, BROKERS + 1)
    gone = [number for number in range(1, BROKERS + 1) if number != left]
    with Daemon(run) as daemon:
        with run.fault(f"kill -9 of the brokers {gone}"):
            _kill(run, gone)
            run.await_true("/readyz names a broker that is gone", lambda: _names(run.stack.problems() or [], gone), SAID_SECONDS)
            run.await_true("messages in the spool", lambda: _figure(run, "iot_ingest_spool_messages") > RATE, SAID_SECONDS)
            confirmed, spooled = _confirmed(run), _figure(run, "iot_ingest_spool_messages")
            run.hold(run.outage_seconds(OUTAGE_SECONDS))
            run.check(_confirmed(run) == confirmed, f"Kafka confirmed {_confirmed(run) - confirmed} messages with one copy only")
            run.check(_figure(run, "iot_ingest_spool_messages") > spooled, "the spool did not grow")
            _check_status(run, gone)
            _check_doctor(run, gone)
            _await_drain_says(run, gone)
            _start(run, gone)
            back = run.await_true("all copies are in sync", lambda: _in_sync(run), IN_SYNC_SECONDS)
        run.note(f"in sync {back:.1f} s after both served again")
    run.fleet.finish()
    run.await_true("the daemon has nothing to complain of", lambda: run.stack.problems() == [], SAID_SECONDS)
    daemon.report()
    _note_pause(run)


@drill("last_broker_missing", "kill -9 of all three Kafka brokers, two of which come back", group="cluster", fresh=True, brokers=3)
def last_broker_missing(run: DrillRun) -> None:
    """Brokers that went down hard may not lead when they are back, however many: the one that is still missing has to come (KIP-966).
    Until then daemon, `iot status` and drain say for which broker they wait; after that nothing is missing."""
    _begin(run)
    last = run.rng.randrange(1, BROKERS + 1)
    back = [number for number in range(1, BROKERS + 1) if number != last]
    with Daemon(run) as daemon:
        with run.fault(f"kill -9 of all brokers; {back} come back, broker {last} does not"):
            _kill(run, range(1, BROKERS + 1))
            _start(run, back)
            run.await_true("no partition has a leader", lambda: _leaderless(run), SAID_SECONDS)
            eligible = _cluster(run).eligible(run.settings.kafka_topic)
            run.note(f"may lead, by partition: { ({number: sorted(item.eligible) for number, item in sorted(eligible.items())}) }")
            run.check(
                all(item.eligible | item.last_known == {last} or last in item.eligible for item in eligible.values()),
                f"Kafka does not wait for broker {last}: {eligible}",
            )
            run.await_true("/readyz names the broker that is missing", lambda: _names(run.stack.problems() or [], [last]), SAID_SECONDS)
            stored, confirmed = run.stored(), _confirmed(run)
            run.hold(run.outage_seconds(OUTAGE_SECONDS))
            run.check((run.stored(), _confirmed(run)) == (stored, confirmed), "messages flowed although no partition had a leader")
            _check_status(run, [last])
            _await_drain_says(run, [last])
            started = time.monotonic()
            run.stack.start(name_of(last), ready=False)
            led = run.await_true("every partition has a leader", lambda: not _leaderless(run), IN_SYNC_SECONDS, since=started)
            run.stack.await_ready(name_of(last), IN_SYNC_SECONDS)
            run.await_true("all copies are in sync", lambda: _in_sync(run), IN_SYNC_SECONDS)
        run.note(f"leaders {led:.1f} s after the start of broker {last}, in sync after {run.faults[-1].ended - started:.1f} s")
    run.fleet.finish()
    run.await_true("the daemon has nothing to complain of", lambda: run.stack.problems() == [], SAID_SECONDS)
    daemon.report()
    _note_pause(run)


@drill(
    "brokers_restarted", "three Kafka brokers restarted one after the other, each awaited in sync", group="cluster", fresh=True, brokers=3
)
def brokers_restarted(run: DrillRun) -> None:
    """A rolling restart as for an update: a broker that is stopped politely hands over its partitions first, so messages flow on."""
    _begin(run)
    with Daemon(run) as daemon:
        for number in range(1, BROKERS + 1):
            _restart(run, number)
    run.fleet.finish()
    daemon.report()
    _note_pause(run)


@drill(
    "brokers_updated",
    "three Kafka brokers updated to the next release, one after the other; one goes back and comes again; then their features are raised",
    group="upgrade",
    fresh=True,
    obstacle=lambda: "KAFKA_HOME names one release of Kafka" if os.environ.get("KAFKA_HOME") else "",
    brokers=3,
)
def brokers_updated(run: DrillRun) -> None:
    """Messages flow while brokers of two releases serve together, and while the features are raised. Until that a broker may go back to the
    release before; after it that release refuses to start, and the metadata version does not go down."""
    _begin(run)
    with Daemon(run) as daemon:
        for number in range(1, BROKERS + 1):
            _restart(run, number, NEXT_KAFKA)
        _restart(run, BROKERS, "")
        _restart(run, BROKERS, NEXT_KAFKA)
        _raise_features(run, NEXT_KAFKA)
        with run.fault(f"broker {BROKERS} stopped, started with {pinned_version()}, which must refuse"):
            run.stack.stop(name_of(BROKERS))
            run.note(f"{pinned_version()} said: {_refusal(run, BROKERS)}")
            run.stack.use_kafka(BROKERS, NEXT_KAFKA)
            _start(run, [BROKERS])
            run.await_true("all copies are in sync", lambda: _in_sync(run), IN_SYNC_SECONDS)
    run.fleet.finish()
    daemon.report()
    _note_pause(run)


# -- what happens to the brokers -------------------------------------------------------------------------------
def _kill_and_start(run: DrillRun, number: int) -> None:
    """kill -9; messages must flow without the broker, then it comes back."""
    led = sorted(p for p, item in replicas(run.settings, run.settings.kafka_topic).items() if item.leader == number)
    with run.fault(f"kill -9 of broker {number}, leader of partitions {led}"):
        killed = time.monotonic()
        run.stack.kill_for_good(name_of(number))
        election = run.await_true("the others lead all partitions", lambda: _led_without(run, number), ELECTION_SECONDS, since=killed)
        elected, stored = time.monotonic(), run.stored()
        run.await_true("the drain goes on", lambda: run.stored() > stored, FLOW_SECONDS)
        resumed = time.monotonic() - elected
        run.await_true("the daemon is ready with two brokers of three", lambda: run.stack.problems() == [], FLOW_SECONDS)
        ready = time.monotonic() - elected
        run.await_stored(run.stored() + RATE)
        _check_degraded(run, number)
        _start(run, [number])
        back = run.await_true("all copies are in sync", lambda: _in_sync(run), IN_SYNC_SECONDS)
    run.note(
        f"broker {number}: others led after {election:.1f} s; then the drain's next commit after {resumed:.1f} s, the daemon ready after"
        f" {ready:.1f} s; in sync {back:.1f} s after it served again"
    )


def _restart(run: DrillRun, number: int, version: str | None = None) -> None:
    """SIGTERM, and back, as another release of Kafka if one is given ("": the stack's own)."""
    release = "" if version is None else f" with {version or pinned_version()}"
    if version is not None:
        run.stack.use_kafka(number, version)
    with run.fault(f"broker {number} restarted{release} (SIGTERM)"):
        began = time.monotonic()
        run.stack.stop(name_of(number))
        stopped = time.monotonic() - began
        run.await_true("the others lead all partitions", lambda: _led_without(run, number), ELECTION_SECONDS)
        _check_degraded(run, number)
        _start(run, [number])
        run.await_true("all copies are in sync", lambda: _in_sync(run), IN_SYNC_SECONDS)
    run.note(f"broker {number}{release}: stopped in {stopped:.1f} s, back in sync {time.monotonic() - began - stopped:.1f} s later")


def _raise_features(run: DrillRun, version: str) -> None:
    """As `kafka-features.sh` does; and back, which is refused."""
    release = ".".join(version.split(".")[:2])
    run.note(f"features before: {_features(run, 'describe')[1]}")
    with run.fault(f"features raised to {release}"):
        code, said = _features(run, "upgrade", "--release-version", release)
        run.check(code == 0, f"kafka-features upgrade: {said}")
        _, levels = _features(run, "describe")
        run.check(f"metadata.version {release}" in levels, f"the metadata version is not that of {release}: {levels}")
        run.await_stored(run.stored() + RATE)
    run.note(f"features after: {levels}")
    code, said = _features(run, "downgrade", "--release-version", ".".join(pinned_version().split(".")[:2]))
    run.check(code != 0, f"kafka-features downgrade was taken: {said}")
    run.note(f"back: {said.split(', ', 1)[0]}")


def _features(run: DrillRun, *arguments: str) -> tuple[int, str]:
    """Exit code of `kafka-features.sh`, and the levels that it shows, or else its words."""
    command = ("org.apache.kafka.tools.FeatureCommand", "--bootstrap-server", run.settings.kafka_bootstrap_servers, *arguments)
    shown = subprocess.run(_cluster(run).servers[0].java(*command), check=False, capture_output=True, text=True, timeout=SAID_SECONDS)
    lines = (shown.stdout + shown.stderr).replace("\t", " ").splitlines()
    levels = [f"{found[1]} {found[2]}" for line in lines if (found := _FEATURE.search(line))]
    return shown.returncode, ", ".join(levels or [line.strip() for line in lines if line.strip()])


def _refusal(run: DrillRun, number: int) -> str:
    """What the stack's own release says when it ends instead of serving."""
    command = run.stack.use_kafka(number, "").program().command
    shown = subprocess.run(command, check=False, capture_output=True, text=True, timeout=SAID_SECONDS)
    run.check(shown.returncode != 0, "the release before served on features that it does not know")
    lines = [line for line in (shown.stdout + shown.stderr).splitlines() if "does not support" in line or "Exception: " in line]
    return lines[0].strip() if lines else f"exit code {shown.returncode}"


def _begin(run: DrillRun) -> None:
    """Messages come all the way, and each is on three disks."""
    run.await_true("all copies are in sync", lambda: _in_sync(run), IN_SYNC_SECONDS)
    run.fleet.start(rate=RATE, seconds=30)
    run.await_stored(RATE, BEGIN_SECONDS)


def _kill(run: DrillRun, numbers: Iterable[int]) -> None:
    """kill -9 in the same moment; they stay down."""
    names = [name_of(number) for number in numbers]
    for pid in [run.stack.pid(name) for name in names]:
        os.kill(pid, signal.SIGKILL)
    run.stack.stop(*names)


def _start(run: DrillRun, numbers: Iterable[int]) -> None:
    """Together: one alone has no quorum of controllers to join."""
    names = [name_of(number) for number in numbers]
    for name in names:
        run.stack.start(name, ready=False)
    for name in names:
        run.stack.await_ready(name, IN_SYNC_SECONDS)


def _cluster(run: DrillRun) -> KafkaCluster:
    if run.stack.cluster is None:
        raise DrillError("this drill needs a stack with three brokers")
    return run.stack.cluster


def _in_sync(run: DrillRun) -> bool:
    """Whether every partition of both topics has a leader and all its copies."""
    states = [replicas(run.settings, topic) for topic in (run.settings.kafka_topic, run.settings.kafka_dead_letter_topic)]
    return all(states) and all(item.leader > 0 and item.in_sync == item.all for state in states for item in state.values())


def _led_without(run: DrillRun, number: int) -> bool:
    """Whether all partitions have a leader other than this broker."""
    state = replicas(run.settings, run.settings.kafka_topic)
    return bool(state) and all(item.leader > 0 and item.leader != number for item in state.values())


def _leaderless(run: DrillRun) -> bool:
    """Whether no partition has a leader, as far as the cluster answers."""
    state = replicas(run.settings, run.settings.kafka_topic)
    return bool(state) and all(item.leader < 0 for item in state.values())


# -- what is said ----------------------------------------------------------------------------------------------
@dataclass
class Daemon:
    """Listens to what the ingest daemon complains of: every text with the seconds for which it stood there."""

    run: DrillRun
    texts: dict[str, float] = field(default_factory=dict)
    unready_seconds: float = 0.0
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._listen, name="listener", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def report(self) -> None:
        """Note in the drill's report what the daemon said, and for how long."""
        self.run.note(f"the daemon was not ready for {self.unready_seconds:.0f} s in all")
        for text, seconds in sorted(self.texts.items(), key=lambda item: -item[1])[:5]:
            self.run.note(f"the daemon said for {seconds:.0f} s: {text}")

    def _listen(self) -> None:
        looked = time.monotonic()
        while not self._stop.wait(0.5):
            said = self.run.stack.problems() or []
            passed, looked = time.monotonic() - looked, time.monotonic()
            self.unready_seconds += passed if said else 0
            for text in said:
                self.texts[text] = self.texts.get(text, 0.0) + passed


def _names(texts: Iterable[str], numbers: Iterable[int]) -> bool:
    """Whether one of the texts is about partitions of our topic and one of these brokers."""
    return any(f"broker {number}" in text or f"brokers {number}" in text for text in texts for number in numbers)


def _asked(run: DrillRun) -> Settings:
    """Settings as `iot status` would have them."""
    return run.settings.model_copy(update={"ingest_http_url": run.stack.ingest_url(INGEST)})


def _kafka(status: Status) -> str:
    return next(f"{item.state} {item.detail}" for item in status.components if item.name == "kafka")


def _check_degraded(run: DrillRun, number: int) -> None:
    """With one broker of three away `iot status` calls Kafka well, and names the broker."""
    said = _kafka(collect(_asked(run)))
    run.check(said.startswith(f"ok broker {number} missing"), f"`iot status` says of Kafka: {said}")


def _check_status(run: DrillRun, gone: Iterable[int]) -> None:
    """`iot status` calls Kafka down, names a broker that is gone, and knows no lag."""
    status = collect(_asked(run))
    said = _kafka(status)
    run.check(said.startswith("down") and _names([said], gone), f"`iot status` does not name the brokers that are gone: {said}")
    run.check(status.as_json()["lag_total"] is None, f"`iot status` shows a lag of {status.as_json()['lag_total']} that nobody can know")
    run.note(f"iot status said of Kafka: {said}")


def _check_doctor(run: DrillRun, gone: Iterable[int]) -> None:
    """`iot doctor` says in a sentence that a broker is gone, whichever of its questions Kafka leaves unanswered."""
    findings = [*topic_findings(run.settings), *drain_findings(run.settings)]
    said = [f"{item.what}: {item.text}" for item in findings if item.state == "bad"]
    run.check(_names(said, gone), f"`iot doctor` does not name the brokers that are gone: {findings}")
    run.note(f"iot doctor said: {'; '.join(said)}")


def _await_drain_says(run: DrillRun, gone: Iterable[int]) -> None:
    """The sensor kafka_lag, which requests the drain's shifts, fails with a reason that a person understands."""

    def said() -> list[str]:
        with run.database() as connection, connection.cursor() as cursor:
            cursor.execute(_TICKS, (run.faults[-1].began_at.replace(tzinfo=None),))
            return [_reason(body) for (body,) in cursor.fetchall()]

    run.await_true("the sensor kafka_lag names a broker that is gone", lambda: _names(said(), gone), SAID_SECONDS)
    run.note(f"the drain's sensor said: {said()[0]}")
    run.note(f"{run.failed_runs()} Dagster runs failed meanwhile: a shift that ends while Kafka is away says so")


def _reason(tick: str) -> str:
    """Our own error in a sensor's tick, between Dagster's around it and librdkafka's below; one line, empty where there is none."""
    error = json.loads(tick).get("error") or {}
    while error and KafkaUnavailableError.__name__ not in str(error.get("message")):
        error = error.get("cause") or {}
    return str(error.get("message", "")).strip().split("\n")[0]


def _note_pause(run: DrillRun) -> None:
    with run.database() as connection, connection.cursor() as cursor:
        cursor.execute(_PAUSE, (run.first_batch, run.faults[0].began_at))
        run.note(f"longest time without a commit of the drain: {float((cursor.fetchone() or (0,))[0]):.1f} s")


def _figure(run: DrillRun, name: str) -> int:
    return int((run.stack.metrics() or {}).get(name, 0))


def _confirmed(run: DrillRun) -> int:
    """Messages that Kafka has confirmed to the daemon."""
    found: list[dict[str, int]] = run.stack.accounting()["connections"]
    return sum(item["in_kafka"] for item in found)
