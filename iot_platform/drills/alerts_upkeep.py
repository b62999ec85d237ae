"""Drill: alerts on what a platform that runs must do regularly, and on what its proofs and rules find: all at once, in one database."""

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Final

import psycopg2

from iot_platform.drills.alerts import SLOW, statement
from iot_platform.drills.kafka_loss import iot
from iot_platform.drills.rig.alert_watch import AlertWatch, Fault, obstacle, watching
from iot_platform.drills.rig.drill_run import DrillError, DrillRun
from iot_platform.drills.rig.registry import drill

ROOM_BYTES: Final = 4 << 20
PLENTY_BYTES: Final = 1 << 40
SESSIONS: Final = 165
"""More than 85 % of the 197 that the local PostgreSQL gives away, with those that the platform has."""
ROLLUPS: Final = "roll_up_measurements_every_5_minutes"
UPKEEP_SECONDS: Final = 720.0
"""Audit and storage are looked at every five minutes."""
LOOK: Final = "IOT_DISK_LIMIT_BYTES"


@drill(
    "alert_upkeep",
    "what must happen regularly does not, and what the proofs find is wrong",
    group="alerts",
    fresh=True,
    obstacle=obstacle,
    backups=True,
)
def alert_upkeep(run: DrillRun) -> None:
    """Proofs that fail, rules that find something or cannot be evaluated, messages that cannot be decoded or contradict each other,
    rollups, retention, backups and WAL that wait, sessions and a disk that are used up, a schedule that is off, runs that fail: each is
    told by name, and ends when it is put right."""
    run.fleet.start(rate=3 * SLOW, seconds=10)
    run.await_stored(3000)
    with watching(run, **{LOOK: str(_database_bytes(run) + ROOM_BYTES)}) as watch:
        made = [
            _disk(run, watch),
            _no_backup(run, watch),
            _row_lost(run, watch),
            _old_rows(run, watch),
            _flood(run, watch),
            _sessions(run, watch),
            _values_out_of_range(run, watch),
            _rule_broken(run, watch),
            _rollups_off(run, watch),
        ]
        with ExitStack() as several:
            faults = [several.enter_context(fault) for fault in made]
            with _repository_away(run, watch) as away:
                watch.await_told(away, *faults, seconds=UPKEEP_SECONDS)
        watch.await_ended(seconds=UPKEEP_SECONDS)
        run.fleet.finish()


Made = Iterator[Fault]


@contextmanager
def _disk(run: DrillRun, watch: AlertWatch) -> Made:
    """The exporter runs with a limit that is nearly reached."""
    with watch.fault("the database's disk nearly full", "DiskFillsSoon", "DiskAlmostFull") as fault:
        yield fault
        watch.start_exporter(**{LOOK: str(PLENTY_BYTES)})


@contextmanager
def _no_backup(run: DrillRun, watch: AlertWatch) -> Made:
    with watch.fault("backups set up, none made", "BackupOverdue") as fault:
        yield fault
        _iot(run, "backup", "create")


@contextmanager
def _repository_away(run: DrillRun, watch: AlertWatch) -> Made:
    """Neither WAL nor backups get there."""
    excused = {"ServerDown": "the backups' repository does not answer"}
    alerts = ("WalArchiveFailing", "DagsterRunsFail")
    with watch.fault("the backups' repository cannot be written", *alerts, excused=excused) as fault:
        mode = run.stack.repository.stat().st_mode
        run.stack.repository.chmod(0)
        try:
            for _ in range(2):
                run.stack.dagster("job", "launch", "--job", "back_up_database")
            yield fault
        finally:
            run.stack.repository.chmod(mode)


@contextmanager
def _row_lost(run: DrillRun, watch: AlertWatch) -> Made:
    with watch.fault("a row of message deleted by hand", "AuditDifference") as fault:
        statement(run, "CREATE TABLE drill_row AS SELECT * FROM message ORDER BY received_at DESC OFFSET 100 LIMIT 1")
        statement(run, "DELETE FROM message m USING drill_row r WHERE (m.kafka_partition, m.kafka_offset, m.received_at)"
                       " = (r.kafka_partition, r.kafka_offset, r.received_at)")  # fmt: skip
        yield fault
        statement(run, "INSERT INTO message SELECT * FROM drill_row")
        statement(run, "DROP TABLE drill_row")


