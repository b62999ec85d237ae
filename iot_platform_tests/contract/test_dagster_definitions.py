"""The code location loads without servers or settings, and its names are those that people, dashboards and the local stack rely on."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._config import process_config, resolve_to_config_type
from dagster._core.instance.config import dagster_instance_config_schema, validate_concurrency_config
from dagster._serdes import ConfigurableClassData

from iot_platform.metrics.dagster_look import JOBS
from iot_platform.orchestration.run_coordinator import ShiftRunCoordinator
from iot_platform.quality.statements import RULES

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.filterwarnings("ignore:The `__fields__` attribute is deprecated"),  # Dagster's own, with newer pydantic
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning"),
]

LINEAGE = {
    "mqtt_broker": set(),
    "iot_messages": {"mqtt_broker"},
    "message": {"iot_messages"},
    "measurement": {"iot_messages"},
    "quarantine": {"iot_messages"},
    "project": {"message", "measurement", "quarantine"},
    "tenant": {"project"},
    "measurement_1h": {"measurement"},
    "measurement_1d": {"measurement_1h"},
    "retention_removed": {"message", "measurement_1d", "quarantine"},
    "quality_result": {"message", "measurement", "quarantine"},
    "compressed_chunk": {"message", "measurement"},
    "database_backup": {"message", "measurement", "quarantine"},
    "backup_drill": {"database_backup"},
    "sink_offset": {"message", "measurement"},
}


@pytest.fixture(scope="module")
def repository() -> dg.RepositoryDefinition:
    from iot_platform.definitions import defs

    return defs().get_repository_def()


def test_lineage_reaches_from_the_broker_to_tenants(repository: dg.RepositoryDefinition) -> None:
    graph = repository.asset_graph
    found = {key.to_user_string(): {parent.to_user_string() for parent in graph.get(key).parent_keys} for key in graph.get_all_asset_keys()}
    assert found == LINEAGE


def test_partitions_and_backfills(repository: dg.RepositoryDefinition) -> None:
    graph = repository.asset_graph
    for name, partitions in {
        "message": "kafka_partition",
        "measurement": "kafka_partition",
        "quarantine": "kafka_partition",
        "tenant": "tenant",
        "project": "project",
    }.items():
        node = graph.get(dg.AssetKey(name))
        assert isinstance(node.partitions_def, dg.DynamicPartitionsDefinition)
        assert node.partitions_def.name == partitions
        assert node.backfill_policy == dg.BackfillPolicy.single_run()


def test_names(repository: dg.RepositoryDefinition) -> None:
    jobs = {name for name in repository.job_names if not name.startswith("__")}
    assert jobs == {
        "drain",
        "check_telemetry",
        "observe_ingestion",
        "purge_dagster_history",
        "roll_up_measurements",
        "remove_old_rows",
        "evaluate_quality",
        "compress_old_chunks",
        "back_up_database",
        "practise_restore",
        "carry_out_actions",
        "follow_influx",
    }
    assert jobs == set(JOBS)  # those that iot metrics counts by name
    assert {sensor.name for sensor in repository.sensor_defs} == {
        "kafka_lag",
        "new_projects",
        "tenant_sessions",
        "console_actions",
        "influx_lag",
    }
    assert all(sensor.default_status == dg.DefaultSensorStatus.RUNNING for sensor in repository.sensor_defs)
    assert all(schedule.default_status == dg.DefaultScheduleStatus.RUNNING for schedule in repository.schedule_defs)
    checks = {key.to_user_string() for key in repository.asset_graph.asset_check_keys}
    assert checks == {
        "message:every_offset_is_accounted_for",
        "message:every_sequence_is_contiguous",
        "message:every_partition_can_go_on",
        "message:topics_keep_what_was_acknowledged",
        "quarantine:messages_are_mostly_good",
        "measurement_1h:rollup_equals_measurement",
        "retention_removed:retention_is_possible",
        *(f"quality_result:{rule}" for rule in RULES),
        "compressed_chunk:old_chunks_are_compressed",
        "compressed_chunk:disk_is_sufficient",
        "database_backup:wal_archive_is_complete",
        "backup_drill:newest_backup_can_be_restored",
        "sink_offset:sink_keeps_up",
    }


def test_schedules_are_off_the_full_hour_and_their_assets_have_pools_and_freshness_policies(repository: dg.RepositoryDefinition) -> None:
    for schedule in repository.schedule_defs:
        minute = str(schedule.cron_schedule).split()[0]
        assert minute[0] not in "*0", f"{schedule.name}: {schedule.cron_schedule}"
    graph = repository.asset_graph
    for name in ("measurement_1h", "measurement_1d", "quality_result", "retention_removed", "compressed_chunk"):
        node = graph.get(dg.AssetKey(name))
        assert node.pools, name
        assert node.freshness_policy, name


def test_a_shift_runs_no_checks_of_its_own(repository: dg.RepositoryDefinition) -> None:
    """Checks planned by a shift would be shown as unfinished for as long as it drains."""
    assert not repository.get_job("drain").asset_layer.asset_graph.asset_check_keys


def test_every_executable_has_a_description(repository: dg.RepositoryDefinition) -> None:
    graph = repository.asset_graph
    assert all(graph.get(key).description for key in graph.get_all_asset_keys())
    assert all(graph.get(key).description for key in graph.asset_check_keys)
    assert all(sensor.description for sensor in repository.sensor_defs)


def test_loading_needs_neither_settings_nor_servers() -> None:
    """Settings that break every rule do not matter before something runs."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("IOT_", "DAGSTER"))}
    environment |= {"IOT_KAFKA_PARTITIONS": "none", "IOT_DATABASE_URL": "nonsense"}
    code = "import sys, iot_platform.definitions as d; d.defs().get_repository_def(); print(*{'polars', 'sqlalchemy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True, capture_output=True, timeout=60)
    assert done.stdout.split() == []


def test_instance_configuration_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IOT_DAGSTER_STORAGE_URL", "postgresql+psycopg2://127.0.0.1/iot")
    config = yaml.safe_load((ROOT / "deploy" / "dagster" / "dagster.yaml").read_text("utf-8"))
    result = process_config(resolve_to_config_type(dagster_instance_config_schema()), config)
    assert result.success, result.errors
    assert config["telemetry"] == {"enabled": False}
    coordinator = ConfigurableClassData(
        config["run_coordinator"]["module"], config["run_coordinator"]["class"], yaml.safe_dump(config["run_coordinator"]["config"])
    )
    assert isinstance(coordinator.rehydrate(as_type=dg.QueuedRunCoordinator), ShiftRunCoordinator)
    validate_concurrency_config(config)


def test_workspace_names_the_module() -> None:
    workspace = yaml.safe_load((ROOT / "workspace.yaml").read_text("utf-8"))
    assert workspace["load_from"][0]["python_module"]["module_name"] == "iot_platform.definitions"


def test_definitions_stay_short() -> None:
    assert len((ROOT / "iot_platform" / "definitions.py").read_text("utf-8").splitlines()) <= 50


@pytest.mark.parametrize("path", sorted((ROOT / "iot_platform" / "defs").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_postponed_annotations(path: Path) -> None:
    """`from __future__ import annotations` breaks the signatures that Dagster reads."""
    imports = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.ImportFrom)]
    assert not any(node.module == "__future__" for node in imports)
