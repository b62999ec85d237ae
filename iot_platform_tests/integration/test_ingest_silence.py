"""Connected but deaf is seen: a broker that grants what its ACL forbids, told by /readyz, metrics and a probe; a probe becomes no data."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest_daemon import probe
from iot_platform.diagnostics import ingest_probe
from iot_platform.diagnostics.doctor_ingest import ingest_findings
from iot_platform.diagnostics.finding import Finding
from iot_platform.settings import Settings
from iot_platform_tests.support.feeds.secured_flow import Passage
from iot_platform_tests.support.servers.ingest import publish, read_all
from iot_platform_tests.support.servers.own_servers import Broker, OwnKafka
from iot_platform_tests.support.servers.secured_broker import SecuredBroker
from iot_platform_tests.support.waiting import eventually


@pytest.fixture
def passage(secured_broker: SecuredBroker, own_kafka: OwnKafka, tmp_path: Path) -> Iterator[Passage]:
    own_kafka.revive()
    made = Passage(tmp_path, secured_broker, own_kafka, ingest_silent_seconds=2)
    secured_broker.set_password(made.user, "secret")
    made.set(mqtt_url=secured_broker.password_url(made.user, "secret"))
    yield made
    made.daemon.close()


def found(passage: Passage, what: str, mqtt_url: str | None = None) -> list[Finding]:
    settings = Settings(
        mqtt_url=mqtt_url or passage.daemon.environment["IOT_MQTT_URL"],  # type: ignore[arg-type]
        ingest_http_url=f"http://127.0.0.1:{passage.daemon.port}",
    )
    return [finding for finding in ingest_findings(settings) if finding.what == what]


def test_a_granted_filter_that_the_acl_forbids(passage: Passage, secured_broker: SecuredBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    secured_broker.allow(f"user {passage.user}", "topic write f/#")
    daemon = passage.start()
    passage.publish(50)
    passage.await_problem("connected and subscribed, but no message", "IOT_INGEST_SILENT_SECONDS")
    assert daemon.probe("readyz")[0] == 503
    assert daemon.metric("mqtt_connected") == 1
    assert daemon.metric("silent_seconds") > daemon.metric("silent_after_seconds") == 2
    with monkeypatch.context() as patched:
        patched.setattr(ingest_probe, "BACK_SECONDS", 1.0)
        (finding,) = found(passage, "probe")
    assert finding.state == "bad"
    assert "f/iot-probe" in finding.text
    secured_broker.allow(f"user {passage.user}", "topic readwrite f/#")
    (finding,) = found(passage, "probe")
    assert finding.state == "ok", finding.text
    assert daemon.probe("readyz")[0] == 200


def test_a_user_that_may_not_publish_can_not_probe(passage: Passage, secured_broker: SecuredBroker) -> None:
    secured_broker.allow(f"user {passage.user}", "topic read f/#")
    passage.start()
    (finding,) = found(passage, "probe")
    assert (finding.state, "may not publish" in finding.text) == ("note", True)


def test_probes_among_messages_are_in_no_book(own_broker: Broker, own_kafka: OwnKafka, tmp_path: Path) -> None:
    own_kafka.revive()
    passage = Passage(tmp_path, own_broker, own_kafka, mqtt_topic_filter='["f/#", "g/+/x"]')
    try:
        daemon = passage.start()
        identifiers = [f"{number:032x}" for number in range(30)]
        messages = [(f"f/{number % 7}", b"%d" % number) for number in range(300)]
        for number, identifier in enumerate(identifiers):
            messages.insert(11 * number, ("g/iot-probe/x" if number % 2 else "f/iot-probe", probe.payload(identifier)))
        own_kafka.pause()  # so that probes have to wait for the messages before them
        publish(own_broker.url, messages)
        eventually(lambda: len(json.loads(daemon.probe("probe")[1])["received"]) == 30)
        own_kafka.resume()
        passage.published = 300
        passage.check()
        books = json.loads(daemon.probe("accounting")[1])
        assert (books["received"], books["delivered"] + books["spooled"]) == (300, 300)
        assert "accounting_differs" not in daemon.log.read_text()
        records = read_all(own_kafka.bootstrap_servers, passage.topic)
        assert sorted(record.sequence for record in records) == list(range(1, 301))
        (finding,) = found(passage, "probe", own_broker.url)
        assert finding.state == "ok", finding.text
        assert daemon.stop() == 0
        daemon.start()  # every probe was acknowledged, too: nothing comes again
        passage.publish(1)
        passage.check()
        assert daemon.metric("messages_redelivered_total") == 0
        assert json.loads(daemon.probe("probe")[1])["received"] == []
    finally:
        passage.daemon.close()
