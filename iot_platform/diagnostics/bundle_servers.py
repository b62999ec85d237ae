"""What a support bundle asks of the servers. Each raises what the server's absence raises; the bundle says so."""

import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from psycopg2 import sql
from psycopg2.extras import RealDictCursor

from iot_platform import ingest_pages
from iot_platform.diagnostics.broker_queue import read_retained
from iot_platform.diagnostics.dagster_graphql import ask
from iot_platform.diagnostics.exporter_page import exporter_url, read_exporter
from iot_platform.local import probes
from iot_platform.settings import Settings

HTTP_SECONDS: Final = 5.0
STATEMENT_SECONDS: Final = 30
RUNS: Final = 100
_SYS: Final = "$SYS/broker/#"
_QUERIES: Final[Mapping[str, str]] = {
    "server": "SELECT version() AS version, now() AS now, pg_postmaster_start_time() AS started, pg_is_in_recovery() AS standby, "
    "pg_database_size(current_database()) AS bytes, current_user AS role",
    "extensions": "SELECT extname AS name, extversion AS version FROM pg_extension ORDER BY 1",
    "settings": "SELECT name, setting, unit, source, pending_restart FROM pg_settings "
    "WHERE source NOT IN ('default', 'override', 'client') ORDER BY name",
    "archiver": "SELECT * FROM pg_stat_archiver",
    "sessions": "SELECT pid, usename AS role, application_name, client_addr::text, state, wait_event_type, wait_event, "
    "now() - xact_start AS transaction, now() - state_change AS unchanged, pg_blocking_pids(pid) AS waits_for FROM pg_stat_activity "
    "WHERE usesysid IS NOT NULL AND datid IS NOT NULL ORDER BY xact_start NULLS LAST LIMIT 200",
    "tables": "SELECT relname AS name, n_live_tup AS rows, n_dead_tup AS dead, pg_total_relation_size(relid) AS bytes, last_autovacuum, "
    "last_autoanalyze FROM pg_stat_user_tables WHERE schemaname = 'public' ORDER BY 1",
    "chunks": "SELECT hypertable_name AS name, count(*) AS chunks, count(*) FILTER (WHERE is_compressed) AS compressed, "
    "min(range_start) AS from, max(range_end) AS to FROM timescaledb_information.chunks GROUP BY 1 ORDER BY 1",
    "migrations": "SELECT name, applied_at FROM schema_migration ORDER BY applied_at DESC LIMIT 30",
    "kafka_offset": "SELECT topic, kafka_partition, next_offset, first_offset, updated_at, log_generation, leader_epoch, verified_epoch, "
    "cluster_id, topic_id FROM kafka_offset ORDER BY 1, 2",
    "ledger": "SELECT * FROM ledger ORDER BY batch_id DESC LIMIT 200",
    "quarantine": "SELECT reason, count(*), min(received_at) AS first, max(received_at) AS last FROM quarantine "
    "WHERE received_at > now() - interval '7 days' GROUP BY 1 ORDER BY 2 DESC",
    "quality": "SELECT rule, severity, count(*) AS open, min(opened_at) AS oldest FROM quality_incident "
    "WHERE closed_at IS NULL GROUP BY 1, 2",
}
_DAGSTER: Final = """{ version instance { daemonHealth { allDaemonStatuses { daemonType required healthy lastHeartbeatTime
    lastHeartbeatErrors { message } } } runQueuingSupported }
  runsOrError(limit: %d) { ... on Runs { results { runId jobName status creationTime startTime endTime tags { key value }
    } } }
  repositoriesOrError { ... on RepositoryConnection { nodes { name
    sensors { name sensorState { status ticks(limit: 5) { status timestamp skipReason runIds error { message } } } }
    schedules { name scheduleState { status ticks(limit: 5) { status timestamp skipReason runIds error { message } } } } } } } }"""
_FAILURES: Final = """query($run: ID!) { logsForRun(runId: $run, limit: 2000) { ... on EventConnection { events { __typename
    ... on RunFailureEvent { timestamp error { message } } ... on ExecutionStepFailureEvent { timestamp error { message } } } } } }"""
FAILED_RUNS: Final = 10


def database(settings: Settings) -> dict[str, Any]:
    """Of the database: settings, sessions (without their statements), sizes, offsets, the newest batches; counts of quarantine and quality.
    Raises DatabaseError."""
    from iot_platform.database import connect

    found: dict[str, Any] = {}
    with closing(connect(settings, "reader", "iot-support-bundle")) as connection:
        for name, text in _QUERIES.items():
            with connection.cursor(cursor_factory=RealDictCursor) as cursor:
                try:
                    cursor.execute(sql.SQL("SET LOCAL statement_timeout = {}").format(sql.Literal(STATEMENT_SECONDS * 1000)))
                    cursor.execute(text)
                    found[name] = [dict(row) for row in cursor.fetchall()]
                except Exception as error:  # one question less
                    found[name] = f"not known: {' '.join(str(error).split())}"
            connection.rollback()
    return {"database.json": found}


