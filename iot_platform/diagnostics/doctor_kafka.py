"""What `iot doctor` says about Kafka's topics, and about the disk that has to sync them."""

from collections.abc import Iterator
from typing import Final

from iot_platform.diagnostics.disk_syncs import syncs_per_second
from iot_platform.diagnostics.finding import Finding
from iot_platform.local.plan import Plan
from iot_platform.settings import Settings

SLOW_SYNCS: Final = 100.0
"""Below it an answer takes tens of milliseconds, and the estimate falls to about 55,000 messages a second."""
SYNCS_PER_BATCH: Final = 3
"""Kafka syncs the log and two indexes of a partition when it flushes it."""


def topic_findings(settings: Settings) -> Iterator[Finding]:
    """Whether the topics keep every acknowledged message."""
    from iot_platform.kafka.topics import TopicError, check_topics, remedy

    try:
        states, found = check_topics(settings)
    except TopicError as error:
        yield Finding("topics", "bad", str(error))
        return
    if not found:
        names = " and ".join(f"{state.name} ({state.partitions} partitions)" for state in states)
        yield Finding("topics", "ok", f"{names} keep what is acknowledged")
    for item in found:
        text = item.line.removeprefix("topic ") + (" (accepted)" if item.state == "accepted" else "")
        yield Finding(
            "topic", "risk" if item.state == "refused" else "note", text, remedy(settings, item) if item.state == "refused" else ""
        )


def disk_finding(plan: Plan) -> Finding:
    """How fast the disk of the local Kafka syncs, and what that allows. Writes for about a second."""
    what = "Kafka's disk"
    if plan.kafka is None:
        text = "syncs can't be measured from here: where Kafka runs, `fio --fdatasync=1 --bs=4k --rw=write` does (docs/kafka-topics.md)"
        return Finding(what, "note", text)
    wanted = plan.settings.local_dir / "data" / "kafka"
    folder = next(path for path in (wanted, *wanted.parents) if path.is_dir())
    try:
        rate = syncs_per_second(folder)
    except OSError as error:
        return Finding(what, "note", f"can't measure at {folder}: {error.strerror}")
    batches = rate / SYNCS_PER_BATCH
    messages = batches * plan.settings.ingest_in_flight_window / plan.settings.kafka_partitions
    text = f"{rate:,.0f} syncs/s at {folder}: about {batches:,.0f} batches or at most {messages:,.0f} messages a second"
    if not plan.settings.kafka_flush:
        text += ", but IOT_KAFKA_FLUSH=false: a power cut may lose acknowledged messages"
        return Finding(what, "note", text, "IOT_KAFKA_FLUSH=true")
    if rate < SLOW_SYNCS:
        return Finding(what, "note", text, "put IOT_LOCAL_DIR on a disk that syncs faster, or raise IOT_INGEST_IN_FLIGHT_WINDOW")
    return Finding(what, "ok", text)
