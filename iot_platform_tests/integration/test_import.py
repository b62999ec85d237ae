"""History from files: each record once, in message or quarantine, whatever dies; the same again changes nothing; the books are exact."""

import gzip
import re
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from iot_platform.audit import run_audit
from iot_platform.database import connect
from iot_platform.diagnostics.trace import follow
from iot_platform.drills.rig.wire import Point
from iot_platform.imports.errors import ImportRefusedError
from iot_platform.imports.run import Import, Summary
from iot_platform.rollups import roll_up
from iot_platform.settings import Settings
from iot_platform.telemetry.replay.replay import Replay, Selection
from iot_platform.telemetry.sums import BadShare, bad_share
from iot_platform.tenants.deletion import delete_tenant
from iot_platform.tenants.export import export_tenant
from iot_platform.tenants.verify import verify_export
from iot_platform_tests.support.children.killer import Killer
from iot_platform_tests.support.feeds.drain import TOPIC, Feed, drain, query
from iot_platform_tests.support.feeds.lifecycle import keep

EXPORT = Path(__file__).parents[1] / "contract" / "influx_inspect.lp"
NOW = time.time_ns() // 10**9 * 10**9
MINUTE = 60 * 10**9
LINES = """
format = "line_protocol"
tenant = { value = "acme" }
project = { tag = "site" }
device = { tag = "host" }
"""
TABLE = """
tenant = { value = "acme" }
project = { value = "hall" }
device = { column = "dev" }
time = { column = "at", unit = "iso", zone = "Europe/Berlin" }
"""
HEADER = """# INFLUXDB EXPORT: 1677-09-21T00:12:43Z - 2262-04-11T23:47:16Z
# DDL
CREATE DATABASE plant WITH NAME autogen
# DML
# CONTEXT-DATABASE:plant
# CONTEXT-RETENTION-POLICY:autogen
# writing tsm data
"""
ROWS = "SELECT tenant_id, project_id, device_id, metric, time::text, value, value_int, value_text FROM measurement_named ORDER BY 3, 4, 5"


def run(settings: Settings, folder: Path, file: Path, mapping: str = LINES, **options: Any) -> Summary:
    map_file = folder / "mapping.toml"
    map_file.write_text(mapping)
    return Import(settings, file, map_file, **options).run()


def export(folder: Path, count: int = 50, name: str = "export.lp") -> Path:
    lines = [f"cpu,host=h{n % 3},site=s use={n}.5,idle={n}i {NOW - n * MINUTE}" for n in range(count)]
    file = folder / name
    file.write_text(HEADER + "\n".join(lines) + "\n")
    return file


def check(settings: Settings, records: int) -> None:
    """Every record of the last import is once in message or quarantine, and the audit agrees with the ledger."""
    stored = query(
        settings,
        "SELECT kafka_offset FROM (SELECT kafka_partition, kafka_offset FROM message UNION ALL SELECT kafka_partition, kafka_offset"
        " FROM quarantine) r WHERE kafka_partition = (SELECT max(kafka_partition) FROM import_file) ORDER BY 1",
    )
    assert [offset for (offset,) in stored] == list(range(records))
    differences = [row for row in query(settings, "SELECT problem FROM audit_offsets('-infinity')") if row[0] is not None]
    assert differences == []
    assert query(settings, "SELECT problem FROM audit_hours('-infinity') WHERE problem IS NOT NULL") == []


