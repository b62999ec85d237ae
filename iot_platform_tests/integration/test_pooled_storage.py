"""Dagster's storage keeps its connections: few, replaced when they break, and none waits for ever."""

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dagster as dg
import psycopg2
import pytest
import sqlalchemy
import yaml

from iot_platform.orchestration import pooled_storage
from iot_platform.settings import Settings
from iot_platform_tests.support.feeds.drain import query

ROOT = Path(__file__).parents[2]
SESSIONS = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'pooled' ORDER BY 1"


@pytest.fixture
def home(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A Dagster home with the storage of deploy/dagster/dagster.yaml."""
    url = sqlalchemy.make_url(settings.dagster_database_url).update_query_dict({"application_name": "pooled"})
    monkeypatch.setenv("IOT_DAGSTER_STORAGE_URL", url.render_as_string(hide_password=False))
    storage = yaml.safe_load((ROOT / "deploy/dagster/dagster.yaml").read_text("utf-8"))["storage"]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "dagster.yaml").write_text(yaml.safe_dump({"storage": storage, "telemetry": {"enabled": False}}))
        yield Path(folder)
    for engine in pooled_storage._engines.values():
        engine.dispose()
    pooled_storage._engines.clear()


def ask(instance: dg.DagsterInstance) -> None:
    instance.get_runs(limit=1)
    instance.event_log_storage.get_maximum_record_id()
    instance.schedule_storage.all_instigator_state()  # type: ignore[union-attr]


def test_all_storages_of_all_instances_share_few_connections(settings: Settings, home: Path) -> None:
    with dg.DagsterInstance.from_config(str(home)) as first, dg.DagsterInstance.from_config(str(home)) as second:
        for _ in range(20):
            ask(first)
            ask(second)
        assert len(query(settings, SESSIONS)) == 1
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(ask, [first, second] * 40))
        assert len(query(settings, SESSIONS)) <= pooled_storage.KEPT
        with dg.DagsterInstance.from_ref(second.get_ref()) as third:
            ask(third)
        assert len(query(settings, SESSIONS)) <= pooled_storage.KEPT


def test_a_connection_that_broke_is_replaced(settings: Settings, home: Path) -> None:
    with dg.DagsterInstance.from_config(str(home)) as instance:
        ask(instance)
        ((pid,),) = query(settings, SESSIONS)
        assert query(settings, f"SELECT pg_terminate_backend({pid}, 5000)") == [(True,)]
        ask(instance)
        ((other,),) = query(settings, SESSIONS)
        assert other != pid


def test_a_statement_ends_at_its_limit(settings: Settings, home: Path) -> None:
    with dg.DagsterInstance.from_config(str(home)) as instance:
        ask(instance)
        pooled_storage.limit_statements(200)
        with instance.run_storage.connect() as connection, pytest.raises(sqlalchemy.exc.OperationalError) as caught:  # type: ignore[attr-defined]
            connection.execute(sqlalchemy.text("SELECT pg_sleep(30)"))
        assert isinstance(caught.value.orig, psycopg2.errors.QueryCanceled)
        ask(instance)
