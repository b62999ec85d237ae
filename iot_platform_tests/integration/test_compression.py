"""Compression where the edition has it: the same rows in a tenth of the bytes, late rows too; and where it has not: a plain answer."""

from datetime import UTC, datetime, timedelta
from functools import partial

import dagster as dg
import psycopg2
import pytest
from typer.testing import CliRunner

from iot_platform.cli.main import app
from iot_platform.compression.chunks import read_chunks, read_policies, set_policy
from iot_platform.compression.compress import compress
from iot_platform.compression.errors import CompressionError
from iot_platform.compression.forecast import forecast
from iot_platform.database import connect
from iot_platform.orchestration.compression_run import compress_chunks, evaluate_compressed, evaluate_disk
from iot_platform.settings import Settings
from iot_platform.tenants.deletion import delete_tenant
from iot_platform.tenants.errors import TenantError
from iot_platform_tests.support.feeds.community import fill
from iot_platform_tests.support.feeds.drain import query

ROWS = "SELECT time, series_id, value, value_int, value_text FROM measurement ORDER BY 2, 1"
BLOOMS = """
SELECT a.attname FROM _timescaledb_catalog.compression_settings c JOIN pg_attribute a ON a.attrelid = c.compress_relid
WHERE a.attname ~ 'bloom'"""
MINUTE = timedelta(minutes=1)


def days_ago(count: int) -> datetime:
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return today - timedelta(days=count)


def iot(settings: Settings, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str]:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("iot_platform.settings.get_settings", lambda: settings)
    result = CliRunner().invoke(app, arguments)
    return result.exit_code, result.output + (str(result.exception) if result.exception else "")


def test_old_chunks_shrink_and_say_the_same(community: Settings) -> None:
    fill(community, days_ago(20), series=10, count=2000, step=timedelta(seconds=40))
    fill(community, days_ago(19), series=2000, count=5, step=timedelta(hours=4))
    fill(community, days_ago(2), series=5, count=10, step=MINUTE)
    before = query(community, ROWS)
    assert compress(community, dry_run=True).done == []
    result = compress(community)
    assert [(item.table, item.action, item.rows) for item in result.done] == [
        ("measurement", "compress", 20_000),
        ("measurement", "compress", 10_000),
    ]
    assert result.done[0].bytes_before / result.done[0].bytes_after > 8  # 10 and more with whole days: docs/compression.md
    assert result.done[1].bytes_before / result.done[1].bytes_after > 4  # 5 rows a day and series: no segments
    assert query(community, ROWS) == before
    again = compress(community)
    assert (again.due, again.done) == ([], [])
    connection = connect(community)
    chunks = read_chunks(connection)
    connection.close()
    assert [chunk.compressed for chunk in chunks if chunk.table == "measurement"] == [True, True, False]
    assert query(community, BLOOMS) == [], "nothing but min/max beside the values"
    noted = query(community, "SELECT bytes_before, bytes_after, rows FROM compressed_chunk ORDER BY range_start")
    assert noted == [(item.bytes_before, item.bytes_after, item.rows) for item in result.done]


def test_late_rows_land_and_are_merged_when_worth_it(community: Settings) -> None:
    """First of its key wins, in compressed chunks too; a few late rows are left alone, many are compressed."""
    start = days_ago(20)
    fill(community, start, series=10, count=2000, step=timedelta(seconds=40))
    compress(community)
    known = query(community, "SELECT time, series_id, value FROM measurement WHERE series_id = 1 ORDER BY time LIMIT 1")[0]
    writer = connect(community)
    with writer.cursor() as cursor:
        insert = "INSERT INTO measurement (time, series_id, value) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"
        cursor.execute(insert, (known[0], 1, 12345.0))
        assert cursor.rowcount == 0
        cursor.execute(insert, (known[0] + timedelta(microseconds=1), 1, 12345.0))
        assert cursor.rowcount == 1
    writer.commit()
    assert query(community, "SELECT value FROM measurement WHERE series_id = 1 ORDER BY time LIMIT 2") == [(known[2],), (12345.0,)]
    set_policy(writer, "measurement", "test", late_share=0.2)
    assert compress(community).due == []
    fill(community, start + timedelta(seconds=17), series=10, count=1000, step=timedelta(seconds=80))
    before = query(community, ROWS)
    result = compress(community)
    assert [item.action for item in result.done] == ["recompress"]
    assert result.bytes_after < result.bytes_before / 2
    assert query(community, ROWS) == before
    assert result.done[0].rows == len(before) == 30_001
    assert compress(community).due == []
    writer.close()


