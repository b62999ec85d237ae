"""Each quality rule: seeded bad data fires it, good data does not; and what it fired ends when all is well again."""

from contextlib import closing
from datetime import datetime, timedelta

import pytest

from iot_platform.database import connect
from iot_platform.quality import QualityError
from iot_platform.quality.forget import forget
from iot_platform.quality.report import read_incidents
from iot_platform.rollups import roll_up
from iot_platform.telemetry.project_options import reset_option, set_option
from iot_platform_tests.support.feeds.direct import PROJECT
from iot_platform_tests.support.feeds.drain import query
from iot_platform_tests.support.feeds.quality import World

pytestmark = pytest.mark.both_editions


def test_silent_devices_and_projects_are_told_by_their_own_cadence(world: World) -> None:
    for minute in range(60):
        world.send(minute, {"t": 1}, "quick")
        world.send(minute + 0.5, {"t": 1}, "steady")
        if minute % 20 == 0:
            world.send(minute, {"t": 1}, "slow")
    for minute in range(60, 80):
        world.send(minute + 0.5, {"t": 1}, "steady")
    world.judge(80, "freshness_device", "freshness_project")
    assert world.incidents("freshness_device") == [("quick", "", True, 0)], "slow says nothing for 40 minutes, as it may"
    assert world.incidents("freshness_project") == []
    world.judge(100, "freshness_device", "freshness_project")
    assert world.incidents("freshness_project") == [("", "", True, 0)]
    world.send(101, {"t": 1}, "quick")
    world.send(101, {"t": 1}, "steady")
    world.judge(102, "freshness_device", "freshness_project")
    assert {is_open for _, _, is_open, _ in world.incidents("freshness_device") + world.incidents("freshness_project")} == {False}


def test_projects_whose_devices_report_in_step(world: World) -> None:
    world.start -= timedelta(hours=16)
    for hour in range(16):
        for device in range(30):
            world.send(60 * hour + device / 100, {"kwh": hour}, f"meter-{device}")
        for number in range(30):
            world.send(60 * hour + number / 100, {"t": number}, "bursty")
        for minute in (6, 59):
            world.judge(60 * hour + minute, "freshness_project", "freshness_device")
    assert world.incidents("freshness_project") == world.incidents("freshness_device") == []
    world.judge(15 * 60 + 302, "freshness_project")
    assert world.incidents("freshness_project") == [("", "", True, 0)], "five of its hours"


def test_weekends_are_learnt_and_outages_are_none(world: World) -> None:
    day = 1440
    monday = world.start - timedelta(days=world.start.weekday() + 28, hours=world.start.hour)
    world.start = monday

    def judge(minute: float) -> list[tuple[str, str, bool, int]]:
        world.judge(minute, "freshness_device", "freshness_project")
        return world.incidents("freshness_device") + world.incidents("freshness_project")

    for week in range(3):
        for weekday in range(5):
            begin = (7 * week + weekday) * day
            if (week, weekday) == (2, 2):  # on a Wednesday at noon it fails
                known = len(judge(begin + 6 * 60))
                for minute in range(6 * 60, 12 * 60, 15):
                    world.send(begin + minute, {"t": 1})
                assert len(judge(begin + day)) == known
                assert len(judge(begin + day + 10 * 60)) == known + 2, "told in the morning"
                return
            for minute in range(6 * 60, 18 * 60, 15):
                world.send(begin + minute, {"t": 1})
            told = judge(begin + 19 * 60) if week == 0 else judge(begin + day + 5 * 60)
            if weekday == 4:
                known = len(judge(begin + 2 * day))
                assert known == len(told) or week == 0
                assert len(judge(begin + 3 * day + 5 * 60)) == known, "no incident of a weekend"


