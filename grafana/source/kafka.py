"""Kafka: does it answer, does it take and keep what it is given, and how far behind is what reads it?"""

from grafana_foundation_sdk.builders import dashboard as builders

from grafana.source import panels
from grafana.source.alerts import limit
from grafana.source.boards import board
from grafana.source.panels import Face, Size
from grafana.source.pipeline import LAG, NO_DAEMON, NO_EXPORTER, STATES
from grafana.source.queries import PromQL


def kafka() -> builders.Dashboard:
    """The dashboard."""
    made = board("kafka", "Kafka", "What the platform sees of Kafka, and Kafka's own figures.", "now-6h")
    for panel in (*_seen(),):
        made = made.with_panel(panel)
    return made


def _seen() -> list[panels.Panel]:
    return [
        panels.timeline(
            Face(
                "Answers",
                "none",
                "Kafka, asked by each daemon (with both topics) and by `iot metrics`.",
                NO_DAEMON,
                ("IngestKafkaDown", "ServerDown"),
            ),
            [PromQL("iot_ingest_kafka_up", "{{instance}}"), PromQL('iot_server_up{server="kafka"}', "iot metrics")],
            Size(12, 6),
            STATES,
        ),
        panels.figures(
            Face("Waiting", "locale", "Records that the database has not taken.", NO_EXPORTER, ("DrainLagGrowing",)),
            [PromQL(LAG, "records")],
            Size(4, 6),
            limits=[limit("DrainLagGrowing")],
        ),
        panels.figures(
            Face("Log cuts", "none", "In the range's last day: Kafka has lost the end of a log.", NO_EXPORTER, ("KafkaLogCut",)),
            [PromQL("sum(increase(iot_kafka_log_cuts_total[1d]))", "cuts")],
            Size(4, 6),
            limits=[limit("KafkaLogCut")],
        ),
        panels.figures(
            Face("Dead letters", "none", "In the range's last day: messages that Kafka refused.", NO_DAEMON, ("IngestDeadLetters",)),
            [PromQL("sum(increase(iot_ingest_messages_dead_lettered_total[1d]))", "messages")],
            Size(4, 6),
            limits=[limit("IngestDeadLetters")],
        ),
        panels.lines(
            Face(
                "Into Kafka and out",
                "mps",
                "Messages a second from the daemons into Kafka, and out of it into rows.",
                NO_DAEMON,
                ("DrainLagGrowing",),
            ),
            [
                PromQL("sum(rate(iot_ingest_messages_delivered_total[$__rate_interval]))", "in"),
                PromQL(
                    "sum(rate(iot_stored_messages_total[$__rate_interval])) + sum(rate(iot_quarantined_messages_total[$__rate_interval]))",
                    "out",
                ),
            ],
            Size(12, 8),
        ),
        panels.lines(
            Face(
                "Lag by partition",
                "short",
                "Records that the database has not taken: the ten partitions with most.",
                NO_EXPORTER,
                ("DrainLagGrowing",),
            ),
            [PromQL("topk(10, iot_drain_lag_messages)", "partition {{partition}}")],
            Size(12, 8),
        ),
    ]
