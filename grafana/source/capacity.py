"""Capacity: how much is used of what there is, how fast it grows, and how long the rest lasts."""

from typing import Final

from grafana_foundation_sdk.builders import dashboard as builders

from grafana.source import panels
from grafana.source.alerts import limit
from grafana.source.boards import board
from grafana.source.flow import NO_DAEMON, NO_EXPORTER
from grafana.source.kafka import NO_JMX
from grafana.source.panels import AS_IS, Face, Size
from grafana.source.queries import PromQL

NO_LIMIT: Final = "No limit is known: set IOT_DISK_LIMIT_BYTES for `iot metrics`, or scrape its port 9109"

NO_HOST: Final = "The host is not scraped: install prometheus-node-exporter on it (docs/operations.md, Metrics)"
DISKS: Final = 'fstype!~"tmpfs|ramfs|overlay|squashfs|fuse.*|nsfs"'


def capacity() -> builders.Dashboard:
    """The dashboard."""
    made = board("capacity", "Capacity", "Disk, sessions, spool, load: used, growing, left.", "now-7d")
    for panel in (*_state(), *_database(), *_load(), *_hosts()):
        made = made.with_panel(panel)
    return made


def _state() -> list[panels.Panel]:
    return [
        panels.figures(
            Face(
                "Disk lasts",
                "d",
                "Days until the database's disk is full, by present growth and policies; three years at most.",
                NO_LIMIT,
                ("DiskFillsSoon", "DiskAlmostFull"),
            ),
            [PromQL("min(iot_disk_left_days)", "days")],
            Size(5, 4),
            limits=[limit("DiskFillsSoon"), limit("DiskAlmostFull")],
        ),
        panels.figures(
            Face("Disk used", "percentunit", "The database's size, of what it may take.", NO_LIMIT, ("DiskFillsSoon",)),
            [PromQL("max(iot_database_bytes) / min(iot_database_limit_bytes)", "used")],
            Size(4, 4),
        ),
        panels.figures(
            Face("Growth a day", "bytes", "What a day adds to the database before compression, by the last week.", NO_EXPORTER),
            [PromQL("max(iot_database_growth_bytes)", "growth")],
            Size(5, 4),
        ),
        panels.figures(
            Face("Sessions used", "percentunit", "Of the sessions that PostgreSQL takes.", NO_EXPORTER, ("DatabaseConnections",)),
            [PromQL("max(iot_database_connections / iot_database_connections_limit)", "used")],
            Size(5, 4),
            limits=[limit("DatabaseConnections")],
        ),
        panels.figures(
            Face(
                "Spool used",
                "percentunit",
                "Of the fullest daemon's spool, and what it will be in four hours if it goes on as in the last ten minutes.",
                NO_DAEMON,
                ("IngestSpoolFilling", "IngestSpoolFull"),
            ),
            [
                PromQL("max(iot_ingest_spool_bytes / iot_ingest_spool_limit_bytes)", "now"),
                PromQL(
                    "clamp_min(max(predict_linear(iot_ingest_spool_bytes[10m], 4 * 3600) / iot_ingest_spool_limit_bytes), 0)", "in 4 hours"
                ),
            ],
            Size(5, 4),
            bad=1,
        ),
    ]


def _database() -> list[panels.Panel]:
    return [
        panels.lines(
            Face("Database", "bytes", "Its size, and what it may take.", NO_EXPORTER, ("DiskFillsSoon", "DiskAlmostFull")),
            [PromQL("max(iot_database_bytes)", "size"), PromQL("min(iot_database_limit_bytes)", "limit")],
            Size(12, 8),
        ),
        panels.lines(
            Face(
                "Disk lasts over time", "d", "The forecast over time; three years at most.", NO_LIMIT, ("DiskFillsSoon", "DiskAlmostFull")
            ),
            [PromQL("min(iot_disk_left_days)", "days")],
            Size(12, 8),
            limits=[limit("DiskFillsSoon"), limit("DiskAlmostFull")],
        ),
        panels.grid(
            Face(
                "Hypertables",
                AS_IS,
                "Size on disk, chunks, compressed ones, chunks that wait for compression; how long the oldest has waited for it, and to"
                " be removed.",
                NO_EXPORTER,
                ("CompressionOverdue", "RetentionOverdue"),
            ),
            {"table": "table"},
            [
                PromQL("max by (table) (iot_table_bytes)", "size"),
                PromQL("max by (table) (iot_table_chunks)", "chunks"),
                PromQL("max by (table) (iot_table_compressed_chunks)", "compressed"),
                PromQL("max by (table) (iot_compression_due_chunks)", "due"),
                PromQL("max by (table) (iot_compression_overdue_seconds)", "compression overdue"),
                PromQL("max by (table) (iot_retention_overdue_seconds)", "retention overdue"),
            ],
            Size(12, 9),
            {"size": "bytes", "compression overdue": "s", "retention overdue": "s"},
        ),
        panels.lines(
            Face("Size of hypertables", "bytes", "On disk, compressed chunks as they are; the ten largest.", NO_EXPORTER),
            [PromQL("topk(10, max by (table) (iot_table_bytes))", "{{table}}")],
            Size(12, 9),
        ),
    ]


