"""The audit of the real chain: device → MQTT → ingest daemon → Kafka → drain → database, through a dead letter and a kill -9."""

from contextlib import suppress

from iot_platform.audit import AuditResult, run_audit
from iot_platform.settings import Settings
from iot_platform_tests.support.feeds.drain import TOPIC, drain, query
from iot_platform_tests.support.servers.ingest import publish
from iot_platform_tests.support.servers.stack import Ingest
from iot_platform_tests.support.waiting import eventually


def settled_audit(settings: Settings, messages: int) -> AuditResult:
    """Drains and audits until so many messages are found and nothing is in flight."""
    found: list[AuditResult] = []

    def complete() -> bool:
        drain(settings)
        found[:] = [run_audit(settings, wait_seconds=5)]
        sums = found[0].sequence_sums()
        settled = sums["stored"] + sums["dead_lettered"] >= messages and sums["in_flight"] == 0
        return settled and bool(found[0].daemons) and found[0].daemons[0].in_flight == 0  # the daemon is asked before Kafka is read

    eventually(complete, 90, lambda: (f"{messages} messages", found[0].as_json() if found else ""), pause=0.1)
    return found[0]


def messages(first: int, last: int) -> list[tuple[str, bytes]]:
    return [(f"{TOPIC}/d{number % 7}", b'{"n":%d}' % number) for number in range(first, last)]


def test_from_device_to_verdict(settings: Settings, ingest: Ingest) -> None:
    url = settings.mqtt_url.get_secret_value()
    ingest.start(IOT_INGEST_MAX_RECORD_BYTES="2000")
    publish(url, messages(0, 300))
    publish(url, [(f"{TOPIC}/large", b'{"text":"%s"}' % (b"x" * 1_200_000))])  # refused, kept in parts
    result = settled_audit(settings, 301)
    assert (result.differences, result.doubts) == ([], [])
    sums = result.sequence_sums()
    assert (sums["received"], sums["stored"], sums["dead_lettered"], sums["missing"]) == (301, 300, 1, 0)
    assert (result.daemons[0].received, result.daemons[0].dead_lettered, result.daemons[0].difference) == (301, 1, 0)
    assert query(settings, "SELECT max(parts) > 1 FROM dead_letter") == [(True,)]

    def at_the_middle(number: int) -> None:
        if number == 150:
            ingest.kill()

    with suppress(AssertionError):  # publish() also waits for the daemon's broker to be quiet
        publish(url, messages(300, 600), pace=at_the_middle)
    ingest.await_ready()
    result = settled_audit(settings, 601)
    assert (result.differences, result.doubts) == ([], [])
    assert len(result.connections) == 2
    assert result.daemons[0].difference == 0

    first, last = query(
        settings,
        "SELECT min(sequence), max(sequence) FROM message JOIN mqtt_connection USING (connection_id) WHERE connection_number ="
        " (SELECT max(connection_number) FROM mqtt_connection)",
    )[0]
    query(
        settings,
        "DELETE FROM message WHERE sequence IN (%s, %s) AND connection_id = (SELECT connection_id FROM mqtt_connection"
        " ORDER BY connection_number DESC LIMIT 1)",
        first,
        last,
    )
    texts = [item.text for item in run_audit(settings, wait_seconds=5).differences]
    assert any(text.endswith(f"sequence {first}, {last} are nowhere") for text in texts), texts
    assert sum("is in no table" in text for text in texts) == 2
