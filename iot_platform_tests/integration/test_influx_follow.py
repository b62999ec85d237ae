"""A real InfluxDB follows the ledger: the same points with the same values, whatever the projects' options, kills and repetitions."""

import gzip
import json
import time
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from iot_platform.audit import AuditResult, run_audit
from iot_platform.database import connect
from iot_platform.imports.run import Import
from iot_platform.influx import backfill
from iot_platform.influx.books import Books
from iot_platform.influx.client import InfluxClient
from iot_platform.influx.compare import Difference, compare
from iot_platform.influx.errors import InfluxConfigError
from iot_platform.influx.follow import Follower
from iot_platform.influx.target import Target, target
from iot_platform.settings import Settings
from iot_platform.telemetry.project_options import set_option
from iot_platform.tenants.deletion import delete_tenant
from iot_platform_tests.support.feeds.drain import TOPIC, Feed, drain, query
from iot_platform_tests.support.servers.influxd import Influxd, InfluxDatabase, new_database

TENANT, PROJECT = TOPIC.split("/")[-2:]
DAY_US = 86_400_000_000


@pytest.fixture
def feed(settings: Settings) -> Feed:
    return Feed(settings)


@pytest.fixture
def base() -> int:
    """A moment yesterday, in µs: in one hour with what follows within minutes."""
    return (time.time_ns() // 1000 // 3_600_000_000 - 30) * 3_600_000_000


@pytest.fixture
def sunk(settings: Settings, influx: InfluxDatabase) -> Settings:
    """The settings with the test's InfluxDB."""
    return with_url(settings, influx.url)


def with_url(settings: Settings, url: str, **more: object) -> Settings:
    return settings.model_copy(update={"influx_url": SecretStr(url), **more})


def follow(settings: Settings, name: str | None = None) -> Follower:
    follower = Follower(settings, target(settings, name))
    follower.run()
    return follower


def differences(settings: Settings, name: str | None = None) -> list[Difference]:
    """Of all that both have, of the last days and the next one."""
    now = datetime.now(UTC)
    found = compare(settings, target(settings, name), now - timedelta(days=4), now + timedelta(days=1))
    assert found.equal is (not found.differences)
    assert audited(settings).differences == [], "whatever the store refused or lost since, every record was followed"
    return found.differences


def audited(settings: Settings) -> AuditResult:
    """What the audit says of the sinks."""
    return run_audit(settings, proofs=("sinks",))


def count(settings: Settings) -> int:
    return int(query(settings, "SELECT count(*) FROM measurement")[0][0])


def test_every_kind_of_value_arrives_exactly(feed: Feed, sunk: Settings, influx: InfluxDatabase, base: int) -> None:
    values = [21.5, -0.0, 5e-324, 1.7976931348623157e308, 9007199254740993, -9223372036854775808, 9223372036854775807, 2**70, True, False]
    texts = ["", "true", 'a"b\\', "two\nlines", "温度 °C", "a,b =c\\", "\\"]
    for number, value in enumerate([*values, *texts]):
        feed.send(
            json.dumps({"ts": base + number, "deviceId": "d 1,=", "m": value, 'odd ,="\\\t%41 °C\\': value}).encode(), partition=number % 2
        )
    feed.send(b"not json")
    feed.send(b"{}")
    feed.send(json.dumps({"temp": 1}).encode())
    feed.flush()
    drain(sunk)
    progress = follow(sunk).progress
    assert (progress.written, progress.refused) == (count(sunk), 0)
    assert differences(sunk) == []
    assert follow(sunk).progress.records == 0
    assert len(influx.ask("SHOW SERIES")) == int(query(sunk, "SELECT count(*) FROM sink_series")[0][0]) == 3
    assert query(sunk, "SELECT sum(lag)::int, count(waiting_since)::int FROM sink_progress") == [(0, 0)]


@pytest.mark.parametrize("policy", ["first", "last", "keep"])
def test_conflicts_show_what_the_main_store_shows(feed: Feed, sunk: Settings, influx: InfluxDatabase, base: int, policy: str) -> None:
    with closing(connect(sunk, "writer", "test")) as connection:
        set_option(connection, "conflicts", policy, tenant=TENANT, project=PROJECT)

    def send(*values: object) -> None:
        for value in values:
            feed.send(json.dumps({"ts": base, "temp": value}).encode())
        feed.send(json.dumps({"ts": base + 10, "temp": 1}).encode())
        feed.flush()
        drain(sunk)
        follow(sunk)

    send(20.5, 21)
    assert differences(sunk) == []
    send(22, "err")  # another kind of field, for a point that is there
    assert differences(sunk) == []
    send(True, 23)
    assert differences(sunk) == []
    assert len(influx.ask("SELECT * FROM iot")) == count(sunk)


def test_what_was_killed_between_204_and_the_offset_is_repeated_harmlessly(
    feed: Feed, sunk: Settings, influx: InfluxDatabase, base: int
) -> None:
    for number in range(50):
        feed.send(json.dumps({"ts": base + number, "temp": number}).encode(), partition=number % 2)
    feed.flush()
    drain(sunk)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Books, "advance", lambda *_: (_ for _ in ()).throw(InfluxConfigError("killed here")))
        with pytest.raises(InfluxConfigError):
            follow(sunk)
    assert influx.ask("SELECT count(value) FROM iot") != []
    assert query(sunk, "SELECT sum(next_offset)::int FROM sink_offset") == [(0,)]
    assert query(sunk, "SELECT error FROM sink") == [("killed here",)]
    follow(sunk)
    assert differences(sunk) == []
    assert query(sunk, "SELECT error FROM sink") == [(None,)]


