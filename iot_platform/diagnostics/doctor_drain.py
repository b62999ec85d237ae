"""What `iot doctor` says about the drain: whether each Kafka partition can simply go on where it was drained to."""

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from typing import Final

import psycopg2

from iot_platform.diagnostics.finding import Finding
from iot_platform.settings import Settings

CUT_PERIOD: Final = timedelta(days=7)


def drain_findings(settings: Settings) -> Iterator[Finding]:
    """One for each partition that cannot go on, and for each time that Kafka's log was cut lately; nothing when the database does not
    answer, which another finding says. Leaders that are silent while Kafka answers are only seen here."""
    from iot_platform.database import DatabaseError, connect
    from iot_platform.kafka.errors import KafkaUnavailableError
    from iot_platform.telemetry.drain.known_cuts import cuts_since
    from iot_platform.telemetry.drain.partition_examination import examine
    from iot_platform.telemetry.errors import DrainError

    try:
        with closing(connect(settings, "writer", "iot-doctor")) as connection:
            cuts = cuts_since(connection, settings.kafka_topic, CUT_PERIOD)
            drain = examine(settings, connection)
    except (KafkaUnavailableError, DrainError) as error:
        yield Finding("drain", "bad", str(error))
        return
    except (DatabaseError, psycopg2.Error):
        return
    for cut in cuts:
        yield Finding("Kafka's log", "note", cut.line)
    for state in drain.wrong:
        yield Finding("drain", "lost" if state.needs_person else "note", f"partition {state.partition}: {state.text}")
    if not drain.wrong:
        count = len(drain.partitions)
        yield Finding("drain", "ok", f"{count} partitions can go on where they were drained to; {drain.lag:,} records wait")