def test_a_device_that_was_taken_away_or_renamed(world: World) -> None:
    world.start -= timedelta(days=20)
    for minute in range(40):
        world.send(minute, {"t": 1}, "gone")
        world.send(minute, {"t": 1}, "renamed")
    world.judge(60, "freshness_device")
    assert world.incidents("freshness_device") == [("gone", "", True, 0), ("renamed", "", True, 0)]
    with closing(connect(world.settings)) as connection:
        assert forget(connection, "1968193631353446400", PROJECT.rsplit("/", 1)[1], "renamed") == (1, 1)
        with pytest.raises(QualityError, match="nothing is known of device renamed"):
            forget(connection, "1968193631353446400", PROJECT.rsplit("/", 1)[1], "renamed")
    world.judge(13 * 1440, "freshness_device")
    assert [is_open for *_, is_open, _ in world.incidents("freshness_device")] == [True, False]
    world.judge(15 * 1440, "freshness_device")
    world.judge(16 * 1440, "freshness_device")
    assert [is_open for *_, is_open, _ in world.incidents("freshness_device")] == [False, False]
    told = [text.split(":")[0] for (text,) in query(world.settings, "SELECT message FROM quality_incident ORDER BY device_id")]
    assert told == ["gone", "forgotten"]
    for minute in range(40):
        world.send(17 * 1440 + minute, {"t": 1}, "gone")
    world.judge(17 * 1440 + 60, "freshness_device")
    assert [is_open for *_, is_open, _ in world.incidents("freshness_device")] == [False, False, True], "it came back, and fell silent"


def test_a_project_that_falls_silent_at_once_is_one_incident_of_devices(world: World) -> None:
    for minute in range(40):
        for device in range(12):
            world.send(minute + device / 20, {"t": 1}, f"device-{device}")
    world.judge(60, "freshness_device")
    assert world.incidents("freshness_device") == [("", "*", True, 0)]
    world.judge(15 * 1440, "freshness_device")
    assert world.incidents("freshness_device") == [("", "*", False, 0)]
    ((message,),) = query(world.settings, "SELECT message FROM quality_incident")
    assert message == "gone: none of 12 devices came back"


def test_a_flapping_device_is_one_incident(world: World) -> None:
    minute = 0
    for _ in range(4):
        for _ in range(40):
            world.send(minute, {"t": 1})
            minute += 1
        world.judge(minute, "freshness_device")
        minute += 15
        world.judge(minute, "freshness_device")
    assert world.incidents("freshness_device") == [("device", "", True, 3)]
    statuses = [row[0] for row in query(world.settings, "SELECT status FROM quality_named ORDER BY evaluated_at")]
    assert statuses == ["WARN", "OK"] * 3 + ["WARN"]
    world.configure(rule="freshness_device", hold_seconds=60)
    world.send(minute, {"t": 1})
    world.judge(minute + 1, "freshness_device")
    world.judge(minute + 30, "freshness_device")
    assert [flaps for *_, flaps in world.incidents("freshness_device")] == [3, 0], "beyond the hold time it is another one"


def test_intervals_with_too_few_messages(world: World) -> None:
    world.judge(0, "completeness")
    for minute in range(240):
        world.send(minute, {"t": 1}, "whole")
        if minute < 180 or minute % 5 == 0:
            world.send(minute + 0.25, {"t": 1}, "sparse")
    world.judge(182, "completeness")
    assert world.incidents("completeness") == []
    world.judge(242, "completeness")
    assert world.incidents("completeness") == [("sparse", "", True, 0)]
    assert query(world.settings, "SELECT message FROM quality_open")[0][0].startswith("12 messages received, about ")


def test_values_out_of_range_on_time_and_late(world: World) -> None:
    world.configure(rule="range", metric="temp", parameters={"min": -40, "max": 85})
    for minute in range(10):
        world.send(minute, {"temp": 20 + minute, "other": 1e300})
    world.judge(10, "range")
    assert world.incidents("range") == []
    world.send(11, {"temp": 20})
    world.send(12, {"temp": 400.5})
    world.judge(13, "range")
    assert world.incidents("range") == [("device", "temp", True, 0)]
    ((value, threshold, partition, offset, example),) = query(
        world.settings, "SELECT value, threshold, kafka_partition, kafka_offset, example FROM quality_open"
    )
    assert (value, threshold, partition, offset, example["value"]) == (400.5, 85, 0, 11, 400.5)
    world.send(20, {"temp": 21})
    world.judge(21, "range")
    assert world.incidents("range") == [("device", "temp", False, 0)]
    world.send(100, {"temp": -273, "ts": world.millis(-3 * 1440)}, "late")
    world.send(100, {"temp": 21}, "late")
    world.judge(101, "range")
    assert world.incidents("range")[1:] == [("late", "temp", True, 0)], "three days late, and seen"


