"""From a row back to the daemon that took its message, by the log alone: partition and offsets lead from one program to the other."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from iot_platform.settings import Settings, exports
from iot_platform_tests.support.children.drain import COMMAND
from iot_platform_tests.support.feeds.drain import query
from iot_platform_tests.support.servers.ingest import Daemon, forget, publish
from iot_platform_tests.support.waiting import eventually

MESSAGES = 40


def test_a_row_leads_to_its_batch_its_run_and_its_mqtt_connection(settings: Settings, tmp_path: Path) -> None:
    url = settings.mqtt_url.get_secret_value()
    root = "mtic/msg/client/realtime/logs"
    daemon = Daemon.on(settings, tmp_path, mqtt_topic_filter=f"{root}/#", ingest_log_level="debug")
    try:
        daemon.start()
        publish(url, [(f"{root}/p/{number % 7}", b'{"temp":%d}' % number) for number in range(MESSAGES)])
        eventually(lambda: sum(event.get("messages", 0) for event in daemon.events() if event["event"] == "delivered") == MESSAGES)
        daemon.stop()
    finally:
        daemon.close()
        forget(url, daemon.environment["IOT_INGEST_CLIENT_ID"])
    drained = subprocess.run(
        COMMAND, env={**os.environ, **exports(settings), "IOT_LOG_LEVEL": "debug"}, capture_output=True, text=True, check=True, timeout=60
    ).stderr
    rows = query(
        settings,
        "SELECT m.kafka_partition, m.kafka_offset, l.batch_id, l.run_id FROM message m "
        "JOIN ledger l ON l.kafka_partition = m.kafka_partition AND m.kafka_offset >= l.from_offset AND m.kafka_offset < l.to_offset",
    )
    assert len(rows) == MESSAGES
    for partition, offset, batch, run in rows:
        (committed,) = _chosen(drained, "--partition", str(partition), "--offset", str(offset))
        assert (committed["event"], committed["batch"], committed["run"], committed["partition"]) == (
            "batch committed",
            batch,
            run,
            partition,
        )
        (delivered,) = _chosen(daemon.log.read_text(), "--partition", str(partition), "--offset", str(offset))
        assert delivered["event"] == "delivered"
        assert delivered["first_sequence"] <= delivered["last_sequence"] <= MESSAGES
    assert len({row[2] for row in rows}) == len(_chosen(drained, "--run", "killed", "--level", "debug"))


def _chosen(log: str, *arguments: str) -> list[dict[str, Any]]:
    """As `iot logs -` chooses; in this process, because it is asked for every row."""
    from typer.testing import CliRunner

    from iot_platform.cli.main import app

    done = CliRunner().invoke(app, ["logs", "-", "--json", *arguments], input=log)
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines()]
