"""`iot_platform.read` under a real tenant's login: the rows that are there, no row of anybody else, in frames of a bounded size."""

import re
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import polars as pl
import pytest

from iot_platform.database import connect
from iot_platform.read import ReadAccessError, Reader, ReadInterruptedError, ReadQuestionError, resolution_for
from iot_platform.tenants.access import revoke
from iot_platform_tests.support.feeds.drain import Feed, drain, query
from iot_platform_tests.support.feeds.tenants import OTHER, OWN, SECRET, TwoTenants

DOCS = Path(__file__).parents[2] / "docs"
TOPIC = f"mtic/msg/client/realtime/{OWN}/plant-0"


def url(tenants: TwoTenants) -> str:
    """The login's address."""
    parts = urlsplit(tenants.settings.admin_url)
    login = f"{tenants.login.role}:{quote(tenants.login.password or '')}"
    return parts._replace(netloc=f"{login}@{parts.hostname}:{parts.port}").geturl()


@pytest.fixture
def span() -> dict[str, datetime]:
    """Everything that send_both sends."""
    now = datetime.now(UTC)
    return {"start": now - timedelta(hours=6), "end": now + timedelta(hours=2)}


def owned(tenants: TwoTenants, view: str, columns: str, time: str = "time") -> list[tuple[Any, ...]]:
    return query(tenants.settings, f"SELECT {columns} FROM {view} WHERE tenant_id = %s ORDER BY project_id, device_id, metric, {time}", OWN)


def test_frames_hold_what_the_tenant_has_and_nothing_else(two_tenants: TwoTenants, span: dict[str, datetime]) -> None:
    reader = Reader(url(two_tenants))
    assert reader.tenant == OWN
    names = "project_id, device_id, metric"
    found = reader.measurements(**span).collect()
    columns = f"time, {names}, value, value_int, value_text, unit, flags"
    order = ["project_id", "device_id", "metric", "time"]
    assert found.sort(order).rows() == owned(two_tenants, "measurement_named", columns) != []
    figures = "value_count, numbers, value_min, value_max, value_sum, value_avg, value_first, value_last, unit"
    for resolution, edge in (("1h", timedelta(hours=1)), ("1d", timedelta(days=1))):
        rollups = reader.rollups(start=span["start"] - edge, end=span["end"], resolution=resolution).collect()
        view = f"measurement_{resolution}_named"
        assert (
            rollups.sort("project_id", "device_id", "metric", "bucket").rows()
            == owned(two_tenants, view, f"bucket, {names}, {figures}", "bucket")
            != []
        )
    assert reader.latest().collect().rows() == owned(two_tenants, "latest_named", columns) != []
    incidents = reader.incidents(**span).collect()
    assert incidents["message"].to_list() == ["pump-0 is silent"]
    assert [(row["rule"], row["severity"], row["closed_at"]) for row in incidents.rows(named=True)] == [("freshness_device", "WARN", None)]
    assert reader.incidents(start=span["start"] - timedelta(days=2), end=span["start"]).collect().is_empty()
    for frame in (found, incidents):
        assert not SECRET.search(frame.write_csv())
    for asked in ({"project": "secret-project"}, {"device": ["secret-device-1", "secret-device-2"]}, {"metric": "secret_flow"}):
        for lazy in (reader.measurements(**span, **asked), reader.latest(**asked), reader.incidents(**span, **asked)):
            assert lazy.collect().is_empty()


def test_names_columns_and_conditions_narrow_it(two_tenants: TwoTenants, span: dict[str, datetime]) -> None:
    reader = Reader(url(two_tenants), batch_rows=7)
    whole = reader.measurements(**span).collect()
    order = ["project_id", "device_id", "metric", "time"]
    for asked, condition in (
        ({"project": "plant-1"}, pl.col.project_id == "plant-1"),
        ({"device": ["pump-0", "pump-2"], "metric": "flow"}, pl.col.device_id.is_in(["pump-0", "pump-2"]) & (pl.col.metric == "flow")),
        ({"device": []}, pl.lit(value=False)),
    ):
        expected = whole.filter(condition).sort(order)
        assert reader.measurements(**span, **asked).collect().sort(order).equals(expected)
        assert reader.measurements(**span).filter(condition).collect().sort(order).equals(expected)
    high = reader.measurements(**span, metric="flow").filter(pl.col.value > 40).select("value")
    assert sorted(high.collect()["value"]) == [number + 0.5 for number in range(40, 60)]
    assert len(reader.measurements(**span).head(11).collect()) == 11
    assert all(0 < len(batch) <= 7 for batch in reader.measurements(**span).collect_batches(chunk_size=7, lazy=True))
    middle = whole["time"].median()
    halves = [reader.measurements(start=span["start"], end=middle), reader.measurements(start=middle, end=span["end"])]
    assert pl.concat([half.collect() for half in halves]).sort(order).equals(whole.sort(order))