def test_a_deletion_leaves_chunks_packed(community: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two chunks without segments: a tenant goes out of each, and what stays is compressed again before the next one is opened."""
    for age in (20, 19):
        fill(community, days_ago(age), series=1000, count=20, step=timedelta(minutes=70))
    query(community, "INSERT INTO project (tenant_id, project_id) SELECT 'going', project_id FROM project")
    query(community, "UPDATE series SET tenant_id = 'going' WHERE series_id %% 2 = 0")
    compress(community)
    kept = query(community, "SELECT * FROM measurement WHERE series_id %% 2 = 1 ORDER BY series_id, time")
    before = _bytes(community)
    room = community.model_copy(update={"disk_limit_bytes": query(community, "SELECT pg_database_size(current_database())")[0][0] + 1000})
    with pytest.raises(TenantError, match=r"takes up to .*make room, or raise IOT_DISK_LIMIT_BYTES; nothing was deleted"):
        delete_tenant(room, "going", requested_by="test")
    code, told = iot(room, monkeypatch, "tenant", "delete", "going", "--yes-delete", "another")
    assert (code, "are left (IOT_DISK_LIMIT_BYTES)" in told) == (1, True), "what it takes is said before it asks"
    assert query(community, "SELECT count(*) FROM tenant_deletion") == [(0,)]

    delete_tenant(community, "going", requested_by="test", max_rows=3000)

    assert query(community, "SELECT * FROM measurement ORDER BY series_id, time") == kept
    assert len(kept) == 20_000
    assert _bytes(community) < before
    assert compress(community).due == []
    assert query(community, "SELECT action, count(*) FROM compressed_chunk GROUP BY 1 ORDER BY 1") == [("compress", 2), ("recompress", 2)]


def _bytes(settings: Settings) -> int:
    return int(query(settings, "SELECT sum(bytes) FROM compression_chunks() WHERE table_name = 'measurement'")[0][0])


def test_policies_are_obeyed(community: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(community, days_ago(20), series=2, count=100, step=MINUTE)
    run = partial(iot, community, monkeypatch, "compression")
    assert run("set", "measurement", "--older-than", "30d")[0] == 0
    assert "0 chunk(s) of 0 B are due" in run("run", "--dry-run")[1]
    assert run("set", "measurement", "--older-than", "2w", "--off")[0] == 0
    assert "0 chunk(s) of 0 B are due" in run("run", "--dry-run")[1]
    assert run("set", "measurement", "--on")[0] == 0
    assert "1 chunk(s)" in run("run", "--dry-run")[1]
    code, text = run("run")
    assert code == 0
    assert "1/1 measurement" in text
    code, text = run("show", "--chunks")
    assert code == 0
    assert "Community edition" in text
    assert "14 days" in text
    for arguments, problem in (
        (("set", "nothing", "--older-than", "3d"), "there is no compression policy for 'nothing'"),
        (("set", "measurement", "--older-than", "0h"), "at least 1 hour"),
        (("set", "measurement", "--older-than", "soon"), "no duration"),
        *((("set", "measurement", "--late-share", share), "above 0 and at most 1") for share in ("0", "nan", "inf", "1e9", "1.5")),
        (("set", "measurement"), "nothing to set"),
    ):
        code, text = run(*arguments)
        assert code == 1
        assert problem in text
    connection = connect(community)
    with pytest.raises(CompressionError):
        set_policy(connection, "measurement", "test", older_than=timedelta(minutes=1))
    assert [(policy.table, policy.older_than.days, policy.enabled) for policy in read_policies(connection)] == [
        ("ledger", 30, True),
        ("measurement", 14, True),
        ("message", 1, True),
    ]
    connection.close()


def test_messages_and_the_ledger_are_compressed_too(community: Settings) -> None:
    query(community, "INSERT INTO project (tenant_id, project_id) VALUES ('t', 'p')")
    query(
        community,
        "INSERT INTO source (identity, topic, tenant_id, project_id, device_id)"
        " SELECT n::text::bytea, 't/' || n, 't', 'p', n FROM generate_series(1, 20) n",
    )
    query(
        community,
        "INSERT INTO message (received_at, kafka_offset, source_id, kafka_partition, time_source, payload)"
        " SELECT %s + n * interval '20 seconds', n, 1 + n %% 20, n %% 2, 1, convert_to(json_build_object("
        " 'ts', 1700000000000 + n * 20000, 'temp', 20 + n %% 7, 'humidity', 50 + n %% 9, 'ok', true, 'state', 'running')::text, 'UTF8')"
        " FROM generate_series(0, 3999) n",
        days_ago(3),
    )
    query(
        community,
        "INSERT INTO ledger (committed_at, from_offset, to_offset, kafka_partition, kind, kafka_topic, topic_id, run_id)"
        " SELECT %s + n * interval '1 minute', n, n + 1, n %% 2, 'drain', 'x', 'x', 'x' FROM generate_series(0, 2999) n",
        days_ago(60),
    )
    rows = "SELECT * FROM message ORDER BY kafka_offset", "SELECT * FROM ledger ORDER BY from_offset"
    before = [query(community, text) for text in rows]
    done = compress(community).done
    assert {item.table for item in done} == {"message", "ledger"}
    assert sum(item.bytes_before for item in done) > 4 * sum(item.bytes_after for item in done)
    assert [query(community, text) for text in rows] == before


def test_the_asset_and_its_checks(community: Settings) -> None:
    fill(community, days_ago(20), series=5, count=1000, step=MINUTE)
    check = evaluate_compressed(community)
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    metadata = compress_chunks(dg.build_asset_context(), community).metadata
    assert metadata is not None
    assert metadata["chunks"].value == 1
    assert metadata["rows"].value == 5000
    assert metadata["bytes_before"].value > metadata["bytes_after"].value
    assert "Community" in metadata["edition"].value
    assert "not_available" not in metadata
    assert evaluate_compressed(community).passed


@pytest.mark.apache_only("of the Apache edition")
def test_apache_says_what_is_missing(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """No lie and no failure: nothing changes, the check warns with the price and the way out, the run succeeds."""
    fill(settings, days_ago(20), series=5, count=1000, step=MINUTE)
    fill(settings, days_ago(2), series=5, count=1000, step=MINUTE)
    before = query(settings, ROWS)
    metadata = compress_chunks(dg.build_asset_context(), settings).metadata
    assert metadata is not None
    assert (metadata["chunks"].value, metadata["chunks_due"].value) == (0, 1)
    assert "Community edition" in metadata["not_available"].value
    assert metadata["lost_bytes_a_day"].value > 20_000
    check = evaluate_compressed(settings)
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert check.description is not None
    assert "no compression" in check.description
    assert "timescaledb.license" in check.description
    writer = connect(settings)
    with writer.cursor() as cursor, pytest.raises(psycopg2.errors.FeatureNotSupported, match="Apache edition"):
        cursor.execute("SELECT * FROM compression_apply('x.y')")
    writer.close()
    code, text = iot(settings, monkeypatch, "compression", "run")
    assert code == 1
    assert "timescaledb.license" in text
    assert iot(settings, monkeypatch, "compression", "run", "--dry-run")[0] == 0
    assert "Apache edition" in iot(settings, monkeypatch, "compression", "show")[1]
    assert query(settings, ROWS) == before


@pytest.mark.apache_only("compression changes what is forecast")
def test_the_disk_is_looked_ahead_at(settings: Settings) -> None:
    """Unlimited, enough for a month, and not: the limit decides, the rate is that of the last week."""
    fill(settings, days_ago(3), series=5, count=4320, step=MINUTE)
    query(
        settings,
        "INSERT INTO accounting_1h (hour, tenant_id, project_id, kafka_partition, messages, duplicates, quarantined, measurements,"
        " measurement_duplicates, measurement_conflicts, first_offset, last_offset, last_received_at, last_committed_at)"
        " SELECT date_trunc('hour', now()) - n * interval '1 hour', 't', 'p', 0, 60, 0, 0, 300, 0, 0, 0, 1, now(), now()"
        " FROM generate_series(2, 60) n",
    )
    connection = connect(settings)
    outlook = forecast(connection, settings)
    assert (outlook.days, outlook.limit) == (None, None)
    assert 22 * 300 <= outlook.measurements_a_day <= 23 * 300  # without this hour and the last; of the first, what is 24 hours old at most
    assert 300_000 < outlook.day_bytes < 1_000_000  # three days of 7,200 rows of some 90 bytes, and part of one without
    assert evaluate_disk(settings).passed
    for days, passed in ((60, True), (10, False), (0, False)):  # beyond 90 days retention keeps it level
        limited = settings.model_copy(update={"disk_limit_bytes": round(outlook.bytes + days * outlook.day_bytes)})
        found = forecast(connection, limited)
        assert found.days is not None
        assert abs(found.days - days) <= 1
        check = evaluate_disk(limited)
        assert (check.passed, check.severity) == (passed, dg.AssetCheckSeverity.WARN)
    connection.close()
