"""Passwords and certificates: what is wrong with them is named with its setting, and new ones are taken over while messages flow."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from iot_platform_tests.support.feeds.secured_flow import Passage
from iot_platform_tests.support.servers.certificates import Authority, Pair
from iot_platform_tests.support.servers.own_servers import Broker
from iot_platform_tests.support.servers.secured_kafka import SecuredKafka
from iot_platform_tests.support.waiting import eventually


@pytest.fixture
def passage(own_broker: Broker, secured_kafka: SecuredKafka, tmp_path: Path) -> Iterator[Passage]:
    made = Passage(tmp_path, own_broker, secured_kafka)
    made.grant()
    yield made
    made.daemon.close()


@pytest.fixture
def password_file(passage: Passage, tmp_path: Path) -> Path:
    """Holds the right password of the passage's user, and the daemon is set to read it."""
    file = tmp_path / "password"
    file.write_text("secret-1\n")
    passage.kafka.set_password(passage.user, "secret-1")
    passage.set(**passage.kafka.sasl(passage.user, ""), kafka_sasl_password_file=file)
    return file


@pytest.fixture
def pair(passage: Passage, tmp_path: Path) -> Pair:
    """The certificate of the passage's user, and the daemon is set to show it."""
    made = passage.kafka.authority.issue(tmp_path, passage.user)
    passage.set(**passage.kafka.mutual(made))
    return made


def test_a_wrong_password_is_named_and_the_right_one_taken_over(passage: Passage, password_file: Path) -> None:
    password_file.write_text("wrong")
    daemon = passage.start()
    passage.await_problem(f"user '{passage.user}'", "IOT_KAFKA_SASL_USERNAME, IOT_KAFKA_SASL_PASSWORD_FILE", "invalid credentials")
    passage.publish(300)
    eventually(lambda: daemon.metric("spool_messages") == 300)
    passage.await_problem("no confirmation", "IOT_KAFKA_SASL_PASSWORD_FILE")
    assert "IOT_KAFKA_BOOTSTRAP_SERVERS" not in passage.problems()
    password_file.write_text("secret-1")
    passage.check()
    passage.kafka.set_password(passage.user, "secret-2")  # while nothing flows
    passage.await_problem("IOT_KAFKA_SASL_PASSWORD_FILE")
    password_file.write_text("secret-2")
    passage.publish(100)
    passage.check()
    log = daemon.log.read_text()
    assert "kafka_connection_refused" in log
    assert "kafka_unreachable" not in log
    assert "secret-" not in log


def test_a_password_changed_while_messages_flow(passage: Passage, password_file: Path) -> None:
    daemon = passage.start()
    with passage.flowing():
        passage.await_progress()
        passage.kafka.set_password(passage.user, "secret-2")
        passage.await_problem("IOT_KAFKA_SASL_PASSWORD_FILE")  # connections have to authenticate again
        password_file.write_text("")  # half written
        passage.await_progress()
        password_file.write_text("secret-2")
        eventually(lambda: daemon.probe("readyz")[0] == 200, 60)
        password_file.write_text("secret-3")  # in time this time
        eventually(lambda: daemon.log.read_text().count("credentials_changed") == 2)
        passage.kafka.set_password(passage.user, "secret-3")
        passage.await_progress(1000)  # beyond the next authentication
    passage.check()
    assert "secret-" not in daemon.log.read_text()


def test_an_untrusted_broker_is_named(passage: Passage, password_file: Path, tmp_path: Path) -> None:
    ca = Path(tmp_path / "ca.pem")
    ca.write_bytes(Authority(tmp_path / "stranger").ca_file.read_bytes())
    passage.set(kafka_ssl_ca_file=ca)
    daemon = passage.start()
    passage.await_problem("is not trusted", "IOT_KAFKA_SSL_CA_FILE", "unable to get local issuer certificate")
    passage.publish(300)
    eventually(lambda: daemon.metric("spool_messages") == 300)
    ca.write_bytes(passage.kafka.ca_file.read_bytes())
    passage.check()


def test_an_ended_client_certificate_is_named_and_the_next_taken_over(passage: Passage, pair: Pair, tmp_path: Path) -> None:
    passage.kafka.authority.issue(tmp_path, passage.user, seconds=-60)
    daemon = passage.start()
    passage.await_problem("does not take our certificate", "IOT_KAFKA_SSL_CERT_FILE, IOT_KAFKA_SSL_KEY_FILE")
    passage.publish(300)
    eventually(lambda: daemon.metric("spool_messages") == 300)
    passage.kafka.authority.issue(tmp_path, passage.user)
    passage.check()


def test_client_certificates_replaced_while_messages_flow(passage: Passage, pair: Pair, tmp_path: Path) -> None:
    daemon = passage.start()
    for one in ("server", "client", "ca"):
        expiry = f'certificate_expiry_timestamp_seconds{{certificate="{one}",server="kafka"}}'
        eventually(lambda expiry=expiry: daemon.metric(expiry) > time.time())
    with passage.flowing():
        for count in (1, 2, 3):
            passage.await_progress()
            passage.kafka.authority.issue(tmp_path, passage.user)
            eventually(lambda count=count: daemon.log.read_text().count('"direct"') == count, 60)
        passage.await_progress()
    passage.check()
    assert daemon.metric("messages_delivered_total") == passage.published  # no producer had to be thrown away
    assert "delivery_failed" not in daemon.log.read_text()


def test_half_written_certificates_leave_the_present_ones_in_use(passage: Passage, pair: Pair, tmp_path: Path) -> None:
    daemon = passage.start()
    whole = pair.cert_file.read_bytes()
    with passage.flowing():
        passage.await_progress()
        pair.cert_file.write_bytes(whole[:200])
        eventually(lambda: "producer_not_replaced" in daemon.log.read_text())
        passage.await_progress()
        pair.cert_file.unlink()
        eventually(lambda: "credentials_unreadable" in daemon.log.read_text())
        assert daemon.metric("spool_messages") == 0  # nothing had to wait
        passage.kafka.authority.issue(tmp_path, passage.user)
        eventually(lambda: '"direct"' in daemon.log.read_text(), 60)
        passage.await_progress()
    passage.check()


def test_an_ended_broker_certificate_is_named(passage: Passage, password_file: Path) -> None:
    passage.kafka.replace_server_certificate(seconds=3)
    try:
        passage.kafka.await_ended()  # a connection that is open already would stay
        passage.start()
        passage.await_problem("IOT_KAFKA_SSL_CA_FILE", "certificate has expired")
    finally:
        passage.kafka.replace_server_certificate()
    passage.check()


def test_the_broker_s_certificate_replaced_while_messages_flow(passage: Passage, password_file: Path) -> None:
    passage.start()
    with passage.flowing():
        for _ in range(2):
            passage.await_progress()
            passage.kafka.replace_server_certificate()
        passage.await_progress(1000)  # beyond the next authentication
    passage.check()