def test_a_foreign_type_costs_the_points_that_cannot_be_kept_and_no_others(
    feed: Feed, sunk: Settings, influx: InfluxDatabase, base: int
) -> None:
    with InfluxClient(influx.target) as client:  # somebody else's client: an integer, first in this week
        client.write(f"iot,tenant=x value=1i {base}000".encode())
    for number in range(10):
        feed.send(json.dumps({"ts": base + number, "temp": number + 0.5, "state": "ok"}).encode())
    feed.flush()
    drain(sunk)
    progress = follow(sunk).progress
    assert (progress.written, progress.refused) == (10, 10)
    assert {reason for (reason,) in query(sunk, "SELECT reason FROM sink_refused")} == {"server"}
    assert "field type conflict" in query(sunk, "SELECT min(detail) FROM sink_refused")[0][0]
    assert [found.metric for found in differences(sunk)] == ["temp", ""]  # what is lacking, and the other client's point
    with InfluxClient(influx.target) as client:
        client.query("DROP MEASUREMENT iot")
    with closing(connect(sunk, "writer", "test")) as connection:
        backfill.add(connection, "influx", datetime.now(UTC) - timedelta(days=5), datetime.now(UTC))
    follow(sunk)
    assert query(sunk, "SELECT count(*)::int FROM sink_refused") == [(0,)]
    assert query(sunk, "SELECT count(*)::int FROM sink_backfill") == [(0,)]
    assert differences(sunk) == []


def test_what_is_older_than_the_sink_keeps_is_set_aside(feed: Feed, settings: Settings, influxd: Influxd, base: int) -> None:
    influx = new_database(influxd, "WITH DURATION 3d")
    sunk = with_url(settings, influx.url)
    feed.send(json.dumps({"ts": base - 10 * DAY_US, "temp": 1}).encode())
    feed.send(json.dumps({"ts": base, "temp": 2}).encode())
    feed.flush()
    drain(sunk)
    progress = follow(sunk).progress
    assert (progress.written, progress.refused) == (1, 1)
    assert query(sunk, "SELECT reason FROM sink_refused") == [("retention",)]


def test_more_series_than_allowed_are_not_sent(feed: Feed, sunk: Settings, base: int) -> None:
    for number in range(5):
        feed.send(json.dumps({"ts": base, f"m{number}": 1}).encode())
    feed.flush()
    drain(sunk)
    progress = follow(sunk.model_copy(update={"influx_max_series": 3})).progress
    assert (progress.written, progress.refused) == (3, 2)
    assert set(query(sunk, "SELECT reason, detail FROM sink_refused")) == {
        ("series_limit", "the sink has 3 series already (IOT_INFLUX_MAX_SERIES)")
    }


