"""Sparkplug B on real servers: aliases outlive drain runs, an alias changes its meaning with a birth only, nothing is guessed or lost."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from iot_platform.diagnostics.trace import follow
from iot_platform.drills.rig.wire import Point
from iot_platform.metrics.totals import Totals
from iot_platform.settings import Settings
from iot_platform.telemetry.replay.replay import Replay, Selection
from iot_platform_tests.support.children.drain import CLAIM, COMMAND
from iot_platform_tests.support.children.killer import Killer
from iot_platform_tests.support.feeds.drain import Feed, check_books, drain, query
from iot_platform_tests.support.feeds.sparkplug import CODECS, INT64, metric, nbirth, ndeath, payload
from iot_platform_tests.support.servers.ingest import Daemon, await_records, forget, publish
from iot_platform_tests.support.servers.stack import Servers
from iot_platform_tests.support.waiting import eventually


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"topic_codecs": CODECS})


@pytest.fixture
def feed(settings: Settings) -> Feed:
    return Feed(settings)


def topic(kind: str, device: str = "", node: str = "node") -> str:
    return f"spBv1.0/plant/{kind}/{node}" + (f"/{device}" if device else "")


def values(settings: Settings) -> list[tuple[object, ...]]:
    """Everything but bdSeq, in order of time."""
    text = "SELECT device_id, metric, value FROM measurement_named WHERE metric <> 'bdSeq' ORDER BY time, device_id, metric"
    return query(settings, text)


def quarantined(settings: Settings) -> list[tuple[object, ...]]:
    return query(settings, "SELECT reason, count(*) FROM quarantine GROUP BY 1 ORDER BY 1")


def test_aliases_outlive_drains_and_change_with_births(settings: Settings, feed: Feed) -> None:
    feed.send(nbirth(metric(1.0, name="temp", alias=1), metric(2.0, name="hum", alias=2)), topic=topic("NBIRTH"))
    feed.send(payload(1, metric(3, name="count", alias=7, datatype=INT64)), topic=topic("DBIRTH", "pump"))
    feed.flush()
    drain(settings)
    feed.send(payload(2, metric(10.0, alias=1)), topic=topic("NDATA"))
    feed.send(payload(3, metric(-4, alias=7, datatype=INT64)), topic=topic("DDATA", "pump"))
    feed.flush()
    drain(settings)  # another run: what it knows is in the database
    feed.send(payload(4, metric(11.0, alias=1)), topic=topic("NDATA"))
    feed.send(nbirth(metric(5.0, name="hum", alias=1), metric(6.0, name="temp", alias=2), bd_seq=1), topic=topic("NBIRTH"))
    feed.send(payload(1, metric(12.0, alias=1)), topic=topic("NDATA"))
    feed.send(payload(2, metric(-5, alias=7, datatype=INT64)), topic=topic("DDATA", "pump"))  # void: no DBIRTH since
    feed.flush()
    drain(settings)
    assert values(settings) == [
        ("node", "hum", 2.0), ("node", "temp", 1.0), ("node/pump", "count", 3.0), ("node", "temp", 10.0), ("node/pump", "count", -4.0),
        ("node", "temp", 11.0), ("node", "hum", 5.0), ("node", "temp", 6.0), ("node", "hum", 12.0),
    ]  # fmt: skip
    assert quarantined(settings) == [("no_birth", 1)]
    check_books(settings)
    traced = [(item["metric"], item["value"], item["state"]) for item in follow(settings, 0, 2).measurements]
    assert traced == [("temp", 10.0, "present")]
    before = query(settings, "SELECT m::text FROM measurement m ORDER BY 1")
    assert Replay(settings, Selection()).run().measurements == 0  # each message by the births before it, in any order
    assert query(settings, "SELECT m::text FROM measurement m ORDER BY 1") == before


def test_sequence_gaps_deaths_and_redeliveries_are_counted(settings: Settings, feed: Feed) -> None:
    birth = nbirth(metric(1.0, name="temp", alias=1), bd_seq=3)
    feed.send(birth, topic=topic("NBIRTH"))
    feed.send(payload(1, metric(2.0, alias=1)), topic=topic("NDATA"))
    feed.flush()
    drain(settings)
    feed.send(payload(4, metric(3.0, alias=1)), topic=topic("NDATA"))
    feed.send(payload(4, metric(3.0, alias=1)), topic=topic("NDATA"))
    feed.send(payload(5, metric(4.0, alias=1)), topic=topic("NDATA"))
    feed.send(ndeath(2), topic=topic("NDEATH"))  # of the session before
    feed.flush()
    drain(settings)
    counted = "messages, births, deaths, seq_gaps, seq_missing, bd_seq, seq"
    assert query(settings, f"SELECT {counted}, died_at IS NULL, node, tenant_id, project_id FROM sparkplug_node") == [
        (6, 1, 0, 1, 2, 3, 5, True, "spBv1.0/plant/node", "acme", "plant")
    ]
    totals = Totals()
    totals.update(settings)
    assert (totals.sequence_gaps, totals.sequence_missing) == (1, 2)
    feed.send(ndeath(4), topic=topic("NDEATH"))  # a clean disconnect sends the next number
    feed.flush()
    drain(settings)
    assert query(settings, "SELECT deaths, died_at > born_at FROM sparkplug_node") == [(1, True)]
    feed.send(birth, topic=topic("NBIRTH"), dup=True)
    feed.flush()
    drain(settings)
    assert query(settings, "SELECT count(*) FROM sparkplug_birth") == [(1,)]
    assert query(settings, "SELECT births, deaths, seq_gaps FROM sparkplug_node") == [(1, 1, 1)]


def test_data_before_its_birth_waits_and_a_replay_decodes_it(settings: Settings, feed: Feed) -> None:
    """Two Kafka partitions have no order: what lies in another one than its birth is not guessed; a replay comes later, and knows."""
    feed.send(nbirth(metric(1.0, name="temp", alias=1)), topic=topic("NBIRTH"), partition=0)
    feed.flush()
    feed.send(payload(1, metric(2.0, alias=1)), topic=topic("NDATA"), partition=1)
    feed.send(payload(2, metric(3.0, name="named")), topic=topic("NDATA"), partition=1)
    feed.flush()
    drain(settings)
    assert values(settings) == [("node", "temp", 1.0), ("node", "named", 3.0)]
    assert quarantined(settings) == [("no_birth", 1)]
    tally = Replay(settings, Selection(quarantined=True, reasons=("no_birth",))).run()
    assert (tally.moved, tally.measurements) == (1, 1)
    assert values(settings) == [("node", "temp", 1.0), ("node", "temp", 2.0), ("node", "named", 3.0)]
    check_books(settings)


def test_a_codec_set_later_reads_births_and_data_in_their_order(settings: Settings, feed: Feed) -> None:
    """Quarantined births define too, once they are read; and the drain goes on from them."""
    for turn, names in enumerate((("x", "y"), ("y", "x"))):
        born = [metric(float(turn), name=name, alias=alias) for alias, name in enumerate(names)]
        feed.send(nbirth(*born, bd_seq=turn), topic=topic("NBIRTH"))
        feed.send(payload(1, metric(10.0 + turn, alias=0)), topic=topic("NDATA"))
    feed.flush()
    drain(settings.model_copy(update={"topic_codecs": ()}))
    assert quarantined(settings) == [("topic_mismatch", 4)]
    one_by_one = settings.model_copy(update={"drain_batch_records": 1})
    assert Replay(one_by_one, Selection(quarantined=True), dry_run=True).run().moved == 4
    assert query(settings, "SELECT count(*) FROM sparkplug_birth") == [(0,)]
    assert Replay(one_by_one, Selection(quarantined=True)).run().moved == 4
    feed.send(payload(2, metric(20.0, alias=1)), topic=topic("NDATA"))
    feed.flush()
    drain(settings)
    assert quarantined(settings) == []
    assert values(settings) == [
        ("node", "x", 0.0), ("node", "y", 0.0), ("node", "x", 10.0), ("node", "x", 1.0), ("node", "y", 1.0), ("node", "y", 11.0),
        ("node", "x", 20.0),
    ]  # fmt: skip
    check_books(settings)


@pytest.mark.parametrize("point", ["statement_answered", "before_commit", "answer_lost"])
def test_births_and_sequences_are_counted_once_whatever_kills_the_drain(
    settings: Settings, feed: Feed, killer: Killer, point: Point
) -> None:
    """Batches of 20: aliases change within them and between them; nodes count their messages in the transaction of the rows."""
    expected = []
    for turn in range(15):
        for node in ("a", "b"):
            names = ("x", "y") if turn % 2 else ("y", "x")
            born = [metric(0.0, name=name, alias=alias) for alias, name in enumerate(names)]
            feed.send(nbirth(*born, bd_seq=turn), topic=topic("NBIRTH", node=node))
            for seq in (1, 2, 4):
                feed.send(payload(seq, metric(float(100 * turn + seq), alias=0)), topic=topic("NDATA", node=node))
                expected.append((node, names[0], float(100 * turn + seq)))
    feed.flush()
    small = settings.model_copy(update={"drain_batch_records": 20})
    for number in (1, 2, 3):
        killer.kill(COMMAND, small, point, CLAIM, number)
    drain(small)
    assert quarantined(settings) == []
    assert sorted(row for row in values(settings) if row[2]) == sorted(expected)
    counted = "SELECT node, messages, births, seq_gaps, seq_missing, seq, bd_seq FROM sparkplug_node ORDER BY 1"
    assert query(settings, counted) == [(f"spBv1.0/plant/{node}", 60, 15, 15, 15, 4, 14) for node in ("a", "b")]
    assert query(settings, "SELECT count(*) FROM sparkplug_birth") == [(30,)]
    check_books(settings)


def test_a_birth_too_large_to_store_still_defines(settings: Settings, feed: Feed) -> None:
    feed.send(nbirth(*(metric(1.0, name=f"m{number}", alias=number) for number in range(1_001))), topic=topic("NBIRTH"))
    feed.send(payload(1, metric(2.0, alias=1_000)), topic=topic("NDATA"))
    feed.flush()
    drain(settings)
    assert values(settings) == [("node", "m1000", 2.0)]
    assert quarantined(settings) == [("too_many_values", 1)]


def test_historical_values_are_no_latest_ones(settings: Settings, feed: Feed) -> None:
    feed.send(nbirth(metric(1.0, name="temp", alias=1), metric(1.0, name="old", alias=2, is_historical=True)), topic=topic("NBIRTH"))
    feed.send(payload(1, metric(2.0, alias=1, is_historical=True)), topic=topic("NDATA"))
    feed.flush()
    drain(settings)
    assert [row[1:] for row in values(settings)] == [("old", 1.0), ("temp", 1.0), ("temp", 2.0)]
    assert query(settings, "SELECT metric, value FROM latest_named WHERE metric <> 'bdSeq'") == [("temp", 1.0)]


@pytest.fixture
def daemon(servers: Servers, settings: Settings, tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon.on(settings, tmp_path, mqtt_topic_filter=f"spBv1.0/{settings.kafka_topic}/#")
    yield made
    made.close()
    forget(servers.mqtt_url, made.environment["IOT_INGEST_CLIENT_ID"])


def test_more_partitions_than_the_topic_has_are_named(daemon: Daemon) -> None:
    daemon.environment["IOT_INGEST_SPARKPLUG_PARTITIONS"] = "99"
    daemon.start(ready=False)
    eventually(lambda: "IOT_INGEST_SPARKPLUG_PARTITIONS is 99" in daemon.probe("readyz")[1], what="the setting is not named")


def test_from_mqtt_to_the_database_with_a_kill_between_birth_and_data(servers: Servers, settings: Settings, daemon: Daemon) -> None:
    """Births and data of ten edge nodes and their devices: other topics, and by their names other partitions; the daemon keeps them
    together."""
    group = settings.kafka_topic

    def send(kind: str, body: bytes, node: int, device: str = "") -> tuple[str, bytes]:
        return f"spBv1.0/{group}/{kind}/n{node}" + (f"/{device}" if device else ""), body

    nodes = range(10)
    daemon.start()
    births = [send("NBIRTH", nbirth(metric(float(node), name=f"temp{node}", alias=1)), node) for node in nodes]
    births += [send("DBIRTH", payload(1, metric(1.0, name="flow", alias=2)), node, "pump") for node in nodes]
    publish(servers.mqtt_url, births)
    await_records(servers.kafka_bootstrap_servers, settings.kafka_topic, 20)
    eventually(lambda: daemon.metric("messages_in_flight") == 0)  # the broker hears of it, too
    daemon.kill()
    drain(settings)
    daemon.start()
    data = [send("NDATA", payload(2, metric(10.0 + node, alias=1)), node) for node in nodes]
    data += [send("DDATA", payload(3, metric(20.0 + node, alias=2)), node, "pump") for node in nodes]
    swapped = [send("NBIRTH", nbirth(metric(0.5, name="swapped", alias=1), bd_seq=1), node) for node in nodes]
    after = [send("NDATA", payload(1, metric(30.0 + node, alias=1)), node) for node in nodes]
    publish(servers.mqtt_url, [*data, *swapped, *after])
    records = await_records(servers.kafka_bootstrap_servers, settings.kafka_topic, 60)
    assert len(records) == 60
    drain(settings)
    assert quarantined(settings) == []
    expected = {(f"n{node}", f"temp{node}", float(node)) for node in nodes} | {(f"n{node}/pump", "flow", 1.0) for node in nodes}
    expected |= {(f"n{node}", f"temp{node}", 10.0 + node) for node in nodes} | {(f"n{node}/pump", "flow", 20.0 + node) for node in nodes}
    expected |= {(f"n{node}", "swapped", 0.5) for node in nodes} | {(f"n{node}", "swapped", 30.0 + node) for node in nodes}
    assert sorted(values(settings)) == sorted(expected)
    assert query(settings, "SELECT count(*), sum(seq_gaps), min(births) FROM sparkplug_node") == [(10, 0, 2)]
    check_books(settings)
