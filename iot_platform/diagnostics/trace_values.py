"""What a stored message decodes to, beside what the table holds at that series and time, and why the two may differ. Reads only."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Final

from iot_platform.settings import Settings

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812

    from iot_platform.telemetry.decode import DecodeRules, Quarantined
    from iot_platform.telemetry.decode import Message as Decoded
    from iot_platform.telemetry.drain.stored_values import Stored

CANDIDATES: Final = 5000  # messages that are decoded to find the one whose value is stored
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_VALUES: Final = ("value", "value_int", "value_text")

_SERIES: Final = "SELECT series_id FROM series WHERE tenant_id = %s AND project_id = %s AND device_id = %s AND metric = %s"
_STORED: Final = "SELECT value, value_int, value_text, flags FROM measurement WHERE series_id = %s AND time = %s"
_BEFORE: Final = """
SELECT value, value_int, value_text, time FROM measurement WHERE series_id = %s AND time < %s ORDER BY time DESC LIMIT 1"""
_EARLIER: Final = """
SELECT kafka_offset FROM message
WHERE source_id = %s AND payload = %s AND duplicate_of IS NULL AND received_at BETWEEN %s AND %s
      AND kafka_partition = %s AND record_place(log_generation, kafka_offset) < record_place(%s, %s)
ORDER BY record_place(log_generation, kafka_offset) LIMIT 1
"""
# Messages have an index by time only: looked at are those received shortly before this one, and around the measurements' own times.
_CANDIDATES: Final = """
SELECT received_at, kafka_partition, kafka_offset, log_generation, topic, payload, time_shift_us
FROM message_named
WHERE tenant_id = %(tenant)s AND project_id = %(project)s AND duplicate_of IS NULL
      AND (received_at BETWEEN %(since)s AND %(until)s OR received_at BETWEEN %(first)s AND %(last)s)
ORDER BY source_id = %(source_id)s DESC, received_at LIMIT %(most)s
"""

Row = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """Where a record is: Kafka partition, generation of its log, offset."""

    partition: int
    generation: int
    offset: int


@dataclass(frozen=True)
class _Saying:
    """A message that says something of a conflict's series and time; `same`: what is stored there."""

    received_at: datetime
    place: Place
    same: bool

    @property
    def order(self) -> tuple[datetime, int, int, int]:
        """By arrival, as far as two Kafka partitions have an order."""
        return self.received_at, self.place.partition, self.place.generation, self.place.offset


def compare(connection: "Connection", settings: Settings, place: Place, row: Row) -> tuple[list[Row], list[str]]:
    """The measurements of a row of message_named, each with its state and what is stored, and what there is to say besides. The
    connection's settings must be committed: this rolls back.

    Raises:
        TransientError: the database did not answer.
    """
    from iot_platform.telemetry.corrections import corrected
    from iot_platform.telemetry.decode import DecodeRules, Message
    from iot_platform.telemetry.decode.sparkplug.births import Births
    from iot_platform.telemetry.drain.sparkplug import BirthHistory
    from iot_platform.telemetry.project_options import CONFLICTS, NUMBERS_IN_STRINGS, ProjectOptions

    options = ProjectOptions.load(connection)
    with closing(BirthHistory(settings, "trace", "reader", anywhere=True)) as history:
        rules = DecodeRules.from_settings(settings, options.switches(NUMBERS_IN_STRINGS))
        rules = replace(corrected(settings, rules, connection), births=Births(history.load, replays=True))
        outcome = _decoded(rules, place, row)
        if not isinstance(outcome, Message):
            return [], [f"with the settings of today this message would be quarantined: {outcome.reason}, {outcome.detail}"]
        policy = options.value(CONFLICTS, outcome.tenant, outcome.project)
        return _Comparison(connection, rules, policy, place, row, outcome).run()


def _decoded(rules: "DecodeRules", place: Place, row: Row) -> "Decoded | Quarantined":
    """A row of message_named as the drain decoded it: by the births before its place, and with its readings where they were moved to."""
    from iot_platform.telemetry.decode import Message, decode_one
    from iot_platform.telemetry.decode.sparkplug.births import Place as BirthPlace
    from iot_platform.telemetry.records import place_of

    received_us = _microseconds(row["received_at"])
    at = BirthPlace(place.partition, place_of(place.generation, place.offset), received_us)
    outcome = decode_one(rules, row["topic"].encode(), bytes(row["payload"]), received_us, at)
    if not isinstance(outcome, Message) or outcome.time_from_payload or not row["time_shift_us"]:
        return outcome
    moved = received_us + row["time_shift_us"]
    return replace(
        outcome, measurements=tuple(replace(item, time=moved) if item.time == received_us else item for item in outcome.measurements)
    )


