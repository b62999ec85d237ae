"""What `iot status` shows, gathered from every component at once; one that does not answer costs its figures and never the rest."""

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from iot_platform.diagnostics.dagster_graphql import ask
from iot_platform.diagnostics.exporter_page import audit_differences
from iot_platform.diagnostics.finding import EXIT_CODES, Finding, verdict, worst
from iot_platform.diagnostics.parallel import in_parallel
from iot_platform.diagnostics.status_picture import Component, Picture
from iot_platform.diagnostics.status_problems import problems
from iot_platform.settings import Settings

if TYPE_CHECKING:
    from iot_platform.telemetry.drain.known_cuts import KnownCut
    from iot_platform.telemetry.drain.partition_state import DrainState

DEADLINE_SECONDS: Final = 8.0
HTTP_TIMEOUT_SECONDS: Final = 3.0
RATE_SECONDS: Final = 1.0  # distance of the two looks at the ingest counters
STATEMENT_TIMEOUT: Final = "3s"
FIGURE_TIMEOUT: Final = "7s"
"""Of each of the database's figures; one that takes longer is unknown, and nothing else."""

_LEDGER_RATE: Final = """
SELECT coalesce(sum(messages + quarantined), 0)::float8 / 60, coalesce(sum(measurements), 0)::float8 / 60
FROM ledger WHERE committed_at > now() - interval '60 s' AND kind <> 'accepted_loss'
"""
_FRESHNESS: Final = """
SELECT committed_at, first_received_at, last_received_at, messages + quarantined FROM ledger
WHERE committed_at > now() - interval '5 min' AND kind = 'drain' AND last_received_at IS NOT NULL
"""
_QUARANTINE: Final = "SELECT reason, count(*) FROM quarantine WHERE received_at > now() - interval '24 h' GROUP BY 1 ORDER BY 2 DESC, 1"
_CONFLICTS: Final = """
SELECT c.tenant_id, c.project_id, c.conflicts, (
    SELECT sum(a.measurements + a.measurement_duplicates + a.measurement_conflicts)::bigint FROM accounting_1h a
    WHERE a.tenant_id = c.tenant_id AND a.project_id = c.project_id AND a.hour > date_trunc('hour', now()) - interval '24 h'
), c.total
FROM (
    SELECT tenant_id, project_id, sum(measurement_conflicts)::bigint AS conflicts, sum(sum(measurement_conflicts)) OVER ()::bigint AS total
    FROM accounting_1h WHERE conflict_example IS NOT NULL AND hour > date_trunc('hour', now()) - interval '24 h'
    GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2 LIMIT %s
) c ORDER BY 3 DESC, 1, 2
"""
_LAST_COMMIT: Final = "SELECT extract(epoch FROM now() - max(updated_at))::float8 FROM kafka_offset WHERE topic = %s"
STILL_SECONDS: Final = 120.0
"""Records that wait while nothing was committed for so long: the drain does not work. A shift starts within seconds."""
MOST_CONFLICTS: Final = 5
"""Projects with conflicts that are named; the total is of all."""
CUT_PERIOD: Final = timedelta(hours=24)
"""A log that was cut is shown for so long."""
_RUNS: Final = """{
  drains: runsOrError(filter: {pipelineName: "drain"}, limit: 10) { ... on Runs { results { runId status endTime } } }
  runsOrError(limit: 5) { ... on Runs { results { runId jobName status startTime endTime } } }
}"""


@dataclass
class Status(Picture):
    """Everything on the screen."""

    @property
    def problems(self) -> list[Finding]:
        """What to fix, first things first."""
        return problems(self)

    @property
    def exit_code(self) -> int:
        """By the worst problem: see EXIT_CODES."""
        return EXIT_CODES[worst(self.problems)]

    def as_json(self) -> dict[str, Any]:
        """For machines; keys are the field names."""
        found = self.problems
        document = {"verdict": verdict(found), "state": worst(found), "problems": [asdict(item) for item in found], **asdict(self)}
        document["healthy"] = self.healthy
        document["quarantined_24h"] = sum(self.quarantine_24h.values()) if self.quarantine_24h is not None else None
        document["lag_total"] = sum(self.lag.values()) if self.lag is not None else None
        return document


