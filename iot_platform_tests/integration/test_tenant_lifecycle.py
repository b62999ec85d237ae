"""Tenants: what they have, taking it out whole, and deleting one without touching the others, whatever happens meanwhile."""

import json
import os
import threading
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import psycopg2
import pytest
from typer.testing import CliRunner

from iot_platform.cli.main import app
from iot_platform.compression.compress import compress
from iot_platform.database import connect
from iot_platform.orchestration.dynamic_partitions import PROJECT, TENANT, ProjectKeys, forget_tenant
from iot_platform.retention import run_retention
from iot_platform.rollups import roll_up
from iot_platform.settings import Settings, exports
from iot_platform.telemetry.drain.drain import Drain, Shift
from iot_platform.telemetry.replay.replay import Replay, Selection
from iot_platform.tenants import access, deletion
from iot_platform.tenants.deletion import delete_tenant
from iot_platform.tenants.errors import TenantError
from iot_platform.tenants.export import export_tenant
from iot_platform.tenants.listing import projects, tenants
from iot_platform.tenants.verify import verify_export
from iot_platform_tests.support.children.victims import Victims
from iot_platform_tests.support.feeds.accountant import Accountant
from iot_platform_tests.support.feeds.drain import Feed, drain, query
from iot_platform_tests.support.feeds.lifecycle import ROOT, audit, checksums, fill, keep, problems

pytestmark = pytest.mark.both_editions


@pytest.fixture
def aged(settings: Settings, accountant: Accountant) -> Settings:
    """Three days of messages of two tenants."""
    return fill(settings, accountant, days=3, step=timedelta(hours=20))


def left_of(settings: Settings, tenant: str, series: list[int], sources: list[int]) -> dict[str, int]:
    """Rows of a tenant that can still be found anywhere, by its name or by its former ids."""
    found = {table: count for table, (count, _) in checksums(settings, tenant).items()}
    for table in ("measurement", "measurement_1h", "measurement_1d", "series_latest", "rollup_change"):
        found[table] += query(settings, f"SELECT count(*) FROM {table} WHERE series_id = ANY (%s)", series)[0][0]
    found["message"] += query(settings, "SELECT count(*) FROM message WHERE source_id = ANY (%s)", sources)[0][0]
    return {table: count for table, count in found.items() if count}


def ids(settings: Settings, tenant: str) -> tuple[list[int], list[int]]:
    """Its series and sources."""
    return (
        [row[0] for row in query(settings, "SELECT series_id FROM series WHERE tenant_id = %s", tenant)],
        [row[0] for row in query(settings, "SELECT source_id FROM source WHERE tenant_id = %s", tenant)],
    )


def orphans(settings: Settings) -> tuple[int, int]:
    """Rows whose ids stand for nothing."""
    return query(
        settings,
        "SELECT (SELECT count(*) FROM measurement WHERE series_id NOT IN (SELECT series_id FROM series)),"
        " (SELECT count(*) FROM message WHERE source_id NOT IN (SELECT source_id FROM source))",
    )[0]


def test_one_tenant_goes_and_nothing_else(aged: Settings, edition: str) -> None:
    """On Community out of compressed chunks."""
    keep(aged, "message", "1d", "acme")
    keep(aged, "measurement", "60d", "other")
    run_retention(aged)
    query(aged, "UPDATE compression_policy SET older_than = '1 hour'")
    assert {item.table for item in compress(aged).done} == ({"message", "measurement"} if edition == "community" else set())
    with closing(connect(aged, "admin")) as connection:
        granted = access.grant(connection, "acme")
    before, own = checksums(aged, "other"), ids(aged, "acme")
    assert problems(aged) == []

    done = delete_tenant(aged, "acme", requested_by="test", max_rows=7)

    assert checksums(aged, "other") == before
    assert left_of(aged, "acme", *own) == {}
    assert (done.projects, done.series, done.sources) == (("north", "south"), len(own[0]), len(own[1]))
    assert done.removed["measurement"] > 0 < done.removed["quarantine"]
    assert query(aged, "SELECT count(*) FROM pg_roles WHERE rolname = %s", granted.role) == [(0,)]
    result = audit(aged)
    assert [item.text for item in result.differences] == []
    assert sum(row.found for row in result.partitions) == sum(row.expected for row in result.partitions) > 0
    assert query(aged, "SELECT requested_by, finished_at > cut_at FROM tenant_deletion") == [("test", True)]
    with pytest.raises(TenantError, match="there is no tenant 'acme'; there are: other"):
        delete_tenant(aged, "acme", requested_by="test")

    # a row of the other tenant that is lost now is still found
    partition, offset = query(aged, "SELECT kafka_partition, kafka_offset FROM message ORDER BY received_at DESC LIMIT 1")[0]
    query(aged, "DELETE FROM message WHERE kafka_partition = %s AND kafka_offset = %s", partition, offset)
    assert any(f"partition {partition} offset {offset} is in no table" in text for text in problems(aged))


