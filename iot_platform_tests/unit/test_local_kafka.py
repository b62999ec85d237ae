"""The local Kafka's preconditions, each with its remedy."""

import socket
from pathlib import Path

import pytest

from iot_platform.local.errors import LocalStackError
from iot_platform.local.kafka import KafkaServer, java_command
from iot_platform.settings import Settings


def _server(folder: Path, port: int = 9092) -> KafkaServer:
    (folder / "run").mkdir()
    return KafkaServer(folder, folder / "cache", port, Settings())


def _fake_java(folder: Path, version: str) -> None:
    java = folder / "bin" / "java"
    java.parent.mkdir()
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2024-01-01' >&2\n")
    java.chmod(0o755)


@pytest.mark.parametrize(("version", "usable"), [("1.8.0_412", False), ("11.0.22", False), ("17.0.15", True), ("21.0.2", True)])
def test_java_must_be_17_or_newer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str, *, usable: bool) -> None:
    _fake_java(tmp_path, version)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert (java_command() is not None) is usable


def test_missing_java_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "nowhere"))
    server = _server(tmp_path)
    assert "default-jre-headless" in server.missing_packages()
    (tmp_path / "run" / "kafka.properties").touch()
    with pytest.raises(LocalStackError, match=r"Java >= 17.*apt-get install default-jre-headless"):
        server.program()


def test_wrong_kafka_home_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KAFKA_HOME", str(tmp_path))
    with pytest.raises(LocalStackError, match=f"KAFKA_HOME={tmp_path} holds no Kafka"):
        _server(tmp_path).prepare(lambda _: None)


def test_controller_port_moves_away_from_a_taken_one(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1] - 1
        config = _server(tmp_path, port)._config()
    assert f"listeners=PLAINTEXT://127.0.0.1:{port}," in config
    assert f":{port + 1}\n" not in config


def test_clients_behind_a_proxy_hear_its_address(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    config = KafkaServer(tmp_path, tmp_path, 9092, Settings(), proxied=((9192, 9292), (9193, 9293)))._config().splitlines()
    assert "advertised.listeners=PLAINTEXT://127.0.0.1:9092,PROXIED0://127.0.0.1:9292,PROXIED1://127.0.0.1:9293" in config
    assert any(line.startswith("listeners=") and ",PROXIED0://127.0.0.1:9192,PROXIED1://127.0.0.1:9193," in line for line in config)


def test_only_after_a_clean_shutdown_kafkas_checkpoint_counts(tmp_path: Path) -> None:
    server = KafkaServer(tmp_path, tmp_path, 9092, Settings())
    data = tmp_path / "data" / "kafka"
    checkpoint = data / "recovery-point-offset-checkpoint"
    server.recover_whole_logs()  # nothing there yet
    data.mkdir(parents=True)
    for clean in (True, False):
        checkpoint.write_text("0\n0\n")
        (data / ".kafka_cleanshutdown").touch() if clean else (data / ".kafka_cleanshutdown").unlink()
        server.recover_whole_logs()
        assert checkpoint.exists() is clean
