"""docs/dagster.md, in both languages, lists exactly the assets, jobs, schedules, sensors and checks that are defined."""

import re
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest

from iot_platform.quality.statements import RULES

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [DOCS / "dagster.md", DOCS / "dagster.zh-CN.md"]
ASSET_COLUMNS, TRIGGER_COLUMNS = 7, 4

pytestmark = [
    pytest.mark.filterwarnings("ignore:The `__fields__` attribute is deprecated"),  # Dagster's own, with newer pydantic
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning"),
]


@pytest.fixture(scope="module")
def repository() -> dg.RepositoryDefinition:
    from iot_platform.definitions import defs

    return defs().get_repository_def()


def rows(page: Path, columns: int) -> list[list[str]]:
    """Cells of the tables that have so many columns and begin with a name in code."""
    lines = [line.strip("|").split("|") for line in page.read_text("utf-8").splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line] for line in lines if len(line) == columns]


def code(cell: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", cell))


def shown(window: timedelta) -> str:
    minutes = int(window.total_seconds()) // 60
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h"


def jobs_of(repository: dg.RepositoryDefinition, asset: str) -> set[str]:
    jobs = [repository.get_job(name) for name in repository.job_names if not name.startswith("__")]
    return {job.name for job in jobs if dg.AssetKey(asset) in job.asset_layer.selected_asset_keys}


def triggers(repository: dg.RepositoryDefinition) -> dict[str, set[str]]:
    """Schedule or sensor → the jobs that it starts."""
    found = {schedule.name: {schedule.job_name} for schedule in repository.schedule_defs}
    return found | {sensor.name: {target.job_name for target in sensor.targets} for sensor in repository.sensor_defs}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_assets(repository: dg.RepositoryDefinition, page: Path) -> None:
    graph = repository.asset_graph
    documented = {}
    for asset, group, pool, job, trigger, checks, freshness in rows(page, ASSET_COLUMNS):
        documented[code(asset).pop()] = (group, pool, code(job), code(trigger), code(checks), freshness)
    found = {}
    for key in graph.get_all_asset_keys():
        node, name = graph.get(key), key.to_user_string()
        jobs = jobs_of(repository, name)
        starts = {trigger for trigger, started in triggers(repository).items() if started & jobs}
        checks = {check.name for check in node.check_keys}
        policy = node.freshness_policy
        age = "–"
        if policy is not None:
            assert policy.warn_window is not None
            age = f"{shown(policy.warn_window.to_timedelta())}, {shown(policy.fail_window.to_timedelta())}"
        rules = set(RULES)
        found[name] = (node.group_name, ", ".join(sorted(node.pools or ())) or "–", jobs, starts, set() if checks == rules else checks, age)
    assert documented == found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_schedules_and_sensors(repository: dg.RepositoryDefinition, page: Path) -> None:
    documented = {code(name).pop(): code(job) for name, _, job, _ in rows(page, TRIGGER_COLUMNS)}
    assert documented == triggers(repository)
    times = {code(name).pop(): code(when).pop() for name, when, _, _ in rows(page, TRIGGER_COLUMNS) if code(when)}
    assert times == {schedule.name: schedule.cron_schedule for schedule in repository.schedule_defs}