def test_values_come_as_they_are_stored(two_tenants: TwoTenants, span: dict[str, datetime]) -> None:
    texts = ["", 'a "quoted", one', "two\nlines\r\n", "\\N", "NULL", " 中文 ", "x" * 70_000]
    numbers = ["9007199254740993", "-0.0", "5e-324", "1.7976931348623157e308", "0.1"]
    feed, at = Feed(two_tenants.settings), int(time.time() * 1_000_000) - 3_600_000_000
    for offset, value in enumerate([*numbers, "true", "false"]):
        feed.send(b'{"deviceId":"odd","ts":%d,"number":%s}' % (at + offset, value.encode()), topic=TOPIC)
    for offset, text in enumerate(texts):
        feed.send(pl.DataFrame({"deviceId": ["odd"], "ts": [at + offset], "text": [text]}).write_ndjson().encode(), topic=TOPIC)
    feed.flush()
    drain(two_tenants.settings)
    reader = Reader(url(two_tenants), batch_rows=3)
    odd = reader.measurements(**span, device="odd").collect().sort("metric", "time")
    assert odd.filter(metric="text")["value_text"].to_list() == texts
    assert [repr(value) for value in odd.filter(metric="number")["value"].head(5)] == [repr(float(number)) for number in numbers]
    assert odd.filter(metric="number")["value_int"].to_list()[:2] == [9007199254740993, None]
    assert odd.filter(metric="number")["time"].dt.epoch("us").to_list() == [at + offset for offset in range(7)]
    columns = "time, project_id, device_id, metric, value, value_int, value_text, unit, flags"
    stored = query(two_tenants.settings, f"SELECT {columns} FROM measurement_named WHERE device_id = 'odd' ORDER BY metric, time")
    assert odd.rows() == stored


