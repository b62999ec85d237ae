"""Retention: only what is beyond its policy goes, the books stay right, and whatever is not complete stays."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta

import psycopg2
import pytest

from iot_platform.compression.compress import compress
from iot_platform.database import connect
from iot_platform.retention import PolicyError, RetentionError, parse_keep, plan, policies, remove_policy, run_retention, set_policy
from iot_platform.retention.remove import _Run
from iot_platform.rollups import roll_up
from iot_platform.settings import Settings
from iot_platform.telemetry.drain import rollup_notes
from iot_platform.tenants.access import grant
from iot_platform_tests.support.feeds.accountant import Accountant
from iot_platform_tests.support.feeds.drain import Feed, drain, query
from iot_platform_tests.support.feeds.lifecycle import DAYS, ROOT, audit, cutoff, fill, keep, marks, problems
from iot_platform_tests.support.feeds.tenants import drop_roles, open_login
from iot_platform_tests.support.servers.stack import Servers
from iot_platform_tests.support.waiting import eventually

pytestmark = pytest.mark.both_editions


@pytest.fixture
def aged(settings: Settings, accountant: Accountant) -> Settings:
    """Seven days of messages, rolled up."""
    return fill(settings, accountant)


def test_old_messages_go_and_the_audit_still_proves_the_rest(aged: Settings) -> None:
    assert problems(aged) == []
    before = query(aged, "SELECT count(*) FROM message WHERE received_at >= %s", cutoff(timedelta(days=3)))[0][0]

    with closing(connect(aged)) as connection:
        would = plan(connection)
    assert marks(aged) == {}, "a dry run changes nothing"

    report = run_retention(aged)

    assert sum(item.rows for item in would) == report.rows
    assert [vars(item) for item in would if item.chunk] == [vars(item) for item in report.removed if item.chunk]
    assert not report.refused
    assert report.chunks >= DAYS - 5
    oldest, left = query(aged, "SELECT min(received_at), count(*) FROM message")[0]
    assert left == before
    assert oldest >= cutoff(timedelta(days=3))
    assert all(item.newest < datetime.now(UTC) - timedelta(days=3) for item in report.removed if item.newest is not None)
    assert query(aged, "SELECT sum(rows) FROM retention_removed WHERE table_name = 'message'")[0][0] == report.rows
    result = audit(aged)
    assert [item.text for item in result.differences] == []
    assert result.partitions, "nothing was checked"
    assert result.connections, "nothing was checked"
    assert run_retention(aged).rows == 0

    # a row of the very batch that lost others by retention
    assert query(aged, "SELECT count(*) FROM removed_record")[0][0] > 0, "no batch lies across the cutoff: the test proves nothing"
    place = query(aged, "SELECT kafka_partition, kafka_offset FROM message ORDER BY received_at LIMIT 1")
    query(aged, "DELETE FROM message WHERE kafka_partition = %s AND kafka_offset = %s", *place[0])
    texts = problems(aged)
    assert any(f"partition {place[0][0]} offset {place[0][1]} is in no table" in text for text in texts)
    assert any("sequence" in text and "nowhere" in text for text in texts)
    assert any("messages accounted" in text for text in texts)


def test_measurements_go_and_their_rollups_stay(aged: Settings) -> None:
    keep(aged, "measurement", "3d")
    hours = query(aged, "SELECT * FROM measurement_1h ORDER BY series_id, bucket")
    report = run_retention(aged)
    assert not report.refused
    assert sum(item.rows for item in report.removed if item.table == "measurement") > 0
    assert query(aged, "SELECT min(time) FROM measurement")[0][0] >= cutoff(timedelta(days=3))
    assert query(aged, "SELECT * FROM measurement_1h ORDER BY series_id, bucket") == hours
    assert problems(aged) == []

    # a late row older than retention: stored, then removed; the hour keeps its rollup
    feed = Feed(aged)
    old = query(aged, "SELECT min(bucket) FROM measurement_1h")[0][0]
    stamp = int((old + timedelta(minutes=59, seconds=59)).timestamp())
    feed.send(b'{"timestamp":%d,"n":1,"t":-1000}' % stamp, topic=f"{ROOT}/acme/north/d0", client="late")
    feed.flush()
    drain(aged)
    roll_up(aged)
    assert [row for row in query(aged, "SELECT * FROM measurement_1h ORDER BY series_id, bucket") if row in hours] == hours
    assert not run_retention(aged).refused
    assert query(aged, "SELECT min(time) FROM measurement")[0][0] >= cutoff(timedelta(days=3))
    assert problems(aged) == []


def test_compressed_chunks_go_whole_and_are_not_opened(aged: Settings, edition: str) -> None:
    keep(aged, "measurement", "3d")
    query(aged, "UPDATE compression_policy SET older_than = '1 hour'")
    assert {item.table for item in compress(aged).done} == ({"message", "measurement"} if edition == "community" else set())
    hours = query(aged, "SELECT * FROM measurement_1h ORDER BY series_id, bucket")
    report = run_retention(aged)
    assert not report.refused
    assert report.chunks >= 2 * (DAYS - 5)
    kept_from = cutoff(timedelta(days=3)) if edition == "apache" else cutoff(timedelta(days=3)).replace(hour=0)
    assert query(aged, "SELECT min(received_at) FROM message")[0][0] >= kept_from
    assert query(aged, "SELECT min(time) FROM measurement")[0][0] >= kept_from
    assert query(aged, "SELECT * FROM measurement_1h ORDER BY series_id, bucket") == hours
    assert problems(aged) == []


def test_what_is_not_rolled_up_stays(aged: Settings, edition: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(aged, "measurement", "3d")
    feed = Feed(aged)
    old = query(aged, "SELECT min(time) FROM measurement")[0][0]
    feed.send(b'{"timestamp":%d,"fresh":1}' % (int(old.timestamp()) + 1), topic=f"{ROOT}/acme/north/d0", client="late")
    feed.flush()
    drain(aged)
    before = query(aged, "SELECT count(*) FROM measurement")
    newer = query(aged, "SELECT chunk::text FROM retention_chunks('measurement') ORDER BY range_start OFFSET 1 LIMIT 1")[0][0]
    assert "an older chunk" in str(query(aged, "SELECT refused FROM retention_remove_chunk('measurement', %s)", newer))
    if edition == "community":  # it brings the aggregates up to date first, and the late row's hour outlives it, too
        assert not run_retention(aged).refused
        assert query(aged, "SELECT count(*) FROM measurement_1h_named WHERE metric = 'fresh'") == [(1,)]
        assert query(aged, "SELECT count(*) FROM measurement_named WHERE metric = 'fresh'") == [(0,)]
        assert problems(aged) == []
        return
    # far more notes than a removal takes on its way, and nobody who rolls up
    query(
        aged,
        "INSERT INTO rollup_change (bucket, series_id) SELECT %s, (SELECT min(series_id) FROM series) FROM generate_series(1, 20000)",
        old,
    )
    with monkeypatch.context() as patch:
        patch.setattr(_Run, "_roll_up", lambda _: None)
        report = run_retention(aged)
    assert [item.table for item in report.refused] == ["measurement"]
    assert "notes of changed hours wait" in report.refused[0].refused[0]
    assert query(aged, "SELECT count(*) FROM measurement") == before
    assert not run_retention(aged).refused, "it rolls up first"
    assert query(aged, "SELECT value_count FROM measurement_1h_named WHERE metric = 'fresh'") == [(1,)]
    assert problems(aged) == []


@pytest.mark.several_sessions("two sessions at once")
@pytest.mark.parametrize(
    "query_text",
    [
        "SELECT refused FROM retention_remove_chunk('measurement', %s)",
        "SELECT refused FROM retention_remove_rows('measurement', '', '', %s, %s)",
    ],
    ids=["chunk", "rows"],
)
def test_a_late_row_in_flight_is_waited_for(aged: Settings, query_text: str) -> None:
    keep(aged, "measurement", "3d")
    chunk, begin, end = query(aged, "SELECT chunk::text, range_start, range_end FROM retention_chunks('measurement') ORDER BY 2 LIMIT 1")[0]
    hours_text = "SELECT bucket, value_count FROM measurement_1h WHERE series_id = %s AND bucket = date_trunc('hour', %s)"
    answer: list[object] = []
    parameters = (chunk,) if "chunk" in query_text else (begin, end)
    removing = threading.Thread(target=lambda: answer.extend(query(aged, query_text, *parameters)))
    with closing(connect(aged)) as late, late.cursor() as cursor:
        rollup_notes.begin(cursor)
        cursor.execute(
            "INSERT INTO measurement (time, series_id, value) SELECT %s, min(series_id), 1 FROM series RETURNING series_id", (begin,)
        )
        (series,) = cursor.fetchone() or (0,)
        hour = (series, begin)
        computed = dict(query(aged, hours_text, *hour))
        cursor.execute("INSERT INTO rollup_change (bucket, series_id) SELECT %s, min(series_id) FROM series", (begin,))
        removing.start()
        waiting = "SELECT FROM pg_locks WHERE NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        eventually(lambda: query(aged, waiting), what="nobody waits for the row in flight")
        late.commit()
    removing.join(30)
    assert answer == [([],)]
    assert dict(query(aged, hours_text, *hour)) == {begin: computed.get(begin, 0) + 1}, "it went before its hour was computed"
    assert query(aged, "SELECT count(*) FROM measurement WHERE time = %s", begin) == [(0,)]


def test_what_is_unaccounted_stays(aged: Settings) -> None:
    keep(aged, "measurement", "3d")
    query(aged, "DELETE FROM message WHERE received_at = (SELECT min(received_at) FROM message)")
    query(aged, "DELETE FROM measurement WHERE time = (SELECT min(time) FROM measurement)")
    found = problems(aged)
    report = run_retention(aged)
    assert [item.table for item in report.refused] == ["message", "measurement"]
    assert all("unaccounted" in item.refused[0] for item in report.refused)
    assert problems(aged) == found, "a removal hid the loss"
    with closing(connect(aged)) as connection, connection.cursor() as cursor:  # the function itself refuses, too
        cursor.execute("SELECT c.chunk::text FROM retention_chunks('measurement') c ORDER BY range_start LIMIT 1")
        cursor.execute("SELECT refused FROM retention_remove_chunk('measurement', %s::regclass)", cursor.fetchone())
        assert "in measurement_1h" in cursor.fetchall()[0][0][0]


def test_a_loss_among_newer_measurements_stays_in_sight(aged: Settings) -> None:
    """What is to go is complete; that measurements are missing elsewhere only the sums of the books tell, which a removal would change."""
    keep(aged, "measurement", "3d")
    keep(aged, "measurement", "2d", "other")
    query(aged, "DELETE FROM measurement WHERE time = (SELECT max(time) FROM measurement_named WHERE tenant_id = 'acme')")
    report = run_retention(aged)
    assert [item.scope for item in report.refused] == [("measurement", "", "")]
    assert "project" in report.refused[0].refused[0]
    assert "measurements accounted" in report.refused[0].refused[0]
    assert {item.scope for item in report.removed if item.table == "measurement"} == {("measurement", "other", "")}


def test_one_projects_rows_go_earlier(aged: Settings) -> None:
    keep(aged, "message", "1d", "acme", "north")
    keep(aged, "measurement", "2d", "acme")
    kept = query(aged, "SELECT count(*) FROM measurement_named WHERE tenant_id = 'other'")
    report = run_retention(aged, max_rows=5)
    assert not report.refused
    edges = dict(query(aged, "SELECT project_id, min(received_at) FROM message_named WHERE tenant_id = 'acme' GROUP BY 1"))
    assert edges["north"] >= cutoff(timedelta(days=1)) > edges["south"] >= cutoff(timedelta(days=3))
    assert query(aged, "SELECT min(time) FROM measurement_named WHERE tenant_id = 'acme'")[0][0] >= cutoff(timedelta(days=2))
    assert query(aged, "SELECT count(*) FROM measurement_named WHERE tenant_id = 'other'") == kept
    assert problems(aged) == []
    assert marks(aged)["message", "acme", "north"] == cutoff(timedelta(days=1))


def test_a_policy_that_changes_meanwhile_stops_only_its_rows(aged: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(aged, "message", "1d", "acme")
    keep(aged, "measurement", "3d")
    sizes = _Run._sizes

    def changed(self: _Run) -> dict[str, int]:
        query(aged, "DELETE FROM retention_policy WHERE tenant_id = 'acme'")
        query(aged, "UPDATE retention_policy SET keep = '30 days' WHERE table_name = 'measurement'")
        return sizes(self)

    monkeypatch.setattr(_Run, "_sizes", changed)
    report = run_retention(aged)
    assert {item.scope for item in report.refused} == {("message", "acme", ""), ("measurement", "", "")}
    assert {item.scope for item in report.removed} == {("message", "", "")}
    assert problems(aged) == []


@pytest.mark.several_sessions("two sessions at once")
def test_two_runs_at_once_share_the_work(aged: Settings) -> None:
    keep(aged, "measurement", "3d")
    expected = query(aged, "SELECT sum(rows) FROM retention_plan()")[0][0]
    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(run_retention, [aged, aged]))
    assert sum(report.rows for report in reports) == expected
    assert not any(report.refused for report in reports)
    assert query(aged, "SELECT * FROM retention_remove_chunk('measurement', to_regclass('no.such_chunk'))") == []


@pytest.mark.several_sessions("two sessions at once")
def test_a_tenant_that_stays_in_a_transaction_does_not_keep_old_chunks(aged: Settings, servers: Servers) -> None:
    keep(aged, "measurement", "3d")
    with closing(connect(aged, "admin")) as owner:
        login = grant(owner, "acme")
    session = open_login(aged, login)
    with session.cursor() as cursor:
        cursor.execute("SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0")
        cursor.execute("BEGIN")
        cursor.execute("SELECT count(*) FROM tenant.measurement")
    began = time.monotonic()
    report = run_retention(aged)
    assert (report.refused, report.unfinished) == ([], False)
    assert any(item.chunk and item.table == "measurement" for item in report.removed), "nothing was dropped: the test proves nothing"
    assert time.monotonic() - began < 25, "one lock timeout of 5 s"
    with pytest.raises(psycopg2.OperationalError), session.cursor() as cursor:
        cursor.execute("SELECT 1")
    drop_roles(servers, login)


def test_quarantine_and_ledger_go_with_their_books(aged: Settings) -> None:
    query(aged, "UPDATE retention_policy SET keep = '2 days' WHERE table_name = 'quarantine'")
    query(aged, "UPDATE retention_policy SET keep = '3 days' WHERE table_name = 'measurement'")
    run_retention(aged)
    assert query(aged, "SELECT min(received_at) FROM quarantine")[0][0] >= cutoff(timedelta(days=2))
    assert problems(aged) == []
    # the ledger's chunks are those of the commits, all of today: as they will be in 400 days
    with psycopg2.connect(aged.admin_url) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT set_config('lock_timeout', '5s', true)")
        cursor.execute(
            "INSERT INTO ledger_removed SELECT kafka_topic, topic_id, kafka_partition, max(to_offset) FROM ledger"
            " WHERE from_offset < 20 GROUP BY 1, 2, 3"
        )
        cursor.execute("DELETE FROM ledger WHERE from_offset < 20")
    assert problems(aged) == []
    query(aged, "DELETE FROM ledger WHERE batch_id = (SELECT min(batch_id) FROM ledger)")
    assert any("is in no batch of the ledger" in text for text in problems(aged))


def test_policies_that_contradict_each_other(aged: Settings) -> None:
    with closing(connect(aged)) as connection:
        for table, text, tenant, project, expected in (
            ("measurement_1h", "10d", "", "", "measurement_1h (10 days) would be kept shorter than its source measurement (90 days)"),
            ("measurement_1d", "1y", "", "", "measurement_1d (365 days) would be kept shorter than its source measurement_1h"),
            ("measurement_1h", "10d", "acme", "", "of tenant acme"),
            ("message", "4d", "acme", "", "message of everybody is kept for 3 days"),
            ("ledger", "30d", "", "", "ledger (30 days) would be kept shorter than its source"),
            ("message", "1d", "nobody", "", "there is no tenant nobody"),
            ("message", "1d", "acme", "nowhere", "there is no project acme/nowhere"),
            ("messages", "1d", "", "", "retention knows no table 'messages'; there are: ledger, measurement"),
            ("message", "30min", "", "", "1h is the least"),
            ("message", "0d", "", "", "1h is the least"),
            ("ledger", "30d", "acme", "", "belong to no tenant"),
        ):
            with pytest.raises(RetentionError, match="(?s)" + expected.replace("(", r"\(").replace(")", r"\)")):
                set_policy(connection, table, text, tenant=tenant, project=project)
        set_policy(connection, "message", "12h", tenant="acme")
        set_policy(connection, "message", "6h")
        assert [item.shadowed for item in policies(connection) if item.table == "message"] == [False, True]
        assert remove_policy(connection, "message", tenant="acme")
        assert not remove_policy(connection, "message", tenant="acme")
    # the functions enforce the policy, whatever they are asked
    with closing(connect(aged)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT c.chunk::text FROM retention_chunks('measurement') c ORDER BY range_start LIMIT 1")
        with pytest.raises(psycopg2.errors.RaiseException, match="which its policy keeps"):
            cursor.execute(
                "SELECT * FROM retention_remove_chunk('measurement', %s::regclass, now() + interval '1 year')", cursor.fetchone()
            )
    # written past the validation: nothing is removed then
    query(aged, "UPDATE retention_policy SET keep = '1 day' WHERE table_name IN ('measurement_1h', 'message')")
    query(aged, "UPDATE retention_policy SET keep = '2 days' WHERE table_name = 'measurement'")
    report = run_retention(aged)
    assert [item.table for item in report.refused] == ["measurement"]
    assert "shorter than its source" in report.refused[0].refused[0]


def test_times_to_keep() -> None:
    assert [parse_keep(text) for text in ("12h", "30d", "6 weeks", "2y", "forever")] == [
        "12 hours",
        "30 days",
        "6 weeks",
        "2 years",
        "infinity",
    ]
    with pytest.raises(PolicyError):
        parse_keep("-3d")
    with pytest.raises(PolicyError):
        parse_keep("500y")


def test_interrupted_anywhere_it_goes_on(aged: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken off between its transactions: the audit holds at every point."""
    from iot_platform.retention import remove as module

    keep(aged, "message", "1d", "acme")
    keep(aged, "measurement", "3d")
    call, done = module._Run._call, []

    def dies(self: object, text: str, *parameters: object) -> object:
        done.append(text)
        if len(done) > budget:
            raise KeyboardInterrupt
        return call(self, text, *parameters)  # type: ignore[arg-type]

    monkeypatch.setattr(module._Run, "_call", dies)
    for budget in (1, 3, 9, 10_000):
        done.clear()
        try:
            run_retention(aged, max_rows=4)
        except KeyboardInterrupt:
            assert budget < 10_000
        assert problems(aged) == []
    assert query(aged, "SELECT min(received_at) FROM message_named WHERE tenant_id = 'acme'")[0][0] >= cutoff(timedelta(days=1))
