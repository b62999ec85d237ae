"""What `iot audit` prints: tables that stay readable with a thousand projects, every difference, and the verdict."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from iot_platform.audit.result import AuditResult, Tally

if TYPE_CHECKING:
    from rich.console import Console

SHOWN_HOLES: Final = 5
"""Stretches of missing sequences that are shown with their times, of each connection."""
SCREEN: Final = 30
"""Most rows of a table; the rest is summed up."""
MUST_BE_ZERO: Final = ("difference", "missing")
_NEXT: Final = {
    "offsets": "An offset in no table: `iot replay --partition P --offsets A:B` restores it while Kafka still holds it.",
    "sequences": "A sequence that is nowhere was acknowledged by the ingest daemon, and is in no table. {why} "
    "Its bytes are gone unless the publisher still has them; the devices concerned are those that were publishing in these seconds "
    "(incidents of the rule sequence_gap name those that count their messages).",
    "accounting": "Sums that differ from the rows: were rows or accounting_1h changed by hand? The rows are what counts.",
    "daemon": "The daemon's own counters do not add up: messages left its spool or its state directory by another way. See its log.",
    "sinks": "An InfluxDB may lack what lies there: `iot influx compare --from …` names it, `iot influx backfill --from …` copies it.",
}


def show(result: AuditResult, tenant: str | None, console: "Console") -> None:
    """Print it all."""
    window = f"committed since {result.since:%Y-%m-%d %H:%M} UTC" if result.since else "since the beginning"
    console.print(f"Audit of what was {window}" if result.since else f"Audit of everything {window}", style="italic")
    console.print(_hours(result, by_project=tenant is not None))
    console.print(_partitions(result))
    console.print(_connections(result))
    if result.daemons:
        console.print(_daemons(result))
    if result.sinks:
        console.print(_sinks(result))
    for loss in result.accepted:
        where = f"partition {loss.partition} of {loss.topic}"
        console.print(
            f"accepted loss: {where}: {loss.detail} ({loss.committed_at:%Y-%m-%d %H:%M} UTC, {loss.accepted_by})",
            style="yellow",
            markup=False,
        )
    for cut in result.cuts:
        console.print(f"log cut: {cut.line}", style="yellow", markup=False, soft_wrap=True)
    for text in result.notes:
        console.print(f"note: {text}", style="dim", markup=False)
    for text in result.doubts:
        console.print(f"cannot tell: {text}", style="bold yellow", markup=False)
    _differences(result, console)
    console.print(verdict(result), style="bold green" if result.ok and not result.doubts else "bold yellow" if result.ok else "bold red")


def verdict(result: AuditResult) -> str:
    """One line: the numbers of the sequence proof, and how many differences all proofs found."""
    sums = result.sequence_sums()
    parts = [f"stored {sums['stored']:,}", f"duplicate {sums['duplicates']:,}", f"quarantined {sums['quarantined']:,}"]
    if sums["dead_lettered"]:
        parts.append(f"dead-lettered {sums['dead_lettered']:,}")
    parts.append(f"in flight {sums['in_flight']:,}")
    if sums["unacknowledged"]:
        parts.append(f"returned to the broker {sums['unacknowledged']:,}")
    if sums["missing"]:
        parts.append(f"MISSING {sums['missing']:,}")
    found = sum(result.counts.values())
    end = f"{found:,} difference{'s' if found > 1 else ''}" if found else "nothing differs"
    if result.doubts:
        end += " in what could be checked"
    return f"received {sums['received']:,} = {' + '.join(parts)}: {end}"


def _differences(result: AuditResult, console: "Console") -> None:
    for kind, count in result.counts.items():
        named = [item for item in result.differences if item.kind == kind]
        for item in named[:SCREEN]:
            console.print(f"DIFFERENCE {item.text}", style="red", markup=False, soft_wrap=True)
            for hole in item.holes[:SHOWN_HOLES]:
                text = f"    {hole.last - hole.first + 1:,} from sequence {hole.first} on: {hole.where}"
                console.print(text, style="red", markup=False, soft_wrap=True)
        if count > SCREEN:
            console.print(f"… and {count - SCREEN:,} more {kind} differences; --json names {len(named):,}", style="red")
        console.print(f"  → {_remedy(kind, result)}", markup=False, soft_wrap=True)


def _remedy(kind: str, result: AuditResult) -> str:
    from iot_platform.audit.result import Difference

    def command(item: Difference) -> str:
        *log, _, span = item.place.split()
        first, _, last = span.partition("-")
        options = " ".join(f"--{name} {number}" for name, number in zip(log[::2], log[1::2], strict=True))
        return f"iot replay {options} --offsets {first}:{int(last or first) + 1}"

    if kind == "sequences":
        return _NEXT[kind].format(why=_why_missing(result))

    gone = [item for item in result.differences if item.kind == kind == "offsets" and "in no table" in item.text]
    return f"{_NEXT[kind]} Here: {'; '.join(command(item) for item in gone[:3])}" if gone else _NEXT[kind]


def _why_missing(result: AuditResult) -> str:
    """Why sequences may be missing, as far as the audit's own findings tell."""
    if any(item.kind == "offsets" for item in result.differences):
        return "Offsets are missing, too: they may be these messages; restore them first (see there)."
    if result.cuts:
        partitions = ", ".join(sorted({str(cut.partition) for cut in result.cuts}))
        return f"Kafka lost the end of its log (partition {partitions}, see above): what had not been drained by then is gone from Kafka."
    return "Every drained offset is accounted for, and Kafka's log was not seen to be cut; the ingest daemon's log says what happened then."


