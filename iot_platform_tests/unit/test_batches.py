"""Batches of maintenance: by how long they take, and every row once."""

from datetime import UTC, datetime, timedelta

from iot_platform.database.batches import BatchSize, in_slices

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def test_sizes_follow_the_time_within_bounds() -> None:
    size = BatchSize(100, most=400, least=60)
    for seconds, expected in ((0.1, 200), (0.1, 400), (0.1, 400), (0.6, 400), (1.7, 200), (1.7, 100), (1.7, 60), (1.7, 60)):
        size.learn(seconds)
        assert size.value == expected
    assert not size.shrink()


def test_slices_take_every_row_once() -> None:
    rows = [BEGIN + timedelta(minutes=number) for number in range(500)] + [BEGIN + timedelta(days=90)]
    end, taken, calls = BEGIN + timedelta(days=100), [], []

    def remove(since: datetime, until: datetime, most: int) -> tuple[int, datetime]:
        found = [row for row in rows if since <= row < until]
        done = found[most] if len(found) > most else until
        mine = [row for row in found if row < done]
        taken.extend(mine)
        calls.append((since, done, len(mine)))
        return len(mine), done

    in_slices(BEGIN, end, BatchSize(50, most=50), remove)
    assert taken == rows
    assert [since for since, *_ in calls] == [BEGIN, *(done for _, done, _ in calls[:-1])], "a gap, or a span twice"
    assert calls[-1][1] == end
    assert len(calls) < 60, "empty stretches are passed slowly"


def test_a_refusal_ends_it() -> None:
    calls: list[datetime] = []

    def refuse(since: datetime, _: datetime, __: int) -> None:
        calls.append(since)

    in_slices(BEGIN, BEGIN + timedelta(days=9), BatchSize(50, most=50), refuse)
    assert calls == [BEGIN]