def test_a_session_that_is_ended_costs_nothing(two_tenants: TwoTenants, span: dict[str, datetime]) -> None:
    """As end_tenant_sessions, a restart or a network does; and nothing of the reader stays in a transaction meanwhile."""
    reader = Reader(url(two_tenants), batch_rows=5)
    whole = Reader(url(two_tenants)).measurements(**span).collect()
    question = reader.measurements(**span)
    frames, ended = [], 0
    for frame in question.collect_batches(chunk_size=5):
        frames.append(frame)
        states = query(
            two_tenants.settings,
            "SELECT state, xact_start, pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'iot-read'",
        )
        ended += len(states)
    order = ["project_id", "device_id", "metric", "time"]
    assert pl.concat(frames).sort(order).equals(whole.sort(order))
    assert ended > 3
    assert query(two_tenants.settings, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'iot-read'") == [(0,)]


def test_what_takes_too_long_is_asked_for_in_smaller_pieces(two_tenants: TwoTenants, span: dict[str, datetime]) -> None:
    reader = Reader(url(two_tenants))
    whole = reader.measurements(**span).collect()
    query(two_tenants.settings, f"ALTER ROLE {two_tenants.login.role} SET statement_timeout = '200ms'")
    with closing(connect(two_tenants.settings, "admin")) as owner, owner.cursor() as cursor:
        cursor.execute("LOCK TABLE measurement IN ACCESS EXCLUSIVE MODE")  # now no statement is short enough
        with pytest.raises(ReadInterruptedError, match="statement-seconds"):
            reader.measurements(**span).collect()
    query(two_tenants.settings, f"ALTER ROLE {two_tenants.login.role} SET statement_timeout = '30s'")
    small = Reader(url(two_tenants), batch_rows=1)  # a piece of more than ten rows is one too many
    assert sorted(small.measurements(**span).collect().rows()) == sorted(whole.rows())


def test_one_history_at_every_resolution(two_tenants: TwoTenants, span: dict[str, datetime]) -> None:
    reader = Reader(url(two_tenants))
    day = {"start": span["start"].replace(hour=0, minute=0, second=0, microsecond=0), "end": span["end"] + timedelta(days=1)}
    frames = [reader.history(**day, metric="flow", resolution=resolution).collect() for resolution in ("raw", "1h", "1d")]
    assert frames[0].schema == frames[1].schema == frames[2].schema
    assert {frame["value_count"].sum() for frame in frames} == {60}
    assert {(frame["value_min"].min(), frame["value_max"].max()) for frame in frames} == {(0.5, 59.5)}
    start = datetime(2026, 1, 1, tzinfo=UTC)
    spans = {1: "raw", 2: "raw", 3: "1h", 92: "1h", 93: "1d"}
    assert {days: resolution_for(start, start + timedelta(days=days)) for days in spans} == spans


REFUSED: tuple[tuple[Callable[[Reader, dict[str, datetime]], object], str], ...] = (
    (lambda r, s: r.measurements(start=s["start"].replace(tzinfo=None), end=s["end"]), "start must be a datetime with a time zone"),
    (lambda r, s: r.measurements(start=s["start"], end=s["end"].date()), "end must be a datetime with a time zone"),
    (lambda r, s: r.measurements(start=s["end"], end=s["start"]), "must be later than"),
    (lambda r, s: r.measurements(**s, device=1968193631353446400), "ids are texts"),
    (lambda r, s: r.measurements(**s, device=[1968193631353446400]), "ids are texts"),
    (lambda r, s: r.rollups(**s, resolution="1w"), "resolution must be auto, raw, 1h or 1d, not '1w'"),
    (lambda r, s: r.rollups(**s, resolution="raw"), "rollups are hours or days"),
)


def test_what_makes_no_sense_is_refused_before_anything_is_read(two_tenants: TwoTenants, span: dict[str, datetime]) -> None:
    reader = Reader(url(two_tenants))
    for question, words in REFUSED:
        with pytest.raises(ReadQuestionError, match=words):
            question(reader, span)


def test_who_may_not_read_is_told_what_to_set(two_tenants: TwoTenants, monkeypatch: pytest.MonkeyPatch) -> None:
    from iot_platform.read import reader

    monkeypatch.setattr(reader, "get_settings", lambda: two_tenants.settings)
    with pytest.raises(ReadAccessError, match="set IOT_READ_DATABASE_URL"):
        Reader()
    with pytest.raises(ReadAccessError, match=r"belongs to no tenant.*iot tenant grant"):
        Reader(two_tenants.settings.admin_url)
    wrong = url(two_tenants).replace(quote(two_tenants.login.password or ""), "wrong")
    with pytest.raises(ReadAccessError, match=r"refuses the connection.*check the address given to Reader"):
        Reader(wrong)
    with pytest.raises(ReadInterruptedError, match="is it running"):
        Reader("postgresql://nobody@127.0.0.1:9/iot")
    with pytest.raises(ReadAccessError, match="postgresql://"):
        Reader("mysql://x")
    kept = Reader(url(two_tenants)).latest()
    with closing(connect(two_tenants.settings, "admin")) as owner:
        revoke(owner, OWN)
    with pytest.raises(ReadAccessError, match="refuses the connection"):
        kept.collect()


@pytest.mark.parametrize("page", ["read.md", "read.zh-CN.md"])
def test_the_page_runs(two_tenants: TwoTenants, page: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its blocks of Python, one after the other, as in a notebook."""
    from iot_platform.read import reader

    address = url(two_tenants)
    settings = two_tenants.settings.model_copy(update={"read_database_url": type(two_tenants.settings.database_url)(address)})
    monkeypatch.setattr(reader, "get_settings", lambda: settings)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text("utf-8"), re.M | re.S)
    english = re.findall(r"^```python\n(.*?)^```", (DOCS / "read.md").read_text("utf-8"), re.M | re.S)
    assert blocks == english
    cells: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, page, "exec"), cells)  # noqa: S102  the page is ours
    assert cells["reader"].tenant == OWN
    assert len(cells["measurements"]) > 0
    assert OTHER not in str(cells)
    assert pl.scan_parquet(tmp_path / "flow.parquet").collect().height == 60
