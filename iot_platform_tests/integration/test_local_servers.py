"""The real servers of the tests: they serve, they are apart, and they come back after kill -9."""

import subprocess
import sys
import textwrap
from pathlib import Path

import psycopg2
import pytest

from iot_platform.local import leftovers, probes
from iot_platform.settings import Settings
from iot_platform_tests.support.servers.stack import Servers
from iot_platform_tests.support.waiting import eventually


def test_settings_name_a_migrated_database_and_fresh_topics(settings: Settings) -> None:
    probes.mqtt(settings)
    probes.kafka(settings)
    connection = psycopg2.connect(settings.writer_url)
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM message")
        assert cursor.fetchone() == (0,)
    connection.close()


def serves(settings: Settings) -> bool:
    """Whether PostgreSQL lets us in."""
    try:
        probes.postgresql(settings.admin_url)
    except probes.NotReadyError:
        return False
    return True


@pytest.mark.apache_only("kills the server")
def test_killed_server_comes_back_with_its_data(servers: Servers, settings: Settings) -> None:
    admin = psycopg2.connect(settings.admin_url)
    with admin, admin.cursor() as cursor:
        cursor.execute("CREATE TABLE kept AS SELECT 1 AS number")
    admin.close()
    pid = servers.supervisor.state("postgresql").pid
    subprocess.run(["kill", "-9", str(pid)], check=True)
    eventually(lambda: serves(settings), 60)
    assert servers.supervisor.state("postgresql").pid != pid
    admin = psycopg2.connect(settings.admin_url)
    with admin.cursor() as cursor:
        cursor.execute("SELECT number FROM kept")
        assert cursor.fetchone() == (1,)
    admin.close()


def test_nothing_is_left_when_the_owner_is_killed(tmp_path: Path) -> None:
    """A supervisor of the tests' kind stops its programs when the process that started it is killed."""
    script = textwrap.dedent(f"""
        import os, signal
        from pathlib import Path
        from iot_platform.local.program import Program, base_environment
        from iot_platform.local.supervisor import Supervisor
        folder = Path({str(tmp_path)!r})
        supervisor = Supervisor(folder, die_with_parent=True)
        supervisor.ensure_running()
        supervisor.apply(Program("sleeper", ("sleep", "600"), folder, base_environment(folder)))
        while supervisor.state("sleeper").name != "RUNNING":
            pass
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == -9
    eventually(lambda: not leftovers.find(tmp_path))
