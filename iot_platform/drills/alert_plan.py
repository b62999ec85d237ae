"""Which drill shows which alert of deploy/prometheus/rules, and at which pace; and which alerts no drill can show, with the reason."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Live:
    """The drill makes the alert's fault, and fails unless its notification comes, and its end. `divided_by`: what the rule's durations
    (`for`, ranges, offsets, intervals) are divided by; 1: the rule as it is. `ages`: limits that are ages, too."""

    drill: str
    divided_by: float = 1
    ages: bool = False


LIVE: Final = {
    "IngestUnavailable": Live("alert_daemon_killed"),
    "IngestAvailabilityBudget": Live("alert_daemon_killed", 60),
    "ExporterDown": Live("alert_daemon_killed"),
    "TargetDown": Live("alert_daemon_killed"),
    "NotificationsFail": Live("alert_daemon_killed", 15),
    "IngestKafkaDown": Live("alert_kafka_down"),
    "IngestSpoolFilling": Live("alert_kafka_down", 15),
    "IngestSpoolFull": Live("alert_kafka_down"),
    "IngestMessagesLost": Live("alert_kafka_down"),
    "ServerDown": Live("alert_postgresql_down"),
    "FiguresOld": Live("alert_postgresql_down", 5, ages=True),
    "DagsterTickFails": Live("alert_kafka_down", 15),
    "DagsterDaemonStopped": Live("alert_dagster_down"),
    "DagsterSensorStopped": Live("alert_dagster_down", 4, ages=True),
    "DagsterQueueStuck": Live("alert_dagster_down", 10, ages=True),
    "DrainStalled": Live("alert_dagster_down"),
    "DrainLagGrowing": Live("alert_dagster_down", 15),
    "FreshnessBurnsFast": Live("alert_dagster_down", 15),
    "FreshnessBurnsSlow": Live("alert_dagster_down", 60),
    "TenantLate": Live("alert_dagster_down", 15),
    "IngestDisconnected": Live("alert_daemon_troubled"),
    "IngestSessionLost": Live("alert_daemon_troubled", 15),
    "IngestSilent": Live("alert_daemon_troubled"),
    "IngestDeadLetters": Live("alert_daemon_troubled", 15),
    "IngestClockOff": Live("alert_daemon_troubled", 15),
    "IngestCertificateEnds": Live("alert_daemon_troubled", 15),
    "IngestCertificateEnded": Live("alert_daemon_troubled", 15),
    "AuditDifference": Live("alert_upkeep"),
    "ConflictingMeasurements": Live("alert_upkeep", 60),
    "QuarantineFlood": Live("alert_upkeep", 10),
    "QualityIncident": Live("alert_upkeep", 15),
    "QualityRulesStopped": Live("alert_upkeep", 15),
    "RollupOverdue": Live("alert_upkeep", 15),
    "RetentionOverdue": Live("alert_upkeep", 15),
    "DiskFillsSoon": Live("alert_upkeep", 15),
    "DiskAlmostFull": Live("alert_upkeep"),
    "DatabaseConnections": Live("alert_upkeep", 15),
    "DagsterSwitchedOff": Live("alert_upkeep", 15),
    "DagsterRunsFail": Live("alert_upkeep", 10),
    "WalArchiveFailing": Live("alert_upkeep", 5),
    "BackupOverdue": Live("alert_upkeep", 15),
    "DrainStopped": Live("alert_records_lost"),
    "KafkaLogCut": Live("alert_records_lost", 60),
}
_OTHERS: Final = "of another's exporter, which the drills do not run"
PROMTOOL_ONLY: Final = {
    "BackupDrillFailed": "the drills' database has no backups; `make test-backup` sees the metric",
    "BackupDrillOverdue": "the drills' database has no backups; `make test-backup` sees the metric",
    "HostClockUnsynchronized": _OTHERS,
    "HostDiskAlmostFull": _OTHERS,
    "HostDiskFillsSoon": _OTHERS,
    "KafkaPartitionsOffline": _OTHERS,
    "KafkaUnderReplicated": _OTHERS,
    "MqttMessagesDropped": "the drills' exporter does not ask the broker (IOT_METRICS_MQTT_URL)",
    "SinkLate": "the drills' platform has no InfluxDB",
    "SinkRefuses": "the drills' platform has no InfluxDB",
    "CompressionOverdue": "needs TimescaleDB's Community edition, which compresses; the drills' servers are Debian's, Apache edition",
}


def of_drill(name: str) -> dict[str, Live]:
    """The alerts that a drill must show."""
    return {alert: live for alert, live in LIVE.items() if live.drill == name}