def _load() -> list[panels.Panel]:
    return [
        panels.lines(
            Face(
                "Load",
                "mps",
                "Messages received a second by all daemons: mean of five minutes, and the highest such mean of the hour before.",
                NO_DAEMON,
            ),
            [
                PromQL("sum(rate(iot_ingest_messages_received_total[5m]))", "mean"),
                PromQL("max_over_time(sum(rate(iot_ingest_messages_received_total[5m]))[1h:1m])", "highest of the hour"),
            ],
            Size(8, 8),
        ),
        panels.lines(
            Face("Measurements", "cps", "Measurements stored a second.", NO_EXPORTER),
            [PromQL("sum(rate(iot_stored_measurements_total[$__rate_interval]))", "stored")],
            Size(8, 8),
        ),
        panels.lines(
            Face(
                "Spools",
                "bytes",
                "Bytes that each daemon's spool uses, and may use.",
                NO_DAEMON,
                ("IngestSpoolFilling", "IngestSpoolFull"),
            ),
            [
                PromQL("iot_ingest_spool_bytes", "{{instance}}"),
                PromQL("max(iot_ingest_spool_limit_bytes)", "limit"),
            ],
            Size(8, 8),
        ),
    ]


def _hosts() -> list[panels.Panel]:
    return [
        panels.lines(
            Face("Processors", "percentunit", "Share of the time in which each host's processors work.", NO_HOST),
            [PromQL('1 - avg by (instance) (rate(node_cpu_seconds_total{mode="idle"}[$__rate_interval]))', "{{instance}}")],
            Size(8, 8),
        ),
        panels.lines(
            Face("Memory", "percentunit", "Share of each host's memory that is not available any more.", NO_HOST),
            [PromQL("1 - node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes", "{{instance}}")],
            Size(8, 8),
        ),
        panels.lines(
            Face("Network", "Bps", "Bytes a second that each host receives and sends, but to itself.", NO_HOST),
            [
                PromQL('sum by (instance) (rate(node_network_receive_bytes_total{device!="lo"}[$__rate_interval]))', "{{instance}} in"),
                PromQL('sum by (instance) (rate(node_network_transmit_bytes_total{device!="lo"}[$__rate_interval]))', "{{instance}} out"),
            ],
            Size(8, 8),
        ),
        panels.grid(
            Face(
                "Disks",
                AS_IS,
                "The 20 fullest file systems: share used, what is left, and days until each is full if it goes on as in the last day"
                " (none: it does not"
                " grow).",
                NO_HOST,
                ("HostDiskFillsSoon", "HostDiskAlmostFull"),
            ),
            {"instance": "host", "mountpoint": "mounted at"},
            [
                PromQL(
                    f"topk(20, max by (instance, mountpoint) (1 - node_filesystem_avail_bytes{{{DISKS}}} /"
                    f" node_filesystem_size_bytes{{{DISKS}}}))",
                    "used",
                ),
                PromQL(f"bottomk(20, max by (instance, mountpoint) (node_filesystem_avail_bytes{{{DISKS}}}))", "left"),
                PromQL(
                    "max by (instance, mountpoint) "
                    f"(node_filesystem_avail_bytes{{{DISKS}}} / (deriv(node_filesystem_avail_bytes{{{DISKS}}}[1d]) * -86400 > 0))",
                    "days left",
                ),
            ],
            Size(12, 8),
            {"used": "percentunit", "left": "bytes", "days left": "d"},
        ),
        panels.lines(
            Face("Disks busy", "percentunit", "Share of the time in which each disk works; the ten busiest.", NO_HOST),
            [PromQL("topk(10, rate(node_disk_io_time_seconds_total[$__rate_interval]))", "{{instance}} {{device}}")],
            Size(12, 8),
        ),
        panels.lines(
            Face("Kafka's logs", "bytes", "On the disks of all brokers, replicas included.", NO_JMX),
            [PromQL("sum(kafka_log_bytes)", "size")],
            Size(12, 7),
        ),
        panels.lines(
            Face(
                "Bytes of a message",
                "bytes",
                "Bytes in Kafka for each message that its topics take, as compressed by the daemons, over an hour: with the rate and"
                " retention, what"
                " Kafka's disk must hold.",
                NO_JMX,
            ),
            [
                PromQL(
                    "sum by (topic) (rate(kafka_topic_received_bytes_total[1h])) / (sum by (topic)"
                    " (rate(kafka_topic_received_messages_total[1h])) > 0)",
                    "{{topic}}",
                )
            ],
            Size(12, 7),
        ),
    ]