def collect(settings: Settings) -> Status:
    """Ask everything in parallel; returns within about `DEADLINE_SECONDS`, whatever hangs."""
    from iot_platform.local import probes

    status = Status()
    found = _Found()
    tasks: dict[str, Callable[[], object]] = {
        "mqtt": partial(probes.mqtt, settings),
        "kafka": partial(_kafka, settings, status),
        "postgresql": partial(_database, settings),
        "drain": partial(_drain, settings, status, found),
        "ingest": partial(_ingest, settings, status),
        "dagster": partial(_dagster, settings, status, found),
    }
    figures: dict[str, Callable[[], object]] = {"audit": partial(_audit, settings, status), **_figures(settings, status)}
    failures = in_parallel(tasks | figures, DEADLINE_SECONDS)
    said = {"kafka": status.kafka_detail} | failures
    status.components = [Component(name, "down" if name in failures else "ok", said.get(name, "")) for name in tasks]
    _judge_drain(status, found)
    status.components += _programs(settings, {component.name for component in status.components if component.state == "ok"})
    return status


@dataclass
class _Found:
    """What several components together say of the drain."""

    drain: "DrainState | None" = None
    cuts: "list[KnownCut]" = field(default_factory=list)
    last_commit_seconds: float | None = None  # ago
    drain_runs: list[dict[str, Any]] = field(default_factory=list)  # newest first


def _judge_drain(status: Status, found: _Found) -> None:
    """Records that wait while no run drains them are a fault, whatever the cause; so is a partition that cannot simply go on."""
    drain = next(component for component in status.components if component.name == "drain")
    if drain.state != "ok" or found.drain is None:
        return
    waiting = sum(max(0, state.lag) for state in found.drain.partitions.values())
    told = found.drain.problems
    status.waits_for_person = any(state.needs_person for state in found.drain.wrong)
    ended = [run for run in found.drain_runs if run["endTime"]]
    failed = ended and ended[0]["status"] == "FAILURE"
    still = found.last_commit_seconds
    if waiting and failed and (still is None or still > time.time() - ended[0]["endTime"]):
        told.append(f"{waiting:,} records wait, and the last drain run failed: run {ended[0]['runId']} says why")
    elif waiting and still is not None and still > STILL_SECONDS:
        told.append(f"{waiting:,} records wait, and nothing was committed for {still:,.0f} s: see the runs of the job drain in Dagster")
    drain.state, drain.detail = ("down", "; ".join(told)) if told else ("ok", "; ".join(cut.line for cut in found.cuts[:3]))


def _kafka(settings: Settings, status: Status) -> None:
    from iot_platform.kafka import leaders
    from iot_platform.local import probes

    probes.kafka(settings)
    waiting, degraded = leaders.look(settings, HTTP_TIMEOUT_SECONDS)
    if waiting:
        raise LookupError(waiting)
    status.kafka_detail = degraded or ""


def _drain(settings: Settings, status: Status, found: "_Found") -> None:
    from iot_platform.database.connection import connect
    from iot_platform.telemetry.drain.known_cuts import cuts_since
    from iot_platform.telemetry.drain.partition_state import look

    with closing(connect(settings, "reader", "iot status")) as connection:
        with connection.cursor() as cursor:
            cursor.execute("SET statement_timeout = %s", (STATEMENT_TIMEOUT,))
            cursor.execute(_LAST_COMMIT, (settings.kafka_topic,))
            (found.last_commit_seconds,) = cursor.fetchone() or (None,)
        connection.commit()  # or a rollback of what follows takes the timeout back
        found.drain = look(settings, connection)
        found.cuts = cuts_since(connection, settings.kafka_topic, CUT_PERIOD)
    status.lag = {partition: state.lag for partition, state in found.drain.partitions.items()}


def _database(settings: Settings) -> None:
    from iot_platform.database.connection import connect

    with closing(connect(settings, "reader", "iot status")) as connection, connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = %s", (STATEMENT_TIMEOUT,))
        cursor.execute("SELECT count(*) FROM schema_migration")


