"""kill -9 for retention, tenant deletion, export and rollups: between transactions, inside them, inside a statement, around COMMIT.

After each kill the audit holds, other tenants have what they had, and the rollups say what the measurements say; the next run goes on.
"""

from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from iot_platform.database import connect
from iot_platform.retention import run_retention
from iot_platform.rollups import Rebuild, roll_up
from iot_platform.settings import Settings
from iot_platform.tenants.deletion import delete_tenant
from iot_platform.tenants.export import export_tenant
from iot_platform.tenants.verify import verify_export
from iot_platform_tests.support.children.victims import Victims
from iot_platform_tests.support.feeds.accountant import Accountant
from iot_platform_tests.support.feeds.drain import Feed, drain, query
from iot_platform_tests.support.feeds.lifecycle import ROOT, checksums, fill, keep, problems
from iot_platform_tests.support.feeds.rollups import RollupFeed, days, hours

HOURS = "SELECT * FROM measurement_1h ORDER BY series_id, bucket"


@pytest.fixture
def aged(settings: Settings, accountant: Accountant) -> Settings:
    """Two and a half days of messages of two tenants."""
    return fill(settings, accountant, days=3, step=timedelta(hours=20))


def test_retention(aged: Settings, victims: Victims) -> None:
    keep(aged, "message", "1d", "acme")
    keep(aged, "measurement", "1d", "acme")
    before, stored = checksums(aged, "other"), query(aged, HOURS)

    def check() -> None:
        assert problems(aged) == []
        assert query(aged, HOURS) == stored

    for point, number in (("before_commit", 2), ("in_commit", 2), ("answer_lost", 3)):
        victims.die("retention", point, "retention_remove_rows", number)
        check()
    for table in ("removed_record", "retention_sum"):  # of messages, of measurements
        victims.die_within("retention", table)
        check()
    victims.die("retention", "at_statement", "retention_forget", 1)
    check()
    assert checksums(aged, "other") == before

    keep(aged, "measurement", "1d")  # and now whole chunks
    chunks = query(aged, "SELECT count(*) FROM retention_chunks('measurement')")
    for point in ("before_commit", "answer_lost"):
        victims.die("retention", point, "retention_remove_chunk", 1)
        check()
        assert (query(aged, "SELECT count(*) FROM retention_chunks('measurement')") < chunks) == (point == "answer_lost")
    assert not run_retention(aged).refused
    check()
    assert run_retention(aged).rows == 0
    assert query(aged, "SELECT count(*) FROM measurement WHERE time < now() - interval '25 hours'") == [(0,)]


def test_deletion(aged: Settings, victims: Victims) -> None:
    keep(aged, "message", "2d", "acme")
    before = checksums(aged, "other")
    own = [query(aged, f"SELECT {table}_id FROM {table} WHERE tenant_id = 'acme'") for table in ("series", "source")]

    def check() -> None:
        assert problems(aged) == []
        assert checksums(aged, "other") == before
        assert orphans(aged) == (0, 0)

    victims.die("delete", "answer_lost", "INSERT INTO tenant_deletion", 1)
    victims.die("delete", "before_commit", "tenant_deletion_prepare", 1)
    check()
    victims.die_within("delete", "retention_policy")  # the cut, which holds all its locks by then
    check()
    victims.die("delete", "before_commit", "tenant_deletion_cut", 1)
    assert query(aged, "SELECT cut_at IS NULL, names_gone_at FROM tenant_deletion") == [(True, None)]
    victims.die("delete", "answer_lost", "tenant_deletion_cut", 1)
    check()

    # Its devices go on while its old names are still there: a new tenant's, with names of its own.
    assert query(aged, "SELECT count(*) FROM series WHERE tenant_id = 'acme'") == [(len(own[0]),)]
    feed = Feed(aged)
    for number in range(20):
        feed.send(b'{"n":%d}' % number, topic=f"{ROOT}/acme/north/d{number % 2}", client="after", partition=number % 2)
    feed.flush()
    drain(aged)
    fresh = query(
        aged, "SELECT series_id, device_id, metric FROM series WHERE tenant_id = 'acme' AND NOT series_id = ANY (%s)", _flat(own[0])
    )
    assert sorted(row[1:] for row in fresh) == [("d0", "n"), ("d1", "n")]
    assert query(aged, "SELECT series_count, source_count FROM project WHERE (tenant_id, project_id) = ('acme', 'north')") == [(2, 2)]

    for point, text, number in (
        ("in_commit", "tenant_deletion_names", 1),
        ("answer_lost", "tenant_deletion_remove", 3),
        ("before_commit", "tenant_deletion_small", 1),
        ("before_commit", "tenant_deletion_finish", 1),
    ):
        victims.die("delete", point, text, number)
        check()
        if number == 1 and point == "in_commit":
            victims.die_within("delete", "tenant_deletion_source")  # the names
            check()
            victims.die_within("delete", "removed_record")  # messages
            check()
    done = delete_tenant(aged, "acme", requested_by="again")
    check()
    assert (done.series, done.sources) == (len(own[0]), len(own[1]))
    assert query(aged, "SELECT requested_by FROM tenant_deletion") == [("test",)], "one record for all attempts"
    for table in ("measurement", "measurement_1h", "series_latest", "rollup_change", "tenant_deletion_series"):
        assert query(aged, f"SELECT count(*) FROM {table} WHERE series_id = ANY (%s)", _flat(own[0])) == [(0,)]
    assert query(aged, "SELECT count(*) FROM message WHERE source_id = ANY (%s)", _flat(own[1])) == [(0,)]
    assert query(aged, "SELECT count(*) FROM measurement_named WHERE tenant_id = 'acme'") == [(20,)]
    assert query(aged, "SELECT project_id FROM project WHERE tenant_id = 'acme'") == [("north",)]
    assert query(aged, "SELECT sum(messages) FROM accounting_1h WHERE tenant_id = 'acme'") == [(20,)]


