"""`iot doctor` as a person runs it: one page, the worst first, the exit code; and clocks that are wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from iot_platform.diagnostics.finding import URGENCY
from iot_platform.drills.rig.fake_clock import FakeClock
from iot_platform.settings import Settings, exports

IOT = [sys.executable, "-m", "iot_platform.cli.main"]
CLOCKS = """
from iot_platform.diagnostics.doctor_clocks import clock_findings
from iot_platform.settings import get_settings
for finding in clock_findings(get_settings(), database=True, kafka=False, ingest=False):
    print(finding.state, finding.text, finding.remedy)
"""


def environment(settings: Settings) -> dict[str, str]:
    return {**os.environ, **exports(settings), "COLUMNS": "200"}


def test_one_page_within_a_minute_with_the_worst_first(settings: Settings) -> None:
    """The tests' servers: no ingest daemon, no Dagster, a PostgreSQL that does not sync."""
    began = time.monotonic()
    done = subprocess.run([*IOT, "doctor", "--json"], env=environment(settings), capture_output=True, text=True, timeout=90, check=False)
    assert time.monotonic() - began < 60
    assert done.returncode == 3, done.stderr
    document = json.loads(done.stdout)
    found = document["findings"]
    assert (document["state"], document["exit_code"]) == ("bad", 3)
    urgency = [URGENCY.index(finding["state"]) for finding in found]
    assert urgency == sorted(urgency)
    assert [finding["what"] for finding in found if finding["state"] == "bad"] == ["ingest", "Dagster"]
    assert {"fsync=off", "full_page_writes=off"} <= {finding["text"].split(":")[0] for finding in found if finding["state"] == "risk"}
    assert all(finding["remedy"] for finding in found if finding["state"] in ("lost", "bad", "risk"))
    texts = [finding["text"] for finding in found if finding["state"] != "ok"]
    assert len(texts) == len(set(texts))


def test_watching_repeats_until_it_is_interrupted(settings: Settings) -> None:
    with subprocess.Popen(
        [*IOT, "doctor", "--watch"], env=environment(settings), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as watching:
        assert watching.stdout is not None
        first = watching.stdout.readline()
        watching.send_signal(signal.SIGINT)
        rest = watching.stdout.read()
        watching.wait(30)
    assert first.startswith("2 not working; ")
    assert "are well: " in rest.splitlines()[-1]
    assert watching.returncode == 3


def test_a_host_whose_clock_differs_from_the_databases_is_told(settings: Settings, tmp_path: Path) -> None:
    with FakeClock(tmp_path) as clock:
        clock.set(90)
        wrong = environment(settings) | clock.environment
        done = subprocess.run([sys.executable, "-c", CLOCKS], env=wrong, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("risk the database's clock is ")
    assert "s behind that of " in done.stdout
    assert "synchronise both" in done.stdout