def kafka(settings: Settings) -> dict[str, Any]:
    """Of Kafka: brokers, both topics with their settings, where their partitions begin and end. Raises KafkaException."""
    from confluent_kafka.admin import AdminClient

    from iot_platform.kafka.causes import ConnectionCauses
    from iot_platform.kafka.topic_state import read_topics
    from iot_platform.kafka.watermarks import TopicOffsets

    probes.kafka(settings)
    with AdminClient({**ConnectionCauses(settings).config, "log_level": 0}) as admin:
        cluster = admin.describe_cluster(request_timeout=HTTP_SECONDS).result()
        topics = read_topics(admin, (settings.kafka_topic, settings.kafka_dead_letter_topic))
    found: dict[str, Any] = {
        "cluster": cluster.cluster_id,
        "controller": str(cluster.controller),
        "brokers": [f"{node.id} {node.host}:{node.port}" for node in cluster.nodes],
        "topics": {},
    }
    for name, state in topics.items():
        with TopicOffsets(settings, topic=name) as offsets:
            ends = offsets.watermarks(offsets.partitions())
        config = {setting: f"{item.value} ({item.source})" for setting, item in sorted(state.config.items())}
        found["topics"][name] = {**asdict(state), "config": config, "ends": {number: asdict(marks) for number, marks in ends.items()}}
    return {"kafka.json": found}


def mqtt(settings: Settings) -> dict[str, Any]:
    """Of the broker: which MQTT version it speaks, and what it says of itself in $SYS. Raises NotReadyError, QueueError."""
    version = probes.mqtt(settings)
    return {"mqtt.json": {"protocol": version, "sys": read_retained(settings, version, _SYS)}}


def dagster(settings: Settings) -> dict[str, Any]:
    """Of Dagster: daemons, sensors and schedules with their last ticks, the newest runs, and why runs failed. Raises OSError."""
    found = _data(ask(settings, _DAGSTER % RUNS, HTTP_SECONDS))
    runs = ((found.get("runsOrError") or {}).get("results")) or []
    failed = [run["runId"] for run in runs if run["status"] == "FAILURE"][:FAILED_RUNS]
    found["failures"] = {run: _failures(settings, run) for run in failed}
    return {"dagster.json": found}


def _failures(settings: Settings, run: str) -> list[str]:
    events = ((_data(ask(settings, _FAILURES, HTTP_SECONDS, {"run": run})).get("logsForRun") or {}).get("events")) or []
    return [event["error"]["message"] for event in events if event.get("error")]


def _data(document: dict[str, Any]) -> dict[str, Any]:
    return dict(document.get("data") or {"errors": document.get("errors")})


def daemons(settings: Settings) -> dict[str, Any]:
    """The pages of every ingest daemon. Raises IngestPageError where none answers."""
    found: dict[str, Any] = {}
    failures: list[str] = []
    for number, url in enumerate(ingest_pages.daemons(settings)):
        for page in ("metrics", "accounting", "readyz"):
            try:
                found[f"metrics/ingest-{number}-{page}.txt"] = f"# {url}/{page}\n" + (
                    json.dumps({"problems": ingest_pages.problems(url), "notices": ingest_pages.notices(url)})
                    if page == "readyz"  # which answers 503 with what is wrong
                    else ingest_pages.page(url, page).decode("utf-8", "replace")
                )
            except ingest_pages.IngestPageError as error:
                failures.append(str(error))
                break
    if not found and failures:
        raise ingest_pages.IngestPageError("; ".join(failures))
    if failures:
        found["metrics/ingest-missing.txt"] = "\n".join(failures)
    return found


def exporter(settings: Settings) -> dict[str, Any]:
    """The page of `iot metrics` on this machine. Raises LookupError."""
    page = read_exporter(settings)
    if page is None:
        raise LookupError(f"`iot metrics` does not answer at {exporter_url(settings)} (IOT_METRICS_PORT); it may run elsewhere")
    return {"metrics/platform.txt": page.decode("utf-8", "replace")}


def audit(settings: Settings) -> dict[str, Any]:
    """The audit of the last day. Raises DatabaseError."""
    from iot_platform.audit import run_audit

    since = datetime.now(UTC) - timedelta(days=1)
    return {"audit.json": run_audit(settings, since=since, wait_seconds=5, statement_seconds=STATEMENT_SECONDS).as_json()}
