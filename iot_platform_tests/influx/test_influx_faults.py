"""InfluxDB, the run and the link between them broken while data flows: afterwards both stores have the same set, nothing lost, nothing
doubled."""

import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from iot_platform.database import connect
from iot_platform.drills.rig.proxy import Proxy
from iot_platform.drills.rig.small_disk import obstacle, small_disk
from iot_platform.influx import backfill
from iot_platform.influx.client import InfluxClient, identifier
from iot_platform.influx.compare import compare
from iot_platform.influx.errors import InfluxConfigError, InfluxError
from iot_platform.influx.follow import Follower
from iot_platform.influx.target import target
from iot_platform.local.ports import LOOPBACK
from iot_platform.settings import Settings, exports
from iot_platform_tests.support.feeds.drain import TOPIC, Feed, drain, query
from iot_platform_tests.support.servers.influxd import Influxd, InfluxDatabase, new_database, new_server
from iot_platform_tests.support.waiting import eventually

pytestmark = [pytest.mark.influx, pytest.mark.timeout(600)]
CHILD = """
from iot_platform.influx.follow import Follower
from iot_platform.influx.target import target
from iot_platform.settings import Settings
settings = Settings()
Follower(settings, target(settings, None)).run()
"""


class Plant:
    """Messages with numbers, texts and booleans, over two partitions, each with a time of its own."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._feed = Feed(settings)
        self._times = itertools.count((time.time_ns() // 1000 // 3_600_000_000 - 2) * 3_600_000_000)
        self._random = random.Random(19)

    def send(self, count: int = 200) -> None:
        """So many messages, drained."""
        for number in range(count):
            document = {
                "ts": next(self._times),
                "temp": self._random.random() * 40,
                "state": "on" if number % 3 else "off",
                "ok": number % 2 == 0,
            }
            self._feed.send(json.dumps(document).encode(), topic=f"{TOPIC}/device-{number % 7}", partition=number % 2)
        self._feed.flush()
        drain(self._settings)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Influxd]:
    """A server that the test may break."""
    server = new_server(tmp_path / "influxd", Settings().cache_dir, "tsi1").start()
    yield server
    server.kill()


def with_url(settings: Settings, url: str) -> Settings:
    return settings.model_copy(update={"influx_url": SecretStr(url)})


def assert_equal_sets(settings: Settings, influx: InfluxDatabase) -> None:
    """Every measurement is there, once, with its value; nothing else is."""
    now = datetime.now(UTC)
    result = compare(settings, target(settings, None), now - timedelta(days=1), now + timedelta(hours=1))
    assert result.differences == []
    ((stored,),) = query(settings, "SELECT count(*) FROM measurement")
    assert result.points == stored > 0
    assert len(influx.ask(f"SELECT * FROM {identifier(settings.influx_measurement)}")) == stored
    assert query(settings, "SELECT count(*)::int FROM sink_refused") == [(0,)]


@contextmanager
def following(settings: Settings) -> Iterator[None]:
    """A shift beside the block; it ends with it."""
    stop = threading.Event()
    raised: list[BaseException] = []

    def work() -> None:
        try:
            Follower(settings, target(settings, None), seconds=300, stop=stop).run()
        except InfluxError as error:  # stopped while it repeated
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(90)
    assert not thread.is_alive()


def catch_up(settings: Settings) -> None:
    Follower(settings, target(settings, None)).run()


def test_influxd_is_killed_while_data_flows(settings: Settings, own: Influxd) -> None:
    influx = new_database(own)
    sunk = with_url(settings, influx.url)
    plant = Plant(sunk)
    with following(sunk):
        for _ in range(4):
            plant.send()
            own.kill()
            plant.send()
            own.start()
    catch_up(sunk)
    assert_equal_sets(sunk, influx)


def test_the_run_is_killed_before_and_after_its_204(settings: Settings, influxd: Influxd) -> None:
    influx = new_database(influxd)
    sunk = with_url(settings, influx.url)
    plant = Plant(sunk)
    plant.send()
    for part in range(6):
        child = subprocess.Popen([sys.executable, "-W", "ignore", "-c", CHILD], env={**os.environ, **exports(sunk)})
        seen = len(influx.ask("SELECT value FROM iot"))
        eventually(lambda seen=seen, child=child: child.poll() is not None or len(influx.ask("SELECT value FROM iot")) > seen, 120)
        time.sleep(0.01 * part)  # not the fault's condition: which instruction it hits
        child.kill()
        child.wait()
        plant.send(2000)
    catch_up(sunk)
    assert_equal_sets(sunk, influx)


@pytest.mark.parametrize("fault", [Proxy.cut, lambda proxy: proxy.slow(bytes_per_second=20_000, latency_seconds=0.2)], ids=["cut", "slow"])
def test_answers_are_lost_and_the_link_is_slow(settings: Settings, influxd: Influxd, fault: Callable[[Proxy], None]) -> None:
    influx = new_database(influxd)
    proxy = Proxy(LOOPBACK, influxd.port).start()
    try:
        sunk = with_url(settings, f"http://{LOOPBACK}:{proxy.port}/{influx.target.database}")
        plant = Plant(sunk)
        with following(sunk):
            for _ in range(5):
                plant.send()
                fault(proxy)
                plant.send()
                proxy.heal()
        catch_up(sunk)
        assert_equal_sets(sunk, influx)
    finally:
        proxy.close()


def test_the_database_is_dropped(settings: Settings, influxd: Influxd) -> None:
    influx = new_database(influxd)
    sunk = with_url(settings, influx.url)
    plant = Plant(sunk)
    plant.send()
    catch_up(sunk)
    with InfluxClient(influx.target) as client:
        client.query(f"DROP DATABASE {identifier(influx.target.database)}")
    plant.send()
    with pytest.raises(InfluxConfigError, match="IOT_INFLUX_URL"):
        catch_up(sunk)
    with InfluxClient(influx.target) as client:
        client.query(f"CREATE DATABASE {identifier(influx.target.database)}")
    with closing(connect(sunk, "writer", "test")) as connection:
        backfill.add(connection, "influx", datetime.now(UTC) - timedelta(days=1), datetime.now(UTC))
    catch_up(sunk)
    assert_equal_sets(sunk, influx)


@pytest.mark.skipif(bool(obstacle()), reason="no small disks here")
def test_the_disk_is_full(settings: Settings, own: Influxd) -> None:
    own.stop()
    with small_disk(own.folder, 32 * 1024 * 1024) as disk:
        own.start()
        influx = new_database(own)
        sunk = with_url(settings, influx.url)
        plant = Plant(sunk)
        plant.send()
        with following(sunk):
            disk.fill()
            plant.send()
            words = "SELECT error FROM sink WHERE error LIKE '%%no space left%%'"
            ((error,),) = eventually(lambda: query(sunk, words), 120)
            assert "until influxd is restarted" in error
            disk.make_room()
            own.stop()
            own.start()
        catch_up(sunk)
        assert_equal_sets(sunk, influx)
        own.stop()
    shutil.rmtree(own.folder, ignore_errors=True)
