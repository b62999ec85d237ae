"""Every metric of `iot metrics`: name, type, labels and meaning side by side. Labels are few by construction: no device, no run, and of
tenants and projects the foremost TOP and `other`."""

from dataclasses import dataclass
from typing import Final, Literal

TOP: Final = 20
"""Tenants, or projects, that have a series of their own; the rest is `other`."""
OTHER: Final = "other"


@dataclass(frozen=True)
class Definition:
    """One metric. A counter's name is without the `_total` that its samples end in."""

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    meaning: str
    labels: tuple[str, ...] = ()


def _gauge(name: str, meaning: str, *labels: str) -> Definition:
    return Definition(name, "gauge", meaning, labels)


def _counter(name: str, meaning: str, *labels: str) -> Definition:
    return Definition(name, "counter", meaning, labels)


FRESHNESS_BUCKETS: Final = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0)
RUN_BUCKETS: Final = (5.0, 15.0, 30.0, 60.0, 150.0, 300.0, 900.0, 1800.0, 7200.0)

DEFINITIONS: Final = (
    # -- the exporter ----------------------------------------------------------------------------------------------
    _gauge(
        "iot_server_up",
        "1 while the server answers the platform's exporter: database, kafka, dagster (its storage), mqtt (where "
        "IOT_METRICS_MQTT_URL names a broker), or backups (their repository).",
        "server",
    ),
    _gauge(
        "iot_look_timestamp_seconds",
        "When a look of the exporter last succeeded; its figures are of then. 0: not yet since the exporter started.",
        "look",
    ),
    _gauge("iot_look_seconds", "How long the last look took.", "look"),
    # -- MQTT broker: Mosquitto's $SYS ------------------------------------------------------------------------------
    _gauge("iot_broker_connected_clients", "Clients that are connected to the MQTT broker, this exporter included."),
    _gauge("iot_broker_disconnected_clients", "Clients that are away and whose sessions the MQTT broker keeps."),
    _gauge("iot_broker_stored_messages", "Messages that the MQTT broker holds: queued for sessions, and retained ones."),
    _gauge("iot_broker_stored_bytes", "Payload bytes of the messages that the MQTT broker holds."),
    _gauge("iot_broker_retained_messages", "Retained messages of the MQTT broker."),
    _counter("iot_broker_received_messages", "PUBLISH packets that the MQTT broker received, since its start."),
    _counter("iot_broker_sent_messages", "PUBLISH packets that the MQTT broker sent, since its start."),
    _counter(
        "iot_broker_dropped_messages",
        "Messages that the MQTT broker dropped because a client's queue was full, since its start; of QoS 1, too: those are lost.",
    ),
    _gauge("iot_broker_heap_bytes", "Memory that the MQTT broker has allocated."),
    # -- drain -----------------------------------------------------------------------------------------------------
    _gauge(
        "iot_drain_lag_messages",
        "Messages in Kafka that the database has not taken; below 0: Kafka has fewer than were drained.",
        "partition",
    ),
    _gauge("iot_drain_problem", "1 while a partition cannot simply go on at its next offset.", "partition", "problem"),
    _gauge("iot_drain_last_commit_timestamp_seconds", "When the drain last committed; 0: never."),
    _counter("iot_kafka_log_cuts", "How often Kafka's log turned out to have been cut (ledger, one year, 100 at most)."),
    _counter("iot_stored_messages", "Rows written to message, those marked as duplicates included."),
    _counter("iot_quarantined_messages", "Rows written to quarantine.", "reason"),
    _counter("iot_stored_measurements", "Measurements stored, since the exporter started."),
    _counter("iot_conflicting_measurements", "Measurements not stored because of a conflict, since the exporter started."),
    _gauge(
        "iot_project_conflicts_measurements",
        "Measurements of the last 24 hours that were not stored because of a conflict: the projects with most, the rest as other.",
        "tenant",
        "project",
    ),
    Definition(
        "iot_freshness_seconds",
        "histogram",
        "Messages committed since the exporter started, by the time from receipt by the daemon to the commit (a batch's messages are taken "
        "as evenly spread between its first and last receipt).",
    ),
    _gauge(
        "iot_tenant_freshness_seconds",
        "Of the tenant's newest commits (of the last 5 minutes): longest time from receipt to commit; the slowest tenants, the rest as "
        "other.",
        "tenant",
    ),
    _counter(
        "iot_sparkplug_sequence_gaps", "Jumps of the sequence numbers of Sparkplug B edge nodes: messages did not reach the platform."
    ),
    _counter("iot_sparkplug_sequence_missing", "Sequence numbers that these jumps left out, at least."),
    # -- proofs ----------------------------------------------------------------------------------------------------
    _gauge("iot_audit_differences", "Differences that the last audit found; must be 0.", "proof"),
    _gauge("iot_audit_timestamp_seconds", "When the last audit was finished."),
    _gauge("iot_quality_incidents", "Quality incidents that are open and not silenced.", "rule", "severity"),
    _gauge("iot_quality_evaluated_timestamp_seconds", "When a quality rule was last evaluated.", "rule"),
    _gauge("iot_quality_rule_failed", "1 while the last evaluation of a quality rule failed; it is repeated with the next one.", "rule"),
    # -- second stores ---------------------------------------------------------------------------------------------
    _gauge("iot_sink_lag_messages", "Kafka records of the ledger whose measurements an InfluxDB does not have yet.", "sink"),
    _gauge("iot_sink_behind_seconds", "Since when the oldest of them is committed; 0: it has everything.", "sink"),
    _gauge("iot_sink_failed", "1 while an InfluxDB does not take what it is sent, or a setting has to be changed.", "sink"),
    _gauge("iot_sink_missing_measurements", "Measurements that an InfluxDB refused and does not have (sink_refused).", "sink"),
    _gauge("iot_sink_series", "Series that an InfluxDB has; IOT_INFLUX_MAX_SERIES bounds them.", "sink"),
    _counter("iot_sink_written_measurements", "Measurements that an InfluxDB took, repetitions included.", "sink"),
    _counter("iot_sink_retried_requests", "Requests to an InfluxDB that were repeated, because it did not take them.", "sink"),
    # -- upkeep ----------------------------------------------------------------------------------------------------
    _gauge("iot_rollup_threshold_timestamp_seconds", "Up to where rollups are stored.", "table"),
    _gauge("iot_rollup_notes", "Notes of changed hours that wait for the rollups; counted up to 100,000."),
    _gauge("iot_table_bytes", "Size of a hypertable on disk.", "table"),
    _gauge("iot_table_chunks", "Chunks of a hypertable.", "table"),
    _gauge("iot_table_compressed_chunks", "Compressed chunks of a hypertable.", "table"),
    _gauge("iot_compression_due_chunks", "Chunks that wait for compression.", "table"),
    _gauge("iot_compression_overdue_seconds", "How long the oldest of them has waited; 0: none, or the edition cannot compress.", "table"),
    _gauge("iot_retention_overdue_seconds", "How long the oldest chunk has waited that the policy no longer keeps; 0: none.", "table"),
    # -- database --------------------------------------------------------------------------------------------------
    _gauge("iot_database_bytes", "Size of the database."),
    _gauge("iot_database_growth_bytes", "What a day adds before compression, by the last week."),
    _gauge("iot_database_limit_bytes", "What the database may take: IOT_DISK_LIMIT_BYTES, or the local disk. Absent: unknown."),
    _gauge("iot_disk_left_days", "Days until then, by present growth and policies, three years at most. Absent: no limit is known."),
    _gauge("iot_database_connections", "Client sessions of the PostgreSQL server."),
    _gauge("iot_database_connections_limit", "Most client sessions that it takes."),
    _gauge("iot_wal_archive_enabled", "1 where PostgreSQL archives its WAL (archive_mode)."),
    _counter("iot_wal_archive_failures", "WAL segments that could not be archived at an attempt (pg_stat_archiver)."),
    _gauge("iot_wal_archive_last_success_timestamp_seconds", "When a WAL segment was last archived; 0: never."),
    _gauge(
        "iot_backup_last_success_timestamp_seconds",
        "When the newest backup of a type ended; 0: there is none. Absent: no backups are set up.",
        "type",
    ),
    _gauge(
        "iot_backup_drill_last_success_timestamp_seconds",
        "When the last restore drill began that was passed; 0: none was. Absent: no backups are set up, and no drill was made.",
    ),
    _gauge("iot_backup_drill_failed", "1 while the newest restore drill is one that was not passed. Absent: none was made."),
    # -- Dagster ---------------------------------------------------------------------------------------------------
    _counter("iot_dagster_runs", "Runs that ended since the exporter started.", "job_name", "status"),
    Definition("iot_dagster_run_seconds", "histogram", "How long runs took that ended since the exporter started.", ("job_name",)),
    _gauge("iot_dagster_unfinished_runs", "Runs that have not ended.", "status"),
    _gauge("iot_dagster_oldest_queued_seconds", "How long the oldest queued run has waited; 0: none."),
    _gauge("iot_dagster_heartbeat_timestamp_seconds", "When a part of the Dagster daemon last reported.", "daemon"),
    _gauge("iot_dagster_tick_timestamp_seconds", "When a sensor or schedule last ticked.", "kind", "name"),
    _gauge("iot_dagster_tick_failed", "1 while the last tick of a sensor or schedule that ended failed.", "kind", "name"),
    _gauge("iot_dagster_switched_off", "1 while a sensor or schedule is switched off.", "kind", "name"),
)
