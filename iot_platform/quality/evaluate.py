"""One evaluation of the quality rules: each rule in one transaction with its incidents, results and position, so that a kill at any
point repeats at most what was not committed. Two evaluations never run at once."""

import time
from collections.abc import Callable, Collection
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from iot_platform.database import connect
from iot_platform.database.errors import DatabaseUnreachableError, LockTimeoutError
from iot_platform.database.locks import advisory_lock, lock_key
from iot_platform.database.migrate import require_migrated
from iot_platform.logs import get_logger
from iot_platform.quality import intake
from iot_platform.quality.errors import BusyError
from iot_platform.quality.horizon import Horizon, find_horizon
from iot_platform.quality.statements import RULES, rule_sql, stage_sql
from iot_platform.settings import Settings

LOCK: Final = "quality"
STATEMENT_SECONDS: Final = 60
BUDGET_SECONDS: Final = 90.0
"""An evaluation ends with the stretch that is being judged then; the next one goes on from there."""
PAUSE: Final = timedelta(minutes=15)
"""After a longer pause of the evaluations silence counts from now: what was down meanwhile is unknown."""
CADENCE: Final = "cadence"
SILENCE: Final = frozenset({"freshness_device", "freshness_project"})
AT_THE_END: Final = SILENCE | {"completeness"}
"""Rules that judge everything received up to the horizon: only once the queue is learnt up to its end."""

log = get_logger(__name__)

_POSITIONS: Final = "SELECT rule, feed_position FROM quality_watermark WHERE rule <> 'intake'"
_BEGIN: Final = """
INSERT INTO quality_watermark (rule, feed_position)
SELECT unnest(%s::text[]), coalesce((SELECT min(feed_position) - 1 FROM quality_feed), 0) ON CONFLICT DO NOTHING"""
_BEGIN_COMPLETENESS: Final = """
UPDATE quality_watermark w
SET state = w.state || jsonb_build_object('until', time_bucket(r.window_seconds * interval '1 second', %s::timestamptz))
FROM quality_rule r WHERE w.rule = 'completeness' AND NOT w.state ? 'until' AND r.rule = w.rule AND r.tenant_id = '' AND r.metric = ''"""
_LIVE: Final = """
UPDATE quality_watermark w SET evaluated_at = now(), horizon = %(horizon)s, state = w.state || jsonb_build_object('live_since', CASE
    WHEN NOT %(live)s THEN NULL
    WHEN w.horizon IS NULL OR %(at_given)s THEN coalesce((w.state ->> 'live_since')::timestamptz, '-infinity')
    WHEN w.state ->> 'live_since' IS NULL OR now() - w.evaluated_at > %(pause)s THEN %(horizon)s
    ELSE (w.state ->> 'live_since')::timestamptz END)
WHERE w.rule = 'intake' RETURNING coalesce((w.state ->> 'live_since')::timestamptz, %(horizon)s)"""
_DONE: Final = """
UPDATE quality_watermark SET feed_position = %(upto)s, evaluated_at = now(), horizon = %(horizon)s, seconds = %(seconds)s,
    failing = %(failing)s, error = NULL WHERE rule = %(rule)s"""
_FAILED: Final = "UPDATE quality_watermark SET error = %s, evaluated_at = now() WHERE rule = %s"
_FAILING: Final = "SELECT count(*) FROM quality_incident WHERE rule = %s AND closed_at IS NULL"
_NO_CUT: Final = "SELECT pg_advisory_xact_lock_shared(%s)"
"""Until the commit no tenant is deleted (its cut takes the lock alone): what is written then will be found by the deletion."""
_ENABLED: Final = "SELECT EXISTS (SELECT FROM quality_rule WHERE rule = %s AND enabled)"


@dataclass
class RuleOutcome:
    """What one rule did in an evaluation. `failing`: incidents that are open at its end; `error`: why it will be repeated."""

    rule: str
    failing: int = 0
    opened: int = 0
    continued: int = 0
    closed: int = 0
    seconds: float = 0.0
    error: str | None = None