def test_values_that_change_too_fast(world: World) -> None:
    for minute in range(10):
        world.send(minute, {"level": 10 * (minute % 2), "tank": minute})
    world.judge(10, "rate_of_change")
    assert world.incidents("rate_of_change") == [], "without a threshold nothing is judged"
    world.configure(rule="rate_of_change", metric="tank", threshold=5.0)
    for minute in range(10, 20):
        world.send(minute, {"level": 10 * (minute % 2), "tank": minute if minute < 15 else minute + 50})
    world.judge(20, "rate_of_change")
    assert world.incidents("rate_of_change") == [("device", "tank", True, 0)]
    assert query(world.settings, "SELECT value, message FROM quality_open") == [(51, "from 14 to 65 in 60.000 s")]


def test_values_that_stopped_changing(world: World) -> None:
    for minute in range(140):
        moving = (minute * 37) % 101
        world.send(
            minute,
            {
                "moving": moving,
                "stuck": moving if minute < 80 else 7,
                "setpoint": 21.5,
                "on": True,
                "slow": minute // 45,
                "flag": minute % 2 if minute < 80 else 1,
                "power": moving if minute < 80 else 0,
                "pieces": 5 * min(minute, 80),
                "coarse": -70 - minute % 4 if minute < 80 else -71,
            },
        )
        if minute % 10 == 9:
            world.judge(minute + 1, "stuck_value")
    assert world.incidents("stuck_value") == [("device", "stuck", True, 0)]
    constants = query(world.settings, "SELECT metric FROM quality_constant JOIN series USING (series_id) ORDER BY 1")
    assert constants == [("coarse",), ("flag",), ("pieces",), ("setpoint",)], (
        "a counter that stands still is looked at again when it counts"
    )
    world.send(141, {"stuck": 8})
    world.judge(142, "stuck_value")
    assert world.incidents("stuck_value") == [("device", "stuck", False, 0)]


def test_types_that_change(world: World) -> None:
    for minute in range(10):
        world.send(minute, {"n": minute, "big": 2**70 + minute, "flag": minute % 2 == 0, "text": "1"})
    world.judge(10, "type_change")
    assert world.incidents("type_change") == []
    world.send(11, {"n": "error", "big": 1, "flag": False, "text": "2"})
    world.judge(12, "type_change")
    assert world.incidents("type_change") == [("device", "n", True, 0)]
    assert query(world.settings, "SELECT message, kafka_offset FROM quality_open") == [("changed from number to text", 10)]


def test_clocks_that_moved_or_are_far_off(world: World) -> None:
    for minute in range(40):
        jump = 20 if minute >= 30 else 0
        world.send(minute, {"ts": world.millis(minute + jump), "v": minute}, "jumping")
        world.send(minute, {"ts": world.millis(minute - 45), "v": minute}, "steadily-behind")
        world.send(minute, {"v": minute}, "clockless")
        if minute % 2:  # a local time without its zone; at this interval, 5 of them behind would still be late messages
            world.send(minute, {"ts": world.millis(minute + 60), "v": minute}, "an-hour-ahead")
            world.send(minute, {"ts": world.millis(minute - 60), "v": minute}, "an-hour-late")
        if minute % 10 == 0:  # single late messages are not the clock's fault
            world.send(minute + 0.1, {"ts": world.millis(minute - 600), "v": minute}, "jumping")
        if minute % 5 == 4:
            world.judge(minute + 1, "clock_skew")
        if minute == 29:
            assert world.incidents("clock_skew") == [("an-hour-ahead", "", True, 0)]
    assert world.incidents("clock_skew") == [("an-hour-ahead", "", True, 0), ("jumping", "", True, 0)]
    for minute in (40, 41, 42):
        world.send(minute, {"ts": world.millis(minute - 240), "v": 1}, "far-behind")
    world.send(42, {"ts": world.millis(-240), "v": 1}, "begins-late")
    world.send(65, {"ts": world.millis(65), "v": 1}, "jumping")  # later than the last time that it showed
    world.judge(70, "clock_skew")
    assert world.incidents("clock_skew")[1:] == [("jumping", "", False, 0), ("far-behind", "", True, 0)]


def test_a_clock_that_drifts(world: World) -> None:
    for minute in range(240):
        world.send(minute, {"ts": world.millis(minute - minute / 10), "v": minute}, "drifting")
        world.send(minute, {"ts": world.millis(minute - 5 - minute % 3), "v": minute}, "steady")
        if minute % 5 == 4:
            world.judge(minute + 1, "clock_skew")
    assert world.incidents("clock_skew") == [("drifting", "", True, 0)], "six minutes an hour"


