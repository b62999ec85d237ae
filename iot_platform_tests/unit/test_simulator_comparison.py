"""The end-to-end comparison itself: it must notice every way in which the platform could break its promise."""

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest

from iot_platform.simulator.comparison import Model, Row, Series, Stored, Value, compare
from iot_platform.simulator.fleet import FleetOptions
from iot_platform.simulator.generator import Generator
from iot_platform.simulator.record import Published

START_US = 1_795_427_998_000_000


def publish() -> list[Published]:
    options = FleetOptions(malformed=0.1, duplicate=0.1, conflict=0.05)
    messages = itertools.islice(Generator(options, "root/{tenant}/{project}/{device...}", START_US, 200).messages(), 500)
    return [Published(message, acked=True, refused=False, sends=1, published_us=START_US) for message in messages]


def perfect(published: list[Published]) -> Stored:
    """What a database holds that did everything right: one partition, one batch, a redelivery at the end."""
    rows, model = [], Model()
    for offset, item in enumerate(published):
        want = item.message.expected
        names = () if want.reason else (want.tenant, want.project, want.device, want.time_source)
        content = (item.message.topic.encode(), item.message.payload)
        rows.append(Row((0, 0, offset), content, None, want.reason, names, START_US + offset))
        if want.reason is None:
            model.add(want, START_US + offset)
    rows.append(replace(rows[-1], place=(0, 0, len(rows)), duplicate_of=(0, len(rows) - 1)))
    latest: dict[Series, tuple[int, Value]] = {}
    for (series, time_us), value in sorted(model.measurements.items(), key=lambda item: item[0][1]):
        latest[series] = (time_us, value)
    quarantined = sum(row.reason is not None for row in rows)
    sums = {
        "messages": len(rows) - quarantined,
        "duplicates": 1,
        "quarantined": quarantined,
        "measurements": len(model.measurements),
        "measurement_duplicates": model.duplicates,
        "measurement_conflicts": model.conflicts,
    }
    return Stored(rows, dict(model.measurements), latest, [((0, 0), 0, len(rows), len(rows))], sums, dict(sums), {(0, 0): len(rows)})


def first_message(stored: Stored) -> int:
    return next(index for index, row in enumerate(stored.rows) if row.reason is None)


def lose_a_row(stored: Stored) -> None:
    del stored.rows[3]


def store_a_row_twice(stored: Stored) -> None:
    stored.rows.append(replace(stored.rows[3], place=(0, 0, len(stored.rows))))


def change_a_byte(stored: Stored) -> None:
    row = stored.rows[first_message(stored)]
    stored.rows[first_message(stored)] = replace(row, content=(row.content[0], row.content[1] + b" "))


def mark_a_redelivery_of_another(stored: Stored) -> None:
    stored.rows[-1] = replace(stored.rows[-1], duplicate_of=(0, 0))


def mark_a_first_copy(stored: Stored) -> None:
    stored.rows[5] = replace(stored.rows[5], duplicate_of=(0, 4))


def give_another_reason(stored: Stored) -> None:
    index = next(index for index, row in enumerate(stored.rows) if row.reason)
    stored.rows[index] = replace(stored.rows[index], reason="other")


def give_it_to_another_tenant(stored: Stored) -> None:
    index = first_message(stored)
    stored.rows[index] = replace(stored.rows[index], names=("x", *stored.rows[index].names[1:]))


def lose_a_measurement(stored: Stored) -> None:
    stored.measurements.popitem()


def flip_the_last_bit(stored: Stored) -> None:
    key, (bits, whole, text) = next(item for item in stored.measurements.items() if item[1][0])
    stored.measurements[key] = (bits[:-1] + bytes([bits[-1] ^ 1]) if bits else None, whole, text)


def shift_a_time(stored: Stored) -> None:
    (series, time_us), value = stored.measurements.popitem()
    stored.measurements[series, time_us + 1] = value


def keep_an_old_latest(stored: Stored) -> None:
    series = next(iter(stored.latest))
    stored.latest[series] = (1, stored.latest[series][1])


def leave_a_gap_in_the_ledger(stored: Stored) -> None:
    end = stored.ledger[0][2]
    stored.ledger[:] = [((0, 0), 0, 10, 10), ((0, 0), 11, end, end - 11)]


def miscount(stored: Stored) -> None:
    stored.accounting_sums["measurement_conflicts"] += 1


def test_a_perfect_database_has_no_differences() -> None:
    published = publish()
    assert compare(published, perfect(published)) == []


@pytest.mark.parametrize(
    "break_it",
    [
        lose_a_row, store_a_row_twice, change_a_byte, mark_a_redelivery_of_another, mark_a_first_copy, give_another_reason,
        give_it_to_another_tenant, lose_a_measurement, flip_the_last_bit, shift_a_time, keep_an_old_latest, leave_a_gap_in_the_ledger,
        miscount,
    ],
)  # fmt: skip
def test_every_fault_is_noticed(break_it: Callable[[Stored], None]) -> None:
    published = publish()
    stored = perfect(published)
    break_it(stored)
    assert compare(published, stored)


def test_an_unacknowledged_message_may_be_there_or_not() -> None:
    published = publish()
    stored = perfect(published)
    published[3] = replace(published[3], acked=False)
    assert compare(published, stored) == []
    assert not [text for text in compare(published, replace(stored, rows=stored.rows[:3] + stored.rows[4:])) if text.startswith("lost")]
