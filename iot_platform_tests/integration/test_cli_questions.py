"""`iot sql`, `iot trace` and `iot status` as a person runs them, against real servers."""

import contextlib
import csv
import fcntl
import io
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from datetime import timedelta
from typing import Any

from iot_platform.database import connect
from iot_platform.settings import Settings, exports
from iot_platform.visible import visible
from iot_platform_tests.support.feeds.drain import TOPIC, Feed, delete_records, drain

RUN_ID = "6f9f0dcb-5b1f-4d36-9d5c-0f6d34a1a0b1"


def iot(settings: Settings, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    command = [sys.executable, "-m", "iot_platform.cli.main", *arguments]
    own = {**os.environ, **exports(settings), "COLUMNS": "200", **environment}
    return subprocess.run(command, env=own, capture_output=True, text=True, timeout=60, check=False)


def answer(settings: Settings, *arguments: str) -> Any:
    """The JSON a command prints."""
    done = iot(settings, *arguments, "--json")
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def test_exec_finds_the_programs_that_are_installed_beside_it_and_names_one_that_is_not(settings: Settings) -> None:
    done = iot(settings, "exec", "dagster", "--version", PATH="/nowhere")
    assert (done.returncode, done.stdout.startswith("dagster, version")) == (0, True), done.stderr
    done = iot(settings, "exec", "dagster-deamon", "run", PATH="/nowhere")
    assert (done.returncode, "dagster-deamon: No such file or directory; it is neither in PATH nor beside" in done.stderr) == (1, True)


# -- iot sql -----------------------------------------------------------------------------------------------------
def test_sql_prints_tabs_csv_and_json(settings: Settings) -> None:
    query = "SELECT 1 AS n, E'a\\tb' AS t, NULL AS nothing, '\\x00ff'::bytea AS raw, 9007199254740993::bigint AS big"
    assert iot(settings, "sql", query).stdout == "1\ta\\tb\t\t\\x00ff\t9007199254740993\n"
    assert list(csv.reader(io.StringIO(iot(settings, "sql", "--csv", query).stdout))) == [
        ["n", "t", "nothing", "raw", "big"],
        ["1", "a\tb", "", "\\x00ff", "9007199254740993"],
    ]
    assert answer(settings, "sql", query) == {"n": 1, "t": "a\tb", "nothing": None, "raw": "\\x00ff", "big": 9007199254740993}


def test_sql_json_stays_json_and_no_rows_are_told(settings: Settings) -> None:
    odd = answer(settings, "sql", "SELECT 'NaN'::float8 AS a, ARRAY['-Infinity'::float8, 1] AS b")
    assert odd == {"a": "NaN", "b": ["-Infinity", 1.0]}
    nothing = iot(settings, "sql", "SELECT 1 WHERE false")
    assert (nothing.stdout, nothing.stderr) == ("", "0 rows\n")


def test_sql_only_reads(settings: Settings) -> None:
    for statement in ("DELETE FROM message", "CREATE TABLE x ()", "SET TRANSACTION READ WRITE; DELETE FROM message"):
        done = iot(settings, "sql", statement)
        assert done.returncode == 1
        assert done.stderr.startswith("error:")
        assert "Traceback" not in done.stderr


def test_sql_names_the_mistake(settings: Settings) -> None:
    assert 'relation "nothing" does not exist' in iot(settings, "sql", "SELECT * FROM nothing").stderr
    unreachable = iot(settings, "sql", "SELECT 1", IOT_DATABASE_READER_URL="postgresql://nobody@127.0.0.1:9/iot")
    assert unreachable.returncode == 1
    assert "IOT_DATABASE_READER_URL" in unreachable.stderr


def test_sql_streams_more_than_a_reader_wants(settings: Settings) -> None:
    command = f"{sys.executable} -m iot_platform.cli.main sql 'SELECT generate_series(1, 100000000)' | head -n 2"
    began = time.monotonic()
    environment = {**os.environ, **exports(settings)}
    done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("1\n2\n", "")
    assert time.monotonic() - began < 30


def test_sql_shows_the_result_of_each_statement(settings: Settings) -> None:
    query = "SELECT 1 AS a; SET statement_timeout = 0; SELECT ';' AS b, 2 AS c;"
    assert iot(settings, "sql", query).stdout == "1\n;\t2\n"
    assert [json.loads(line) for line in iot(settings, "sql", "--json", query).stdout.splitlines()] == [{"a": 1}, {"b": ";", "c": 2}]
    stopped = iot(settings, "sql", "SELECT 1; SELECT nothing; SELECT 3")
    assert (stopped.stdout, stopped.returncode) == ("1\n", 1)
    assert 'column "nothing" does not exist' in stopped.stderr


def test_text_of_devices_does_not_steer_a_terminal(settings: Settings) -> None:
    """Tenant, device, metric and value of a message hold ESC, C1 and bidi controls; each command is run on a terminal and in a pipe."""
    odd = "\x1b]0;owned\x07\x9b2J\u202egnp"
    topic = f"{TOPIC.rsplit('/', 2)[0]}/acme{odd}/north"
    feed = Feed(settings)
    feed.send(json.dumps({"deviceId": odd, f"m{odd}": odd}, ensure_ascii=True).encode(), topic=topic)
    feed.send(b"{" + odd.encode(), topic=topic)
    feed.flush()
    drain(settings)
    commands: list[tuple[str, ...]] = [
        ("sql", "SELECT * FROM measurement_named; SELECT * FROM quarantine_named"),
        ("sql", "--csv", "SELECT tenant_id, value_text FROM measurement_named"),
        ("trace", "--partition", "0", "--offset", "0"),
        ("trace", "--partition", "0", "--offset", "1"),
        ("trace", "--topic", topic + odd, "--last"),
        ("tenant", "list"),
        ("tenant", "list", "--json"),
    ]
    for command in commands:
        shown = on_a_terminal(settings, *command)
        assert "202e" in shown, f"iot {command}: the test proves nothing"
        own = re.sub(r"\x1b\[[0-9;]*m", "", shown).replace("\r\n", "\n")
        assert own == visible(own), f"iot {command}"
    exact = iot(settings, "sql", "--csv", "SELECT tenant_id, value_text FROM measurement_named").stdout
    assert list(csv.reader(io.StringIO(exact)))[1] == [f"acme{odd}", odd], "CSV in a pipe is exact"
    assert answer(settings, "sql", "SELECT value_text FROM measurement_named") == {"value_text": odd}


def on_a_terminal(settings: Settings, *arguments: str) -> str:
    """What the command writes to a terminal of 200 columns."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
    command = [sys.executable, "-m", "iot_platform.cli.main", *arguments]
    own = {**os.environ, **exports(settings), "TERM": "xterm-256color"}
    own.pop("COLUMNS", None)
    shown = b""
    with subprocess.Popen(command, env=own, stdin=its, stdout=its, stderr=its, start_new_session=True) as process:
        os.close(its)
        with contextlib.suppress(OSError):  # EIO: the other side is closed
            while data := os.read(ours, 65536):
                shown += data
        process.wait(60)
    os.close(ours)
    return shown.decode()


def test_log_lines_are_visible_and_stay_out_of_the_output() -> None:
    odd = "\x1b]0;title\x07 \x9b31m \x7f \u202egnp.exe \u2066x\u2069"
    code = f"from iot_platform.logs import get_logger; get_logger('x').warning('odd', topic={odd!r}, other='\\x1b')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == ""
    assert "title" in done.stderr
    assert done.stderr.strip() == visible(done.stderr.strip())


# -- iot trace ---------------------------------------------------------------------------------------------------
def test_trace_follows_a_message_to_its_run(settings: Settings) -> None:
    feed = Feed(settings)
    feed.send(b'{"deviceId":"d","ts":%d,"temp":25.5,"ok":true}' % time.time(), packet=7)
    feed.flush()
    waiting = answer(settings, "trace", "--partition", "0", "--offset", "0")
    assert (waiting["where"], waiting["row"]) == ("in flight", None)
    assert waiting["record"]["header"] == {
        "client_id": "ingest", "connection_number": 1, "sequence": 1, "packet_id": 7, "dup": False, "retain": False, "qos": 1,
    }  # fmt: skip
    assert answer(settings, "trace", "--topic", TOPIC, "--last")["offset"] == 0  # found among those in flight
    drain(settings, run_id=RUN_ID)
    found = answer(settings, "trace", "--topic", TOPIC, "--last")
    assert (found["where"], found["partition"], found["offset"]) == ("stored", 0, 0)
    assert found["row"]["device_id"] == "d"
    assert {(item["metric"], item["value"], item["state"]) for item in found["measurements"]} == {
        ("temp", 25.5, "present"),
        ("ok", 1.0, "present"),
    }
    assert (found["batch"]["run_id"], found["run_url"]) == (RUN_ID, f"{settings.dagster_url}/runs/{RUN_ID}")
    screen = iot(settings, "trace", "--partition", "0", "--offset", "0")
    assert screen.returncode == 0, screen.stderr
    assert all(text in screen.stdout for text in ("Kafka record", "temp", "25.5", "present", RUN_ID))


def test_trace_tells_duplicates_and_conflicts_and_redeliveries(settings: Settings) -> None:
    feed, now = Feed(settings), int(time.time())
    feed.send(b'{"deviceId":"d","ts":%d,"temp":1}' % now, packet=1)
    feed.send(b'{"deviceId":"d","ts":%d,"temp":1}' % now, packet=2)
    feed.send(b'{"deviceId":"d","ts":%d,"temp":2}' % now, packet=3)
    feed.send(b'{"deviceId":"d","temp":3}', packet=4)
    feed.send(b'{"deviceId":"d","temp":3}', packet=4, dup=True, connection=2)
    feed.flush()
    drain(settings)
    states = [answer(settings, "trace", "--partition", "0", "--offset", str(offset))["measurements"][0]["state"] for offset in range(5)]
    assert states == ["present", "duplicate of offset 0", "conflict: another value came first", "present", "not written (redelivery)"]


def test_trace_shows_both_values_of_a_conflict_and_who_was_first(settings: Settings) -> None:
    feed, now = Feed(settings), int(time.time())
    feed.send(b'{"deviceId":"d","ts":%d,"temp":1,"text":"1","both":true}' % now)
    feed.send(b'{"deviceId":"other","ts":%d,"temp":2}' % now)
    feed.send(b'{"deviceId":"d","ts":%d,"temp":2,"text":1,"both":true}' % now, age=timedelta(seconds=-1))
    for value, hours in ((1, 3), (2, 0)):
        feed.send(b'{"deviceId":"late","ts":%d,"old":%d}' % (now - 18_000, value), age=timedelta(hours=hours))
    feed.flush()
    drain(settings)
    both, temp, text = sorted(
        answer(settings, "trace", "--partition", "0", "--offset", "2")["measurements"], key=lambda item: item["metric"]
    )
    assert "stored_by" not in both
    for found, said, stored in ((temp, 2.0, {"value": 1.0}), (text, 1.0, {"value_text": "1"})):
        assert (found["state"], found["value"]) == ("conflict: another value came first", said)
        assert found["stored"] == {"value": None, "value_int": None, "value_text": None} | stored
        assert (found["stored_by"]["partition"], found["stored_by"]["offset"]) == (0, 0)
    screen = iot(settings, "trace", "--partition", "0", "--offset", "2").stdout
    rows = [line.split() for line in screen.splitlines()]
    assert any(
        row[-6:] == ["2.0", "1.0", "partition", "0", "offset", "0"] for row in (list(filter(lambda c: c != "│", row)) for row in rows)
    ), screen
    (old,) = answer(settings, "trace", "--partition", "0", "--offset", "4")["measurements"]
    assert (old["stored"]["value"], old["stored_by"]) == (1.0, None)
    assert "not found near this one" in iot(settings, "trace", "--partition", "0", "--offset", "4").stdout


def test_status_names_projects_with_conflicts(settings: Settings) -> None:
    feed, now = Feed(settings), int(time.time())
    for number in range(3):
        feed.send(b'{"ts":%d,"temp":%d}' % (now, number))
    for project in range(7):
        for value in range(project + 2):
            feed.send(b'{"ts":%d,"temp":%d}' % (now, value), topic=f"mtic/msg/client/realtime/t/[red]{project}")
    feed.flush()
    drain(settings)
    found = json.loads(iot(settings, "status", "--json").stdout)
    assert found["conflicts_24h"] == 2 + sum(range(1, 8))
    assert found["conflicts_by_project_24h"][0] == {"tenant": "t", "project": "[red]6", "conflicts": 7, "measurements": 8}
    assert len(found["conflicts_by_project_24h"]) == 5
    screen = " ".join(iot(settings, "status").stdout.split())
    assert "conflicts, 24 h 30 measurements not stored (t/[red]6 7 of 8, " in screen
    assert "others 5)" in screen


def test_trace_shows_quarantine_and_what_kafka_has_forgotten(settings: Settings) -> None:
    feed = Feed(settings)
    feed.send(b'{"a":\xff}')
    feed.send(b"{}")
    feed.flush()
    drain(settings)
    delete_records(settings, 0, 1)
    found = answer(settings, "trace", "--partition", "0", "--offset", "0")
    assert (found["where"], found["record"], found["row"]["reason"]) == ("quarantined", None, "not_utf8")
    assert "gone from Kafka" in found["notes"][0]
    screen = iot(settings, "trace", "--partition", "0", "--offset", "0").stdout
    assert "not_utf8" in screen
    unknown = iot(settings, "trace", "--partition", "0", "--offset", "2", "--json")
    assert (unknown.returncode, json.loads(unknown.stdout)["where"]) == (1, "never written")
    unknown = iot(settings, "trace", "--partition", "9", "--offset", "0", "--json")
    assert (unknown.returncode, json.loads(unknown.stdout)["where"]) == (1, "never written")


def test_trace_works_without_kafka_and_explains_wrong_use(settings: Settings) -> None:
    feed = Feed(settings)
    feed.send(b'{"temp":1}')
    feed.flush()
    drain(settings)
    lost = settings.model_copy(update={"kafka_bootstrap_servers": "127.0.0.1:9"})
    found = answer(lost, "trace", "--partition", "0", "--offset", "0")
    assert found["where"] == "stored"
    assert "does not answer" in found["notes"][0]
    for wrong in ((), ("--partition", "0"), ("--last",), ("--topic", "no/such/topic", "--last")):
        done = iot(settings, "trace", *wrong)
        assert done.returncode == 1
        assert done.stderr.startswith("error:")


# -- iot status --------------------------------------------------------------------------------------------------
def test_status_shows_figures_and_what_is_down(settings: Settings) -> None:
    feed = Feed(settings)
    feed.send(b'{"temp":1}')
    feed.send(b"no json")
    feed.flush()
    drain(settings)
    feed.send(b"{}")
    feed.flush()
    done = iot(settings, "status", "--json")
    assert done.returncode == 3  # neither the ingest daemon nor Dagster runs
    found = json.loads(done.stdout)
    states = {component["name"]: component["state"] for component in found["components"]}
    assert states == {"mqtt": "ok", "kafka": "ok", "postgresql": "ok", "drain": "ok", "ingest": "down", "dagster": "down"}
    assert found["lag"] == {"0": 1, "1": 0}
    assert found["quarantine_24h"] == {"not_json": 1}
    assert 0 < found["freshness_p50_seconds"] <= found["freshness_p95_seconds"] < 60
    assert found["messages_out_per_second"] > 0
    screen = iot(settings, "status")
    assert screen.returncode == 3
    assert [problem["what"] for problem in found["problems"]] == ["ingest", "dagster", "quarantine"]
    assert found["verdict"] == "2 not working"
    assert all(text in screen.stdout for text in ("postgresql", "IOT_INGEST_HTTP_URL", "not_json 1", "1 messages (0: 1, 1: 0)"))


def test_a_figure_that_takes_too_long_is_unknown_and_the_database_is_not_called_down(settings: Settings) -> None:
    with contextlib.closing(connect(settings, "admin")) as connection, connection.cursor() as cursor:
        cursor.execute("LOCK TABLE quarantine, accounting_1h IN ACCESS EXCLUSIVE MODE")
        found = json.loads(iot(settings, "status", "--json").stdout)
    states = {component["name"]: component["state"] for component in found["components"]}
    assert states["postgresql"] == "ok"
    assert (found["quarantine_24h"], found["conflicts_24h"], found["messages_out_per_second"]) == (None, None, 0.0)


def test_status_answers_when_everything_is_down(settings: Settings) -> None:
    nowhere = settings.model_copy(
        update={
            "kafka_bootstrap_servers": "127.0.0.1:9",
            **{name: type(settings.mqtt_url)("postgresql://x@127.0.0.1:9/iot") for name in ("database_url", "database_reader_url")},
            "mqtt_url": type(settings.mqtt_url)("mqtt://127.0.0.1:9"),
        }
    )
    began = time.monotonic()
    done = iot(nowhere, "status", "--json")
    assert time.monotonic() - began < 20
    assert done.returncode == 3
    assert {component["state"] for component in json.loads(done.stdout)["components"]} == {"down"}