def orphans(settings: Settings) -> tuple[int, int]:
    """Rows whose ids stand for nothing, and whom no deletion will remove."""
    return query(
        settings,
        "SELECT (SELECT count(*) FROM measurement WHERE series_id NOT IN"
        " (SELECT series_id FROM series UNION ALL SELECT series_id FROM tenant_deletion_series)),"
        " (SELECT count(*) FROM message WHERE source_id NOT IN"
        " (SELECT source_id FROM source UNION ALL SELECT source_id FROM tenant_deletion_source))",
    )[0]


def _flat(rows: list[tuple[int]]) -> list[int]:
    return [number for (number,) in rows]


def test_rollups(aged: Settings, victims: Victims) -> None:
    with closing(connect(aged, "admin")) as connection:
        feed = RollupFeed(connection)
        right = hours(feed.measurements())

        def check() -> None:
            shown = feed.shown("measurement_1h")
            assert {bucket for bucket in right | shown if right.get(bucket) != shown.get(bucket)} <= feed.noted()
            assert problems(aged) == []

        query(aged, "TRUNCATE measurement_1h_stored, measurement_1d_stored")  # never rolled up
        state = "threshold = '-infinity', threshold_1d = '-infinity', notes_below = '-infinity', fill_series = 0, fill_1d_series = 0"
        query(aged, f"UPDATE rollup_state SET {state}, fill_end = NULL, fill_1d_end = NULL")
        victims.die("rollup", "before_commit", "rollup_advance", 2)
        check()
        victims.die_within("rollup", "rollup_state")
        check()
        for point in ("in_commit", "answer_lost"):
            victims.die("rollup", point, "rollup_advance", 1)
            check()
        assert query(aged, "SELECT isfinite(threshold_1d) FROM rollup_state") == [(False,)], "killed too late"
        roll_up(aged)

        late = Feed(aged)
        first = min(right)[0]
        for number in range(20):
            stamp = int((first + timedelta(hours=number, seconds=1)).timestamp())
            late.send(b'{"timestamp":%d,"n":%d}' % (stamp, number), topic=f"{ROOT}/other/p/d0", client="late")
        late.flush()
        drain(aged)
        right = hours(feed.measurements())
        assert len(feed.noted()) >= 10
        victims.die("rollup", "before_commit", "rollup_refresh", 1)
        check()
        victims.die_within("rollup", "measurement_1d_stored")  # its hours are computed, its notes are gone
        assert len(feed.noted()) >= 10
        check()
        victims.die("rollup", "answer_lost", "rollup_refresh", 1)
        check()
        roll_up(aged)
        assert feed.noted() == set()
        assert feed.shown("measurement_1h") == right
        assert feed.shown("measurement_1d") == days(right)

        query(aged, "UPDATE measurement_1h_stored SET value_count = value_count + 1")
        span = (first.isoformat(), datetime.now(UTC).isoformat())
        for point in ("before_commit", "in_commit", "answer_lost"):
            victims.die("rebuild", point, "rollup_rebuild", 2, *span)
        victims.die_within("rebuild", "measurement_1d_stored", *span)
        for _ in Rebuild(aged, first, datetime.now(UTC)).steps():
            pass
        assert feed.shown("measurement_1h") == right
        assert feed.shown("measurement_1d") == days(right)
        assert problems(aged) == []


def test_export(aged: Settings, victims: Victims, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    before = checksums(aged, "acme")
    kills = (
        lambda: victims.die_at_rename("export", "before_rename", ".parquet", 1, str(folder)),
        lambda: victims.die_at_rename("export", "after_rename", ".parquet", 2, str(folder)),
        lambda: victims.die("export", "at_statement", "FROM measurement_by_series", 2, str(folder)),
        lambda: victims.die_at_rename("export", "before_rename", "manifest.json", 1, str(folder)),
    )
    for kill in kills:
        kill()
        assert not (folder / "manifest.json").exists()
    with (folder / "export.part.jsonl").open("ab") as journal:  # as a full disk leaves it
        journal.write(b'{"table": "measurement", "span": "2020-01-01", "files": [{}')
    manifest = export_tenant(aged, "acme", folder, part_rows=9)
    rows, wrong, _ = verify_export(folder)
    assert wrong == []
    assert rows == manifest["rows"]
    assert rows["measurement"] == before["measurement"][0]
    payloads = pl.read_parquet(folder / "message" / "*.parquet")["payload"].to_list()
    stored = query(aged, "SELECT payload FROM message_named WHERE tenant_id = 'acme'")
    assert sorted(payloads) == sorted(payload for (payload,) in stored)
    assert not list(folder.rglob("*.part*"))
    victims.die_at_rename("export", "after_rename", "manifest.json", 1, str(tmp_path / "other"))
    export_tenant(aged, "acme", tmp_path / "other", part_rows=9)
    assert verify_export(tmp_path / "other")[1] == []
    assert checksums(aged, "acme") == before