def test_killed_anywhere_it_goes_on(aged: Settings, victims: Victims) -> None:
    before, own = checksums(aged, "other"), ids(aged, "acme")

    def check() -> None:
        assert problems(aged) == []
        roll_up(aged)
        assert checksums(aged, "other") == before

    for number in (3, 7, 20):  # among its statements
        victims.die("delete", "at_statement", "tenant_deletion", number, f"attempt {number}")
        check()
    delete_tenant(aged, "acme", requested_by="last attempt", max_rows=5)
    check()
    assert left_of(aged, "acme", *own) == {}
    assert query(aged, "SELECT requested_by FROM tenant_deletion") == [("attempt 3",)], "one record for all attempts"


def test_quarantine_after_the_cut_is_the_new_tenants(aged: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    call = deletion._Deleter._call

    def dies(self: Any, text: str, *parameters: Any) -> Any:
        if "tenant_deletion_names" in text:
            raise KeyboardInterrupt
        return call(self, text, *parameters)

    with monkeypatch.context() as patch:
        patch.setattr(deletion._Deleter, "_call", dies)
        with pytest.raises(KeyboardInterrupt):
            delete_tenant(aged, "acme", requested_by="test")
    feed = Feed(aged)
    feed.send(b"new and broken", topic=f"{ROOT}/acme/north/d0", connection=2)
    feed.flush()
    drain(aged)
    assert query(aged, "SELECT count(*) > 1 FROM quarantine WHERE tenant_id = 'acme'") == [(True,)], "the old ones are still there"
    delete_tenant(aged, "acme", requested_by="test")
    assert query(aged, "SELECT payload FROM quarantine WHERE tenant_id = 'acme'") == [(b"new and broken",)]
    assert problems(aged) == []


@pytest.mark.several_sessions("a drain and a deletion at once: PGlite gives sessions turns, so that they never meet")
def test_a_drain_that_knows_its_ids_makes_no_orphans(aged: Settings) -> None:
    """A drain is at work, with the ids of the tenant's series in its memory, while the tenant is deleted; the tenant's devices go on."""
    own = ids(aged, "acme")
    feed = Feed(aged)
    halt = threading.Event()
    shift = Drain(aged.model_copy(update={"drain_batch_records": 5}), Shift((0, 1), "live"), stop=halt)
    worker = threading.Thread(target=shift.run)
    worker.start()
    try:
        numbers = iter(range(1000, 9999))

        def some(count: int) -> None:
            for _ in range(count):
                number = next(numbers)
                feed.send(b'{"n":%d}' % number, partition=number % 2, topic=f"{ROOT}/acme/north/d{number % 2}", connection=2)
            feed.flush()

        some(20)
        _await(lambda: query(aged, "SELECT count(*) FROM measurement WHERE value >= 1000")[0][0] == 20)
        deleter = threading.Thread(target=delete_tenant, args=(aged, "acme"), kwargs={"requested_by": "test", "max_rows": 5})
        deleter.start()
        while deleter.is_alive():
            some(3)
        deleter.join()
        some(10)
        last = next(numbers) - 1
        _await(lambda: query(aged, "SELECT count(*) FROM measurement WHERE value = %s", last)[0][0] == 1)
    finally:
        halt.set()
        worker.join()
    assert orphans(aged) == (0, 0)
    fresh = ids(aged, "acme")
    assert fresh[0], "the tenant came back with its next message"
    assert not set(fresh[0]) & set(own[0])
    assert problems(aged) == []


def _await(done: Any) -> None:
    for _ in range(600):
        if done():
            return
        threading.Event().wait(0.05)
    raise AssertionError("it did not happen")


def test_what_was_deleted_does_not_come_back_from_kafka(aged: Settings) -> None:
    own = ids(aged, "acme")
    delete_tenant(aged, "acme", requested_by="test")
    others = checksums(aged, "other")
    for partition in (0, 1):
        for _ in range(2):
            Replay(aged, Selection(partition=partition, first=0, last=1_000)).run()
    assert left_of(aged, "acme", *own) == {}
    assert checksums(aged, "other") == others
    query(aged, "DELETE FROM removed_record")  # as retention does once its policies have passed them
    tally = Replay(aged, Selection(partition=0, first=0, last=1_000)).run()
    assert tally.restored == 0 < tally.elsewhere
    assert left_of(aged, "acme", *own) == {}


def test_replaying_what_retention_took(aged: Settings) -> None:
    """Kafka still has messages that retention removed: they come back whole, add nothing twice, and go again; the sums hold all along."""
    query(aged, "UPDATE retention_policy SET keep = '1 day' WHERE table_name IN ('message', 'measurement')")
    hours = query(aged, "SELECT * FROM measurement_1h ORDER BY series_id, bucket")
    report = run_retention(aged)
    assert not report.refused
    kept = query(aged, "SELECT count(*) FROM message")
    tallies = [Replay(aged, Selection(partition=partition, first=0, last=1_000)).run() for partition in (0, 1)]
    assert sum(tally.restored for tally in tallies) > 0
    assert problems(aged) == []
    roll_up(aged)
    assert query(aged, "SELECT * FROM measurement_1h ORDER BY series_id, bucket") == hours
    assert not run_retention(aged).refused
    assert query(aged, "SELECT count(*) FROM message") == kept
    assert problems(aged) == []
    assert query(aged, "SELECT * FROM measurement_1h ORDER BY series_id, bucket") == hours


def test_listing(aged: Settings) -> None:
    with closing(connect(aged, "reader")) as connection:
        found = {item.tenant: item for item in tenants(connection)}
        parts = {item.project: item for item in projects(connection, "acme")}
    assert set(found) == {"acme", "other"}
    expected = query(aged, "SELECT count(*) FROM message_named WHERE tenant_id = 'acme'")[0][0]
    assert (found["acme"].projects, found["acme"].messages, found["other"].projects) == (2, expected, 1)
    assert sum(item.measurements for item in parts.values()) == found["acme"].measurements == 2 * expected
    assert found["acme"].devices == sum(item.devices for item in parts.values())
    assert found["acme"].bytes > 0
    with closing(connect(aged)) as connection, connection.cursor() as cursor, pytest.raises(psycopg2.errors.InsufficientPrivilege):
        cursor.execute("SELECT tenant_deletion_cut(1)")


def test_export_is_whole_and_verifies(aged: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "out"
    written: list[str] = []
    import iot_platform.tenants.export as module

    write = module._Export._write_part

    def dies(self: Any, *arguments: Any) -> Any:
        if len(written) == 4:
            raise KeyboardInterrupt
        written.append(str(arguments[:3]))
        return write(self, *arguments)

    monkeypatch.setattr(module._Export, "_write_part", dies)
    with pytest.raises(KeyboardInterrupt):
        export_tenant(aged, "acme", folder, part_rows=9)
    with pytest.raises(TenantError, match="interrupted"):
        verify_export(folder)
    with pytest.raises(TenantError, match="interrupted export of tenant acme"):
        export_tenant(aged, "other", folder)
    journal = folder / "export.part.jsonl"
    journal.write_bytes(journal.read_bytes() + b'{"table": "message", "files": [{"rows": 1}')  # the disk was full
    again: list[str] = []

    def counts(self: Any, *arguments: Any) -> Any:
        again.append(str(arguments[:3]))
        return write(self, *arguments)

    monkeypatch.setattr(module._Export, "_write_part", counts)
    manifest = export_tenant(aged, "acme", folder, part_rows=9)
    assert not set(written[:-1]) & set(again), "what was written was written again"

    rows, wrong, _ = verify_export(folder)
    assert wrong == []
    for table in ("message", "measurement", "quarantine", "measurement_1h", "measurement_1d", "series"):
        name = table if table == "series" else f"{table}_named"
        assert rows[table] == manifest["rows"][table] == query(aged, f"SELECT count(*) FROM {name} WHERE tenant_id = 'acme'")[0][0] > 0
    payloads = {bytes(row[0]) for row in query(aged, "SELECT payload FROM message_named WHERE tenant_id = 'acme'")}
    assert set(pl.read_parquet(folder / "message" / "*.parquet")["payload"].to_list()) == payloads
    values = query(aged, "SELECT time, metric, value FROM measurement_named WHERE tenant_id = 'acme' ORDER BY 1, 2, 3")
    assert sorted(pl.read_parquet(folder / "measurement" / "*.parquet").select("time", "metric", "value").rows()) == values
    assert manifest["schema_version"].startswith("migrations/")
    assert not list(folder.rglob("*.part*"))

    path = folder / "manifest.json"
    for name, value in (("tenant", "other"), ("columns", {}), ("first", None), ("last", "2020"), ("schema_version", "x"), ("more", 1)):
        path.write_text(json.dumps({**manifest, name: value}), "utf-8")
        assert verify_export(folder)[1] == ["manifest.json: it was changed (SHA-256 of its contents differs)"], name
    bare = {name: value for name, value in manifest.items() if name != "sha256"}
    path.write_text(json.dumps(bare), "utf-8")
    assert verify_export(folder)[1] == ["manifest.json: it was changed (SHA-256 of its contents differs)"]
    path.write_text(json.dumps({**bare, "format": 1}), "utf-8")
    assert verify_export(folder)[1] == []
    assert "of an older export, without a digest of itself" in verify_export(folder)[2]
    path.write_text(json.dumps(dict(reversed(manifest.items()))), "utf-8")
    assert verify_export(folder)[1] == [], "the same, in another order"

    damaged = next((folder / "measurement").iterdir())
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    assert verify_export(folder)[1] == [f"measurement/{damaged.name}: its bytes changed (SHA-256 differs)"]
    with pytest.raises(TenantError, match="is not empty"):
        export_tenant(aged, "acme", folder)
    with pytest.raises(TenantError, match="cannot be written"):
        export_tenant(aged, "acme", damaged)
    changed = json.loads((folder / "manifest.json").read_text("utf-8"))
    del changed["files"][0]["sha256"]
    (folder / "manifest.json").write_text(json.dumps(changed), "utf-8")
    with pytest.raises(TenantError, match="damaged"):
        verify_export(folder)


def test_commands(aged: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import iot_platform.settings as module

    for name, value in exports(aged).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(module, "get_settings", lambda: aged)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))

    def run(*arguments: str, input: str | None = None) -> Any:  # noqa: A002
        return CliRunner().invoke(app, list(arguments), input=input)

    assert {item["tenant"] for item in json.loads(run("tenant", "list", "--json").stdout)} == {"acme", "other"}
    assert [item["project"] for item in json.loads(run("tenant", "show", "acme", "--json").stdout)["by_project"]] == ["north", "south"]
    query(aged, "INSERT INTO retention_policy SELECT 'message', '1968193631353446400', 'p', '1 day', now(), 'a' ")
    query(aged, "UPDATE accounting_1h SET tenant_id = '1968193631353446400' WHERE tenant_id = 'acme'")
    monkeypatch.setenv("COLUMNS", "80")
    for arguments in (("tenant", "list"), ("retention", "show"), ("tenant", "show", "other")):
        shown = run(*arguments).stdout
        assert "…" not in shown
        assert max(map(len, shown.splitlines())) <= 80
        assert arguments[1] == "show" or "1968193631353446400" in shown
    query(aged, "UPDATE accounting_1h SET tenant_id = 'acme' WHERE tenant_id = '1968193631353446400'")
    query(aged, "DELETE FROM retention_policy WHERE tenant_id = '1968193631353446400'")
    query(aged, "INSERT INTO retention_mark VALUES ('measurement', 'acme', '', now() - interval '1 day')")
    note = "are kept now, but are never in measurement_1h and measurement_1d"
    assert note in run("retention", "set", "measurement", "9d", "--tenant", "acme").stdout
    assert note not in run("retention", "set", "measurement", "1h", "--tenant", "acme").stdout
    assert note in run("retention", "set", "measurement", "--default", "--tenant", "acme").stdout
    query(aged, "DELETE FROM retention_mark")
    assert run("retention", "set", "message", "1d", "--tenant", "acme").exit_code == 0
    assert run("retention", "set", "message", "1d", "--tenant", "").exit_code != 0, "an unset variable changed everybody's policy"
    assert any(item["tenant"] == "acme" for item in json.loads(run("retention", "show", "--json").stdout))
    dry = json.loads(run("retention", "run", "--dry-run", "--json").stdout)
    assert dry["would_remove"] and not dry["refused"]  # noqa: PT018
    query(aged, "DELETE FROM message WHERE received_at = (SELECT min(received_at) FROM message_named WHERE tenant_id = 'acme')")
    refused = run("retention", "run")
    assert refused.exit_code == 1
    assert "refused message of acme" in refused.stdout
    out = tmp_path / "out"
    assert run("tenant", "export", "acme", "--to", str(out)).exit_code == 0
    assert run("tenant", "export", "--verify", str(out)).exit_code == 0
    wrong = run("tenant", "delete", "acme", input="acmee\n")
    assert wrong.exit_code != 0
    assert query(aged, "SELECT count(*) FROM tenant_deletion") == [(0,)]
    assert run("tenant", "delete", "acme", "--yes-delete", "acme").exit_code == 0
    assert {item["tenant"] for item in json.loads(run("tenant", "list", "--json").stdout)} == {"other"}
    assert os.environ["DAGSTER_HOME"] == str(tmp_path)


def test_partitions_of_the_tenant_go_from_dagster() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        ProjectKeys(instance).add([("a", "x"), ("a", "y/z"), ("ab", "x"), ("a b", "x")])
        assert forget_tenant(instance, "a") == 3
        assert instance.get_dynamic_partitions(TENANT) == ["ab", "a%20b"]
        assert instance.get_dynamic_partitions(PROJECT) == ["ab/x", "a%20b/x"]
