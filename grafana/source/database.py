"""Database: does it answer, does its upkeep keep up, can it be restored, and what does it spend its time on?"""

from typing import Final

from grafana_foundation_sdk.builders import dashboard as builders

from grafana.source import panels
from grafana.source.alerts import limit
from grafana.source.boards import board
from grafana.source.flow import NO_EXPORTER
from grafana.source.panels import AS_IS, Face, Size
from grafana.source.queries import PromQL

NO_BACKUP: Final = "No backups are set up (docs/backup.md), or `iot metrics` (port 9109) is not scraped"
NO_ARCHIVE: Final = "PostgreSQL archives no WAL, or `iot metrics` (port 9109) is not scraped"

NO_SERVER: Final = "PostgreSQL's own figures are not scraped: install prometheus-postgres-exporter (docs/operations.md, Metrics)"


def database() -> builders.Dashboard:
    """The dashboard."""
    made = board("database", "Database", "Sessions, upkeep, WAL archive, backups, and the server's own figures.", "now-6h")
    for panel in (*_state(), *_upkeep(), *_safety(), *_server()):
        made = made.with_panel(panel)
    return made


def _state() -> list[panels.Panel]:
    return [
        panels.figures(
            Face("Servers", "none", "1: it answers the platform's exporter; dagster is Dagster's storage.", NO_EXPORTER, ("ServerDown",)),
            [PromQL('min by (server) (iot_server_up{server=~"database|dagster|backups"})', "{{server}}")],
            Size(6, 4),
        ),
        panels.figures(
            Face("Sessions used", "percentunit", "Of the sessions that PostgreSQL takes.", NO_EXPORTER, ("DatabaseConnections",)),
            [PromQL("max(iot_database_connections / iot_database_connections_limit)", "used")],
            Size(4, 4),
            limits=[limit("DatabaseConnections")],
        ),
        panels.figures(
            Face("Size", "bytes", "Of the database on disk.", NO_EXPORTER, ("DiskFillsSoon",)),
            [PromQL("max(iot_database_bytes)", "size")],
            Size(4, 4),
        ),
        panels.figures(
            Face(
                "Last WAL segment archived",
                "s",
                "Time since. Grows while nothing is written, too.",
                NO_ARCHIVE,
                ("WalArchiveFailing",),
            ),
            [PromQL("time() - max(iot_wal_archive_last_success_timestamp_seconds > 0)", "archived")],
            Size(5, 4),
            limits=[limit("WalArchiveFailing", 1)],
        ),
        panels.figures(
            Face("Last backup", "s", "Time since the newest backup of any type ended.", NO_BACKUP, ("BackupOverdue",)),
            [PromQL("time() - max(iot_backup_last_success_timestamp_seconds > 0)", "backup")],
            Size(5, 4),
            limits=[limit("BackupOverdue")],
        ),
    ]


def _upkeep() -> list[panels.Panel]:
    return [
        panels.lines(
            Face("Sessions", "none", "Client sessions, and how many the server takes.", NO_EXPORTER, ("DatabaseConnections",)),
            [PromQL("max(iot_database_connections)", "sessions"), PromQL("max(iot_database_connections_limit)", "limit")],
            Size(8, 8),
        ),
        panels.lines(
            Face(
                "Rollups behind",
                "s",
                "Age of the time up to which rollups are stored. Usual: up to two hours for measurement_1h, up to two days for"
                " measurement_1d; each"
                " has a dashed line.",
                NO_EXPORTER,
                ("RollupOverdue",),
            ),
            [PromQL("time() - max by (table) (iot_rollup_threshold_timestamp_seconds)", "{{table}}")],
            Size(8, 8),
            limits=[limit("RollupOverdue"), limit("RollupOverdue", 1)],
        ),
        panels.lines(
            Face(
                "Rollup notes",
                "short",
                "Notes of changed hours that wait to be rolled up; counted up to 100,000.",
                NO_EXPORTER,
                ("RollupOverdue",),
            ),
            [PromQL("max(iot_rollup_notes)", "notes")],
            Size(8, 8),
        ),
        panels.lines(
            Face(
                "Compression overdue",
                "s",
                "How long the oldest chunk of each table has waited that is due for compression; 0: none.",
                NO_EXPORTER,
                ("CompressionOverdue",),
            ),
            [PromQL("max by (table) (iot_compression_overdue_seconds)", "{{table}}")],
            Size(8, 8),
            limits=[limit("CompressionOverdue")],
        ),
        panels.lines(
            Face(
                "Retention overdue",
                "s",
                "How long the oldest chunk of each table has waited that its policy no longer keeps; 0: none.",
                NO_EXPORTER,
                ("RetentionOverdue",),
            ),
            [PromQL("max by (table) (iot_retention_overdue_seconds)", "{{table}}")],
            Size(8, 8),
            limits=[limit("RetentionOverdue")],
        ),
        panels.grid(
            Face(
                "Looks of the exporter",
                AS_IS,
                "How old the figures of `iot metrics` are, and what getting them took. Old figures are what was, not what is.",
                NO_EXPORTER,
                ("FiguresOld", "ExporterDown"),
            ),
            {"look": "look"},
            [
                PromQL("time() - max by (look) (iot_look_timestamp_seconds > 0)", "age"),
                PromQL("max by (look) (iot_look_seconds)", "took"),
            ],
            Size(8, 8),
            {"age": "s", "took": "s"},
        ),
    ]


