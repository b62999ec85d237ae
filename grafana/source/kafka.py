"""Kafka: does it answer, does it take and keep what it is given, and how far behind is what reads it?"""

from typing import Final

from grafana_foundation_sdk.builders import dashboard as builders

from grafana.source import panels
from grafana.source.alerts import limit
from grafana.source.boards import board
from grafana.source.flow import LAG, NO_DAEMON, NO_EXPORTER
from grafana.source.panels import Face, Size
from grafana.source.pipeline_daemons import STATES
from grafana.source.queries import PromQL

NO_JMX: Final = "Kafka's own figures are not scraped: give it Prometheus' JMX exporter (docs/operations.md, Metrics)"
BROKER: Final = 'job="kafka"'


def kafka() -> builders.Dashboard:
    """The dashboard."""
    made = board("kafka", "Kafka", "What the platform sees of Kafka, and Kafka's own figures.", "now-6h")
    for panel in (*_seen(), *_health(), *_work(), *_process()):
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


def _health() -> list[panels.Panel]:
    return [
        panels.figures(
            Face("Controllers", "none", "Brokers that are the active controller. Must be 1 in all.", NO_JMX),
            [PromQL("sum(kafka_active_controllers)", "active")],
            Size(4, 5),
        ),
        panels.figures(
            Face("Brokers", "none", "Active ones, and fenced ones: known, but not taking part.", NO_JMX),
            [PromQL("max(kafka_active_brokers)", "active"), PromQL("max(kafka_fenced_brokers)", "fenced")],
            Size(6, 5),
        ),
        panels.figures(
            Face(
                "Partitions in trouble",
                "none",
                "Offline: nobody can write or read. Below the minimum in sync: Kafka refuses the daemons' messages, which spool them."
                " Under-replicated:"
                " a replica lags or is away. All must be 0.",
                NO_JMX,
                ("KafkaPartitionsOffline", "KafkaUnderReplicated", "IngestKafkaDown"),
            ),
            [
                PromQL("max(kafka_offline_partitions)", "offline"),
                PromQL("sum(kafka_under_min_in_sync_partitions)", "below the minimum"),
                PromQL("sum(kafka_under_replicated_partitions)", "under-replicated"),
            ],
            Size(9, 5),
            limits=[limit("KafkaPartitionsOffline")],
        ),
        panels.figures(
            Face(
                "Disks and elections",
                "none",
                "Log directories that are offline, and unclean leader elections in the range's last day: each of them may have cut a log.",
                NO_JMX,
                ("KafkaLogCut",),
            ),
            [
                PromQL("sum(kafka_offline_log_directories)", "offline"),
                PromQL("sum(increase(kafka_unclean_leader_elections_total[1d]))", "unclean"),
            ],
            Size(5, 5),
            bad=1,
        ),
    ]


def _work() -> list[panels.Panel]:
    return [
        panels.lines(
            Face("Messages by topic", "mps", "Messages a second that each topic of the platform takes.", NO_JMX),
            [PromQL("sum by (topic) (rate(kafka_topic_received_messages_total[$__rate_interval]))", "{{topic}}")],
            Size(8, 8),
        ),
        panels.lines(
            Face("Bytes", "Bps", "Bytes a second that clients send to all brokers, and fetch.", NO_JMX),
            [
                PromQL("sum(rate(kafka_received_bytes_total[$__rate_interval]))", "in"),
                PromQL("sum(rate(kafka_sent_bytes_total[$__rate_interval]))", "out"),
            ],
            Size(8, 8),
        ),
        panels.lines(
            Face("Size of the logs", "bytes", "On the disks of all brokers, replicas included.", NO_JMX, ("DiskFillsSoon",)),
            [PromQL("sum by (topic) (kafka_log_bytes)", "{{topic}}")],
            Size(8, 8),
        ),
        panels.lines(
            Face(
                "Time of a request",
                "s",
                "Of the slowest broker: median and 99 % of what daemons produce and the drain fetches, since the broker started, recent"
                " requests"
                " weighing most. A fetch waits for messages, so up to half a second is usual.",
                NO_JMX,
            ),
            [PromQL("max by (request, quantile) (kafka_request_seconds)", "{{request}} {{quantile}}")],
            Size(8, 8),
        ),
        panels.lines(
            Face(
                "Time of a flush",
                "s",
                "Of the slowest broker: median and 99 % of what writing a log to the disk takes. The platform's topics flush before"
                " Kafka answers.",
                NO_JMX,
            ),
            [PromQL("max by (quantile) (kafka_log_flush_seconds)", "{{quantile}}")],
            Size(8, 8),
        ),
        panels.lines(
            Face(
                "Threads idle",
                "percentunit",
                "Share of the time in which the busiest broker's request handlers and network threads have nothing to do. Below 30 % it"
                " is at its"
                " limit.",
                NO_JMX,
            ),
            [
                PromQL("min(kafka_request_handlers_idle_ratio)", "request handlers"),
                PromQL("min(kafka_network_processors_idle_ratio)", "network threads"),
            ],
            Size(8, 8),
        ),
    ]


def _process() -> list[panels.Panel]:
    return [
        panels.lines(
            Face("Failed requests", "reqps", "A second, of all brokers.", NO_JMX, ("IngestDeadLetters",)),
            [
                PromQL("sum(rate(kafka_failed_produce_requests_total[$__rate_interval]))", "produce"),
                PromQL("sum(rate(kafka_failed_fetch_requests_total[$__rate_interval]))", "fetch"),
            ],
            Size(8, 7),
        ),
        panels.lines(
            Face("Heap", "bytes", "Of each broker's Java, and the most it may take.", NO_JMX),
            [
                PromQL(f'jvm_memory_used_bytes{{{BROKER}, area="heap"}}', "{{instance}}"),
                PromQL(f'max(jvm_memory_max_bytes{{{BROKER}, area="heap"}})', "limit"),
            ],
            Size(8, 7),
        ),
        panels.lines(
            Face("Garbage collection", "percentunit", "Share of the time that each broker's Java stands still for it.", NO_JMX),
            [PromQL(f"sum by (instance) (rate(jvm_gc_collection_seconds_sum{{{BROKER}}}[$__rate_interval]))", "{{instance}}")],
            Size(8, 7),
        ),
    ]
