"""TLS and passwords towards the MQTT broker, for real: what is wrong is named, what is new taken over while messages flow."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ingest_daemon.broker_access import BrokerFiles
from ingest_daemon.settings import Settings as IngestSettings
from iot_platform.diagnostics.doctor_ingest import ingest_findings
from iot_platform.settings import Settings
from iot_platform_tests.support.feeds.secured_flow import Passage
from iot_platform_tests.support.servers.certificates import Authority, Pair
from iot_platform_tests.support.servers.ingest import Daemon
from iot_platform_tests.support.servers.own_servers import OwnKafka
from iot_platform_tests.support.servers.secured_broker import SecuredBroker
from iot_platform_tests.support.waiting import eventually

EXPIRY = "certificate_expiry_timestamp_seconds"


@pytest.fixture
def passage(secured_broker: SecuredBroker, own_kafka: OwnKafka, tmp_path: Path) -> Iterator[Passage]:
    own_kafka.revive()
    made = Passage(tmp_path, secured_broker, own_kafka, ingest_in_flight_window=500)
    secured_broker.allow(f"user {made.user}", "topic read f/#")
    yield made
    made.daemon.close()


@pytest.fixture
def pair(passage: Passage, secured_broker: SecuredBroker, tmp_path: Path) -> Pair:
    """The certificate of the passage's user, and the daemon is set to show it."""
    made = secured_broker.authority.issue(tmp_path, passage.user)
    passage.set(**secured_broker.mutual(made))
    return made


def ends(daemon: Daemon, certificate: str) -> float:
    return daemon.metric(f'{EXPIRY}{{certificate="{certificate}",server="mqtt"}}')


def connections(daemon: Daemon) -> float:
    return daemon.metric("mqtt_connections_total")


def said(daemon: Daemon, event: str) -> int:
    return sum(line["event"] == event for line in daemon.events())


def test_client_certificates_renewed_while_messages_flow(
    passage: Passage, pair: Pair, secured_broker: SecuredBroker, tmp_path: Path
) -> None:
    daemon = passage.start()
    eventually(lambda: all(ends(daemon, one) for one in ("server", "client", "ca")))
    with passage.flowing():
        for count, days in ((1, 3), (2, 5)):
            passage.await_progress()
            before = ends(daemon, "client")
            secured_broker.authority.issue(tmp_path, passage.user, seconds=days * 86_400)
            eventually(lambda count=count: connections(daemon) == 1 + count)
            passage.await_progress()
            eventually(lambda before=before: ends(daemon, "client") > before + 86_400)
    settings = Settings(ingest_http_url=f"http://127.0.0.1:{daemon.port}", **secured_broker.mutual(pair))
    told = {finding.text.partition(": ")[2]: finding.state for finding in ingest_findings(settings) if finding.what == "certificate"}
    assert set(told.values()) == {"risk"}  # the authority's own ends the day after tomorrow
    assert any(text.startswith("our certificate for the MQTT broker ends") and text.endswith("5 days") for text in told)
    passage.check()
    assert daemon.metric("mqtt_sessions_lost_total") == 0
    assert daemon.metric("messages_delivered_total") == passage.published  # the calm moment: nothing had to come twice
    assert said(daemon, "mqtt_disconnected") == 0


def test_half_written_certificates_leave_the_present_connection(
    passage: Passage, pair: Pair, secured_broker: SecuredBroker, tmp_path: Path
) -> None:
    daemon = passage.start()
    with passage.flowing():
        passage.await_progress()
        pair.cert_file.write_bytes(pair.cert_file.read_bytes()[:200])
        eventually(lambda: "IOT_MQTT_TLS_CERT_FILE" in daemon.probe("readyz")[1])
        assert daemon.probe("readyz")[0] == 200
        passage.await_progress()
        assert connections(daemon) == 1
        secured_broker.authority.issue(tmp_path, passage.user)
        eventually(lambda: connections(daemon) == 2)
        passage.await_progress()
    passage.check()
    assert '"notices": []' in daemon.probe("readyz")[1]


