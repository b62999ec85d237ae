"""`iot replay` against real servers: what moves, what is added, what comes back from Kafka, and that nothing else changes."""

import json
import struct
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from confluent_kafka.admin import NewTopic
from typer.testing import CliRunner, Result

from iot_platform.cli.main import app
from iot_platform.settings import Settings
from iot_platform.telemetry.replay.replay import Replay, Selection, Tally
from iot_platform_tests.support.feeds.drain import Feed, check_books, delete_records, drain, kafka_admin, query

PLANT = "plant/{tenant}/line/{project}/{device...}"
TABLES = ("message", "quarantine", "measurement", "series_latest", "ledger", "accounting_1h", "series", "source", "project")


@pytest.fixture
def feed(settings: Settings) -> Feed:
    return Feed(settings)


def replay(settings: Settings, dry_run: bool = False, **selection: Any) -> Tally:
    return Replay(settings, Selection(**selection), dry_run=dry_run).run()


def changed(settings: Settings, **values: Any) -> Settings:
    return settings.model_copy(update=values)


def contents(settings: Settings) -> list[Any]:
    """Everything that a replay could change."""
    return [query(settings, f"SELECT t::text FROM {table} t ORDER BY 1") for table in TABLES]


def rows(settings: Settings, table: str) -> list[tuple[Any, ...]]:
    """What of a record must never change, wherever it is."""
    columns = "kafka_partition, kafka_offset, received_at, sequence, connection_id, packet_id, flags, duplicate_of, payload"
    return query(settings, f"SELECT {columns} FROM {table} ORDER BY 1, 2")


