"""A close look at every partition: what Kafka and the database say of it, and whether its last drained record is still in its place."""

from contextlib import closing
from dataclasses import replace

from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.kafka.watermarks import TopicIdentity
from iot_platform.settings import Settings
from iot_platform.telemetry.drain import offsets
from iot_platform.telemetry.drain.log_cut import LogCheck
from iot_platform.telemetry.drain.offsets import OffsetRow
from iot_platform.telemetry.drain.partition_state import PartitionState, Problem, judge
from iot_platform.telemetry.drain.source import KafkaSource


def examine(
    settings: Settings, connection: Connection, *, closely: bool = True
) -> tuple[TopicIdentity, dict[int, OffsetRow], dict[int, PartitionState]]:
    """The topic, what was drained of it, and how each partition stands. `closely`: also read the last drained record again, which finds a
    log that was cut and has grown again. Changes nothing; blocks for some seconds at most, a minute where Kafka does not answer.

    Raises:
        DrainError, psycopg2.Error.
    """
    rows = offsets.read(connection, settings.kafka_topic)
    identity, marks = offsets.look(settings)
    states = judge(identity, rows, marks)
    sound = {number: row for number, row in rows.items() if states[number].problem in (None, Problem.LOG_CUT)}
    if closely and sound:
        with closing(KafkaSource(settings)) as source:
            cuts = LogCheck(settings, source.consumer, connection, identity).verify(sound, marks, note=False).cuts
        for cut in cuts:
            text = f"cut at {cut.at}: {cut.text}. The next drain run goes on there by itself"
            states[cut.partition] = replace(states[cut.partition], problem=Problem.LOG_CUT, text=text)
    return identity, rows, states
