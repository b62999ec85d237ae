"""What an observation of the MQTT broker and of the Kafka topic says, as Dagster metadata."""

from collections.abc import Mapping
from contextlib import closing
from urllib.parse import urlsplit

import dagster as dg

from iot_platform import ingest_pages
from iot_platform.database import connect
from iot_platform.settings import Settings
from iot_platform.telemetry.drain.partition_state import look

Metadata = Mapping[str, dg.MetadataValue | str | int | float | bool]

_WANTED = {
    "iot_ingest_messages_received_total": "messages_received",
    "iot_ingest_messages_delivered_total": "messages_delivered",
    "iot_ingest_messages_in_flight": "messages_in_flight",
    "iot_ingest_mqtt_connected": "connected",
    "iot_ingest_kafka_up": "kafka_up",
}


def observe_broker(settings: Settings) -> Metadata:
    """State of the MQTT connection as the ingest daemon's metrics tell it; says so when the daemon does not answer."""
    broker = urlsplit(settings.mqtt_url.get_secret_value())
    metadata: dict[str, dg.MetadataValue | str | int | float | bool] = {
        "broker": f"{broker.hostname}:{broker.port or (8883 if broker.scheme == 'mqtts' else 1883)}",
        "topic_filter": settings.mqtt_topic_filter,
    }
    found: dict[str, list[float]] = {}
    for url in ingest_pages.daemons(settings):
        try:
            for name, value in ingest_pages.samples(url):
                if name in _WANTED:
                    found.setdefault(_WANTED[name], []).append(value)
        except ingest_pages.IngestPageError as error:
            metadata["ingest_daemon"] = str(error)
    # Of several daemons: messages add up, and all must be connected.
    return metadata | {name: sum(values) if name.startswith("messages") else min(values) for name, values in found.items()}


def observe_topic(settings: Settings) -> Metadata:
    """End offsets and lag of every partition.

    Raises:
        KafkaUnavailableError, DatabaseError: a server does not answer.
    """
    with closing(connect(settings, application_name="dagster-observe")) as connection:
        drain = look(settings, connection)
    rows = [
        dg.TableRecord(
            {
                "partition": p,
                "begin": ends.low,
                "end": ends.high,
                "retained": ends.high - ends.low,
                "lag": drain.partitions[p].lag,
                "problem": drain.partitions[p].text,
            }
        )
        for p, ends in sorted(drain.watermarks.items())
    ]
    return {
        "topic": settings.kafka_topic,
        "partitions": len(rows),
        "messages_ever": sum(ends.high for ends in drain.watermarks.values()),
        "messages_retained": sum(ends.high - ends.low for ends in drain.watermarks.values()),
        "lag": drain.lag,
        "offsets": dg.MetadataValue.table(rows),
    }
