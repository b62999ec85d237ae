"""`iot decode` as a filter: bad lines, settings, and answers that do not wait for the next question."""

import json
import os
import subprocess
import sys
from pathlib import Path

COMMAND = [sys.executable, "-m", "iot_platform.cli.main", "decode"]
ROOT = Path(__file__).parents[2]


def run(text: bytes, *options: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, **variables}
    return subprocess.run([*COMMAND, *options], input=text, capture_output=True, check=False, timeout=60, env=environment, cwd=ROOT)


def test_a_bad_line_is_named_and_the_others_are_answered() -> None:
    good = {"name": "n", "topic": "mtic/msg/client/realtime/t/p", "payload_hex": "7b7d", "received_at": "2026-11-23T10:00:00Z"}
    lines = [json.dumps(good), "{", json.dumps({**good, "payload_hex": "zz"}), "", json.dumps({**good, "topic": None}), json.dumps(good)]
    done = run("\n".join(lines).encode())
    assert done.returncode == 1
    assert [json.loads(line)["outcome"] for line in done.stdout.splitlines()] == ["message", "message"]
    assert [line.split(b":")[1] for line in done.stderr.splitlines()] == [b" line 2", b" line 3", b" line 5"]


def test_settings_apply() -> None:
    case = {"name": 1, "topic": "a/t/p", "payload": '{"time":"2026-11-23 18:00:00","v":1}', "received_at": "2026-11-23T10:00:00Z"}
    done = run(json.dumps(case).encode(), IOT_TOPIC_PATTERN="a/{tenant}/{project}", IOT_DEFAULT_TIMEZONE="Asia/Shanghai")
    answer = json.loads(done.stdout)
    assert (answer["name"], answer["tenant"], answer["measurements"][0]["time"]) == (1, "t", "2026-11-23T10:00:00.000000Z")
    refused = run(b"", IOT_TOPIC_PATTERN="{tenant}/{project}/{site}")
    assert refused.returncode == 2
    assert b"IOT_TOPIC_PATTERN" in refused.stderr
    explained = run(json.dumps({**case, "topic": "b"}).encode(), "--details", IOT_TOPIC_PATTERN="a/{tenant}/{project}")
    assert "IOT_TOPIC_PATTERN" in json.loads(explained.stdout)["detail"]


def test_only_names_and_times_that_could_be_used_come_last() -> None:
    case = {"topic": "mtic/msg/client/realtime/t/p/d", "received_at": "2026-11-23T10:00:00Z"}
    payloads = ['{"deviceId":"true","a":1}', '{"deviceId":true,"a":1}', '{"deviceId":7,"a":1}']
    done = run("\n".join(json.dumps({**case, "payload": payload}) for payload in payloads).encode())
    metrics = [[item["metric"] for item in json.loads(line)["measurements"]] for line in done.stdout.splitlines()]
    assert metrics == [["a", "deviceId"], ["deviceId", "a"], ["a", "deviceId"]]


def test_answers_come_line_by_line() -> None:
    case = json.dumps({"name": "é", "topic": "x", "payload": "{}"}).encode() + b"\n"
    with subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for _ in range(2):
            process.stdin.write(case)
            process.stdin.flush()
            assert json.loads(process.stdout.readline()) == {"name": "é", "outcome": "quarantine", "reason": "topic_mismatch"}
        process.stdin.close()
        assert process.wait(30) == 0