def _table(title: str, names: Sequence[str], rows: Sequence[Sequence[object]], left: int = 1) -> Table:
    """Numbers with separators; a column of nothing but zeros is left out, unless it is the one that must be zero."""
    shown = [
        index for index, name in enumerate(names) if name in MUST_BE_ZERO or not rows or any(row[index] not in (0, "") for row in rows)
    ]
    table = Table(title=title, title_justify="left", header_style="bold", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for index in shown:
        table.add_column(names[index], justify="left" if index < left else "right", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(names[index], row[index]) for index in shown))
    return table


def _cell(name: str, value: object) -> Text:
    if not isinstance(value, int):
        return Text(str(value))
    style = ("bold red" if value else "green") if name in MUST_BE_ZERO else ""
    return Text(f"{value:,}", style)


def _hours(result: AuditResult, *, by_project: bool) -> Table:
    """By tenant (or project) and hour; summed over the hours where that is more than a screen."""
    rows = [
        ((project if by_project else tenant) or "–", f"{hour:%m-%d %H:%M}", tally)
        for (tenant, project, hour), tally in result.hours.items()
    ]
    rows.sort(key=lambda row: (not row[2].difference, row[0], row[1]))
    if len(rows) > SCREEN:
        sums: dict[str, Tally] = {}
        for name, _, tally in rows:
            sums.setdefault(name, Tally()).add(tally)
        totals = sorted(sums.items(), key=lambda item: (not item[1].difference, -item[1].messages))
        rows = [*(row for row in rows if row[2].difference), *((name, "all", tally) for name, tally in totals)]
    rest = Tally()
    for _, hour, tally in rows[SCREEN:]:
        if hour == "all":
            rest.add(tally)
    if rows[SCREEN:]:
        rows = [*rows[:SCREEN], (f"… {len(rows) - SCREEN:,} more", "all", rest)]
    what = "project" if by_project else "tenant"
    names = (what, "hour (UTC)", "messages", "duplicates", "quarantined", "measurements", "conflicts", "difference", "reasons")
    return _table(
        f"accounting_1h against the stored rows, by {what}", names, [(name, hour, *_numbers(tally)) for name, hour, tally in rows], 2
    )


def _numbers(tally: Tally) -> tuple[object, ...]:
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(tally.reasons.items(), key=lambda item: -item[1])[:3])
    counts = (tally.messages, tally.duplicates, tally.quarantined, tally.measurements, tally.measurement_conflicts, tally.difference)
    return (*counts, reasons)


def _partitions(result: AuditResult) -> Table:
    rows: list[tuple[object, ...]] = [
        (
            f"{row.partition}" + (f" (generation {row.generation})" if row.generation else ""),
            row.topic,
            f"{row.from_offset}…{row.to_offset - 1}",
            row.expected,
            row.found,
            row.expected - row.found,
        )
        for row in sorted(result.partitions, key=lambda row: row.expected == row.found)
    ]
    names = ("partition", "topic", "offsets", "records", "found", "difference")
    return _table("first proof: every Kafka offset is stored once", names, _shortened(rows, 3), 3)


def _connections(result: AuditResult) -> Table:
    rows: list[tuple[object, ...]] = [
        (
            row.client_id,
            str(row.number),
            f"{row.checked_from}…{row.checked_to}" if row.checked_to >= row.checked_from else "–",
            *(row.stored, row.duplicates, row.quarantined, row.dead_lettered, row.in_flight, row.unacknowledged, row.missing),
            f"{row.reported_at:%m-%d %H:%M:%S}" if row.reported_at else "never",
        )
        for row in sorted(result.connections, key=lambda row: (row.problem is None, -row.number))
    ]
    names = ("client", "connection", "checked", "stored", "duplicate", "quarantined", "dead letters", "in flight", "returned", "missing")
    return _table("second proof: every sequence of an MQTT connection is found", (*names, "reported"), _shortened(rows, 3), 3)


def _daemons(result: AuditResult) -> Table:
    names = (
        "client",
        "received",
        "delivered",
        "dead letters",
        "spooled",
        "in flight",
        "given up",
        "missing",
        "difference",
        "reported (UTC)",
    )
    rows = [
        (
            row.client_id,
            *(row.received, row.delivered, row.dead_lettered, row.spooled, row.in_flight, row.given_up, row.missing, row.difference),
            f"{row.fetched_at:%m-%d %H:%M:%S}",
        )
        for row in result.daemons
    ]
    return _table("the ingest daemons' own counters: received = the sum of the others", names, rows)


def _sinks(result: AuditResult) -> Table:
    rows: list[tuple[object, ...]] = [
        (
            row.sink,
            f"{row.partition}" + (f" (generation {row.generation})" if row.generation else ""),
            f"{row.from_offset}…{row.to_offset - 1}" if row.to_offset > row.from_offset else "–",
            *(row.stored, row.followed, row.removed, row.waiting, row.stored - row.followed - row.removed - row.waiting),
            *(row.points, row.sent, row.refused),
        )
        for row in result.sinks
    ]
    names = ("sink", "partition", "offsets", "records", "followed", "removed", "waiting", "difference", "points", "sent", "refused")
    return _table("second stores: every record is followed, or waits; every point is sent, or refused", names, _shortened(rows, 3), 3)


def _shortened(rows: list[tuple[object, ...]], left: int) -> list[tuple[object, ...]]:
    """A screenful of rows, and the sums of the others' numbers."""
    if len(rows) <= SCREEN:
        return rows
    more = rows[SCREEN:]
    sums = [sum(column) if all(isinstance(value, int) for value in column) else "" for column in list(zip(*more, strict=True))[left:]]
    return [*rows[:SCREEN], (f"… {len(more):,} more", *[""] * (left - 1), *sums)]
