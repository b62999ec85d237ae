"""Drills: Kafka loses what it had: the end of its log, a whole topic, records that a drain was about to read."""

import json
import os
import subprocess
import sys
from typing import Any, Final

from confluent_kafka import KafkaException, TopicPartition

from iot_platform.drills.rig.drill_run import DrillError, DrillRun
from iot_platform.drills.rig.drill_stack import INGEST, PARTITIONS
from iot_platform.drills.rig.kafka_log import cut_log
from iot_platform.drills.rig.registry import drill
from iot_platform.kafka.errors import KafkaUnavailableError
from iot_platform.kafka.topics import ensure_topics
from iot_platform.kafka.watermarks import TopicOffsets
from iot_platform.settings import exports

DRAIN: Final = ("dagster-daemon", "dagster-code")
RATE: Final = 300
FORGOTTEN: Final = 30
"""How many drained records of each partition are cut off, about: only whole batches can be."""
WAITING: Final = 100
"""How many records of each partition wait, where no drain runs."""
PATIENCE_SECONDS: Final = 300.0
ANSWER_SECONDS: Final = 30
_CUTS: Final = "SELECT count(*) FROM ledger WHERE kind = 'log_cut' AND kafka_topic = %s"
_INCIDENTS: Final = "SELECT count(*) FROM quality_incident WHERE rule = 'kafka_log_cut' AND closed_at IS NULL"


# -- the end of the log ----------------------------------------------------------------------------------------
@drill("kafka_tail_lost", "Kafka's log is cut below what was drained, and grows again, while a drain runs", group="loss", fresh=True)
def kafka_tail_lost(run: DrillRun) -> None:
    """Everything that Kafka forgot was drained: nothing is lost. The drain goes on by itself where the log was cut, so that every new
    record becomes a row, and says so in the ledger, in `iot status` and `iot offsets show`, and as an incident."""
    flow(run)
    come_to_rest(run)
    with run.fault("the log of every partition is cut below what was drained"):
        cuts = cut_logs(run)
        run.stack.start(INGEST)
    _say_cut(run, cuts)
    run.fleet.finish()


@drill(
    "kafka_tail_lost_undrained", "Kafka's log loses its end with records that nobody had drained, and grows again", group="loss", fresh=True
)
def kafka_tail_lost_undrained(run: DrillRun) -> None:
    """No drain runs when it happens, and Kafka has grown beyond its old end before one does. What had been acknowledged and not drained is
    lost, and the audit names exactly these messages; every record that Kafka has becomes a row."""
    flow(run)
    following, ends = _pile_up(run)
    with run.fault("the log of every partition is cut below what was drained"):
        cuts = cut_logs(run)
        run.stack.start(INGEST)
    run.await_true("Kafka has grown beyond its old end", lambda: all(end > ends[p] + 50 for p, end in _ends(run).items()), PATIENCE_SECONDS)
    run.expect_lost(sum(ends.values()) - sum(following.values()), "Kafka lost them before they were drained")
    run.expect_difference("sequences", "the lost messages had sequence numbers")
    _start_drain(run)
    _say_cut(run, cuts)
    run.fleet.finish()


def cut_logs(run: DrillRun) -> dict[int, int]:
    """Kill Kafka, cut the log of each partition, start it again; partition → where the log ended then. The daemon must be down."""
    following = run.next_offsets()
    run.stack.kill_for_good("kafka")
    folder = run.stack.folder / "data" / "kafka"
    cuts = {p: cut_log(folder / f"{run.settings.kafka_topic}-{p}", max(0, offset - FORGOTTEN)) for p, offset in following.items()}
    run.stack.start("kafka")
    return cuts


def _say_cut(run: DrillRun, cuts: dict[int, int]) -> None:
    """Every place that must tell of it does."""
    seconds = run.await_true("the ledger has the cuts", lambda: _count(run, _CUTS, run.settings.kafka_topic) == len(cuts), PATIENCE_SECONDS)
    run.note(f"the drain went on after {seconds:.0f} s, at {', '.join(f'{p}: {at}' for p, at in sorted(cuts.items()))}")
    run.await_true("an incident is open for each", lambda: _count(run, _INCIDENTS) == len(cuts), PATIENCE_SECONDS)
    shown = iot(run, "offsets", "show")[1]
    run.check("parts at offset" in shown, f"`iot offsets show` does not tell of the cut: {shown[-500:]}")
    drain = _drain_component(run)
    run.check("parts at offset" in drain["detail"], f"`iot status` does not tell of the cut: {drain}")


# -- another topic ---------------------------------------------------------------------------------------------
@drill("kafka_topic_recreated", "the Kafka topic is deleted and made anew while a drain runs", group="loss", fresh=True)
def kafka_topic_recreated(run: DrillRun) -> None:
    """All was drained: nothing is lost. Nothing more is drained until somebody accepts the new topic, and until then `iot status` fails and
    names the command."""
    flow(run)
    come_to_rest(run)
    with run.fault("the topic is deleted and made anew"):
        _recreate(run)
        run.stack.start(INGEST)
        _refused(run, "created anew")
        accept_loss(run)
    run.fleet.finish()


@drill(
    "kafka_topic_recreated_undrained",
    "the Kafka topic is deleted with records that nobody had drained, and made anew",
    group="loss",
    fresh=True,
)
def kafka_topic_recreated_undrained(run: DrillRun) -> None:
    """What waited in the old topic is lost, and the audit names exactly these messages; the rest as in kafka_topic_recreated."""
    flow(run)
    following, ends = _pile_up(run)
    with run.fault("the topic is deleted and made anew"):
        _recreate(run)
        run.stack.start(INGEST)
        run.expect_lost(sum(ends.values()) - sum(following.values()), "the topic was deleted before they were drained")
        run.expect_difference("sequences", "the lost messages had sequence numbers")
        _start_drain(run)
        _refused(run, "created anew")
        accept_loss(run)
    run.fleet.finish()