def iot(settings: Settings, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Result:
    monkeypatch.setattr("iot_platform.settings.get_settings", lambda: settings)
    return CliRunner().invoke(app, ["replay", *arguments], catch_exceptions=False)


def problems(settings: Settings) -> list[str]:
    """What the audit of offsets finds."""
    return [text for (text,) in query(settings, "SELECT problem FROM audit_offsets('-infinity') WHERE problem IS NOT NULL ORDER BY 1")]


def fill_plant(feed: Feed, count: int = 400) -> None:
    """Messages of two tenants under a topic shape that the pattern does not know; among good ones, broken ones and redelivered copies."""
    for number in range(count):
        topic = f"plant/t{number % 2}/line/p{number % 3}/d{number % 7}"
        payload = json.dumps({"n": number, "x": number / 7, "s": f"é{number}", "big": 2**60 + 2 * number + 1}).encode()
        feed.send(payload, topic=topic, partition=number % 2, packet=number + 1)
        feed.send(b'{"ok": %d}' % number, partition=number % 2)
        if number % 50 == 0:
            feed.send(payload, topic=topic, partition=number % 2, packet=number + 1, connection=2, dup=True)
            feed.send(b"broken", topic=topic, partition=number % 2)
            feed.send(b"\xff", topic=b"plant/\xff/line/p/d", partition=number % 2)
    feed.flush()
    drain(feed.settings)


def test_a_new_topic_pattern_brings_quarantined_messages_home(settings: Settings, feed: Feed) -> None:
    fill_plant(feed)
    fixed = changed(settings, topic_pattern=PLANT, drain_batch_records=100)
    before = rows(settings, "message") + rows(settings, "quarantine")
    kept = query(settings, "SELECT m::text FROM message m")
    assert query(settings, "SELECT reason, count(*) FROM quarantine GROUP BY 1") == [("topic_mismatch", 424)]
    tally = replay(fixed, quarantined=True, reasons=("topic_mismatch",))
    assert (tally.moved, tally.moved_copies, tally.still_bad, tally.updated) == (408, 8, 16, 16)  # the details name the pattern
    assert tally.reasons == {
        ("topic_mismatch", "message"): 408, ("topic_mismatch", "not_json"): 8, ("topic_mismatch", "topic_mismatch"): 8,
    }  # fmt: skip
    assert (tally.measurements, tally.measurement_duplicates, tally.measurement_conflicts) == (1600, 0, 0)
    assert sum(tally.projects.values()) == 408
    check_books(settings)
    assert sorted(rows(settings, "message") + rows(settings, "quarantine")) == sorted(before)
    assert set(kept) <= set(query(settings, "SELECT m::text FROM message m"))
    found = query(
        settings,
        "SELECT tenant_id, project_id, device_id, metric, value, value_int, value_text FROM measurement_named WHERE tenant_id LIKE 't%%'",
    )
    expected = set()
    for number in range(400):
        names = (f"t{number % 2}", f"p{number % 3}", f"d{number % 7}")
        expected |= {
            (*names, "n", bits(number), None, None),
            (*names, "x", bits(number / 7), None, None),
            (*names, "s", None, None, f"é{number}"),
            (*names, "big", bits(float(big := 2**60 + 2 * number + 1)), big, None),
        }
    assert {(*row[:4], bits(row[4]), *row[5:]) for row in found} == expected
    ledger = query(settings, "SELECT sum(messages), sum(quarantined), sum(duplicates), sum(measurements) FROM ledger WHERE kind = 'replay'")
    assert ledger == [(408, -408, 0, 1600)]
    assert query(settings, "SELECT min(quarantined), min(duplicates) FROM accounting_1h") == [(0, 0)]
    assert problems(settings) == []
    again = contents(settings)
    assert replay(fixed, quarantined=True).moved == 0
    assert contents(settings) == again


def bits(value: float | None) -> bytes | None:
    return None if value is None else struct.pack(">d", value)


def test_a_dry_run_tells_everything_and_changes_nothing(settings: Settings, feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_plant(feed, 100)
    query(settings, "DELETE FROM measurement WHERE value < 10")
    before = contents(settings)
    fixed = changed(settings, topic_pattern=PLANT)
    result = iot(fixed, monkeypatch, "--from", "1h", "--dry-run", "--json")
    assert result.exit_code == 0, result.output
    output = json.loads(result.stdout)
    assert contents(settings) == before
    done = Replay(fixed, Selection()).run()
    assert {name: output[name] for name in output if name in done.to_json() and name != "samples"} == {
        name: value for name, value in done.to_json().items() if name != "samples"
    }
    assert done.moved == 102
    assert done.refused == 100  # the plant's pattern knows no other topic
    assert done.samples
    text = iot(fixed, monkeypatch, "--quarantined", "--dry-run").output
    assert "dry run: nothing was changed" in text
    assert "not_json" in text


def test_messages_get_the_measurements_they_lack(settings: Settings, feed: Feed) -> None:
    for number in range(60):
        feed.send(b'{"ts": %d, "a": %d, "b": 1}' % (1_790_000_000_000 + number % 50, number), partition=number % 2)
    feed.flush()
    drain(changed(settings, time_window_past_seconds=10**10, time_window_future_seconds=10**10))
    wide = changed(settings, time_window_past_seconds=10**10, time_window_future_seconds=10**10)
    check_books(settings)
    full = query(settings, "SELECT m::text FROM measurement m ORDER BY 1")
    assert replay(wide, start=1).measurements == 0
    assert query(settings, "SELECT count(*) FROM ledger WHERE kind = 'replay'") == [(0,)]
    query(settings, "DELETE FROM measurement WHERE extract(milliseconds FROM time)::int %% 3 = 0")
    gone = len(full) - query(settings, "SELECT count(*) FROM measurement")[0][0]
    tally = replay(wide, partition=0, first=0, last=30)
    tally.add(replay(wide, partition=1, first=0, last=30))
    assert (tally.measurements, tally.read) == (gone, 60)
    assert len(query(settings, "SELECT FROM measurement")) == len(full)
    assert replay(wide, start=1).measurements == 0


def test_what_the_rules_of_today_would_refuse_stays(settings: Settings, feed: Feed) -> None:
    for number in range(10):
        feed.send(b'{"n": %d}' % number)
    feed.flush()
    drain(settings)
    before = contents(settings)
    tally = replay(changed(settings, topic_pattern=PLANT), partition=0, first=0, last=99)
    assert (tally.read, tally.refused, tally.moved) == (10, 10, 0)
    assert "drained to offset 10" in tally.notes[0]
    assert contents(settings) == before


def test_ranges_of_offsets_and_times_and_a_tenant(settings: Settings, feed: Feed) -> None:
    fill_plant(feed, 40)
    fixed = changed(settings, topic_pattern=PLANT)

    def left(text: str = "true") -> int:
        count: int = query(settings, f"SELECT count(*) FROM quarantine WHERE {text}")[0][0]
        return count

    inside = left("kafka_partition = 1 AND kafka_offset >= 3 AND kafka_offset < 20")
    total = left()
    assert replay(fixed, partition=1, first=3, last=20, quarantined=True).moved == inside > 0
    assert left() == total - inside
    edge = query(settings, "SELECT received_at FROM quarantine ORDER BY received_at OFFSET 9 LIMIT 1")[0][0]
    edge_us = (edge - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    tally = replay(fixed, end=edge_us)
    assert tally.moved + tally.still_bad == 9
    tally = replay(fixed, tenant="t1", quarantined=True)
    assert tally.projects.keys() == {("t1", f"p{number}") for number in range(3)}
    assert left("topic LIKE 'plant/t1/%%' AND payload <> 'broken'") == 0 < left("topic LIKE 'plant/t0/%%' AND payload <> 'broken'")
    replay(fixed, quarantined=True, tenant="t0", project="p0")
    assert left("topic LIKE 'plant/t0/line/p0/%%' AND payload <> 'broken'") == 0
    assert replay(fixed, quarantined=True, reasons=("bad_name",)).read == 0
    replay(fixed, quarantined=True)
    assert left("topic LIKE 'plant/t0/%%' AND payload <> 'broken'") == 0
    check_books(settings)


def test_the_series_limit_is_judged_anew(settings: Settings, feed: Feed) -> None:
    for number in range(20):
        feed.send(b'{"m%d": 1}' % number)
    feed.flush()
    drain(changed(settings, max_series_per_project=5))
    assert query(settings, "SELECT count(*) FROM quarantine WHERE reason = 'series_limit'") == [(15,)]
    ten = changed(settings, max_series_per_project=10)
    assert replay(ten, quarantined=True, dry_run=True).moved == 5
    tally = replay(ten, quarantined=True, reasons=("series_limit",))
    assert (tally.moved, tally.still_bad, tally.updated) == (5, 10, 10)  # the detail names the limit
    assert replay(settings, quarantined=True).moved == 10
    check_books(settings)


def test_lost_offsets_come_back_from_kafka(settings: Settings, feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    first = feed.send(b'{"n": 0}', packet=7)
    feed.send(b"broken")
    feed.again(first)
    feed.send(b'{"n": 3}', header=False)
    feed.send(b'{"n": 0}', packet=7, connection=2, dup=True)
    feed.send(b'{"n": 0}', packet=9, connection=3, earlier=[first])
    for number in range(6, 30):
        feed.send(b'{"n": %d}' % number)
    feed.flush()
    drain(changed(settings, drain_batch_records=7))
    assert query(settings, "SELECT kafka_offset, duplicate_of FROM message WHERE duplicate_of >= 0 ORDER BY 1") == [(2, 0), (4, 0), (5, 0)]
    before = contents(settings)[:6]
    victims = "kafka_offset IN (0, 1, 2, 3, 4, 5, 11, 29)"
    query(settings, f"DELETE FROM message WHERE {victims}")
    query(settings, f"DELETE FROM quarantine WHERE {victims}")
    query(settings, "DELETE FROM measurement WHERE value IN (0, 11)")
    assert len(problems(settings)) == 3
    result = iot(settings, monkeypatch, "--partition", "0", "--offsets", "0:30", "--json")
    assert result.exit_code == 0, result.output
    output = json.loads(result.stdout)
    assert (output["restored"], output["restored_bad"], output["measurements"], output["lost"]) == (8, 1, 2, 0)
    after = contents(settings)[:6]
    assert [after[index] for index in (0, 1, 2, 3, 5)] == [before[index] for index in (0, 1, 2, 3, 5)]
    noted = query(settings, "SELECT kind, messages, measurements, detail FROM ledger WHERE kind = 'replay'")
    assert noted == [("replay", 0, 0, "restored 8")]
    check_books(settings)
    assert problems(settings) == []
    assert replay(settings, partition=0, first=0, last=30).restored == 0


def test_offsets_that_no_batch_covers_come_back_and_are_counted(settings: Settings, feed: Feed) -> None:
    """next_offset was moved by hand: the drain left out what is between, and nobody ever counted it."""
    for number in range(12):
        feed.send(b'{"n": %d}' % number if number != 6 else b"broken")
        if number == 3:
            feed.flush()
            drain(settings)
            query(settings, "UPDATE kafka_offset SET next_offset = 8 WHERE kafka_partition = 0")
    feed.flush()
    drain(settings)
    assert query(settings, "SELECT from_offset, to_offset FROM ledger ORDER BY 1") == [(0, 4), (8, 12)]
    assert problems(settings) == ["partition 0: offset 4-7 is in no batch of the ledger"]
    assert replay(settings, dry_run=True, partition=0, first=0, last=12).restored == 4
    tally = replay(settings, partition=0, first=0, last=12)
    assert (tally.restored, tally.restored_bad, tally.measurements, tally.notes) == (4, 1, 3, [])
    noted = query(settings, "SELECT from_offset, to_offset, messages, quarantined, measurements FROM ledger WHERE kind = 'replay'")
    assert noted == [(4, 8, 3, 1, 3)]
    assert query(settings, "SELECT sum(messages), sum(quarantined) FROM accounting_1h") == [(11, 1)]
    offsets = query(settings, "SELECT kafka_offset FROM message UNION ALL SELECT kafka_offset FROM quarantine ORDER BY 1")
    assert offsets == [(number,) for number in range(12)]
    assert problems(settings) == []
    before = contents(settings)
    assert replay(settings, partition=0, first=0, last=12).elsewhere == 4
    assert contents(settings) == before


def test_offsets_that_cannot_come_back_are_named(settings: Settings, feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        feed.send(b'{"n": %d}' % number)
    feed.flush()
    drain(settings)
    query(settings, "DELETE FROM message WHERE kafka_offset IN (2, 3, 15)")
    delete_records(settings, 0, 10)
    result = iot(settings, monkeypatch, "--partition", "0", "--offsets", "0:20")
    assert result.exit_code == 1
    assert "2 offsets from 2 to 3 are in neither table and cannot be restored (Kafka's log begins at 10)" in result.output
    assert query(settings, "SELECT count(*) FROM message") == [(18,)]
    query(settings, "DELETE FROM message WHERE kafka_offset = 12")
    with kafka_admin(settings) as client:
        client.delete_topics([settings.kafka_topic])[settings.kafka_topic].result(30)
    result = iot(settings, monkeypatch, "--partition", "0", "--offsets", "12:13")
    assert (result.exit_code, "has no topic" in result.output or "does not answer" in result.output) == (1, True)
    with kafka_admin(settings) as client:
        client.create_topics([NewTopic(settings.kafka_topic, 2)])[settings.kafka_topic].result(30)
    for number in range(20):
        feed.send(b'{"other": %d}' % number)
    feed.flush()
    result = iot(settings, monkeypatch, "--partition", "0", "--offsets", "12:13")
    assert result.exit_code == 1
    assert "is not the one that was drained" in result.output
    assert query(settings, "SELECT count(*) FROM message WHERE kafka_offset = 12") == [(0,)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "say what to replay"),
        (("--tenant", "x"), "say what to replay"),
        (("--partition", "1"), "belong together"),
        (("--partition", "1", "--offsets", "5:5"), "no range"),
        (("--partition", "1", "--offsets", "5:6", "--from", "1h"), "not by both"),
        (("--reason", "nonsense"), "topic_mismatch"),
        (("--from", "yesterday"), "no time"),
        (("--from", "1h", "--to", "2h"), "before"),
    ],
)
def test_usage_that_means_nothing(arguments: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    result = iot(Settings(), monkeypatch, *arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.output.replace("│", " ").split())


def test_servers_and_partitions_that_are_not_there(settings: Settings, feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    result = iot(settings, monkeypatch, "--quarantined")
    assert (result.exit_code, "never drained" in result.output) == (1, True)
    feed.send(b"{}")
    feed.flush()
    drain(settings)
    result = iot(settings, monkeypatch, "--partition", "9", "--offsets", "0:1")
    assert (result.exit_code, "there are: 0, 1" in result.output) == (1, True)
    nowhere = changed(settings, database_url=settings.database_url.__class__("postgresql://iot_writer@127.0.0.1:1/iot"))
    result = iot(nowhere, monkeypatch, "--quarantined")
    assert (result.exit_code, "IOT_DATABASE_URL" in result.output) == (2, True)
