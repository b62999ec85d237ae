"""Holes in an archive of WAL, and the backup that a restore begins with, told from names and numbers alone."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iot_platform.backup.archive import (
    SEGMENT_BYTES,
    Archive,
    Backup,
    Fork,
    Hole,
    StrangeNameError,
    choose,
    history_timeline,
    parse_history,
    segment_name,
    segment_number,
)

SUM = "e65ab504fc4f63de40d98c5bb50213310d5fe370"


def backup(timeline: int, first: int, last: int, stopped_at: int = 0) -> Backup:
    """One that needs the segments [first, last]."""
    return Backup(
        f"b{timeline}-{first}",
        "full",
        stopped_at - 10,
        stopped_at,
        first * SEGMENT_BYTES + 40,
        last * SEGMENT_BYTES + 80,
        segment_name(timeline, first),
        segment_name(timeline, last),
        1,
        1,
        False,
    )


def archive(numbers: dict[int, list[int]], histories: dict[int, tuple[Fork, ...]] | None = None) -> Archive:
    """With these segments by timeline."""
    names = [f"{segment_name(timeline, number)}-{SUM}.zst" for timeline, found in numbers.items() for number in found]
    return Archive.of(
        [*names, "archive.info", f"{segment_name(1, 3)}.00000028.backup", f"{segment_name(1, 3)}.partial-{SUM}"], histories or {}
    )


def test_unbroken_archive_has_no_hole_also_over_a_log_file() -> None:
    assert archive({1: list(range(250, 270))}).holes([backup(1, 252, 253)]) == []
    assert segment_name(1, 256) == "000000010000000100000000"


def test_missing_segments_are_one_hole_for_each_run_of_them() -> None:
    found = archive({1: [3, 4, 7, 8, 10]}).holes([backup(1, 3, 4)])
    assert found == [Hole(1, 5, 6), Hole(1, 9, 9)]
    assert found[0].text == "timeline 1: 2 WAL segment(s) missing, 000000010000000000000005 to 000000010000000000000006"


def test_what_a_backup_itself_needs_is_missed_at_either_end() -> None:
    assert archive({1: [5, 6]}).holes([backup(1, 4, 7)]) == [Hole(1, 4, 4), Hole(1, 7, 7)]
    assert archive({}).holes([backup(1, 4, 5)]) == [Hole(1, 4, 5)]


def test_parent_must_reach_to_the_fork_and_child_begin_there() -> None:
    histories = {2: (Fork(1, 8 * SEGMENT_BYTES + 99),)}
    assert archive({1: [3, 4, 5, 6, 7], 2: [8, 9]}, histories).holes([backup(1, 3, 4)]) == []
    assert archive({1: [3, 4, 5], 2: [9]}, histories).holes([backup(1, 3, 4)]) == [Hole(1, 6, 7), Hole(2, 8, 8)]


def test_what_expired_before_the_oldest_backup_is_no_hole() -> None:
    histories = {2: (Fork(1, 8 * SEGMENT_BYTES),)}
    assert archive({2: [20, 21]}, histories).holes([backup(2, 20, 20)]) == []
    assert archive({1: [30, 31]}).holes([backup(1, 30, 30)]) == []


def test_other_segment_sizes_are_refused() -> None:
    with pytest.raises(StrangeNameError):
        Archive.of([f"000000010000000000000100-{SUM}.gz"], {})


@given(st.sets(st.integers(1, 600), min_size=1), st.integers(1, 600))
def test_holes_and_segments_together_are_everything(there: set[int], first: int) -> None:
    last = max(there)
    holes = archive({1: sorted(there)}).holes([backup(1, first, first)])
    missing = {number for hole in holes for number in range(hole.first, hole.last + 1)}
    assert missing | there == set(range(min(first, *there), max(first, last) + 1))
    assert not missing & there


def test_history_files() -> None:
    forks = parse_history("1\t0/A0000C8\tbefore 2026-11-29 22:00:00.5+00\n\n2\t1/2000028\tno recovery target specified\n")
    assert forks == (Fork(1, 0xA0000C8), Fork(2, 0x102000028))
    assert history_timeline("00000003.history") == 3
    assert history_timeline("00000003.history.gz") == 3
    assert history_timeline(segment_name(1, 3)) is None
    assert archive({3: [1]}, {3: forks}).lineage(3) == ((1, 0xA0000C8), (2, 0x102000028), (3, None))


def test_backup_that_ended_before_the_target_and_before_its_timeline_was_left_is_chosen() -> None:
    histories = {2: (Fork(1, 8 * SEGMENT_BYTES),)}
    lineage = archive({1: [3], 2: [8]}, histories).lineage(2)
    old, abandoned, new = backup(1, 3, 4, 100), backup(1, 9, 10, 200), backup(2, 11, 12, 300)
    everything = [old, abandoned, new]
    assert choose(everything, lineage, None) == new
    assert choose(everything, lineage, 299.9) == old, "the abandoned one is newer, but of a past that was left"
    assert choose(everything, lineage, 300.5) == old, "ended within this second: perhaps after the target"
    assert choose(everything, lineage, 301) == new
    assert choose(everything, lineage, 100) is None
    assert choose([replace(new, broken=True)], lineage, None) is None
    assert choose(everything, archive({1: [3]}).lineage(1), None) == abandoned


def test_segment_numbers() -> None:
    assert segment_number(segment_name(7, 123456)) == 123456
