"""The way of a message, and what keeps the database in order: asked from outside, with one message of our own."""

import json
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.acceptance.check import FailedError, NotCheckedError
from iot_platform.acceptance.host import can_compress
from iot_platform.audit import run_audit
from iot_platform.compression.chunks import read_chunks, read_policies
from iot_platform.database import DatabaseError, connect
from iot_platform.database.migrate import pending
from iot_platform.diagnostics.ingest_probe import ProbeError, publish
from iot_platform.drills.catalog import all_drills
from iot_platform.local import probes
from iot_platform.local.errors import NotReadyError
from iot_platform.retention.plan import plan
from iot_platform.retention.policies import policies
from iot_platform.rollups.calls import state
from iot_platform.settings import Settings
from iot_platform.simulator.fleet import FleetError, TopicTemplate

NAME: Final = "acceptance"
"""Tenant, project and device of the message."""
ROW_SECONDS: Final = 30.0
OVERDUE: Final = timedelta(days=2)
"""Upkeep runs daily: what was due two days ago is done."""
DRILLS_AGE: Final = timedelta(days=30)
_STORED: Final = """
SELECT FROM series s JOIN measurement m USING (series_id) WHERE s.tenant_id = %s AND s.metric = %s AND m.value = %s"""


def schema_is_current(settings: Settings) -> str:
    """Nothing is left for `iot migrate`."""
    try:
        left = pending(settings)
    except DatabaseError as error:
        raise FailedError(str(error), "see week 1") from error
    if left:
        raise FailedError(f"{len(left)} files are not applied: {', '.join(left[:3])}", "iot migrate; in the cluster, the Job iot-migrate")
    return "every migration is applied"


def row_arrives(settings: Settings) -> str:
    """A message of our own, published as devices do, is a row within half a minute. Its tenant is called acceptance."""
    number = time.time_ns() // 1_000_000
    try:
        topic = TopicTemplate(settings.topic_pattern).render(NAME, NAME, NAME)
        publish(settings, [(topic, json.dumps({"deviceId": NAME, "time": number, NAME: number}).encode())])
    except FleetError as error:
        raise NotCheckedError(str(error), "publish a message of your devices and look at it with `iot trace`") from error
    except ProbeError as error:
        raise FailedError(str(error), "start the broker, or correct IOT_MQTT_URL") from error
    begun = time.monotonic()
    with _database(settings) as connection, connection.cursor() as cursor:
        while time.monotonic() - begun < ROW_SECONDS:
            cursor.execute(_STORED, (NAME, NAME, number))
            if cursor.rowcount:
                return f"{topic}: stored {time.monotonic() - begun:.1f} s after PUBACK"
            connection.rollback()
            time.sleep(0.1)
    raise FailedError(f"{topic}: acknowledged by the broker, and no row within {ROW_SECONDS:.0f} s", "iot status; iot doctor; iot trace")


def nothing_is_lost(settings: Settings) -> str:
    """`iot audit` of the last day."""
    try:
        result = run_audit(settings, since=datetime.now(UTC) - timedelta(days=1), tenant=None, wait_seconds=60, note=lambda _: None)
    except DatabaseError as error:
        raise FailedError(str(error), "see week 1") from error
    if not result.ok:
        raise FailedError("the audit found differences", "iot audit --since 24h names each by its place")
    if result.doubts:
        raise FailedError(f"the audit could not see everything: {'; '.join(result.doubts)}", "iot doctor")
    if not (records := sum(partition.found for partition in result.partitions)):
        raise NotCheckedError(
            "nothing was stored in the last 24 hours, so nothing could differ", "the check before this one sends a message"
        )
    return f"nothing differs in the last 24 hours: {records} records"


def dagster_works(settings: Settings) -> str:
    """The code location is loaded, the daemon beats, no sensor is switched off."""
    try:
        probes.dagster(settings.dagster_url)
        stopped = probes.stopped_sensors(settings.dagster_url)
    except NotReadyError as error:
        raise FailedError(str(error), "look at the logs of code server and daemon; correct IOT_DAGSTER_URL") from error
    if stopped:
        raise FailedError(f"switched off: {', '.join(stopped)}", f"switch them on: {settings.dagster_url}/automation")
    return settings.dagster_url