@pytest.mark.parametrize(
    ("more", "words"),
    [("x", "IOT_INFLUX_URL: it has no such database"), ("?rp=none", "IOT_INFLUX_URL: it has no such retention policy")],
)
def test_what_a_setting_causes_stops_the_run(feed: Feed, settings: Settings, influx: InfluxDatabase, more: str, words: str) -> None:
    feed.send(json.dumps({"temp": 2}).encode())
    feed.flush()
    drain(settings)
    with pytest.raises(InfluxConfigError, match=words):
        follow(with_url(settings, influx.url + more))
    assert query(settings, "SELECT sum(next_offset)::int FROM sink_offset") == [(0,)]


def test_two_sinks_follow_by_themselves(feed: Feed, settings: Settings, influxd: Influxd, base: int) -> None:
    one, two = new_database(influxd), new_database(influxd)
    sunk = with_url(settings, f"one={one.url}, two={two.url}")
    feed.send(json.dumps({"ts": base, "temp": 2}).encode())
    feed.flush()
    drain(sunk)
    follow(sunk, "one")
    assert differences(sunk, "one") == []
    assert len(differences(sunk, "two")) == 1
    follow(sunk, "two")
    assert differences(sunk, "two") == []
    with pytest.raises(InfluxConfigError, match="which sink"):
        target(sunk, None)


def test_a_deleted_tenant_goes_from_the_sink_too(feed: Feed, sunk: Settings, influx: InfluxDatabase, base: int) -> None:
    other = TOPIC.replace(TENANT, "other")
    for topic in (TOPIC, other):
        feed.send(json.dumps({"ts": base, "temp": 2}).encode(), topic=topic)
    feed.flush()
    drain(sunk)
    follow(sunk)
    delete_tenant(sunk, TENANT, requested_by="test")
    feed.send(json.dumps({"ts": base + 1, "hum": 3}).encode())  # a new one of that name
    feed.flush()
    drain(sunk)
    assert follow(sunk).progress.deletions == [TENANT]
    assert differences(sunk) == []
    assert len(influx.ask("SELECT value FROM iot")) == 2
    assert query(sunk, "SELECT count(*)::int FROM sink_series") == [(2,)]


def test_messages_that_retention_removed_are_made_up_for_by_time(feed: Feed, sunk: Settings, base: int) -> None:
    feed.send(json.dumps({"ts": base, "temp": 2}).encode())
    feed.flush()
    drain(sunk)
    with closing(connect(sunk, "writer", "test")) as connection:
        Books(connection, "influx", sunk.kafka_topic).open()
    query(sunk, "DELETE FROM message")
    query(sunk, "INSERT INTO retention_mark (table_name, removed_before) VALUES ('message', now() + interval '1 hour')")
    progress = follow(sunk).progress
    assert (progress.records, query(sunk, "SELECT count(*)::int FROM sink_backfill")) == (0, [(0,)])
    assert differences(sunk) == []


def test_the_audit_adds_up_what_a_sink_followed_and_names_what_it_left_out(feed: Feed, sunk: Settings, base: int) -> None:
    def send(count: int) -> None:
        for number in range(count):
            feed.send(json.dumps({"ts": base + number, "temp": number, "state": "on"}).encode())
        feed.send(b"not json")
        feed.flush()
        drain(sunk)

    send(10)
    follow(sunk)
    send(10)  # the same again: duplicates
    follow(sunk)
    send(3)
    (row,) = (row for row in audited(sunk).sinks if row.stored)
    assert (row.sink, row.from_offset, row.to_offset) == ("influx", 0, 22)
    assert (row.stored, row.followed, row.removed, row.waiting) == (26, 22, 0, 4)
    assert (row.points, row.sent, row.refused) == (40, 40, 0)
    assert query(sunk, "SELECT count(*)::int FROM sink_range") == [(1,)]
    follow(sunk)
    assert differences(sunk) == []

    def problem(change: str, undo: str) -> str:
        query(sunk, change)
        (found,) = audited(sunk).differences
        assert (found.kind, found.place) == ("sinks", "sink influx partition 0 offset 0-25")
        query(sunk, undo)
        return found.text.rpartition(": ")[2]

    def column(name: str, sign: str) -> str:
        return f"UPDATE sink_range SET {name} = {name} {sign} 1"

    assert problem(column("records", "-"), column("records", "+")) == "26 records stored, but 25 followed"
    assert problem(column("values_read", "-"), column("values_read", "+")) == "46 measurements counted, but 45 read"
    assert problem(column("points_sent", "-"), column("points_sent", "+")) == "46 points found, but 45 sent or refused"
    lost = "UPDATE sink_range SET records = records {0} 1, removed = removed {1} 1"
    assert problem(lost.format("-", "+"), lost.format("+", "-")) == "1 records were not found, and nothing makes up for them"


