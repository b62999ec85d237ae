"""`iot doctor` asks every ingest daemon, by the MQTT version that the broker speaks, whatever answers at their addresses."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from ingest_daemon import probe
from iot_platform import ingest_pages
from iot_platform.diagnostics.doctor import examine
from iot_platform.diagnostics.doctor_ingest import ingest_findings, spool_finding
from iot_platform.diagnostics.finding import Finding
from iot_platform.local import probes
from iot_platform.local.errors import NotReadyError
from iot_platform.local.plan import make_plan
from iot_platform.settings import Settings
from iot_platform_tests.support.servers import mqtt_script
from iot_platform_tests.support.servers.http_pages import HttpPages
from iot_platform_tests.support.servers.mqtt_script import Link, only, scripted

PUBLISH = 3


class Pages(HttpPages):
    """Answers GET as an ingest daemon does that takes every probe: page → status and body."""

    def __init__(self) -> None:
        self.pages: dict[str, tuple[int, bytes]] = {"readyz": (200, b'{"problems":[]}'), "metrics": (200, b"")}
        self.probes = probe.Probes()
        self.probes.follow(["f/#"])
        super().__init__(lambda path: self.pages.get(path.strip("/"), (200, self.probes.page())))

    def take(self, link: Link) -> None:
        """As a broker: what is published comes back through the daemon's session."""
        link.connack()
        while True:
            _, body = link.packet(PUBLISH)
            size = int.from_bytes(body[:2], "big")
            behind = 4 + size + (link.level == mqtt_script.V5)
            assert self.probes.take(body[2 : 2 + size], body[behind:])
            link.send(b"\x40\x02" + body[2 + size : 4 + size])


@pytest.fixture
def pages() -> Iterator[Pages]:
    made = Pages()
    yield made
    made.close()


def found(settings: Settings) -> list[Finding]:
    return [finding for finding in ingest_findings(settings) if finding.what == "probe"]


def settings(pages: Pages, mqtt_url: str, **more: Any) -> Settings:
    return Settings(mqtt_url=SecretStr(mqtt_url), ingest_http_url=pages.url, **more)


@pytest.mark.parametrize("unspoken", [mqtt_script.close, mqtt_script.refuse_version])
@pytest.mark.parametrize("protocol", ["auto", "3.1.1"])
def test_a_broker_of_3_1_1_is_probed_in_its_version(pages: Pages, unspoken: Any, protocol: str) -> None:
    with scripted(only(mqtt_script.V311, unspoken, pages.take)) as broker:
        (finding,) = found(settings(pages, broker.url, mqtt_protocol=protocol))
        assert finding.state == "ok", finding.text
        levels = {link.level for link in broker.links}
    assert levels == ({mqtt_script.V311} if protocol == "3.1.1" else {mqtt_script.V5, mqtt_script.V311})


def test_a_password_file_that_is_not_there_is_told(pages: Pages, tmp_path: Path) -> None:
    with scripted(pages.take) as broker:
        url = broker.url.replace("mqtt://", "mqtt://user@")
        (finding,) = found(settings(pages, url, mqtt_password_file=tmp_path / "none"))
    assert (finding.state, "IOT_MQTT_PASSWORD_FILE" in finding.text) == ("bad", True)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b"{}", b'{"problems":1}', b"\xff"])
@pytest.mark.parametrize("status", [200, 503])
def test_a_page_that_is_no_daemons_is_an_error_of_its_own(pages: Pages, status: int, body: bytes) -> None:
    pages.pages |= {"readyz": (status, body), "metrics": (200, b"\xff")}
    for ask in (ingest_pages.problems, ingest_pages.notices, ingest_pages.labelled):
        with pytest.raises(ingest_pages.IngestPageError, match="IOT_INGEST_HTTP_URL"):
            ask(pages.url)
    assert found(Settings(ingest_http_url=pages.url)) == []


def test_a_port_that_speaks_no_http_is_an_error_of_its_own() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            for _ in range(2):
                client, _ = listener.accept()
                with client:
                    client.recv(1000)
                    client.sendall(b"SSH-2.0-OpenSSH\r\n")

        greeting = threading.Thread(target=greet, daemon=True)
        greeting.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(ingest_pages.IngestPageError):
            ingest_pages.problems(url)
        with pytest.raises(NotReadyError):
            probes.http(url)
        greeting.join(10)


def test_each_daemon_that_the_user_named_is_asked(pages: Pages, tmp_path: Path) -> None:
    gone = "http://127.0.0.1:9"
    user = Settings(
        ingest_http_url=f"{pages.url},{gone}", mqtt_url=SecretStr("mqtt://127.0.0.1:9"), local_dir=tmp_path, cache_dir=tmp_path,
        kafka_bootstrap_servers="127.0.0.1:9", database_url=SecretStr("postgresql://127.0.0.1:9/none"), dagster_url=gone,
    )  # fmt: skip
    told = {finding.text.split(": ")[0]: finding for finding in examine(make_plan(user)) if finding.what == "ingest"}
    assert {url: finding.state for url, finding in told.items()} == {pages.url: "ok", f"{gone}/readyz does not answer": "bad"}


def test_sessions_that_the_broker_lost_are_told(pages: Pages) -> None:
    pages.pages["metrics"] = (200, b"# TYPE iot_ingest_mqtt_sessions_lost_total counter\niot_ingest_mqtt_sessions_lost_total 2\n")
    asked = Settings(mqtt_url=SecretStr("mqtt://127.0.0.1:9"), ingest_http_url=pages.url)
    (finding,) = [finding for finding in ingest_findings(asked) if finding.what == "sessions"]
    assert "at 2 connections" in finding.text
    assert "session expiry" in finding.remedy


def test_a_disk_too_small_for_the_spool_is_a_risk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IOT_INGEST_STATE_DIR", str(tmp_path))
    for limit, state in ((1 << 20, "ok"), (1 << 60, "risk")):
        monkeypatch.setenv("IOT_INGEST_SPOOL_BYTES", str(limit))
        (finding,) = spool_finding()
        assert (finding.state, "IOT_INGEST_SPOOL_BYTES" in finding.remedy) == (state, True)
    monkeypatch.setenv("IOT_INGEST_STATE_DIR", str(tmp_path / "none"))
    assert list(spool_finding()) == []