@dataclass
class Evaluation:
    """The outcome of all rules."""

    horizon: datetime
    live: bool
    reason: str
    outcomes: dict[str, RuleOutcome]
    batches: int = 0
    stretches: int = 0
    seconds: float = 0.0
    finished: bool = True
    """False: the time was up before the end of the queue."""
    errors: list[str] = field(default_factory=list)


def evaluate(
    settings: Settings,
    *,
    at: datetime | None = None,
    rules: Collection[str] = RULES,
    wait_seconds: float = 30.0,
    note: Callable[[str], None] = lambda _: None,
) -> Evaluation:
    """Judge what is new with the given rules. `at` replaces the horizon (of a clock that is not ours). A rule that fails is rolled back,
    reported in its outcome and repeated next time; the others go on.

    Raises:
        BusyError: another evaluation did not end within `wait_seconds`.
        DatabaseError: the database does not answer.
    """
    try:
        with closing(connect(settings, "writer", "iot-quality")) as connection:
            require_migrated(connection)
            try:
                with advisory_lock(connection, LOCK, wait_seconds):
                    return _Run(settings, connection, at, rules, note=note).run()
            except LockTimeoutError as error:
                raise BusyError(f"another evaluation is running: {error}") from error
    except psycopg2.Error as error:
        raise DatabaseUnreachableError(f"the evaluation was not finished: {' '.join(str(error).split())}") from error