def _figures(settings: Settings, status: Status) -> dict[str, Callable[[], object]]:
    """The database's figures, each asked by itself: one that takes too long costs no other."""

    def rows(question: str, *arguments: object) -> list[Any]:
        from iot_platform.database.connection import connect

        with closing(connect(settings, "reader", "iot status")) as connection, connection.cursor() as cursor:
            cursor.execute("SET statement_timeout = %s", (FIGURE_TIMEOUT,))
            cursor.execute(question, arguments)
            return cursor.fetchall()

    def rates() -> None:
        status.messages_out_per_second, status.measurements_out_per_second = rows(_LEDGER_RATE)[0]

    def ages() -> None:
        status.freshness_p50_seconds, status.freshness_p95_seconds = freshness(rows(_FRESHNESS))

    def quarantine() -> None:
        status.quarantine_24h = dict(rows(_QUARANTINE))

    def conflicts() -> None:
        found = rows(_CONFLICTS, MOST_CONFLICTS)
        status.conflicts_24h = found[0][-1] if found else 0
        names = ("tenant", "project", "conflicts", "measurements")
        status.conflicts_by_project_24h = [dict(zip(names, row, strict=False)) for row in found]

    def sinks() -> None:
        from iot_platform.database.connection import connect
        from iot_platform.influx.status import read
        from iot_platform.influx.target import targets

        if not (names := {each.name for each in targets(settings)}):
            return
        with closing(connect(settings, "reader", "iot status")) as connection:
            status.sinks = [asdict(each) for each in read(connection) if each.sink in names]

    return {"rates": rates, "ages": ages, "quarantine": quarantine, "conflicts": conflicts, "sinks": sinks}


def freshness(batches: list[tuple[datetime, datetime, datetime, int]]) -> tuple[float | None, float | None]:
    """p50 and p95 in seconds over (committed, first received, last received, messages) of batches.

    A batch's messages are taken as evenly spread between its first and its last receipt: exact enough for batches of a second or less.
    """
    import numpy as np

    if not batches:
        return None, None
    rows = np.array(
        [((done - first).total_seconds(), (done - last).total_seconds(), max(count, 1)) for done, first, last, count in batches]
    )
    steps = np.linspace(0.05, 0.95, 10)
    ages = (rows[:, 1:2] + (rows[:, 0:1] - rows[:, 1:2]) * steps).ravel()
    weights = np.repeat(rows[:, 2] / len(steps), len(steps))
    order = np.argsort(ages)
    share = np.cumsum(weights[order]) / weights.sum()
    p50, p95 = (float(ages[order][min(int(np.searchsorted(share, level)), len(ages) - 1)]) for level in (0.5, 0.95))
    return p50, p95


def _ingest(settings: Settings, status: Status) -> None:
    from iot_platform.ingest_pages import counters, daemons, notices
    from iot_platform.local import probes

    urls = daemons(settings)
    before, began = counters(urls), time.monotonic()
    status.in_flight = _whole(before.get("iot_ingest_messages_in_flight"))
    status.spool = _whole(before.get("iot_ingest_spool_messages"))
    time.sleep(RATE_SECONDS)
    received = "iot_ingest_messages_received_total"
    after = counters(urls)
    if received in before and received in after:
        status.messages_in_per_second = max(0.0, after[received] - before[received]) / (time.monotonic() - began)
    for url in urls:
        status.notices += [f"{url}: {notice}" for notice in notices(url)]
    for url in urls:
        probes.http(f"{url}/readyz")


def _audit(settings: Settings, status: Status) -> None:
    status.audit_differences = audit_differences(settings)


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _dagster(settings: Settings, status: Status, found: "_Found") -> None:
    from iot_platform.local import probes

    data = ask(settings, _RUNS, HTTP_TIMEOUT_SECONDS).get("data") or {}
    status.runs = (data.get("runsOrError") or {}).get("results")
    found.drain_runs = (data.get("drains") or {}).get("results") or []
    probes.dagster(settings.dagster_url)


def _programs(settings: Settings, answering: set[str]) -> list[Component]:
    """Programs of the local supervisor, if one runs; those that a probe has found well are not repeated."""
    from iot_platform.local.supervisor import Supervisor

    shown = {"mosquitto": "mqtt"}
    components = []
    found: dict[str, Any] = {}
    failures = in_parallel({"supervisor": lambda: found.update(Supervisor(settings.local_dir).states())}, DEADLINE_SECONDS)
    for name, state in sorted(found.items()):
        if state.name == "RUNNING" and shown.get(name, name) in answering:
            continue
        word = {"RUNNING": "ok", "STARTING": "starting", "STOPPED": "–", "EXITED": "–" if state.exit_status == 0 else "down"}
        detail = f"process {state.pid}" if state.pid else state.spawn_error or f"{state.name.lower()}, exit status {state.exit_status}"
        components.append(Component(f"process {name}", word.get(state.name, "down"), detail))
    return components + [Component(name, "down", reason) for name, reason in failures.items()]
