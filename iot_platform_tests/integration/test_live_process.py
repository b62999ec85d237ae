"""The console's process with open streams: killed, restarted, and told to end."""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from iot_platform.local.ports import free_ports
from iot_platform.settings import Settings, exports
from iot_platform_tests.support.feeds.direct import DirectFeed
from iot_platform_tests.support.feeds.drain import query
from iot_platform_tests.support.feeds.tenants import OWN
from iot_platform_tests.support.servers.console import Console, path_of
from iot_platform_tests.support.waiting import eventually

TOPIC = f"mtic/msg/client/realtime/{OWN}/plant-0"


@contextmanager
def served(settings: Settings, port: int) -> Iterator["subprocess.Popen[bytes]"]:
    """`iot console serve`, once it is ready."""
    environment = {**os.environ, **exports(settings.model_copy(update={"console_port": port}))}
    with subprocess.Popen([sys.executable, "-m", "iot_platform.api"], env=environment) as process:
        try:
            eventually(lambda: _ready(port), seconds=120)
            yield process
        finally:
            process.kill()


def _ready(port: int) -> bool:
    with suppress(OSError), closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    return False


@dataclass
class Stream:
    """A page that follows a stream, and comes back with the last id."""

    port: int
    key: str
    last: str = ""
    shown: list[tuple[str, float]] = field(default_factory=list)
    resyncs: int = 0
    ended: bool = False

    def follow(self, until: str, value: float | None = None) -> None:
        """Read until an event (of values: one that has the value), or the stream ends."""
        self.ended = False
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        headers = {"Authorization": f"Bearer {self.key}"} | ({"Last-Event-ID": self.last} if self.last else {})
        with closing(connection), suppress(ConnectionError, http.client.HTTPException):
            connection.request("GET", "/api/v1" + path_of(OWN, "/live"), headers=headers)
            response = connection.getresponse()
            assert response.status == 200
            while event := self._event(response):
                if event["event"] == until and (value is None or any(shown == value for _, shown in self.shown)):
                    return
        self.ended = True

    def _event(self, response: http.client.HTTPResponse) -> dict[str, Any]:
        lines: dict[str, str] = {"event": ""}
        while raw := response.readline():
            if not (line := raw.decode().strip()):
                break
            name, _, value = line.partition(": ")
            lines[name] = value
        else:
            return {}
        self.last = lines.get("id", self.last)
        self.resyncs += lines["event"] == "resync"
        if lines["event"] == "values":
            columns = json.loads(lines["data"])["columns"]
            self.shown += [
                (device, value)
                for device, metric, value in zip(columns["device"], columns["metric"], columns["value"], strict=True)
                if metric == "flow"
            ]
        return lines


def send(settings: Settings, value: float) -> None:
    """A reading, committed as the drain commits it."""
    with closing(DirectFeed(settings)) as feed:
        feed.send(datetime.now(UTC), {"deviceId": "pump-0", "ts": time.time_ns() // 1000, "flow": value}, TOPIC)
        feed.flush()


def open_streams(port: int) -> float:
    """As the process tells it to Prometheus."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request("GET", "/metrics")
        page = connection.getresponse().read().decode()
    return next(
        sample.value for family in text_string_to_metric_families(page) for sample in family.samples if sample.name == "iot_console_streams"
    )


def test_a_killed_console_loses_nothing_and_one_that_is_told_to_end_ends_its_streams(console: Console) -> None:
    (port,) = free_ports(1)
    page = Stream(port, console.key)
    with served(console.settings, port) as process:
        page.follow("state")
        send(console.settings, 1.5)
        page.follow("values", 1.5)
        assert (page.resyncs, page.shown) == (1, [("pump-0", 1.5)])
        send(console.settings, 2.5)  # while the page is away
        page.follow("values", 2.5)
        assert (page.resyncs, page.shown) == (1, [("pump-0", 1.5), ("pump-0", 2.5)])
        process.kill()
    send(console.settings, 3.5)  # while there is no server
    with served(console.settings, port) as process:
        page.follow("resync")
        assert (page.resyncs, page.ended) == (2, False)
        latest = "SELECT value FROM latest_named WHERE tenant_id = %s AND device_id = 'pump-0' AND metric = 'flow'"
        assert (3.5,) in query(console.settings, latest, OWN)  # what the page loads after resync
        send(console.settings, 4.5)
        page.follow("values", 4.5)
        assert page.shown[-1] == ("pump-0", 4.5)
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            connection.request("GET", "/api/v1" + path_of(OWN, "/live"), headers={"Authorization": f"Bearer {console.key}"})
            response = connection.getresponse()
            assert response.readline().startswith(b"retry:")
            assert open_streams(port) == 1
            begun_at = time.monotonic()
            process.send_signal(signal.SIGTERM)
            while response.readline():
                pass
            assert time.monotonic() - begun_at < 1
        assert process.wait(30) == 0
