"""Retention does what its dry run says, whatever the policies, and neither late rows nor others at work hold it up."""

import random
import threading
from contextlib import closing
from datetime import timedelta
from typing import Any

import psycopg2
import pytest

from iot_platform.database import connect
from iot_platform.retention import Removal, plan, run_retention
from iot_platform.retention.remove import _Run
from iot_platform.settings import Settings
from iot_platform_tests.support.feeds.accountant import Accountant
from iot_platform_tests.support.feeds.drain import Feed, drain, query
from iot_platform_tests.support.feeds.lifecycle import ROOT, cutoff, fill, keep, problems

pytestmark = pytest.mark.sql

SCOPES = (("", ""), ("acme", ""), ("acme", "north"), ("acme", "south"), ("other", ""), ("other", "p"))


@pytest.fixture
def aged(settings: Settings, accountant: Accountant) -> Settings:
    """Seven days of messages, rolled up."""
    return fill(settings, accountant)


def _sums(removals: list[Removal]) -> list[tuple[str, str, str, str, int]]:
    return sorted((item.table, item.tenant, item.project, item.chunk or "", item.rows) for item in removals)


def test_a_dry_run_says_what_the_run_does(settings: Settings, accountant: Accountant) -> None:
    """Random policies within each other, shorter each time; some contradict each other, and a loss holds up one tenant half way."""
    aged, choose = fill(settings, accountant, days=3), random.Random(20)
    hours = {(table, *scope): 24 * 4 for table in ("message", "measurement", "measurement_1h", "quarantine") for scope in SCOPES}
    removed = []
    for step in range(8):
        if step == 5:
            query(aged, "DELETE FROM message WHERE received_at = (SELECT max(received_at) FROM message_named WHERE tenant_id = 'other')")
            query(aged, "DELETE FROM measurement WHERE time = (SELECT max(time) FROM measurement_named WHERE project_id = 'south')")
        for key in choose.sample(sorted(hours), 5):
            hours[key] = choose.randint(max(1, hours[key] // 3), hours[key])
            query(
                aged,
                "INSERT INTO retention_policy (table_name, tenant_id, project_id, keep, changed_by) VALUES (%s, %s, %s, %s::interval, 't')"
                " ON CONFLICT (table_name, tenant_id, project_id) DO UPDATE SET keep = excluded.keep",
                *key,
                f"{hours[key]} hours",
            )
        with closing(connect(aged)) as connection:
            would = plan(connection)
        report = run_retention(aged, max_rows=choose.choice((8, 40)))
        assert _sums([item for item in would if not item.refused]) == _sums(report.removed), f"step {step}"
        assert {item.scope for item in would if item.refused} == {item.scope for item in report.refused}, f"step {step}"
        removed += [(item.table, item.tenant != "", item.project != "") for item in report.removed]
    assert len(set(removed)) >= 6, "too little went to prove anything"


def test_a_chunk_that_goes_while_it_is_counted_is_passed_over(aged: Settings) -> None:
    chunk = query(aged, "SELECT chunk::text FROM retention_chunks('message') ORDER BY range_start LIMIT 1")[0][0]
    found: list[Any] = []

    def count() -> None:
        with closing(connect(aged)) as connection:
            found.extend(plan(connection))

    counting = threading.Thread(target=count)
    with closing(psycopg2.connect(aged.admin_url)) as owner, owner.cursor() as cursor:
        cursor.execute(f"LOCK TABLE {chunk} IN ACCESS EXCLUSIVE MODE")
        counting.start()
        _until_somebody_waits(aged)
        cursor.execute(
            "SELECT drop_chunks('message', older_than => range_end) FROM retention_chunks('message') ORDER BY range_start LIMIT 1"
        )
        owner.commit()
    counting.join(60)
    assert found
    assert chunk not in {item.chunk for item in found}


def test_rows_that_go_on_coming_late_hold_up_nothing(aged: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before each transaction of the run one more late row comes into what is about to go, and is taken with its hour."""
    keep(aged, "measurement", "3d")
    keep(aged, "measurement", "2d", "acme")
    feed, call, sent = Feed(aged), _Run._call, []
    begin = query(aged, "SELECT min(time) FROM measurement")[0][0] + timedelta(hours=1)

    def late(self: Any, text: str, *parameters: Any) -> Any:
        if parameters[0] == "measurement" and len(sent) < 12:
            at = begin + timedelta(hours=11 * len(sent))
            sent.append(at)
            feed.send(b'{"timestamp":%d,"late":1}' % int(at.timestamp()), topic=f"{ROOT}/acme/north/d0", client="late")
            feed.flush()
            drain(aged)
        return call(self, text, *parameters)

    monkeypatch.setattr(_Run, "_call", late)
    report = run_retention(aged)
    assert not report.refused
    assert len(sent) > 4, "nothing came late"
    monkeypatch.undo()
    assert not run_retention(aged).refused
    assert query(aged, "SELECT min(time) FROM measurement_named WHERE tenant_id = 'acme'")[0][0] >= cutoff(timedelta(days=2))
    assert query(aged, "SELECT sum(value_count) FROM measurement_1h_named WHERE metric = 'late'")[0][0] > 1, "those before the mark only"
    assert problems(aged) == []


def test_a_chunk_in_use_waits_for_the_next_run(aged: Settings) -> None:
    keep(aged, "measurement", "3d")
    chunk = query(aged, "SELECT chunk::text FROM retention_chunks('measurement') ORDER BY range_start LIMIT 1")[0][0]
    waited: list[float] = []
    with closing(psycopg2.connect(aged.admin_url)) as owner, owner.cursor() as cursor:
        cursor.execute(f"LOCK TABLE {chunk} IN EXCLUSIVE MODE")  # as compression does
        report = run_retention(aged)
        waited.append(report.seconds)
        owner.rollback()
    assert [item.table for item in report.postponed] == ["measurement"]
    assert "the next run takes it" in report.postponed[0].refused[0]
    assert not report.refused
    assert {item.table for item in report.removed} == {"message"}
    assert [item.table for item in run_retention(aged).removed].count("measurement") > 1
    assert problems(aged) == []


def _until_somebody_waits(settings: Settings) -> None:
    for _ in range(2000):
        if query(
            settings,
            "SELECT FROM pg_locks WHERE NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
        ):
            return
        threading.Event().wait(0.01)
    raise AssertionError("nobody waits")