def test_a_range_that_was_passed_over_is_named(feed: Feed, sunk: Settings, base: int) -> None:
    for number in range(3):
        feed.send(json.dumps({"ts": base + number, "temp": number}).encode())
        feed.flush()
        drain(sunk)
    with closing(connect(sunk, "writer", "test")) as connection:
        Books(connection, "influx", sunk.kafka_topic).open()
    query(sunk, "UPDATE sink_offset SET next_offset = 1 WHERE kafka_partition = 0")
    follow(sunk)
    assert audited(sunk).differences == [], "where a sink begins is no difference"
    query(sunk, "UPDATE sink_range SET to_offset = 2, records = 1, values_read = 1, points_found = 1, points_sent = 1")
    (found,) = audited(sunk).differences
    assert found.text.endswith("1 records behind it passed over")


def test_what_is_decoded_otherwise_than_by_the_drain_is_copied_by_time(feed: Feed, sunk: Settings, base: int) -> None:
    codecs = ({"topic": "mtic/msg/client/realtime/+/+", "codec": "json", "compression": "gzip"},)
    feed.send(gzip.compress(json.dumps({"ts": base, "temp": 2}).encode()))
    feed.flush()
    drain(sunk.model_copy(update={"topic_codecs": codecs}))
    assert follow(sunk).progress.records == 1  # its settings do not know the codec yet
    assert query(sunk, "SELECT by_time, values_read::int FROM sink_range") == [(True, 0)]
    assert differences(sunk) == []


def test_imports_arrive_too(sunk: Settings, base: int, tmp_path: Path) -> None:
    mapping, file = tmp_path / "mapping.toml", tmp_path / "history.lp"
    mapping.write_text('tenant = { value = "acme" }\nproject = { value = "hall" }\ndevice = { tag = "host" }\n')
    lines = [f"m,host=h{at % 3} v={at} {base + at}000" for at in range(50)]
    file.write_text("\n".join([*lines, f"m,host=h0 v=-1 {base}000"]))
    assert Import(sunk, file, mapping).run().books.counts["measurement_conflicts"] > 0
    assert follow(sunk).progress.records == 51
    assert count(sunk) == 50
    assert differences(sunk) == []


def test_compare_names_the_first_difference(feed: Feed, sunk: Settings, influx: InfluxDatabase, base: int) -> None:
    for number in range(3):
        feed.send(json.dumps({"ts": base + number, "temp": number}).encode())
    feed.flush()
    drain(sunk)
    follow(sunk)
    with InfluxClient(influx.target) as client:
        client.query(f"DELETE FROM iot WHERE time = {base + 1}000")
    (found,) = differences(sunk)
    assert (found.tenant, found.metric, found.here, found.there, found.time_us) == (TENANT, "temp", 3, 2, base + 1)
    only = compare(sunk, replace(target(sunk, None)), datetime.now(UTC) - timedelta(days=4), datetime.now(UTC), tenant="other")
    assert only.equal


def test_a_target_is_what_the_url_says() -> None:
    found = target(Settings(influx_url=SecretStr("plant=https://:to%2Cken@[::1]/a%20b?rp=year")), None)
    assert found == Target("plant", "https://[::1]:8086", "a b", "year", "", "to,ken")