def test_a_certificate_that_the_broker_does_not_take_leaves_what_worked_in_use(
    passage: Passage, pair: Pair, secured_broker: SecuredBroker, tmp_path: Path
) -> None:
    daemon = passage.start()
    with passage.flowing():
        passage.await_progress()
        Authority(tmp_path / "stranger").issue(tmp_path, passage.user)
        eventually(lambda: '"notices": ["MQTT' in daemon.probe("readyz")[1])
        eventually(lambda: daemon.probe("readyz")[0] == 200)
        passage.await_progress()
        secured_broker.authority.issue(tmp_path, passage.user)
        eventually(lambda: '"notices": []' in daemon.probe("readyz")[1])
        passage.await_progress()
    passage.check()
    assert daemon.metric("mqtt_sessions_lost_total") == 0


def test_an_ended_client_certificate_is_named_and_the_next_taken_over(
    passage: Passage, pair: Pair, secured_broker: SecuredBroker, tmp_path: Path
) -> None:
    secured_broker.authority.issue(tmp_path, passage.user, seconds=-60)
    daemon = passage.daemon.start(ready=False)
    passage.await_problem("does not take our certificate", "expired", "IOT_MQTT_TLS_CERT_FILE, IOT_MQTT_TLS_KEY_FILE")
    secured_broker.authority.issue(tmp_path, passage.user)
    eventually(lambda: daemon.metric("mqtt_connected"))
    passage.publish(300)
    passage.check()


def test_the_broker_s_certificate_ended_replaced_and_not_trusted(
    passage: Passage, pair: Pair, secured_broker: SecuredBroker, tmp_path: Path
) -> None:
    secured_broker.replace_server_certificate(seconds=-60)
    ca = tmp_path / "ca.pem"
    ca.write_bytes(Authority(tmp_path / "stranger").ca_file.read_bytes())
    passage.set(mqtt_tls_ca_file=ca)
    daemon = passage.daemon.start(ready=False)
    passage.await_problem("the broker's certificate is not accepted", "self-signed certificate", "IOT_MQTT_TLS_CA_FILE")
    ca.write_bytes(secured_broker.authority.ca_file.read_bytes())
    passage.await_problem("the broker's certificate is not accepted", "certificate has expired")
    secured_broker.replace_server_certificate()
    eventually(lambda: daemon.metric("mqtt_connected"))
    passage.publish(300)
    passage.check()


def test_a_password_from_a_file_changed_at_both_ends(passage: Passage, secured_broker: SecuredBroker, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("wrong\n")
    secured_broker.set_password(passage.user, "secret-1")
    passage.set(mqtt_url=secured_broker.password_url(passage.user, acl=False), mqtt_password_file=file)
    daemon = passage.daemon.start(ready=False)
    passage.await_problem("refuses the connection", "IOT_MQTT_URL")
    file.write_text("secret-1\n")
    eventually(lambda: daemon.metric("mqtt_connected"))
    with passage.flowing():
        passage.await_progress()
        file.write_text("secret-2\n")  # first here: the connection stays
        eventually(lambda: said(daemon, "mqtt_access_changed") == 2)
        passage.await_progress()
        secured_broker.set_password(passage.user, "secret-2")
        passage.await_progress(400)
    passage.check()
    assert daemon.metric("mqtt_sessions_lost_total") == 0
    assert "secret-" not in daemon.log.read_text()


def test_half_of_a_pair_of_certificates(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    pair = authority.issue(tmp_path, "me")
    shown: Any = {"mqtt_tls_ca_file": authority.ca_file, "mqtt_tls_cert_file": pair.cert_file, "mqtt_tls_key_file": pair.key_file}
    files = BrokerFiles(IngestSettings(mqtt_url="mqtts://broker", **shown))
    first, old_key = files.current, pair.key_file.read_bytes()
    authority.issue(tmp_path, "me")
    new_key = pair.key_file.read_bytes()
    pair.key_file.write_bytes(old_key)
    files.look()
    assert files.current is first
    assert "IOT_MQTT_TLS_KEY_FILE" in " ".join(files.problems)
    pair.key_file.write_bytes(new_key)
    files.look()
    assert files.problems == []
    assert files.current.certificates != first.certificates
    assert files.current.tls is not first.tls
