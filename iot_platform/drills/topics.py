"""Drills: the Kafka topic changes under the drain: more partitions, records deleted before they were drained."""

from typing import Final

from confluent_kafka import TopicPartition
from confluent_kafka.admin import NewPartitions  # type: ignore[attr-defined]

from iot_platform.drills.kafka_loss import accept_loss
from iot_platform.drills.rig.drill_run import DrillRun
from iot_platform.drills.rig.drill_stack import INGEST, PARTITIONS
from iot_platform.drills.rig.registry import drill
from iot_platform.kafka.watermarks import TopicOffsets

DRAIN: Final = ("dagster-daemon", "dagster-code")
DELETED: Final = {0: 150, 1: 100}
"""Partition → how many of its waiting records are deleted."""
ANSWER_SECONDS: Final = 30
PATIENCE_SECONDS: Final = 300.0  # a Dagster run starts in seconds, on a busy machine in minutes
_DRAINED: Final = "SELECT count(*) FROM kafka_offset WHERE topic = %s AND next_offset > first_offset"
_KNOWN: Final = "SELECT count(*) FROM dagster.dynamic_partitions WHERE partitions_def_name = 'kafka_partition'"
_ERROR: Final = "SELECT count(*) FROM dagster.event_logs WHERE event LIKE '%%iot offsets accept%%' AND event LIKE %s"


@drill("partitions_added", "the Kafka topic gets more partitions while messages flow", group="topic", fresh=True)
def partitions_added(run: DrillRun) -> None:
    """The daemon writes to the new partitions, the drain empties them from their first record on, and they appear in Dagster: nobody has to
    do anything."""
    run.stack.ingest_environment["IOT_INGEST_KAFKA_OPTIONS"] = '{"topic.metadata.refresh.interval.ms": 1000}'  # else 5 minutes
    run.stack.restart(INGEST)
    run.fleet.start(rate=400)
    run.await_stored(500, PATIENCE_SECONDS)
    with run.fault(f"{PARTITIONS} partitions become {2 * PARTITIONS}"), run.kafka_admin() as admin:
        made = admin.create_partitions([NewPartitions(run.settings.kafka_topic, 2 * PARTITIONS)])
        made[run.settings.kafka_topic].result(ANSWER_SECONDS)
    seconds = run.await_true(
        "every partition is drained", lambda: _count(run, _DRAINED, run.settings.kafka_topic) == 2 * PARTITIONS, PATIENCE_SECONDS
    )
    run.note(f"the new partitions were drained after {seconds:.0f} s")
    run.await_true("Dagster knows every partition", lambda: _count(run, _KNOWN) == 2 * PARTITIONS)
    run.fleet.finish()


@drill("retention_past_offset", "Kafka deletes records that were not drained yet", group="topic", fresh=True)
def retention_past_offset(run: DrillRun) -> None:
    """The drain stops with an error that names partitions, offsets and the command that accepts the loss; after it the rest flows,
    and the audit shows exactly this loss."""
    run.fleet.start(rate=400)
    run.await_stored(500, PATIENCE_SECONDS)
    stop_drain(run)
    with run.fault("records deleted before they were drained"):
        ends = delete_records(run)
        run.stack.start("dagster-code")
        run.stack.start("dagster-daemon")
        run.await_true("a drain fails and names the command", lambda: _named(run, ends), PATIENCE_SECONDS)
        stored = run.stored()
        run.hold(3)
        run.check(run.stored() == stored, "something was drained although the loss was not accepted")
        accept_loss(run, *DELETED)
    run.await_stored(stored + 500, PATIENCE_SECONDS)
    run.fleet.finish()
    run.expect_lost(sum(DELETED.values()), "Kafka deleted them before they were drained, which was accepted")
    run.expect_difference("sequences", "the lost messages had sequence numbers")


def stop_drain(run: DrillRun) -> None:
    """No drain runs any more, and none is started."""
    run.stack.stop(*DRAIN)
    run.await_true("no drain runs", lambda: not run.stack.drain_pids())


def delete_records(run: DrillRun) -> dict[int, tuple[int, int]]:
    """Delete the records that come next; partition → first and last of them."""
    partitions = tuple(DELETED)
    with TopicOffsets(run.settings) as topic:
        following = {partition: offset for partition, offset in run.next_offsets().items() if partition in DELETED}
        run.await_true(
            "enough records wait", lambda: all(end >= following[p] + DELETED[p] + 50 for p, end in topic.end(partitions).items()), 60
        )
    wanted = [TopicPartition(run.settings.kafka_topic, partition, following[partition] + count) for partition, count in DELETED.items()]
    with run.kafka_admin() as admin:
        for future in admin.delete_records(wanted).values():
            future.result(ANSWER_SECONDS)
    return {partition: (following[partition], following[partition] + count - 1) for partition, count in DELETED.items()}


def _named(run: DrillRun, ranges: dict[int, tuple[int, int]]) -> bool:
    """Whether Dagster has an error that names one of the ranges, and the command."""
    return any(_count(run, _ERROR, f"%partition {partition}: offsets {first}..{last}%") for partition, (first, last) in ranges.items())


def _count(run: DrillRun, query: str, *values: object) -> int:
    with run.database() as connection, connection.cursor() as cursor:
        cursor.execute(query, values)
        return int((cursor.fetchone() or (0,))[0])
