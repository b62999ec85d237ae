"""Why a secured Kafka does not let us in: the cause and its setting are named, by every call that meets it."""

import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaException

from iot_platform.diagnostics.doctor_kafka import topic_findings
from iot_platform.kafka.causes import ConnectionCauses
from iot_platform.kafka.errors import KafkaUnavailableError
from iot_platform.kafka.topics import TopicError, check_topics, ensure_topics
from iot_platform.kafka.watermarks import TopicOffsets
from iot_platform.local import probes
from iot_platform.local.errors import NotReadyError
from iot_platform.local.ports import free_ports, is_free
from iot_platform.settings import Settings
from iot_platform_tests.support.servers.certificates import Authority, Pair
from iot_platform_tests.support.servers.secured_kafka import SecuredKafka
from iot_platform_tests.support.waiting import eventually

USER, PASSWORD = "causes", "the right one"


@pytest.fixture
def kafka(secured_kafka: SecuredKafka) -> SecuredKafka:
    secured_kafka.set_password(USER, PASSWORD)
    return secured_kafka


@pytest.fixture
def tls_server() -> Iterator[Callable[[Pair], int]]:
    """Shows a certificate to whoever connects: returns its port, on every loopback address."""
    running: list[subprocess.Popen[bytes]] = []

    def start(pair: Pair) -> int:
        (port,) = free_ports(1)
        command = ["openssl", "s_server", "-accept", f"0.0.0.0:{port}", "-cert", str(pair.cert_file), "-key", str(pair.key_file), "-quiet"]
        running.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        eventually(lambda: not is_free(port), what="openssl s_server does not listen")
        return port

    yield start
    for process in running:
        process.kill()
        process.wait()
        if process.stdin:
            process.stdin.close()


def wrong_password(kafka: SecuredKafka) -> dict[str, Any]:
    return kafka.sasl(USER, "another one")


def other_mechanism(kafka: SecuredKafka) -> dict[str, Any]:
    return kafka.sasl(USER, PASSWORD) | {"kafka_sasl_mechanism": "PLAIN"}


def unknown_ca(kafka: SecuredKafka) -> dict[str, Any]:
    other = kafka.folder / "causes-other"
    authority = Authority(other) if not other.exists() else None
    return kafka.sasl(USER, PASSWORD) | {"kafka_ssl_ca_file": authority.ca_file if authority else other / "ca.pem"}


def no_tls(kafka: SecuredKafka) -> dict[str, Any]:
    return {"kafka_bootstrap_servers": kafka.sasl_servers}


def no_password(kafka: SecuredKafka) -> dict[str, Any]:
    return kafka.sasl(USER, PASSWORD) | {"kafka_security_protocol": "SSL"}


def tls_where_there_is_none(kafka: SecuredKafka) -> dict[str, Any]:
    return kafka.sasl(USER, PASSWORD) | {"kafka_bootstrap_servers": kafka.bootstrap_servers}


def password_where_none_is_wanted(kafka: SecuredKafka) -> dict[str, Any]:
    plain = {"kafka_bootstrap_servers": kafka.bootstrap_servers, "kafka_security_protocol": "SASL_PLAINTEXT"}
    return kafka.sasl(USER, PASSWORD) | plain


def no_certificate(kafka: SecuredKafka) -> dict[str, Any]:
    pair = kafka.authority.issue(kafka.folder, USER)
    return {**kafka.mutual(pair), "kafka_ssl_cert_file": None, "kafka_ssl_key_file": None}


def ended_certificate(kafka: SecuredKafka) -> dict[str, Any]:
    return kafka.mutual(kafka.authority.issue(kafka.folder, "causes-ended", seconds=-60))


def absent_file(kafka: SecuredKafka) -> dict[str, Any]:
    return kafka.sasl(USER, PASSWORD) | {"kafka_ssl_ca_file": kafka.folder / "nothing.pem"}


def foreign_key(kafka: SecuredKafka) -> dict[str, Any]:
    mine, other = kafka.authority.issue(kafka.folder, USER), kafka.authority.issue(kafka.folder, "causes-other-key")
    return {**kafka.mutual(mine), "kafka_ssl_key_file": other.key_file}


def no_such_host(_: SecuredKafka) -> dict[str, Any]:
    return {"kafka_bootstrap_servers": "kafka.invalid:9092"}


CASES: list[tuple[Callable[[SecuredKafka], dict[str, Any]], str, str]] = [
    (wrong_password, "invalid credentials", "IOT_KAFKA_SASL_USERNAME, IOT_KAFKA_SASL_PASSWORD"),
    (other_mechanism, "supported mechanisms: SCRAM-SHA-512", "IOT_KAFKA_SASL_MECHANISM"),
    (unknown_ca, "not signed by a CA that we trust", "IOT_KAFKA_SSL_CA_FILE"),
    (no_tls, "ends each connection without a word", "IOT_KAFKA_SECURITY_PROTOCOL"),
    (no_password, "ends each connection without a word", "IOT_KAFKA_SECURITY_PROTOCOL"),
    (tls_where_there_is_none, "SSL connection closed by peer", "IOT_KAFKA_SECURITY_PROTOCOL"),
    (password_where_none_is_wanted, "SASL state", "IOT_KAFKA_SECURITY_PROTOCOL"),
    (no_certificate, "bad certificate", "IOT_KAFKA_SSL_CERT_FILE"),
    (ended_certificate, "certificate unknown", "IOT_KAFKA_SSL_CERT_FILE"),
    (absent_file, "ssl.ca.location failed", "IOT_KAFKA_SSL_CA_FILE"),
    (foreign_key, "key values mismatch", "IOT_KAFKA_SSL_KEY_FILE"),
    (no_such_host, "Failed to resolve", "IOT_KAFKA_BOOTSTRAP_SERVERS"),
]


