"""`iot audit` as a user runs it: exit codes, the verdict, and differences by name."""

import json
import os
import subprocess
import sys

from iot_platform.settings import Settings, exports
from iot_platform_tests.support.feeds.accountant import Accountant
from iot_platform_tests.support.feeds.drain import query


def iot_audit(settings: Settings, *options: str) -> tuple[int, str]:
    """Exit code and output."""
    command = [sys.executable, "-m", "iot_platform.cli.main", "audit", *options]
    environment = {**os.environ, **exports(settings), "COLUMNS": "200"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout + done.stderr


def test_clean_then_damaged(reported: Settings, accountant: Accountant) -> None:
    code, shown = iot_audit(reported)
    assert code == 0, shown
    assert "received 40 = stored 36 + duplicate 0 + quarantined 4 + in flight 0: nothing differs" in shown
    assert "0…19" in shown
    assert "1…40" in shown
    query(reported, "DELETE FROM message WHERE kafka_partition = 1 AND kafka_offset IN (10, 12)")
    accountant.says((1, 40, 40, 40), missing=1)
    code, shown = iot_audit(reported, "--since", "all")
    assert code == 1, shown
    for text in (
        "DIFFERENCE partition 1 offset 10 is in no table",
        "iot replay --partition 1 --offsets 10:11; iot replay --partition 1 --offsets 12:13",
        "DIFFERENCE connection 1 of ingest: sequence 22, 26 are nowhere",
        "DIFFERENCE tenant 1968193631353446400 project 1968193691042586624 hour",
        "DIFFERENCE ingest daemon ingest: received 40, but 41 accounted for; 1 spool entries vanished",
        "MISSING 2",
        "5 differences",
    ):
        assert text in shown
    code, shown = iot_audit(reported, "--json", "--tenant", "1968193631353446400")
    assert code == 1
    document = json.loads(shown)
    assert document["sums"]["missing"] == 2
    assert {item["kind"] for item in document["differences"]} == {"offsets", "sequences", "accounting", "daemon"}
    assert {hour["project"] for hour in document["hours"]} == {"1968193691042586624"}


def test_servers_that_do_not_answer(reported: Settings) -> None:
    code, shown = iot_audit(reported.model_copy(update={"database_url": type(reported.database_url)("postgresql://x@127.0.0.1:1/x")}))
    assert (code, "IOT_DATABASE_URL" in shown) == (2, True)
    code, shown = iot_audit(reported.model_copy(update={"kafka_bootstrap_servers": "127.0.0.1:1"}))
    assert (code, "cannot tell: Kafka at 127.0.0.1:1 does not answer" in shown) == (2, True)
    assert "nothing differs in what could be checked" in shown
