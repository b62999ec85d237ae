"""The asset checks that look at Kafka itself: whether every partition can go on where it was drained to, and whether the topics' settings
keep what was acknowledged."""

from contextlib import closing
from typing import Final

import dagster as dg

from iot_platform.database import connect
from iot_platform.kafka.errors import KafkaUnavailableError
from iot_platform.kafka.topics import TopicError, check_topics, remedy
from iot_platform.settings import Settings
from iot_platform.telemetry.drain.partition_state import look

GOES_ON: Final = "every_partition_can_go_on"
KEEPS: Final = "topics_keep_what_was_acknowledged"


def evaluate_partitions(settings: Settings) -> dg.AssetCheckResult:
    """Ask Kafka and the database now. Kafka that does not answer, or has no such topic, fails the check, too: nothing is drained then.

    Raises:
        DatabaseError, psycopg2.Error: the database does not answer.
    """
    lag = 0
    try:
        with closing(connect(settings, application_name="dagster-check")) as connection:
            drain = look(settings, connection)
    except KafkaUnavailableError as error:
        texts = [f"Kafka: {error}"]
    else:
        lag, texts = drain.lag, drain.problems
    return dg.AssetCheckResult(
        check_name=GOES_ON,
        asset_key="message",
        passed=not texts,
        severity=dg.AssetCheckSeverity.ERROR,
        metadata={"lag": lag, "problems": len(texts)},
        description="; ".join(texts) or None,
    )


def evaluate_topics(settings: Settings) -> dg.AssetCheckResult:
    """Ask Kafka for the effective settings of both topics now: what `iot topics check` refuses fails the check. What we may not read, or
    a Kafka that does not answer, is only a warning: other checks tell whether the drain goes on."""
    texts: list[str] = []
    severity, warnings = dg.AssetCheckSeverity.ERROR, 0
    try:
        _, findings = check_topics(settings)
    except TopicError as error:
        texts, severity = [str(error)], dg.AssetCheckSeverity.WARN
    else:
        texts = [f"{finding.line}. {remedy(settings, finding)}" for finding in findings if finding.state == "refused"]
        warnings = len(findings) - len(texts)
    return dg.AssetCheckResult(
        check_name=KEEPS,
        asset_key="message",
        passed=not texts,
        severity=severity,
        metadata={"problems": len(texts), "warnings": warnings},
        description="; ".join(texts) or None,
    )
