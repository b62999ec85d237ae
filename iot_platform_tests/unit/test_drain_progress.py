"""Counting: freshness quantiles, the poison brake, groups of a batch."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iot_platform.orchestration.materializations import partition_metadata
from iot_platform.telemetry.drain.batch_counts import HOUR_US, Outcome, add, group
from iot_platform.telemetry.drain.progress import PartitionProgress, Progress
from iot_platform.telemetry.drain.values import Values, by_key


def test_freshness_quantiles_are_right_to_a_few_percent() -> None:
    item = PartitionProgress()
    assert item.freshness_p50_seconds is None
    item.note_freshness(np.arange(1, 1001) * 10_000)  # 10 ms … 10 s
    item.note_freshness(np.array([-5, 10**18]))
    assert item.freshness_p50_seconds == pytest.approx(5, rel=0.07)
    assert item.freshness_p95_seconds == pytest.approx(9.5, rel=0.07)


@given(st.lists(st.lists(st.booleans(), max_size=30), max_size=10))
def test_bad_streaks_run_over_batches(batches: list[list[bool]]) -> None:
    item = PartitionProgress()
    for batch in batches:
        item.note_quality(np.array(batch, np.bool_))
    flat = [bad for batch in batches for bad in batch]
    runs = [len(list(run)) for bad, run in itertools.groupby(flat) if bad]
    assert item.longest_bad_streak == max(runs, default=0)
    assert item.bad_streak == (runs[-1] if flat and flat[-1] else 0)


def test_the_brake_needs_five_percent_of_a_window_or_a_thousand_in_a_row() -> None:
    item = PartitionProgress()
    item.note_quality(np.arange(1000) % 20 == 0)
    assert item.worst_bad_share == 0.05
    assert not item.poisoned
    item.note_quality(np.arange(1000) % 19 == 0)
    assert item.poisoned
    item = PartitionProgress()
    item.note_quality(np.append(np.zeros(10**6, np.bool_), np.ones(999, np.bool_)))
    assert not item.poisoned
    item.note_quality(np.array([True, False]))
    assert item.poisoned


def test_local_times_that_a_zone_has_twice_or_never_count_for_their_partition() -> None:
    progress = Progress()
    for _ in range(2):
        outcome = Outcome(
            ranges={0: (5, 7), 3: (0, 1)},
            groups=[],
            reasons=Counter(),
            partition=np.array([0, 0, 3], np.int32),
            received_at=np.ones(3, np.int64),
            bad=np.zeros(3, np.bool_),
            local_times=[(1, 2, 0), (2, 1, 4)],
        )
        add(progress, outcome, 2)
    assert {number: (item.ambiguous_times, item.skipped_times) for number, item in progress.partitions.items()} == {0: (4, 0), 3: (2, 8)}
    assert partition_metadata(0, progress.partitions[0])["ambiguous_times"] == 4
    assert "skipped_times" not in partition_metadata(0, progress.partitions[0])


def test_groups_sum_up_by_hour_project_and_partition() -> None:
    groups = group(
        partition=np.array([0, 1, 0, 0, 0], np.int32),
        offset=np.array([5, 9, 6, 7, 8], np.int64),
        received_at=np.array([1, 2, 3, 4, HOUR_US], np.int64) + 7 * HOUR_US,
        project=np.array([0, 0, 1, 0, 0], np.int32),
        projects=[("t", "p"), ("t", "q")],
        duplicate=np.array([False, False, True, False, False]),
        bad=np.array([False, False, False, True, False]),
        measurement_row=np.array([0, 0, 0, 1, 4], np.int32),
        measurement_outcome=np.array([0, 1, 2, 0, 0], np.uint8),
    )
    found = {
        (item.hour // HOUR_US, item.project[1], item.partition): (
            item.messages, item.duplicates, item.quarantined, item.measurements, item.measurement_duplicates, item.measurement_conflicts,
            item.first_offset, item.last_offset,
        )
        for item in groups
    }  # fmt: skip
    assert found == {
        (7, "p", 0): (1, 0, 1, 1, 1, 1, 5, 7),
        (7, "p", 1): (1, 0, 0, 1, 0, 0, 9, 9),
        (7, "q", 0): (1, 1, 0, 0, 0, 0, 6, 6),
        (8, "p", 0): (1, 0, 0, 1, 0, 0, 8, 8),
    }


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 3)), min_size=1), st.sampled_from([1, 2**61]))
def test_sorting_by_key_keeps_the_first_of_equal_ones_first(keys: list[tuple[int, int]], scale: int) -> None:
    count = len(keys)
    series = np.array([key[0] for key in keys], np.int32)
    time = np.array([key[1] * (scale if key[1] < 2 else 1) for key in keys], np.int64)
    flags = np.ones(count, np.bool_)
    values = Values(
        row=np.arange(count, dtype=np.int32), local=series, series=series, time=time, value=np.zeros(count), valid=flags,
        integer=None, ints=np.zeros(0, np.int64), text=None, texts=[],
    )  # fmt: skip
    order, repeats = by_key(values)
    expected = sorted(range(count), key=lambda index: (series[index], time[index], index))
    assert order.tolist() == expected
    seen: set[tuple[int, int]] = set()
    for position, index in enumerate(expected):
        key = (int(series[index]), int(time[index]))
        assert repeats[position] == (key in seen)
        seen.add(key)
