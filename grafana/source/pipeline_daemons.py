"""The dashboard Pipeline's panels of the ingest daemons and of the MQTT broker."""

from typing import Final

from grafana.source import panels
from grafana.source.alerts import GREEN, RED, limit
from grafana.source.flow import DAEMON, NO_BROKER, NO_DAEMON, delivered, mean_held
from grafana.source.panels import Face, Size
from grafana.source.queries import PromQL

STATES: Final = (("no", RED), ("yes", GREEN))


def daemons() -> list[panels.Panel]:
    """What each daemon says of itself."""
    return [
        panels.timeline(
            Face(
                "Ingest daemons",
                "none",
                "Is it connected to the broker and subscribed, does Kafka answer it, is there room in its spool?",
                NO_DAEMON,
                ("IngestDisconnected", "IngestKafkaDown", "IngestSpoolFull"),
            ),
            [
                PromQL(f"iot_ingest_mqtt_connected{{{DAEMON}}}", "{{instance}} connected"),
                PromQL(f"iot_ingest_kafka_up{{{DAEMON}}}", "{{instance}} Kafka"),
                PromQL(f"1 - iot_ingest_spool_full{{{DAEMON}}}", "{{instance}} spool has room"),
            ],
            Size(12, 8),
            STATES,
        ),
        panels.lines(
            Face(
                "Silence",
                "s",
                "How long no message has come, and (limit) after how long the daemon takes that for trouble: learnt from"
                " the pauses of the past week, or set.",
                NO_DAEMON,
                ("IngestSilent",),
            ),
            [
                PromQL(f"iot_ingest_silent_seconds{{{DAEMON}}}", "{{instance}}"),
                PromQL(f"iot_ingest_silent_after_seconds{{{DAEMON}}}", "limit of {{instance}}"),
            ],
            Size(12, 8),
        ),
        panels.lines(
            Face(
                "Latency in the daemons",
                "s",
                "From receipt to Kafka's acknowledgement, the spool included, by Little's law: messages that wait ÷ messages a second.",
                NO_DAEMON,
            ),
            [PromQL(f"({mean_held('$__rate_interval')}) / ({delivered('$__rate_interval')} > 0)", "mean")],
            Size(8, 7),
        ),
        panels.lines(
            Face(
                "Clocks",
                "s",
                "The daemon's clock minus Kafka's. Receive times are as wrong as this.",
                NO_DAEMON,
                ("IngestClockOff",),
            ),
            [PromQL(f"iot_ingest_clock_offset_seconds{{{DAEMON}}}", "{{instance}}")],
            Size(8, 7),
            limits=[limit("IngestClockOff")],
        ),
        panels.figures(
            Face(
                "Certificates end in",
                "s",
                "The one that ends first, by server; of the servers, of the daemon, and of the authorities that it trusts.",
                "No daemon uses a certificate",
                ("IngestCertificateEnds", "IngestCertificateEnded"),
            ),
            [PromQL(f"min by (server) (iot_ingest_certificate_expiry_timestamp_seconds{{{DAEMON}}}) - time()", "{{server}}")],
            Size(8, 7),
            limits=[limit("IngestCertificateEnds"), limit("IngestCertificateEnded")],
        ),
    ]


def broker() -> list[panels.Panel]:
    """What Mosquitto says of itself."""
    return [
        panels.lines(
            Face(
                "Held by the broker",
                "short",
                "Messages that the MQTT broker stores, retained ones included: what it queues for a daemon that is away, or does not"
                " take them.",
                NO_BROKER,
                ("IngestDisconnected", "IngestSpoolFull"),
            ),
            [PromQL("max(iot_broker_stored_messages)", "stored"), PromQL("max(iot_broker_retained_messages)", "retained")],
            Size(8, 7),
        ),
        panels.lines(
            Face(
                "Through the broker",
                "mps",
                "Messages a second. Dropped: for a client whose queue is full. Of a daemon they are lost.",
                NO_BROKER,
                ("MqttMessagesDropped",),
            ),
            [PromQL(f"sum(rate(iot_broker_{name}_messages_total[$__rate_interval]))", name) for name in ("received", "sent", "dropped")],
            Size(8, 7),
        ),
        panels.lines(
            Face(
                "Clients of the broker",
                "none",
                "Connected, and away with a session that the broker keeps for them.",
                NO_BROKER,
                ("IngestDisconnected",),
            ),
            [
                PromQL("max(iot_broker_connected_clients)", "connected"),
                PromQL("max(iot_broker_disconnected_clients)", "away"),
            ],
            Size(8, 7),
        ),
    ]