def test_projects_with_many_duplicates(world: World) -> None:
    for number in range(200):
        world.send(number / 10, {"ts": world.millis(number / 10), "v": 1})
        if number % 20 == 0:
            world.send(number / 10, {"ts": world.millis(number / 10), "v": 1})
    world.judge(20, "duplicate_rate")
    assert world.incidents("duplicate_rate") == [], "1 in 20 is usual"
    for number in range(60):
        world.send(21, {"ts": world.millis(number / 10), "v": 1})
    world.judge(22, "duplicate_rate")
    assert world.incidents("duplicate_rate") == [("", "", True, 0)]


def test_projects_with_conflicts_are_told_with_an_example(world: World) -> None:
    for number in range(200):
        world.send(number / 10, {"ts": world.millis(number / 10), "v": 1, "text": "open"})
    for number in range(3):
        world.send(20, {"ts": world.millis(number / 10), "v": 2})
    world.judge(21, "conflict_rate")
    assert world.incidents("conflict_rate") == [], "3 of 403 are usual"
    for number in range(30):
        world.send(22 + number / 100, {"ts": world.millis(number / 10), "text": "1"})
    world.judge(23, "conflict_rate")
    assert world.incidents("conflict_rate") == [("", "", True, 0)]
    found = query(world.settings, "SELECT value, kafka_partition, kafka_offset, message, example FROM quality_open")
    ((value, partition, offset, message, example),) = found
    assert (value, partition, offset) == (round(33 / 433, 4), 0, 200), "the first of the hour"
    assert message == (
        "33 of 433 measurements contradict another one of their series and time: one of the two is not stored, such as 1 and not 2 of v"
    )
    assert (example["device_id"], example["metric"], example["stored"], example["said"]) == ("device", "v", "1", "2")
    assert datetime.fromisoformat(example["time"]) == world.at(0)
    assert (example["kafka_partition"], example["kafka_offset"], example["log_generation"]) == (0, 200, 0)
    for number in range(200):
        world.send(90 + number / 10, {"ts": world.millis(90 + number / 10), "v": 1})
    world.judge(111, "conflict_rate")
    world.judge(130, "conflict_rate")
    assert world.incidents("conflict_rate") == [("", "", False, 0)]


def test_where_both_values_are_kept_nothing_is_missing(world: World) -> None:
    """The project's own choice wins over its tenant's, that over everybody's."""
    for number in range(100):
        world.send(number / 10, {"ts": world.millis(number / 10), "v": 1})
    for number in range(30):
        world.send(20, {"ts": world.millis(number / 10), "v": 2})
    tenant, project = PROJECT.split("/")[-2:]
    with closing(connect(world.settings)) as connection:
        set_option(connection, "conflicts", "first")
        set_option(connection, "conflicts", "last", tenant=tenant)
        set_option(connection, "conflicts", "keep", tenant=tenant, project=project)
        world.judge(21, "conflict_rate")
        assert world.incidents("conflict_rate") == []
        reset_option(connection, "conflicts", tenant=tenant, project=project)
    world.send(21.5, {"ts": world.millis(0), "v": 3})
    world.judge(22, "conflict_rate")
    assert world.incidents("conflict_rate") == [("", "", True, 0)]


def test_the_example_of_a_conflict_tells_kinds_of_values_apart(world: World) -> None:
    """Each kind of value in an hour of its own; a flood of them is named once an hour."""
    pairs = [
        (1.5, "1.5", "1.5", '"1.5"'),
        (True, False, "true", "false"),
        (9007199254740993, 9007199254740995, "9007199254740993", "9007199254740995"),
        ("a", "b" * 500, '"a"', '"' + "b" * 200 + '"'),
        (0.0, -0.0, "0", "-0"),
        ("", "\u6c34", '""', '"\u6c34"'),
        ([1, 2], [1], '"[1,2]"', '"[1]"'),
    ]
    for hour, (first, second, _, _) in enumerate(pairs):
        world.send(60 * hour, {"ts": world.millis(60 * hour), "v": first})
        for number in range(20):
            world.send(60 * hour + 1 + number, {"ts": world.millis(60 * hour), "v": second})
            if number % 7 == 0:
                world.feed.flush()
    world.feed.flush()
    text = "SELECT conflict_example ->> 'stored', conflict_example ->> 'said', measurement_conflicts FROM accounting_1h ORDER BY hour"
    assert query(world.settings, text) == [(stored, said, 20) for _, _, stored, said in pairs]


