#!/usr/bin/env bash
# Dagster 1.13.27, `--log-format json`: of an error's traceback the log has the address of a Python object.
#
# One would expect the line of JSON to carry the traceback as text, as the other formats (colored, rich) print it. `exc_info` is a list of
# the class, the repr of the error and "<traceback object at 0x…>": what Dagster itself had not yet made a text of, frames between daemon
# and code server among them, is in no log.
#
# Seen: "json: exc_info ends in '<traceback object at '…, no traceback; colored: a traceback".
# Exit code 1 if that changed.
set -euo pipefail
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT
cd "$here"

python3 -m venv venv
venv/bin/pip install --quiet dagster==1.13.27
mkdir home
cat >broken.py <<'PY'
import dagster as dg


@dg.op
def nothing() -> None: ...


@dg.job
def job() -> None:
    nothing()


@dg.sensor(job=job, default_status=dg.DefaultSensorStatus.RUNNING)
def broken(context):
    raise ValueError("the cause")


defs = dg.Definitions(jobs=[job], sensors=[broken])
PY
cat >watch.py <<'PY'
import json
import os
import subprocess
import sys

SAID = "Sensor daemon caught an error for sensor broken"


def until_the_error(form: str) -> list[str]:
    """What the daemon printed up to the error and the lines that follow it."""
    command = ["venv/bin/dagster-daemon", "run", "-f", "broken.py", "--log-format", form]
    environment = {**os.environ, "DAGSTER_HOME": os.path.abspath("home"), "DAGSTER_DISABLE_TELEMETRY": "1", "PYTHONUNBUFFERED": "1"}
    daemon = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    lines: list[str] = []
    try:
        for line in daemon.stdout:
            lines.append(line.rstrip("\n"))
            if sum(SAID in one for one in lines) == 2:  # the first one is whole by then
                return lines
    finally:
        daemon.terminate()
        daemon.wait()
    sys.exit(f"{form}: the daemon ended: {lines[-5:]}")


lines = until_the_error("json")
line = json.loads(next(one for one in lines if SAID in one))
end = line["exc_info"][-1]
whole = "Traceback (most recent call last)"
plain = any(whole in one for one in until_the_error("colored"))
address = end.startswith("<traceback object at 0x") and not any(whole in one for one in lines)
print(f"json: exc_info ends in {end.partition('0x')[0]!r}…, {'no' if address else 'a'} traceback; colored: {'a' if plain else 'no'} traceback")
sys.exit(not (address and plain))
PY
timeout 300 venv/bin/python watch.py