def _safety() -> list[panels.Panel]:
    return [
        panels.grid(
            Face("Backups", AS_IS, "Time since the newest backup of each type ended.", NO_BACKUP, ("BackupOverdue",)),
            {"type": "type"},
            [PromQL("time() - max by (type) (iot_backup_last_success_timestamp_seconds > 0)", "age")],
            Size(6, 7),
            {"age": "s"},
        ),
        panels.bars(
            Face("WAL segments not archived", "short", "Failed attempts per step.", NO_EXPORTER, ("WalArchiveFailing",)),
            [PromQL("sum(increase(iot_wal_archive_failures_total[$__rate_interval]))", "failed")],
            Size(9, 7),
        ),
        panels.lines(
            Face("Rows written", "rowsps", "A second: messages, measurements, quarantine.", NO_EXPORTER, ("DrainStalled",)),
            [
                PromQL("sum(rate(iot_stored_messages_total[$__rate_interval]))", "message"),
                PromQL("sum(rate(iot_stored_measurements_total[$__rate_interval]))", "measurement"),
                PromQL("sum(rate(iot_quarantined_messages_total[$__rate_interval]))", "quarantine"),
            ],
            Size(9, 7),
        ),
    ]


def _rate(name: str, window: str = "$__rate_interval") -> str:
    return f"sum(rate(pg_stat_database_{name}[{window}]))"


def _server() -> list[panels.Panel]:
    return [
        panels.lines(
            Face("Transactions", "ops", "A second, over all databases of the server.", NO_SERVER),
            [PromQL(_rate("xact_commit"), "committed"), PromQL(_rate("xact_rollback"), "rolled back")],
            Size(8, 8),
        ),
        panels.lines(
            Face("Rows changed", "rowsps", "A second, over all databases of the server.", NO_SERVER),
            [PromQL(_rate(f"tup_{name}"), name) for name in ("inserted", "updated", "deleted")],
            Size(8, 8),
        ),
        panels.lines(
            Face(
                "Pages found in the cache",
                "percentunit",
                "Share of the pages that were read from PostgreSQL's own cache, not from the system. Much below 99 %: more memory, or"
                " fewer queries over"
                " long histories.",
                NO_SERVER,
            ),
            [PromQL(f"{_rate('blks_hit')} / ({_rate('blks_hit')} + {_rate('blks_read')} > 0)", "found")],
            Size(8, 8),
        ),
        panels.lines(
            Face(
                "Sessions by database",
                "none",
                "Sessions of the server, Dagster's and Grafana's own too.",
                NO_SERVER,
                ("DatabaseConnections",),
            ),
            [PromQL("sum by (datname) (pg_stat_database_numbackends) > 0", "{{datname}}")],
            Size(8, 8),
        ),
        panels.lines(
            Face(
                "Locks",
                "none",
                "Locks that are held or awaited, by mode, the ten most frequent. An exclusive one that stays holds up others: pg_locks.",
                NO_SERVER,
            ),
            [PromQL("topk(10, sum by (mode) (pg_locks_count) > 0)", "{{mode}}")],
            Size(8, 8),
        ),
        panels.lines(
            Face("Deadlocks and temporary files", "cps", "A second. Files: sorts and joins that did not fit into work_mem.", NO_SERVER),
            [PromQL(_rate("deadlocks"), "deadlocks"), PromQL(_rate("temp_files"), "temporary files")],
            Size(8, 8),
        ),
    ]
