"""The platform's own metrics on real servers: the audit's differences, lag and stored messages, also while a server is away."""

import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager

from prometheus_client.parser import text_string_to_metric_families

from iot_platform.database import connect
from iot_platform.local import probes
from iot_platform.settings import Settings
from iot_platform_tests.support.feeds.drain import Feed, drain, query
from iot_platform_tests.support.servers.exporter import exporter
from iot_platform_tests.support.waiting import eventually

Samples = dict[tuple[str, ...], float]


@contextmanager
def exporting(settings: Settings) -> Iterator[Callable[[], Samples]]:
    """An exporter that looks all the time; what its /metrics says, by name and label values."""
    with exporter(settings) as url:

        def scrape() -> Samples:
            probes.http(f"{url}/healthz")
            with urllib.request.urlopen(f"{url}/metrics", timeout=5) as answer:  # noqa: S310 - our own server
                assert answer.headers["Content-Type"].startswith("text/plain; version=")  # Prometheus 3 refuses a page without
                families = text_string_to_metric_families(answer.read().decode())
                samples = [((sample.name, *sample.labels.values()), sample.value) for family in families for sample in family.samples]
            found = dict(samples)
            assert len(found) == len(samples)
            return found

        yield scrape


def test_an_audit_that_takes_long_makes_nothing_else_old(reported: Settings) -> None:
    looks = ("database", "kafka", "totals")
    with exporting(reported) as scrape:
        eventually(lambda: ("iot_audit_timestamp_seconds",) in scrape(), 60, "a first audit", pause=0.1)
        with closing(connect(reported, "admin")) as connection, connection.cursor() as cursor:
            cursor.execute("LOCK TABLE message IN ACCESS EXCLUSIVE MODE")
            began = time.time()
            eventually(
                lambda: all(scrape()["iot_look_timestamp_seconds", look] > began for look in looks), 60, "all other looks", pause=0.1
            )
            assert scrape()["iot_audit_timestamp_seconds",] < began
        eventually(lambda: scrape()["iot_audit_timestamp_seconds",] > began, 60, "an audit again", pause=0.1)


def quarantined(samples: Samples) -> float:
    """Over all reasons."""
    return sum(value for name, value in samples.items() if name[0] == "iot_quarantined_messages_total")


def test_totals_lag_and_differences(reported: Settings) -> None:
    with exporting(reported) as scrape:
        eventually(lambda: ("iot_audit_timestamp_seconds",) in scrape(), 60, "a first audit", pause=0.1)
        seen = scrape()
        assert seen["iot_stored_messages_total",] == 36
        assert quarantined(seen) == 4
        assert seen["iot_drain_lag_messages", "0"] == 0
        assert {seen["iot_audit_differences", proof] for proof in ("offsets", "sequences", "daemon", "accounting")} == {0}
        assert (seen["iot_server_up", "database"], seen["iot_server_up", "kafka"]) == (1, 1)
        assert seen["iot_quarantined_messages_total", "too_deep"] == 0
        assert seen["iot_database_connections",] > 0
        assert seen["iot_wal_archive_failures_total",] == 0
        assert {value for name, value in seen.items() if name[0] == "iot_retention_overdue_seconds"} == {0}
        assert seen["iot_table_chunks", "message"] > 0
        assert seen["iot_database_growth_bytes",] > 0
        assert {value for name, value in seen.items() if name[0] == "iot_quality_incidents"} == {0}
        feed = Feed(reported)
        feed.send(b'{"n":1}', sequence=41)
        feed.send(b"broken", sequence=42)
        feed.flush()
        eventually(lambda: scrape()["iot_drain_lag_messages", "0"] == 2, 60, "the lag", pause=0.1)
        drain(reported)
        eventually(lambda: scrape()["iot_stored_messages_total",] == 37, 60, "one more stored", pause=0.1)
        seen = scrape()
        assert quarantined(seen) == 5
        assert seen["iot_freshness_seconds_count",] == seen["iot_freshness_seconds_bucket", "+Inf"] == 2
        assert seen["iot_drain_last_commit_timestamp_seconds",] > 0
        assert seen["iot_look_timestamp_seconds", "kafka"] > 0
        query(reported, "DELETE FROM message WHERE kafka_partition = 1 AND kafka_offset = 10")
        eventually(lambda: scrape()["iot_audit_differences", "offsets"] == 1, 60, "the loss", pause=0.1)
        assert scrape()["iot_stored_messages_total",] == 37


def test_a_failed_evaluation_is_told_from_open_incidents(reported: Settings) -> None:
    query(
        reported,
        "INSERT INTO quality_watermark (rule, evaluated_at, failing, error)"
        " VALUES ('range', now(), 7, NULL), ('stuck_value', now(), 0, 'x')"
        " ON CONFLICT (rule) DO UPDATE SET (evaluated_at, failing, error) = (excluded.evaluated_at, excluded.failing, excluded.error)",
    )
    with exporting(reported) as scrape:
        eventually(lambda: ("iot_quality_rule_failed", "range") in scrape(), 60, "the rules", pause=0.1)
        assert (scrape()["iot_quality_rule_failed", "range"], scrape()["iot_quality_rule_failed", "stuck_value"]) == (0, 1)


def test_sessions_of_every_role_are_counted(reported: Settings) -> None:
    with exporting(reported) as scrape, ExitStack() as opened:
        eventually(lambda: ("iot_database_connections",) in scrape(), 60, "a first look", pause=0.1)
        before = scrape()["iot_database_connections",]
        for _ in range(20):
            opened.enter_context(closing(connect(reported, "admin")))
        eventually(lambda: scrape()["iot_database_connections",] >= before + 15, 60, "the sessions", pause=0.1)


def test_servers_away(reported: Settings) -> None:
    with exporting(reported.model_copy(update={"kafka_bootstrap_servers": "127.0.0.1:1"})) as scrape:
        eventually(lambda: scrape().get(("iot_server_up", "kafka")) == 0, 60, "Kafka is missed", pause=0.1)
        assert scrape()["iot_server_up", "database"] == 1
    with exporting(reported.model_copy(update={"database_url": type(reported.database_url)("postgresql://x@127.0.0.1:1/x")})) as scrape:
        eventually(lambda: scrape().get(("iot_server_up", "database")) == 0, 60, "the database is missed", pause=0.1)