class _Run:
    def __init__(
        self,
        settings: Settings,
        connection: Connection,
        at: datetime | None,
        rules: Collection[str],
        *,
        note: Callable[[str], None],
    ) -> None:
        self._connection = connection
        self._rules = tuple(rule for rule in RULES if rule in rules)
        self._note = note
        self._started = time.monotonic()
        self._at_given = at is not None
        self._horizon = Horizon(at, live=True) if at is not None else find_horizon(settings, connection)
        self._live_since: Any = None
        self._judged: set[str] = set()
        self._all_taken = True
        self._result = Evaluation(
            self._horizon.at, self._horizon.live, self._horizon.reason, {rule: RuleOutcome(rule) for rule in self._rules}
        )

    def run(self) -> Evaluation:
        result = self._result
        with self._connection.cursor() as cursor:
            cursor.execute("SELECT set_config('statement_timeout', %s, false), set_config('jit', 'off', false)", (f"{STATEMENT_SECONDS}s",))
            cursor.execute("SELECT clock_timestamp()")
            now = intake.row(cursor)[0]
        self._connection.commit()
        while True:
            taken = intake.take_in(self._connection, now)
            self._all_taken = taken < intake.MOST_BATCHES
            result.batches += taken
            self._begin()
            self._judge()
            if self._all_taken or not result.finished:
                break
        self._prune()
        result.seconds = time.monotonic() - self._started
        result.errors = [f"{item.rule}: {item.error}" for item in result.outcomes.values() if item.error]
        return result

    def _begin(self) -> None:
        with self._connection.cursor() as cursor:
            cursor.execute(_BEGIN, ([CADENCE, *RULES],))
            cursor.execute(_BEGIN_COMPLETENESS, (self._horizon.at,))
            cursor.execute(_LIVE, {"horizon": self._horizon.at, "live": self._horizon.live, "at_given": self._at_given, "pause": PAUSE})
            self._live_since = intake.row(cursor)[0]
        self._connection.commit()

    def _judge(self) -> None:
        """Stretch by stretch; rules that are at the same position share one. A rule without anything new is judged all the same: silence
        is nothing new."""
        behind = {CADENCE, *self._rules}
        while behind:
            positions = self._positions()
            after = min(positions[name] for name in behind)
            here = [name for name in (CADENCE, *self._rules) if name in behind and positions[name] == after]
            stretch = intake.next_stretch(self._connection, after, self._horizon.at)
            if stretch is None:
                behind -= set(here)
                here = [name for name in here if name not in self._judged]
                if not here:
                    continue
                stretch = intake.Stretch(after, after, self._horizon.at, self._horizon.at, at_the_end=True)
            ahead = [positions[name] for name in behind if positions[name] > after]
            if ahead and min(ahead) < stretch.upto:  # join them there
                stretch = intake.Stretch(after, min(ahead), stretch.since, stretch.oldest, at_the_end=False)
            self._note(f"judging {stretch.upto - after} batches")
            stretch = intake.lay_out(self._connection, stretch)
            for name in here:
                self._judged.add(name)
                if not self._apply(name, stretch):
                    behind.discard(name)
            self._result.stretches += stretch.upto > after
            if time.monotonic() - self._started > BUDGET_SECONDS and behind:
                self._result.finished = False
                return

    def _positions(self) -> dict[str, int]:
        with self._connection.cursor() as cursor:
            cursor.execute(_POSITIONS)
            found: dict[str, int] = dict(cursor.fetchall())
        self._connection.commit()
        return found

    def _apply(self, name: str, stretch: intake.Stretch) -> bool:
        """One rule (or the stage that learns cadences) over one stretch, in one transaction; False if it failed."""
        started = time.monotonic()
        parameters: dict[str, Any] = {
            "rule": name,
            "after": stretch.after,
            "upto": stretch.upto,
            "since": stretch.since,
            "oldest": stretch.oldest,
            "at_the_end": stretch.at_the_end,
            "horizon": self._horizon.at,
            "live_since": self._live_since,
        }
        outcome = self._result.outcomes.get(name) or RuleOutcome(name)
        try:
            with self._connection.cursor() as cursor:
                if name == CADENCE:
                    cursor.execute(_NO_CUT, (lock_key("catalog"),))
                    cursor.execute(stage_sql("cadence"), parameters)
                else:
                    self._find(cursor, name, parameters, outcome)
                seconds = time.monotonic() - started
                cursor.execute(_DONE, parameters | {"seconds": seconds, "failing": outcome.failing})
            self._connection.commit()
        except psycopg2.Error as error:
            if self._connection.closed:
                raise
            self._connection.rollback()
            outcome.error = " ".join(str(error).split())
            log.warning("quality rule was rolled back", rule=name, error=outcome.error)
            with self._connection.cursor() as cursor:
                cursor.execute(_FAILED, (outcome.error, name))
            self._connection.commit()
            return False
        outcome.seconds += seconds
        return True

    def _find(self, cursor: Cursor, rule: str, parameters: dict[str, Any], outcome: RuleOutcome) -> None:
        if rule in SILENCE and not self._horizon.live:
            return  # neither opened nor closed: nobody knows
        if rule in AT_THE_END and not (self._all_taken and parameters["at_the_end"]):
            return
        cursor.execute("TRUNCATE pg_temp.quality_found")
        cursor.execute(_ENABLED, (rule,))
        if intake.row(cursor)[0]:
            cursor.execute(rule_sql(rule), parameters)
            cursor.execute(stage_sql("locate"), parameters)
        cursor.execute(_NO_CUT, (lock_key("catalog"),))
        cursor.execute(stage_sql("deleted"))
        cursor.execute(stage_sql("continue"), parameters)
        outcome.continued += cursor.rowcount
        cursor.execute(stage_sql("open"), parameters)
        outcome.opened += cursor.rowcount
        cursor.execute(stage_sql("close"), parameters)
        outcome.closed += cursor.rowcount
        cursor.execute(stage_sql("tell"), parameters)
        cursor.execute(_FAILING, (rule,))
        (outcome.failing,) = intake.row(cursor)

    def _prune(self) -> None:
        positions = self._positions()
        with self._connection.cursor() as cursor:
            cursor.execute(intake.SINCE)
            since = intake.row(cursor)[0] - 2 * intake.OVERLAP
            cursor.execute(stage_sql("prune"), {"judged": min(positions.values()), "since": since, "horizon": self._horizon.at})
        self._connection.commit()
