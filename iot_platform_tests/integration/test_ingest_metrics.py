"""What the daemon answers over HTTP about its accounting, and what it says of its clock."""

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from prometheus_client.parser import text_string_to_metric_families

from ingest_daemon import health
from ingest_daemon.accounting import Accounting, Turn
from ingest_daemon.clock import ClockWatch
from ingest_daemon.metrics import Metrics

COUNTERS = ("messages_received", "messages_delivered", "messages_dead_lettered", "messages_redelivered", "messages_given_up")


@pytest.fixture
def accounting(tmp_path: Path) -> Iterator[Accounting]:
    made = Accounting(tmp_path, "wärme", 0, None, keep_seconds=0)
    yield made
    made.close()


@pytest.fixture
def port(accounting: Accounting) -> Iterator[int]:
    metrics = Metrics(accounting.totals)
    server, port = health.start(
        "127.0.0.1", 0, list, list, list, metrics.registry, {"/accounting": lambda: accounting.snapshot().to_json()}
    )
    yield port
    server.shutdown()
    server.server_close()


def scrape(port: int) -> dict[str, tuple[str, float]]:
    """Type and value of each metric."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        text = response.read().decode()
    families = text_string_to_metric_families(text)
    return {sample.name.removeprefix("iot_ingest_"): (family.type, sample.value) for family in families for sample in family.samples}


def test_metrics_and_accounting_add_up(accounting: Accounting, port: int) -> None:
    assert scrape(port)["messages_received_total"] == ("counter", 0.0)
    accounting.opened(7, session_lost=True)
    accounting.record(Turn(20, 3, 0, 9, 1, 5, 1, 1, 5, 500, 5, 1_700_000_000_500_000), (7, 20), {7: 15}, (7, 11))
    found = scrape(port)
    values = {name: value for name, (_, value) in found.items()}
    assert {name for name, (kind, _) in found.items() if kind == "counter"} == {
        *(f"{name}_total" for name in (*COUNTERS, "messages_resent", "mqtt_connections", "mqtt_sessions_lost"))
    }
    assert (
        values["messages_received_total"]
        == sum(
            values[f"messages_{place}"] for place in ("delivered_total", "dead_lettered_total", "given_up_total", "in_flight", "missing")
        )
        + values["spool_messages"]
    )
    assert (values["messages_delivered_total"], values["spool_messages"], values["messages_in_flight"]) == (10, 3, 5)
    assert (values["payload_bytes_in_flight"], values["last_message_timestamp_seconds"]) == (500, 1_700_000_000.5)
    assert (values["mqtt_connections_total"], values["mqtt_sessions_lost_total"]) == (1, 1)
    assert {"mqtt_connected", "kafka_up", "spool_bytes", "spool_full", "clock_offset_seconds"} <= set(values)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/accounting", timeout=10) as response:
        assert response.headers["Content-Type"] == "application/json"
        answer = json.load(response)
    assert answer.pop("reported_at").endswith("Z")
    (connection,) = answer.pop("connections")
    assert connection.pop("opened_at").endswith("Z")
    assert connection == {"number": 7, "received": 20, "settled": 15, "in_kafka": 10, "open": True}
    assert answer == {
        "client_id": "wärme", "received": 20, "delivered": 10, "dead_lettered": 2, "spooled": 3, "in_flight": 5, "awaiting_redelivery": 0,
        "given_up": 0, "missing": 0, "sessions_lost": 1,
    }  # fmt: skip


def test_a_clock_that_differs_is_told_once_and_a_slow_kafka_is_no_difference() -> None:
    reported: list[float] = []
    now = 10_000.0
    watch = ClockWatch(reported.append, wall=lambda: now)
    assert [watch.due(second) for second in (1.0, 2.0, 10.9, 11.0)] == [True, False, False, True]
    with structlog.testing.capture_logs() as logs:
        watch.sample(9_990_000, 9_000.0)  # sent 1,000 s ago, stamped 10 s ago
        for hour in (1, 1):
            watch.sample(10_000_000 + hour * 3_600_000, 10_000.0)  # we are late
        watch.sample(9_999_990, 9_999.9)
        watch.sample(6_400_000, 9_999.0)  # we are early
    assert reported == [0.0, -3600.0, -3600.0, 0.0, 3599.0]
    assert [entry["event"] for entry in logs] == ["clock_differs", "clock_agrees", "clock_differs"]
    assert watch.problem