def test_line_protocol_with_its_header(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "export.lp.gz"
    old = NOW - 400 * 86_400 * 10**9
    bad = [
        "cpu,host=h1,site=s use=NaN 1",
        f"cpu,host=h1 use=1 {NOW}",
        "cpu,host=h1,site=s use=1",
        f"cpu,host=h1,site=s use=1 {old}",
        f'cpu,host=h1,site=s note="open {NOW}',
    ]
    good = [
        f"cpu,host=h1,site=s,core=0 use=1.5,ok=t,n=9007199254740993i {NOW}",
        f'log\\ book,host=h\\,2,site=s text="two\nlines, \\"quoted\\"" {NOW - MINUTE}',
    ]
    file.write_bytes(gzip.compress((HEADER + "\n".join([*good, *bad]) + "\n").encode()))
    before = run(settings, tmp_path, file, dry_run=True)
    assert query(settings, "SELECT count(*) FROM message") == [(0,)]
    assert query(settings, "SELECT count(*) FROM import_file") == [(0,)]
    summary = run(settings, tmp_path, file)
    assert summary.books == before.books
    assert (summary.ended, summary.records) == ("done", 7)
    assert summary.books.reasons == {"bad_encoding": 2, "bad_name": 1, "bad_timestamp": 1, "time_out_of_range": 1}
    assert {row[1:4] + row[5:] for row in query(settings, ROWS)} == {
        ("s", "h1", "cpu.use,core=0", 1.5, None, None),
        ("s", "h1", "cpu.ok,core=0", 1.0, None, "true"),
        ("s", "h1", "cpu.n,core=0", 9007199254740992.0, 9007199254740993, None),
        ("s", "h,2", "log book.text", None, None, 'two\nlines, "quoted"'),
    }
    details = query(settings, "SELECT detail FROM quarantine WHERE reason = 'time_out_of_range'")
    assert "iot retention show" in details[0][0]
    check(settings, 7)
    Replay(settings, Selection(quarantined=True)).run()  # nothing decodes now; nothing is lost or doubled
    check(settings, 7)


def test_the_same_file_again_and_one_that_grew(settings: Settings, tmp_path: Path) -> None:
    file = export(tmp_path)
    run(settings, tmp_path, file)
    rows = query(settings, ROWS)
    renamed = file.rename(tmp_path / "other.lp")
    again = run(settings, tmp_path, renamed)
    assert (again.ended, again.records, again.books.counts["measurements"]) == ("already", 50, 100)
    with pytest.raises(ImportRefusedError, match=r"another mapping.*--again"):
        run(settings, tmp_path, renamed, LINES + 'tags = "drop"\n')
    repeated = run(settings, tmp_path, renamed, again=True)
    assert repeated.books.counts["measurement_duplicates"] == 100
    check(settings, 50)
    with renamed.open("a") as more:
        more.write(f"cpu,host=h9,site=s use=1 {NOW}\n")
    with pytest.raises(ImportRefusedError, match=r"the file grew.*tail -c"):
        run(settings, tmp_path, renamed)
    assert query(settings, ROWS) == rows


@pytest.mark.parametrize("point", ["in_copy", "before_commit", "answer_lost"])
def test_killed_it_goes_on_where_it_was(settings: Settings, killer: Killer, tmp_path: Path, point: Point) -> None:
    settings = settings.model_copy(update={"drain_batch_records": 10})
    file = export(tmp_path)
    (tmp_path / "mapping.toml").write_text(LINES)
    command = [sys.executable, "-m", "iot_platform_tests.support.children.importing", str(file), str(tmp_path / "mapping.toml")]
    number = 3 if point != "in_copy" else 8  # every COPY counts; a batch has three
    killer.kill(command, settings, point, "UPDATE kafka_offset o SET next_offset", number)
    summary = run(settings, tmp_path, file)
    assert (summary.ended, summary.was_in, summary.records) == ("done", 30 if point == "answer_lost" else 20, 50)
    assert summary.books.counts["measurements"] == 100
    expected = {(f"h{n % 3}", float(value)) for n in range(50) for value in (n, n + 0.5)}
    found = query(settings, "SELECT device_id, value FROM measurement_named")
    assert len(found) == 100
    assert set(found) == expected
    check(settings, 50)


def test_beside_live_data(settings: Settings, tmp_path: Path) -> None:
    feed = Feed(settings)
    feed.send(b'{"ts":%d,"cpu.use":7,"deviceId":"h0"}' % (NOW // 1000 + 1), topic=TOPIC)
    feed.send(b'{"ts":%d,"cpu.use":8,"deviceId":"h0"}' % (NOW // 1000 - 3 * 60_000_000), topic=TOPIC)
    feed.flush()
    drain(settings)
    tenant, project = TOPIC.split("/")[-2:]
    mapping = LINES.replace('value = "acme"', f'value = "{tenant}"').replace('tag = "site"', f'value = "{project}"')
    summary = run(settings, tmp_path, export(tmp_path), mapping + 'tags = "drop"\nconflicts = "first"\n')
    counts = summary.books.counts
    assert (counts["measurements"], counts["measurement_conflicts"]) == (99, 1)  # what was there first stays
    latest = query(
        settings, "SELECT l.value FROM series_latest l JOIN series s USING (series_id) WHERE metric = 'cpu.use' AND device_id = 'h0'"
    )
    assert latest == [(7.0,)]
    check(settings, 50)
    assert run_audit(settings, since=None, wait_seconds=0).differences == []


def test_csv_and_parquet(settings: Settings, tmp_path: Path) -> None:
    csv = tmp_path / "wide.csv"
    at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(NOW // 10**9 - 7200))
    csv.write_text(f'dev,at,temp,note\na,{at}Z,21.50,"say ""hi"""\nb,{at}Z,,true\nc,{at}Z,nan,x\nd,soon,1,x\ne,{at}Z,1\n')
    summary = run(settings, tmp_path, csv, TABLE)
    assert summary.books.reasons == {"not_finite": 1, "bad_timestamp": 1, "bad_encoding": 1}
    assert [row[2:4] + row[5:] for row in query(settings, ROWS)] == [
        ("a", "note", None, None, 'say "hi"'),
        ("a", "temp", 21.5, None, None),
        ("b", "note", 1.0, None, "true"),
    ]
    check(settings, 5)
    parquet = tmp_path / "narrow.parquet"
    pl.DataFrame({"dev": ["z", "z"], "at": [NOW // 10**9, None], "what": ["a.b", "c"], "much": [0.1, 2.0]}).write_parquet(parquet)
    narrow = (
        TABLE.replace('unit = "iso", zone = "Europe/Berlin"', 'unit = "s"') + 'metric = { column = "what" }\nvalue = { column = "much" }\n'
    )
    summary = run(settings, tmp_path, parquet, narrow)
    assert summary.books.reasons == {"bad_timestamp": 1}
    assert query(settings, "SELECT metric, value FROM measurement_named WHERE device_id = 'z'") == [("a.b", 0.1)]
    check(settings, 2)


def test_an_export_of_a_real_server(settings: Settings, tmp_path: Path) -> None:
    """influxd 1.6.7, influx_inspect 1.8.10: shards out of order, TSM files and WAL, a point written three times."""
    keep_forever(settings)
    mapping = LINES.replace('{ tag = "site" }', '{ context = "retention_policy" }')
    before = run(settings, tmp_path, EXPORT, mapping, dry_run=True)
    summary = run(settings, tmp_path, EXPORT, mapping)
    assert (summary.records, summary.books.reasons) == (116, {})
    assert before.books == summary.books
    counts = summary.books.counts
    assert (counts["measurements"], counts["measurement_conflicts"]) == (114, 2)
    rows = query(settings, ROWS)
    assert {row[1] for row in rows if row[3].startswith("year.")} == {"year"}
    hour, known = "2024-06-30 23:00:00+00", re.compile("cpu.*site=north")
    assert {row[3]: row[5:] for row in rows if row[4] == hour and not known.match(row[3])} == {
        "over.v,site=north": (3.0, None, None),
        "log book.note,site=north": (None, None, "中文 🌡"),
        "log book.text,site=north": (None, None, 'two\nlines, "quoted" \\ end'),
        "m,x.big,co re=0,site=no rth": (9007199254740992.0, 9007199254740993, None),
        "m,x.max,co re=0,site=no rth": (float(2**63), 2**63 - 1, None),
        "m,x.min,co re=0,site=no rth": (-float(2**63), None, None),
        "m,x.v,co re=0,site=no rth": (1e-7, None, None),
        "tab\tbed.v,site=north": (1.0, None, None),
        "text.s,site=north": (None, None, ""),
        "text.t,site=north": (None, None, "21.5"),
        "text.u,site=north": (None, None, "true"),
        "text.v,site=north": (None, None, "line\\nnot"),
        "温度.值,site=north": (21.5, None, None),
        "cpu.usage": (4.0, None, None),
        "cpu.usage,site=nor/th": (3.0, None, None),
    }
    usage = query(
        settings, "SELECT count(*), min(time)::text FROM measurement_named WHERE metric = 'cpu.usage,site=north' AND device_id <> ''"
    )
    assert usage == [(33, "1969-12-31 23:59:59+00")]
    check(settings, 116)


def keep_forever(settings: Settings) -> None:
    """In the order in which it is accepted."""
    for table in ("ledger", "measurement_1d", "measurement_1h", "measurement"):
        keep(settings, table, "forever")


def test_imported_rows_are_rolled_up_traced_exported_and_deleted(settings: Settings, tmp_path: Path) -> None:
    file = export(tmp_path)
    partition = run(settings, tmp_path, file).partition
    roll_up(settings)
    assert query(settings, "SELECT sum(value_count) FROM measurement_1h") == query(settings, "SELECT count(*) FROM measurement")
    assert partition is not None
    found = follow(settings, partition, 7)
    assert (found.where, [item["state"] for item in found.measurements]) == ("stored", ["present", "present"])
    assert any(note.startswith("record 7 of export.lp, an import") for note in found.notes)
    assert follow(settings, partition, 50).where == "unknown"
    assert follow(settings, partition + 1, 0).where == "never written"
    manifest = export_tenant(settings, "acme", tmp_path / "out")
    assert (manifest["rows"]["message"], manifest["rows"]["measurement"]) == (50, 100)
    assert verify_export(tmp_path / "out")[1] == []
    delete_tenant(settings, "acme", requested_by="test")
    assert query(settings, "SELECT (SELECT count(*) FROM message), (SELECT count(*) FROM measurement)") == [(0, 0)]
    assert run_audit(settings, since=None, wait_seconds=0).differences == []
    assert run(settings, tmp_path, file).ended == "already"
    assert run(settings, tmp_path, file, again=True).books.counts["measurements"] == 100
    check(settings, 50)


def test_bad_imports_do_not_brake_the_drain(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "bad.lp"
    file.write_text("no line protocol\n" * 1_500)
    assert run(settings, tmp_path, file).books.reasons == {"bad_encoding": 1_500}
    feed = Feed(settings)
    feed.send(b"{}")
    feed.flush()
    drain(settings)
    with closing(connect(settings)) as connection:
        assert bad_share(connection, settings.kafka_topic, 600, 0) == BadShare(1, 0, 0)
    assert query(settings, "SELECT count(*) FROM partition_progress WHERE kafka_partition >= 1000000") == [(0,)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tenant = { value = 1 }\n", r"line 1: tenant.value "),
        ('tenant = { value = "a" }\n', r"line 1: project is missing"),
        (LINES + 'devise = { tag = "x" }\n', r"line 6: devise is unknown"),
        (LINES + 'metric = "x"\n', r"line 6: metric must be a text with \{field\}"),
        (LINES + "[time]\n", r"line 6: time.column is missing"),
        ("tenant = \n", "at line 1"),
        (TABLE.replace("Berlin", "Berlln") + 'format = "csv"\n', r"line 5: time.zone is no time zone"),
        (LINES.replace('tag = "site"', 'column = "c"'), r"line 4: project names a column"),
    ],
)
def test_a_wrong_mapping_is_named_by_line_and_key(settings: Settings, tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ImportRefusedError, match=message):
        run(settings, tmp_path, tmp_path / "none.lp", text)