def _recreate(run: DrillRun) -> None:
    """The daemon must be down: what it sends meanwhile would wait, but the tally of what is lost must be exact."""
    with run.kafka_admin() as admin:
        topic = run.settings.kafka_topic
        admin.delete_topics([topic])[topic].result(ANSWER_SECONDS)

    def gone() -> bool:
        try:
            with TopicOffsets(run.settings) as offsets:
                offsets.look()
        except KafkaUnavailableError:
            return True
        return False

    run.await_true("the topic is gone", gone)

    def made() -> bool:
        try:
            ensure_topics(run.settings)
            with TopicOffsets(run.settings) as offsets:
                return len(offsets.look()[0].partitions) == PARTITIONS
        except (KafkaUnavailableError, KafkaException):
            return False

    run.await_true("the topic is there again", made)


# -- deleted records -------------------------------------------------------------------------------------------
@drill(
    "kafka_records_deleted",
    "Kafka deletes records that were not drained yet, while a drain waits for the database",
    group="loss",
    fresh=True,
)
def kafka_records_deleted(run: DrillRun) -> None:
    """The drain that was alive all the time stops with an error that names the offsets and the command; `iot status` fails meanwhile. (With
    no drain alive: retention_past_offset.)"""
    flow(run)
    with run.fault("PostgreSQL is away, and Kafka deletes what the drain waits to read"):
        following = run.next_offsets()
        run.stack.kill_for_good("postgresql")
        run.await_true("records wait", lambda: all(end > following[p] + WAITING + 50 for p, end in _ends(run).items()), PATIENCE_SECONDS)
        with run.kafka_admin() as admin:
            wanted = [TopicPartition(run.settings.kafka_topic, p, offset + WAITING) for p, offset in following.items()]
            for future in admin.delete_records(wanted).values():
                future.result(ANSWER_SECONDS)
        run.stack.start("postgresql")
        now = run.next_offsets()
        run.expect_lost(sum(offset + WAITING - now[p] for p, offset in following.items()), "Kafka deleted them before they were drained")
        run.expect_difference("sequences", "the lost messages had sequence numbers")
        _refused(run, "deleted")
        accept_loss(run)
    run.fleet.finish()


# -- what they share -------------------------------------------------------------------------------------------
def flow(run: DrillRun) -> None:
    """Messages come, and every partition is drained beyond what will be cut."""
    run.fleet.start(rate=RATE)
    run.await_true(
        "every partition is drained beyond what will be cut",
        lambda: len(following := run.next_offsets()) == PARTITIONS and min(following.values()) > 3 * FORGOTTEN,
        PATIENCE_SECONDS,
    )


def come_to_rest(run: DrillRun) -> None:
    """The daemon leaves (the broker keeps what comes), and all that Kafka has is drained; a drain runs on."""
    run.stack.stop(INGEST)
    run.await_true("all is drained", lambda: run.next_offsets() == _ends(run), PATIENCE_SECONDS)


def _pile_up(run: DrillRun) -> tuple[dict[int, int], dict[int, int]]:
    """No drain runs, records wait, the daemon has left; where each partition is drained to, and where its log ends."""
    run.stack.stop(*DRAIN)
    run.await_true("no drain runs", lambda: not run.stack.drain_pids())
    following = run.next_offsets()
    run.await_true("records wait", lambda: all(end > following[p] + WAITING for p, end in _ends(run).items()), PATIENCE_SECONDS)
    run.stack.stop(INGEST)
    return following, _ends(run)


def _start_drain(run: DrillRun) -> None:
    for name in reversed(DRAIN):
        run.stack.start(name)


def _refused(run: DrillRun, word: str) -> None:
    """Nothing is drained, and status says why, with the command."""
    stored = run.stored()
    run.await_true("`iot status` names the problem", lambda: word in _drain_component(run)["detail"], PATIENCE_SECONDS)
    drain = _drain_component(run)
    run.check(drain["state"] == "down", f"`iot status` finds nothing wrong: {drain}")
    run.check("iot offsets accept" in drain["detail"], f"`iot status` names no command: {drain}")
    run.check(iot(run, "status", "--json")[0] == 1, "the exit code of `iot status` is 0")
    run.hold(3)
    run.check(run.stored() == stored, "something was drained although the loss was not accepted")


def accept_loss(run: DrillRun, *partitions: int) -> None:
    """As a person accepts it; of every partition unless some are named."""
    named = partitions or range(PARTITIONS)
    code, shown = iot(run, "offsets", "accept", *(f"--partition={number}" for number in named), "--yes")
    if code:
        raise DrillError(f"iot offsets accept: {shown}")
    for line in shown.splitlines():
        run.note(line)


def _drain_component(run: DrillRun) -> dict[str, Any]:
    document = json.loads(iot(run, "status", "--json")[1].splitlines()[-1])
    found: dict[str, Any] = next(item for item in document["components"] if item["name"] == "drain")
    return found


def iot(run: DrillRun, *arguments: str) -> tuple[int, str]:
    """An `iot` command as a person runs it: exit code, and what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "iot_platform.cli.main", *arguments],
        env={**os.environ, **exports(run.settings)},
        check=False,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout or done.stderr


def _ends(run: DrillRun) -> dict[int, int]:
    with TopicOffsets(run.settings) as topic:
        return topic.end(topic.partitions())


def _count(run: DrillRun, query: str, *values: object) -> int:
    with run.database() as connection, connection.cursor() as cursor:
        cursor.execute(query, values)
        return int((cursor.fetchone() or (0,))[0])