@pytest.mark.parametrize(("make", "expected", "setting"), CASES, ids=lambda value: getattr(value, "__name__", ""))
def test_the_cause_and_its_setting_are_named(
    kafka: SecuredKafka, make: Callable[[SecuredKafka], dict[str, Any]], expected: str, setting: str
) -> None:
    with pytest.raises(NotReadyError) as failure:
        probes.kafka(Settings(**make(kafka)))
    assert expected in str(failure.value)
    assert setting in str(failure.value)
    assert PASSWORD not in str(failure.value)


def test_every_call_names_it(kafka: SecuredKafka, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iot_platform.kafka.topics.TIMEOUT_SECONDS", 2)
    settings = Settings(**wrong_password(kafka))
    said: list[str] = []
    with pytest.raises(TopicError) as topics:
        ensure_topics(settings)
    said.append(str(topics.value))
    with TopicOffsets(settings, timeout_seconds=2) as topic, pytest.raises(KafkaUnavailableError) as watermarks:
        topic.partitions()
    said.append(str(watermarks.value))
    with TopicOffsets(settings, timeout_seconds=2) as topic, pytest.raises(KafkaUnavailableError) as identity:
        topic.identity()
    said.append(str(identity.value))
    assert [text for text in said if "IOT_KAFKA_SASL_PASSWORD" not in text] == []


def test_an_ended_certificate_of_the_broker_is_told_from_an_unknown_ca(kafka: SecuredKafka, tls_server: Callable[[Pair], int]) -> None:
    ended = kafka.authority.issue(kafka.folder, "causes-broker", seconds=-60)
    settings = Settings(**kafka.sasl(USER, PASSWORD) | {"kafka_bootstrap_servers": f"127.0.0.1:{tls_server(ended)}"})
    with pytest.raises(NotReadyError, match="the broker's certificate has ended"):
        probes.kafka(settings)


def test_a_certificate_for_another_name_is_told(kafka: SecuredKafka, tls_server: Callable[[Pair], int]) -> None:
    pair = kafka.authority.issue(kafka.folder, "causes-name")  # for 127.0.0.1
    settings = Settings(**kafka.sasl(USER, PASSWORD) | {"kafka_bootstrap_servers": f"127.0.0.2:{tls_server(pair)}"})
    with pytest.raises(NotReadyError, match=r"for another name .*IOT_KAFKA_BOOTSTRAP_SERVERS"):
        probes.kafka(settings)


def test_a_missing_right_is_named_with_the_command_that_grants_it(kafka: SecuredKafka) -> None:
    user = "causes-nothing"
    kafka.set_password(user, PASSWORD)
    names = {"kafka_topic": "causes-messages", "kafka_dead_letter_topic": "causes-dead"}
    settings = Settings(**kafka.sasl(user, PASSWORD) | names)
    kafka.create(*names.values())
    grant = f"kafka-acls.sh --bootstrap-server {kafka.sasl_servers} --command-config admin.properties --add --allow-principal User:{user}"

    with pytest.raises(TopicError) as create:
        ensure_topics(settings)
    assert f"{grant} --operation Create" in str(create.value)
    with TopicOffsets(settings) as topic, pytest.raises(KafkaUnavailableError) as describe:
        topic.identity()
    assert f"{grant} --operation Read --operation Describe --topic causes-messages" in str(describe.value)
    with TopicOffsets(settings) as topic, pytest.raises(KafkaUnavailableError) as watermarks:
        topic.partitions()
    assert f"user {user} may not READ, DESCRIBE the topic causes-messages" in str(watermarks.value)
    (hidden,) = topic_findings(settings)
    assert (hidden.state, "hidden" in hidden.text) == ("bad", True)

    for name in names.values():
        kafka.grant(user, "READ", "DESCRIBE", topic=name)
    assert {item.setting for item in check_topics(settings)[1]} == {"configuration"}
    assert {item.state for item in topic_findings(settings)} == {"note"}
    for name in names.values():
        kafka.grant(user, "DESCRIBE_CONFIGS", topic=name)
    assert "risk" in {item.state for item in topic_findings(settings)}


def test_a_consumer_names_it_without_being_polled_for_it(kafka: SecuredKafka) -> None:
    """consume() serves the callback as well: an assigned consumer must not be polled for anything else."""
    causes = ConnectionCauses(Settings(**wrong_password(kafka)))
    consumer = Consumer({**causes.config, "group.id": "causes", "log_level": 0})
    try:
        consumer.consume(1, timeout=3)
        with pytest.raises(KafkaException) as failure:
            consumer.list_topics(timeout=1)
        assert "IOT_KAFKA_SASL_PASSWORD" in causes.explain(failure.value)
    finally:
        consumer.close()