def chunks_are_compressed(settings: Settings) -> str:
    """The edition can compress, and what was due two days ago is compressed."""
    with _database(settings) as connection:
        can_compress(connection)
        ages = {policy.table: policy.older_than for policy in read_policies(connection) if policy.enabled}
        chunks = read_chunks(connection)
    if not ages:
        raise FailedError("no table has an enabled compression policy", "iot compression set measurement --on")
    now = datetime.now(UTC)
    late = [chunk for chunk in chunks if chunk.due == "compress" and chunk.table in ages and chunk.end + ages[chunk.table] + OVERDUE < now]
    if late:
        raise FailedError(
            f"{len(late)} chunks wait for more than two days", "iot doctor (edition); is the schedule of compressed_chunk on?"
        )
    if not (done := sum(chunk.compressed for chunk in chunks)):
        raise NotCheckedError("no chunk is compressed, and none is overdue: the data is too young", "repeat it in some days")
    return f"{len(ages)} policies, {done} chunks are compressed, none is overdue"


def old_rows_are_gone(settings: Settings) -> str:
    """Nothing is left of what retention should have removed two days ago."""
    with _database(settings) as connection:
        known = policies(connection)
        late = plan(connection, counted=False, at=datetime.now(UTC) - OVERDUE)
        with connection.cursor() as cursor:
            cursor.execute("SELECT FROM retention_mark LIMIT 1")
            removed = cursor.rowcount > 0
    if not known:
        raise FailedError("there is no retention policy: rows are kept for ever", "iot retention set message 3d")
    if late:
        raise FailedError(f"{len(late)} ranges should have gone two days ago: {late[0].table} {late[0].range_from:%F}", "iot retention run")
    if not removed:
        raise NotCheckedError("nothing was ever removed, and nothing is overdue: the data is too young", "repeat it in some days")
    return f"{len(known)} policies, nothing is overdue"


def rollups_are_current(settings: Settings) -> str:
    """Stored up to the day before yesterday at least, unless the database is younger."""
    with _database(settings) as connection:
        threshold, _, _ = state(connection)
    if threshold is None:
        raise NotCheckedError("nothing is rolled up yet: the database is less than some hours old")
    if datetime.now(UTC) - threshold > OVERDUE:
        raise FailedError(f"rollups end at {threshold:%Y-%m-%d %H:%M} UTC", "iot rollup run; is the schedule on?")
    return f"stored up to {threshold:%Y-%m-%d %H:%M} UTC"


def drills_passed(settings: Settings) -> str:
    """Every drill passed in the reports of the last month (`iot drill run all`, on servers of their own)."""
    since = datetime.now(UTC) - DRILLS_AGE
    newest: dict[str, bool] = {}
    for report in sorted((settings.local_dir / "drills").glob("*/report.json")):
        newest |= _outcomes(report, since)
    wanted = [drill.name for drill in all_drills()]
    if failed := [name for name in wanted if newest.get(name) is False]:
        raise FailedError(f"failed: {', '.join(failed)}", f"iot drill run {' '.join(failed)} --keep")
    if missing := [name for name in wanted if name not in newest]:
        shown = ", ".join(missing[:5]) + (" …" if len(missing) > 5 else "")
        raise NotCheckedError(f"{len(missing)} of {len(wanted)} drills did not run in the last 30 days: {shown}", "iot drill run all")
    return f"{len(wanted)} drills"


def _outcomes(report: Path, since: datetime) -> dict[str, bool]:
    try:
        document = json.loads(report.read_text("utf-8"))
        if datetime.fromisoformat(document["started_at"]) < since:
            return {}
        return {item["drill"]: bool(item["passed"]) for item in document["outcomes"] if not item["skipped"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FailedError(f"{report} is no report of drills ({error!r})", "remove it") from error


@contextmanager
def _database(settings: Settings) -> Iterator[Connection]:
    try:
        with closing(connect(settings, "writer", "iot-acceptance")) as connection:
            yield connection
    except (DatabaseError, psycopg2.Error) as error:
        raise FailedError(" ".join(str(error).split()), "see week 1; iot doctor") from error
