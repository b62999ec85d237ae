"""One run of one drill: what its body works with, and what it notes for the verdict."""

import contextlib
import random
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import psycopg2
from confluent_kafka.admin import AdminClient

from iot_platform.database import connect
from iot_platform.drills.rig.drill_stack import DrillStack
from iot_platform.drills.rig.publishers import Fleet
from iot_platform.settings import Settings
from iot_platform.simulator.comparison import Scope
from iot_platform.telemetry.drain import offsets

POLL_SECONDS: Final = 0.1
_STORED: Final = """
SELECT coalesce(sum(messages + quarantined - duplicates), 0), coalesce(sum(messages + quarantined), 0)
FROM ledger WHERE kafka_topic = %s AND batch_id > %s AND kind = 'drain'
"""


MEMORY_FACTOR: Final = 1.1
MEMORY_BYTES: Final = 32 * 2**20
"""Memory is flat if it grows by no more than both together: garbage collectors breathe."""


class DrillError(Exception):
    """A drill could not go as planned, or a condition was not met in time. It fails."""


@dataclass(frozen=True)
class Options:
    """What the user chose; None leaves it to each drill."""

    seed: int = 1
    rate: float | None = None
    seconds: float | None = None
    outage_seconds: float | None = None
    rounds: int | None = None


@dataclass
class Fault:
    """A fault that was made: when, by time.monotonic() and by the clock."""

    what: str
    began: float
    began_at: datetime
    ended: float = 0.0
    ended_at: datetime | None = None


