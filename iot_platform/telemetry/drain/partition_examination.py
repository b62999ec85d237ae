"""A close look at every partition: what Kafka and the database say of it, and whether its last drained record is still in its place."""

from contextlib import closing
from dataclasses import replace

from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.settings import Settings
from iot_platform.telemetry.drain.log_cut import LogCheck
from iot_platform.telemetry.drain.partition_state import DrainState, Problem, look
from iot_platform.telemetry.drain.source import KafkaSource


def examine(settings: Settings, connection: Connection, *, closely: bool = True) -> DrainState:
    """How the drain stands. `closely`: also read the last drained record again, which finds a log that was cut and has grown again. Changes
    nothing; blocks for some seconds at most, a minute where Kafka does not answer.

    Raises:
        KafkaUnavailableError, DrainError, psycopg2.Error.
    """
    drain = look(settings, connection)
    sound = {number: row for number, row in drain.rows.items() if drain.partitions[number].problem in (None, Problem.LOG_CUT)}
    if closely and sound:
        with closing(KafkaSource(settings)) as source:
            cuts = LogCheck(settings, source.consumer, connection, drain.identity).verify(sound, drain.watermarks, note=False).cuts
        for cut in cuts:
            text = f"cut at {cut.at}: {cut.text}. The next drain run goes on there by itself"
            drain.partitions[cut.partition] = replace(drain.partitions[cut.partition], problem=Problem.LOG_CUT, text=text)
    return drain