def test_projects_with_much_in_quarantine_by_reason(world: World) -> None:
    for number in range(200):
        world.send(number / 10, b"{" if number % 50 == 0 else {"v": 1})
    world.feed.send(world.at(20), b"{}", "somewhere/else")
    world.judge(20, "quarantine_rate")
    assert world.incidents("quarantine_rate") == []
    for number in range(30):
        world.send(21 + number / 10, {"ts": 0, "v": 1})
    world.judge(25, "quarantine_rate")
    assert world.incidents("quarantine_rate") == [("", "time_out_of_range", True, 0)]
    assert query(world.settings, "SELECT value, kafka_offset FROM quality_open") == [(round(30 / 230, 4), 230)]


def test_bursts_of_new_series(world: World) -> None:
    for device in range(30):
        world.send(0, {f"m{number}": 1 for number in range(20)}, f"device-{device}")
    world.judge(1, "new_series_burst")
    assert world.incidents("new_series_burst") == [], "a new project brings its series"
    world.send(2, {f"id-{number}": 1 for number in range(150)}, "bomb")
    world.judge(3, "new_series_burst")
    assert world.incidents("new_series_burst") == [("bomb", "", True, 0)]


def test_gaps_in_sequences(world: World) -> None:
    for minute in range(30):
        world.send(minute, {"seq": minute, "counter": minute * 7, "value": minute * 3})
    world.judge(30, "sequence_gap")
    assert world.incidents("sequence_gap") == [], "a counter of pulses is no sequence"
    world.send(30, {"seq": 30, "counter": 210})
    world.send(31, {"seq": 35, "counter": 245})
    world.send(32, {"seq": 0, "counter": 0})  # restarted
    world.judge(33, "sequence_gap")
    assert world.incidents("sequence_gap") == [], "they may only be late"
    for number in (1, 2, 5):
        world.send(32 + number, {"seq": number, "ts": world.millis(32 + number)})
        world.send(32 + number, {"seq": number}, "clockless")
    world.judge(38, "sequence_gap")
    for number in (3, 4, 6):  # out of order
        world.send(35 + number, {"seq": number, "ts": world.millis(32 + number)})
        world.send(35 + number, {"seq": number}, "clockless")
    world.judge(44, "sequence_gap")
    assert world.incidents("sequence_gap") == [("device", "seq", True, 0)]
    assert query(world.settings, "SELECT value, kafka_offset FROM quality_open") == [(4, 31)]
    world.judge(60, "sequence_gap")
    assert [flaps for *_, flaps in world.incidents("sequence_gap")] == [0]
    assert query(world.settings, "SELECT count(*) FROM quality_gap") == [(0,)]


def test_hours_of_the_rollup_that_differ(world: World) -> None:
    for minute in range(120):
        world.send(minute, {"a": minute, "b": minute})
    world.feed.flush()
    assert roll_up(world.settings, until=world.at(120)).complete
    query(world.settings, "UPDATE measurement_1h_stored SET value_sum = value_sum + 1 WHERE bucket = %s AND series_id = 1", world.at(60))
    world.judge(121, "rollup_equals_source")
    assert [(metric, is_open) for _, metric, is_open, _ in world.incidents("rollup_equals_source")] == [("a", True)]
    query(world.settings, "UPDATE measurement_1h_stored SET value_sum = value_sum - 1 WHERE bucket = %s AND series_id = 1", world.at(60))
    world.judge(241, "rollup_equals_source")
    assert [is_open for *_, is_open, _ in world.incidents("rollup_equals_source")] == [False]


def test_a_ledger_with_a_hole(world: World) -> None:
    for minute in range(3):
        world.send(minute, {"v": 1})
        world.judge(minute, "ledger_continuous")
    assert world.incidents("ledger_continuous") == []
    query(world.settings, "DELETE FROM ledger WHERE from_offset = 1")
    world.send(4, {"v": 1})
    world.judge(5, "ledger_continuous")
    assert [is_open for _, _, is_open, _ in world.incidents("ledger_continuous")] == [True]
    with closing(connect(world.settings)) as connection:
        (incident,) = read_incidents(connection)
    assert (incident.severity, incident.kafka_partition, incident.kafka_offset) == ("ERROR", 0, 1)