@dataclass
class DrillRun:
    """`name` is the drill's; `rng` and the fleet follow the seed. `settings` lead straight to the servers of `stack`."""

    name: str
    stack: DrillStack
    options: Options
    show: Callable[[str], None] = lambda _: None
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    sightings: list[dict[str, Any]] = field(default_factory=list)
    """Alerts that were told: see alert_watch.Sighting."""
    problems: list[str] = field(default_factory=list)
    expected_losses: list[tuple[int, str]] = field(default_factory=list)
    expected_differences: dict[str, str] = field(default_factory=dict)
    unknown_losses: str = ""
    forgiven: list[tuple[int, int]] = field(default_factory=list)
    recovery_limit_seconds: float | None = None

    def __post_init__(self) -> None:
        self.seed = zlib.crc32(f"{self.options.seed}/{self.name}".encode()) % 1_000_000_000
        self.rng = random.Random(self.seed)  # noqa: S311 - reproducible, no secret
        self.began, self.began_at = time.monotonic(), datetime.now(UTC)
        folder = self.stack.folder / "fleet" / f"{self.name}-{self.began_at:%H%M%S%f}"
        self.fleet = Fleet(self.settings, folder, self.seed, self.options.rate, self.options.seconds)
        with self.database() as connection:
            self.scope = Scope.now(connection, self.settings.kafka_topic)
            with connection.cursor() as cursor:
                cursor.execute("SELECT coalesce(max(batch_id), 0) FROM ledger")
                self.first_batch = int((cursor.fetchone() or (0,))[0])

    @property
    def settings(self) -> Settings:
        """Settings that lead straight to the servers."""
        return self.stack.settings

    # -- faults ------------------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def fault(self, what: str) -> Iterator[Fault]:
        """Marks the begin and the end of a fault; the recovery time counts from the end of the last one."""
        self.show(what)
        made = Fault(what, time.monotonic(), datetime.now(UTC))
        self.faults.append(made)
        try:
            yield made
        finally:
            made.ended, made.ended_at = time.monotonic(), datetime.now(UTC)

    def outage_seconds(self, default: float) -> float:
        """How long a long outage lasts."""
        return self.options.outage_seconds if self.options.outage_seconds is not None else default

    def rounds(self, default: int) -> int:
        """How often a drill that repeats its fault does so."""
        return self.options.rounds if self.options.rounds is not None else default

    def hold(self, seconds: float) -> None:
        """Let a fault last; shows how much of it is left."""
        what = self.faults[-1].what if self.faults else "waiting"
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.show(f"{what}: another {left:.0f} s")
            time.sleep(min(1.0, left))

    # -- waiting -----------------------------------------------------------------------------------------------
    def await_true(self, what: str, condition: Callable[[], bool], seconds: float = 60, *, since: float | None = None) -> float:
        """Ask until it is true; returns how many seconds that took, from `since` (a time.monotonic(), now unless given).

        Raises:
            DrillError: it takes longer.
        """
        began = time.monotonic() if since is None else since
        while not condition():
            if time.monotonic() > began + seconds:
                raise DrillError(f"not within {seconds:g} s: {what}")
            time.sleep(POLL_SECONDS)
        return time.monotonic() - began

    def await_stored(self, count: int, seconds: float = 300) -> None:
        """Until so many messages of the drill are in the database."""
        self.await_true(f"{count} messages stored", lambda: self.stored() >= count, seconds)

    def stored(self) -> int:
        """Messages of this drill in message ∪ quarantine, redeliveries aside; 0 while the database does not answer."""
        return self._stored()[0]

    def stored_with_copies(self) -> int:
        """The same with redeliveries."""
        return self._stored()[1]

    def _stored(self) -> tuple[int, int]:
        with contextlib.suppress(psycopg2.Error, OSError), self.database() as connection, connection.cursor() as cursor:
            cursor.execute(_STORED, (self.settings.kafka_topic, self.first_batch))
            once, all_of_them = cursor.fetchone() or (0, 0)
            return int(once), int(all_of_them)
        return 0, 0

    def next_offsets(self) -> dict[int, int]:
        """Where each Kafka partition is drained to."""
        with self.database() as connection:
            return {number: row.next_offset for number, row in offsets.read(connection, self.settings.kafka_topic).items()}

    @contextlib.contextmanager
    def database(self) -> Iterator[psycopg2.extensions.connection]:
        """A connection as the owner, straight to the server, autocommit."""
        connection = connect(self.settings, "admin", "iot drill")
        connection.autocommit = True
        try:
            yield connection
        finally:
            connection.close()

    @contextlib.contextmanager
    def superuser(self) -> Iterator[psycopg2.extensions.connection]:
        """A connection as PostgreSQL's superuser, straight to the server, autocommit."""
        connection = psycopg2.connect(self.stack.postgresql.url("postgres"))
        connection.autocommit = True
        try:
            yield connection
        finally:
            connection.close()

    def kafka_admin(self) -> AdminClient:
        """A client of the drill's Kafka, for a `with`."""
        return AdminClient({**self.settings.kafka_config(), "log_level": 0})

    # -- the verdict -------------------------------------------------------------------------------------------
    def note(self, text: str) -> None:
        """Something for the report."""
        self.notes.append(text)

    def check(self, condition: bool, text: str) -> None:
        """Fail the drill, with this sentence, unless the condition holds. The body goes on."""
        if not condition:
            self.problems.append(text)

    def limit_recovery(self, seconds: float) -> None:
        """Fail the drill if its recovery takes longer."""
        self.recovery_limit_seconds = seconds

    def check_memory_flat(self, fault: Fault) -> None:
        """Fail the drill if a program took notably more memory in the last third of a fault than in the first."""
        for name, (first, last) in self.stack.memory.growth(fault.began, fault.ended).items():
            self.note(f"memory of {name} during the outage: {first / 2**20:.0f} MiB in its first third, {last / 2**20:.0f} MiB in its last")
            limit = first * MEMORY_FACTOR + MEMORY_BYTES
            self.check(last <= limit, f"memory of {name} grew from {first / 2**20:.0f} to {last / 2**20:.0f} MiB during the outage")

    def failed_runs(self) -> int:
        """Dagster runs that failed since the drill began."""
        with self.database() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM dagster.runs WHERE status = 'FAILURE' AND end_time >= %s", (self.began_at.timestamp(),))
            return int((cursor.fetchone() or (0,))[0])

    def expect_lost(self, count: int, why: str) -> None:
        """So many acknowledged messages will be lost, by what is not in our hands. The audit must name it: see expect_difference."""
        self.expected_losses.append((count, why))

    def expect_difference(self, kind: str, why: str) -> None:
        """The audit must report a difference of this kind, and may."""
        self.expected_differences[kind] = why

    def expect_losses(self, why: str) -> None:
        """Acknowledged messages will be lost, and how many is unknown: one at least, and exactly as many as the audit finds missing."""
        self.unknown_losses = why
        self.expect_difference("sequences", why)

    def forgive(self, seconds: float) -> None:
        """The MQTT broker loses what it did not save: what was published so shortly before now may be lost, or come again."""
        now = time.time_ns() // 1000
        self.forgiven.append((now - round(seconds * 1e6), now))
