"""What bench/lifecycle.py measures one body at a time, each in a process of its own: seconds, peak memory, and what it said it did."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from iot_platform.settings import Settings, exports, get_settings

Result = dict[str, Any]
DAY = timedelta(days=1)


def fill(arguments: list[str]) -> Result:
    """`iot simulate --history`: tenants, projects of each, series, measurements, days."""
    from iot_platform.simulator.history import HistoryOptions
    from iot_platform.simulator.history.fill import HistoryFill

    tenants, projects, series, measurements, days = map(int, arguments)
    end = int(datetime.now(UTC).timestamp()) // 60 * 60_000_000
    options = HistoryOptions(1, end - days * 86_400_000_000, end, tenants, projects, 0, series, measurements)
    return {"rows": HistoryFill(get_settings(), options).run().written}


def rollup(_: list[str]) -> Result:
    """The body of the rollups' schedule, until nothing is left."""
    from iot_platform.rollups import roll_up

    done = roll_up(get_settings(), 86_400)
    return {"rows": done.rows, "changed": done.changed, "complete": done.complete}


def rebuild(arguments: list[str]) -> Result:
    """`iot rollup rebuild` of the last days."""
    from iot_platform.rollups import Rebuild

    now = datetime.now(UTC)
    steps = list(Rebuild(get_settings(), now - int(arguments[0]) * DAY, now).steps())
    return {"rows": sum(step.rows for step in steps), "changed": sum(step.changed for step in steps)}


def retention_plan(_: list[str]) -> Result:
    """`iot retention run --dry-run`: what would go."""
    from iot_platform.database import connect
    from iot_platform.retention import plan

    with closing(connect(get_settings(), application_name="bench")) as connection:
        found = plan(connection)
    return {"removals": len(found), "refused": sum(bool(item.refused) for item in found)}


def retention(arguments: list[str]) -> Result:
    """`iot retention set` measurements to so many days, and the body of retention's schedule: a day less is one chunk of measurement."""
    from iot_platform.database import connect
    from iot_platform.retention import run_retention, set_policy

    with closing(connect(get_settings(), application_name="bench")) as connection:
        set_policy(connection, "measurement", f"{arguments[0]}d", changed_by="bench")
    done = run_retention(get_settings())
    return {"rows": done.rows, "chunks": done.chunks, "bytes": done.bytes}


def quality(_: list[str]) -> Result:
    """The body of the quality schedule."""
    from iot_platform.quality.evaluate import evaluate

    done = evaluate(get_settings())
    return {"rules": len(done.outcomes), "failing": sum(item.failing for item in done.outcomes.values())}


def compression(_: list[str]) -> Result:
    """The body of the compression schedule."""
    from iot_platform.compression.compress import compress

    done = compress(get_settings())
    return {"due": len(done.due), "done": len(done.done), "available": done.available}


def audit(_: list[str]) -> Result:
    """`iot audit --since all`: reads every measurement."""
    from iot_platform.audit import run_audit

    return {"differences": len(run_audit(get_settings(), wait_seconds=0).differences)}


def audit_hour(_: list[str]) -> Result:
    """The scheduled check of what was committed in the last hour."""
    from iot_platform.audit import run_audit

    done = run_audit(get_settings(), since=datetime.now(UTC) - timedelta(hours=1), wait_seconds=0)
    return {"differences": len(done.differences)}


def projects(_: list[str]) -> Result:
    """The tick of the sensor new_projects in an empty Dagster, and the next one."""
    import dagster as dg

    from iot_platform.orchestration.dynamic_partitions import sync_projects

    with dg.instance_for_test() as instance:
        begun = time.perf_counter()
        added, _count = sync_projects(instance, get_settings())
        first = time.perf_counter() - begun
        sync_projects(instance, get_settings())
        return {"added": len(added), "first_seconds": first, "next_seconds": time.perf_counter() - begun - first}


def project_sums(_: list[str]) -> Result:
    """What the assets project and tenant read when 500 projects, or all tenants, are materialized."""
    from iot_platform.database import connect
    from iot_platform.telemetry.sums import known_projects, project_figures, tenant_figures

    with closing(connect(get_settings(), application_name="bench")) as connection:
        known = known_projects(connection)
        begun = time.perf_counter()
        project_figures(connection, known[:1])
        one = time.perf_counter() - begun
        project_figures(connection, known[:500])
        some = time.perf_counter() - begun - one
        tenant_figures(connection, list({tenant for tenant, _ in known}))
        return {"one_project_seconds": one, "500_projects_seconds": some, "all_tenants_seconds": time.perf_counter() - begun - one - some}


BODIES: dict[str, Callable[[list[str]], Result]] = {
    function.__name__: function
    for function in (fill, rollup, rebuild, retention_plan, retention, quality, compression, audit, audit_hour, projects, project_sums)
}


def run(settings: Settings, name: str, *arguments: object) -> Result:
    """A body in a process of its own; its result with `seconds` and `peak_mb`."""
    command = [sys.executable, "-m", "bench.lifecycle_work", name, *map(str, arguments)]
    done = subprocess.run(command, env={**os.environ, **exports(settings)}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} failed: {done.stderr[-2000:]}")
    result: Result = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    begun = time.perf_counter()
    result = BODIES[sys.argv[1]](sys.argv[2:])
    seconds = time.perf_counter() - begun
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    print(json.dumps({"seconds": seconds, "peak_mb": int(status["VmHWM"].split()[0]) / 1024, **result}))


if __name__ == "__main__":
    main()
