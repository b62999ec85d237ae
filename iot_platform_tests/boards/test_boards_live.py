"""The dashboard of Dagster while Dagster runs, and those of PostgreSQL's and the host's exporters where they are installed: every query has
numbers."""

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from iot_platform.local.ports import LOOPBACK, free_ports
from iot_platform.settings import Settings
from iot_platform_tests.support.feeds.drain import Feed
from iot_platform_tests.support.oracles.board_answers import answers, unanswered
from iot_platform_tests.support.oracles.grafana_prometheus import series_names
from iot_platform_tests.support.servers.exporter import exporter
from iot_platform_tests.support.servers.prometheus import scraping
from iot_platform_tests.support.servers.stack import Dagster, Servers
from iot_platform_tests.support.waiting import eventually

pytestmark = [pytest.mark.boards, pytest.mark.timeout(1200)]

EXPORTERS = {"node": "prometheus-node-exporter", "postgres": "prometheus-postgres-exporter"}
QUIET = {
    "dagster: Runs that failed or were canceled: {{job_name}} {{status}}",
    "capacity: Disks: days left",
}
"""Nothing of the kind need happen while the test runs."""


@contextmanager
def running(name: str, environment: Mapping[str, str], folder: Path) -> Iterator[str]:
    """An exporter of Debian's; host:port."""
    program = shutil.which(EXPORTERS[name])
    assert program is not None
    (port,) = free_ports(1)
    command = [program, f"--web.listen-address={LOOPBACK}:{port}"]
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=dict(environment))
    try:
        yield f"{LOOPBACK}:{port}"
    finally:
        process.terminate()
        process.wait(30)


def test_every_query_has_numbers_while_dagster_runs(servers: Servers, settings: Settings, dagster: Dagster, tmp_path: Path) -> None:
    """Ended runs are waited for: quality rules are evaluated every three minutes, rollups every five."""
    dagster.start()
    feed = Feed(settings)
    with ExitStack() as stack:
        jobs = {"iot": {urlsplit(stack.enter_context(exporter(settings))).netloc: {"part": "platform"}}}
        wanted = ["iot_dagster_"]
        for name, prefix in (("node", "node_"), ("postgres", "pg_")):
            if shutil.which(EXPORTERS[name]):
                own = {"DATA_SOURCE_NAME": servers.superuser_url() + "?sslmode=disable"} if name == "postgres" else {}
                jobs[name] = {stack.enter_context(running(name, own, tmp_path)): {}}
                wanted.append(prefix)
        prometheus = stack.enter_context(scraping(tmp_path, jobs))

        def missing() -> set[str]:
            for number in range(50):
                feed.send(b'{"a":%d}' % number, partition=number % 2)
            feed.flush()
            found = unanswered(answers(prometheus)).items()
            return {place for place, expr in found if any(name.startswith(tuple(wanted)) for name in series_names(expr))} - QUIET

        eventually(lambda: not missing(), 900, lambda: f"no numbers: {sorted(missing())}", pause=2)