@contextmanager
def _old_rows(run: DrillRun, watch: AlertWatch) -> Made:
    """Retention removes nothing that the books do not know."""
    with watch.fault("an old row that no book knows, so that retention leaves it", "RetentionOverdue") as fault:
        statement(run, "INSERT INTO measurement (time, series_id, value) SELECT now() - interval '100 days', min(series_id), 1 FROM series")
        yield fault
        statement(run, "DELETE FROM measurement WHERE time < now() - interval '99 days'")
        _iot(run, "retention", "run")


@contextmanager
def _flood(run: DrillRun, watch: AlertWatch) -> Made:
    with watch.fault("messages that cannot be decoded, or contradict others", "QuarantineFlood", "ConflictingMeasurements") as fault:
        run.fleet.start(rate=2 * SLOW, seconds=10, malformed=0.4, conflict=0.3)
        yield fault
        run.fleet.stop_last()


@contextmanager
def _sessions(run: DrillRun, watch: AlertWatch) -> Made:
    with watch.fault(f"{SESSIONS} idle sessions", "DatabaseConnections") as fault, ExitStack() as opened:
        for _ in range(SESSIONS):
            opened.enter_context(closing(psycopg2.connect(run.stack.postgresql.url("postgres"), application_name="drill")))
        yield fault
        opened.close()


@contextmanager
def _values_out_of_range(run: DrillRun, watch: AlertWatch) -> Made:
    with watch.fault("values out of range", "QualityIncident") as fault:
        metric = _value(run, "SELECT metric FROM series WHERE metric <> '' GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 1")
        rule = ("quality", "rules", "set", "range", "--metric", str(metric), "severity=ERROR", "clear_seconds=0")
        _iot(run, *rule, "min=1000000", "max=2000000")
        _iot(run, "quality", "run", codes=(0, 1))
        yield fault
        _iot(run, *rule, "min=-1000000", "max=2000000")


@contextmanager
def _rule_broken(run: DrillRun, watch: AlertWatch) -> Made:
    setting = "UPDATE quality_rule SET parameters = parameters || '{\"least_changes\": %s}' WHERE rule = 'stuck_value' AND metric = ''"
    with watch.fault("a quality rule that cannot be evaluated", "QualityRulesStopped") as fault:
        statement(run, setting % '"half"')
        _iot(run, "quality", "run", codes=(0, 1))
        yield fault
        statement(run, setting % "0.5")
        _iot(run, "quality", "run", codes=(0, 1))


@contextmanager
def _rollups_off(run: DrillRun, watch: AlertWatch) -> Made:
    with watch.fault("the rollups' schedule switched off, and they are six hours behind", "DagsterSwitchedOff", "RollupOverdue") as fault:
        run.stack.dagster("schedule", "stop", ROLLUPS)
        _iot(run, "rollup", "run", codes=(0, 1))  # what is older than six hours is stored
        statement(run, "UPDATE rollup_state SET threshold = date_trunc('hour', now(), 'UTC') - interval '6 hours',"
                       " threshold_1d = date_trunc('day', now(), 'UTC') - interval '1 day', notes_below = greatest(notes_below,"
                       " date_trunc('hour', now(), 'UTC')), fill_end = NULL, fill_1d_end = NULL")  # fmt: skip
        yield fault
        run.stack.dagster("schedule", "start", ROLLUPS)
        _iot(run, "rollup", "run", codes=(0, 1))
        _iot(run, "rollup", "rebuild", "--from=10d")  # what came late for hours that were set back


def _database_bytes(run: DrillRun) -> int:
    return int(str(_value(run, "SELECT pg_database_size(current_database())")))


def _value(run: DrillRun, query: str) -> object:
    with run.database() as connection, connection.cursor() as cursor:
        cursor.execute(query)
        return (cursor.fetchone() or (None,))[0]


def _iot(run: DrillRun, *arguments: str, codes: tuple[int, ...] = (0,)) -> None:
    """A command as a person runs it. Raises DrillError: it ends with another exit code."""
    code, shown = iot(run, *arguments)
    if code not in codes:
        raise DrillError(f"iot {' '.join(arguments)}: {shown[-800:]}")