@dataclass
class _Comparison:
    """Of one message. `_conflicts`: each with the first microsecond at which what is stored may have been said."""

    _connection: "Connection"
    _rules: "DecodeRules"
    _policy: str
    _place: Place
    _row: Row
    _outcome: "Decoded"
    _notes: list[str] = field(default_factory=list)
    _conflicts: list[tuple[Row, int]] = field(default_factory=list)

    def run(self) -> tuple[list[Row], list[str]]:
        """Measurements and notes."""
        row, outcome = self._row, self._outcome
        if row["duplicate_of"] is not None:
            other = "" if row["duplicate_of_generation"] == self._place.generation else f" of generation {row['duplicate_of_generation']}"
            self._notes.append(f"it came a second time: the first copy is offset {row['duplicate_of']}{other}, and has the measurements")
        earlier = None
        if outcome.time_from_payload:
            since, at = row["received_at"] - timedelta(hours=1), self._place
            search = (row["source_id"], bytes(row["payload"]), since, row["received_at"], at.partition, at.generation, at.offset)
            earlier = one(self._connection, _EARLIER, search)
        duplicate = "" if earlier is None else f"duplicate of offset {earlier['kafka_offset']}"
        measurements = []
        for item in outcome.measurements:
            said = {name: getattr(item, name) for name in _VALUES}
            found = {"device": item.device, "metric": item.metric, "time": _utc_time(item.time), **said, "state": "", "stored": None}
            self._judge(found, item.time, said, duplicate)
            measurements.append(found)
        if self._conflicts:
            self._find_first()
        return measurements, self._notes

    def _judge(self, found: Row, time_us: int, said: Row, duplicate: str) -> None:
        """Fill in state and stored."""
        names = (self._outcome.tenant, self._outcome.project, found["device"], found["metric"])
        series = one(self._connection, _SERIES, names)
        stored = one(self._connection, _STORED, (series["series_id"], found["time"])) if series else None
        flags = stored.pop("flags") or 0 if stored else 0
        found["stored"] = stored
        if stored is not None and _same(stored, said):
            found["state"] = duplicate or "present"
        elif self._row["duplicate_of"] is not None:
            found["state"] = "not written (redelivery)"
        elif series and (before := self._repeats(series["series_id"], found["time"], said)) is not None:
            found["state"] = f"unchanged: a retained state, as of {before:%Y-%m-%d %H:%M:%S.%f} UTC"
        elif series is None or stored is None:
            found["state"] = "missing (retention, or a fault)"
        elif (kept := self._kept(series["series_id"], time_us, said)) is not None:
            found["kept_at"] = _utc_time(kept)
            found["state"] = duplicate or f"kept beside the value that came first, {kept - time_us} µs later"
        else:
            self._conflicts.append((found, self._begin(series["series_id"], time_us) if flags & 1 else time_us))

    def _repeats(self, series: int, time: datetime, said: Row) -> datetime | None:
        """Of a retained message without a time of its own, when its series had the same value before."""
        if not self._row["retain"] or self._outcome.time_from_payload or self._row["time_shift_us"]:
            return None
        if time != self._row["received_at"]:
            return None
        before = one(self._connection, _BEFORE, (series, time))
        return before["time"] if before is not None and _same(before, said) else None

    def _kept(self, series: int, time: int, said: Row) -> int | None:
        """Where the value stands beside the one at its time: at one of the microseconds that follow each other from there."""
        from iot_platform.telemetry.drain.values import MOVED, value_key

        for there in self._side_by_side(series, time):
            if there.flags & MOVED and there.value == value_key(*(said[name] for name in _VALUES)):
                return there.time
        return None

    def _side_by_side(self, series: int, time: int) -> "Iterator[Stored]":
        """What is stored from a time on, one microsecond after the other."""
        from iot_platform.telemetry.drain.stored_values import WINDOW_US, stored_around

        with self._connection.cursor() as cursor:
            while True:
                stored = stored_around(cursor, series, time)
                while time in stored:
                    yield stored[time]
                    time += 1
                    if time % WINDOW_US == 0:
                        break
                else:
                    return

    def _begin(self, series: int, time: int) -> int:
        """Where those begin that stand side by side up to a time, as far as one look goes."""
        from iot_platform.telemetry.drain.stored_values import stored_around

        with self._connection.cursor() as cursor:
            stored = stored_around(cursor, series, time)
        while time - 1 in stored:
            time -= 1
        return time

    def _find_first(self) -> None:
        """Add to each conflict `stored_by`, the message among those near enough to be looked at whose value is stored (or None), and a
        state that says which of the two came first."""
        for found, _ in self._conflicts:
            found["stored_by"], found["state"] = None, "conflict: another value is stored"
        sayings: dict[int, list[_Saying]] = {index: [] for index in range(len(self._conflicts))}
        for row in self._candidates():
            place = Place(row["kafka_partition"], row["log_generation"], row["kafka_offset"])
            for index, same in self._said(_decoded(self._rules, place, row)):
                sayings[index].append(_Saying(row["received_at"], place, same))
        for index, (found, _) in enumerate(self._conflicts):
            self._settle(found, sorted(sayings[index], key=lambda saying: saying.order))

    def _settle(self, found: Row, sayings: list[_Saying]) -> None:
        ours = _Saying(self._row["received_at"], self._place, same=False)
        before = [saying for saying in sayings if saying.same and saying.order < ours.order]
        after = [saying for saying in sayings if saying.same and saying.order > ours.order]
        if after and (self._policy == "last" or not before):
            last = list(takewhile(lambda saying: saying.same, reversed(sayings)))
            by, found["state"] = last[-1] if last else after[0], "conflict: a later value took its place"
        elif before:
            by, found["state"] = before[0], "conflict: another value came first"
        else:
            return
        at = {"partition": by.place.partition, "offset": by.place.offset, "generation": by.place.generation}
        found["stored_by"] = at | {"received_at": by.received_at}

    def _candidates(self) -> list[Row]:
        from psycopg2.errors import QueryCanceled

        row, times = self._row, [found["time"] for found, _ in self._conflicts]
        search = {
            "tenant": self._outcome.tenant, "project": self._outcome.project, "source_id": row["source_id"], "most": CANDIDATES,
            "since": row["received_at"] - timedelta(hours=1), "until": row["received_at"] + timedelta(minutes=1),
            "first": min(times) - timedelta(minutes=5), "last": max(times) + timedelta(minutes=5),
        }  # fmt: skip
        try:
            return every(self._connection, _CANDIDATES, search)
        except QueryCanceled:
            self._connection.rollback()
            self._notes.append("which message the stored value is from was not found in time: too many were received around this one")
            return []

    def _said(self, other: "Decoded | Quarantined") -> Iterator[tuple[int, bool]]:
        """Of which conflicts a message speaks, and whether it says what is stored."""
        from iot_platform.telemetry.decode import Message

        for item in other.measurements if isinstance(other, Message) else ():
            for index, (found, begin) in enumerate(self._conflicts):
                if (item.device, item.metric) != (found["device"], found["metric"]):
                    continue
                time, same = _microseconds(found["time"]), _same(found["stored"], {name: getattr(item, name) for name in _VALUES})
                if item.time == time or (same and begin <= item.time < time):
                    yield index, same


def _same(stored: Row, want: Row) -> bool:
    """Bit for bit, as the drain compares: 0 and -0 differ."""
    return all(repr(stored[name]) == repr(want[name]) for name in _VALUES)


def _microseconds(time: datetime) -> int:
    return (time - _EPOCH) // timedelta(microseconds=1)


def _utc_time(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)


def one(connection: "Connection", query: str, values: tuple[Any, ...] | Row) -> Row | None:
    """The first row of a query, by column."""
    return next(iter(every(connection, query, values)), None)


def every(connection: "Connection", query: str, values: tuple[Any, ...] | Row) -> list[Row]:
    """All rows of a query, by column."""
    with connection.cursor() as cursor:
        cursor.execute(query, values)
        names = [column.name for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
