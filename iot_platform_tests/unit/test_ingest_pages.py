"""Which ingest daemons IOT_INGEST_HTTP_URL means."""

import socket

import pytest
from pydantic import ValidationError

from iot_platform.ingest_pages import daemons
from iot_platform.settings import Settings


def test_urls_are_taken_as_they_are() -> None:
    assert daemons(Settings(ingest_http_url="http://a.example:1, https://b.example/")) == ("http://a.example:1", "https://b.example")


def test_a_name_stands_for_a_daemon_at_each_of_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    def looked_up(host: str, port: int, *_: object) -> list[tuple[object, object, object, str, tuple[str, int]]]:
        assert host == "iot-ingest"
        return [(2, 1, 6, "", (address, port)) for address in ("10.42.1.7", "10.42.0.3")]

    monkeypatch.setattr(socket, "getaddrinfo", looked_up)
    settings = Settings(ingest_http_url="dns+http://iot-ingest:9108,http://other.example:9108")
    assert daemons(settings) == ("http://10.42.0.3:9108", "http://10.42.1.7:9108", "http://other.example:9108")


def test_a_name_that_is_not_known_is_a_daemon_that_does_not_answer() -> None:
    assert daemons(Settings(ingest_http_url="dns+http://no-such-name.invalid:9108")) == ("http://no-such-name.invalid:9108",)


@pytest.mark.parametrize("url", ["dns+http://iot-ingest", "dns+https://iot-ingest:9108", "dns+http://:9108", "iot-ingest:9108"])
def test_others_are_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="must be http://"):
        Settings(ingest_http_url=url)


def test_dagster_is_at_one_url() -> None:
    with pytest.raises(ValidationError, match="must be http://"):
        Settings(dagster_url="dns+http://dagster:3000")
