"""compose.backup.yaml's scripts beside a real server: it archives, backups are made when they are due, the platform is told, drills may
only read. Without containers: the services' scripts in one mount namespace, with the mounts of compose.backup.yaml."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from iot_platform.local.install import install_packages
from iot_platform.local.passwords import Passwords
from iot_platform.local.postgresql import PostgresqlServer
from iot_platform.settings import Settings

pytestmark = [pytest.mark.backup, pytest.mark.timeout(600)]
ROOT = Path(__file__).parents[2]
TABLES = ROOT / "sql" / "migrations" / "0020_pre_create_backup_tables.sql"
# $1: the root file system; $2: the test's folder, which holds what compose mounts; $3: PostgreSQL's programs.
_HOST = """set -e
root=$1 folder=$2 bin=$3
for name in dev proc; do mount --rbind "/$name" "$root/$name"; done
mount --bind "$folder" "$root/srv"
mount -t tmpfs tmpfs "$root/mnt"
mkdir "$root/mnt/backup" "$root/mnt/backup-read-only"
mount --bind "$folder/backup" "$root/mnt/backup"
mount --bind "$folder/backup" "$root/mnt/backup-read-only"
mount -o remount,bind,ro "$root/mnt/backup-read-only"
mount -t tmpfs -o mode=1777 tmpfs "$root/run/postgresql"
exec chroot "$root" env PATH="$bin:/usr/bin:/bin" LC_ALL=C.UTF-8 sh /srv/host.sh
"""
_INSIDE = """set -e
as() { setpriv --reuid=postgres --regid=postgres --init-groups "$@"; }
sql() { as psql -X -A -t -q -d postgres -c "$1"; }
export SECRETS=/srv/secrets BACKUP_HOME=/srv/home REPOSITORY=/mnt/backup BACKUP_FOLDER=/mnt/other PGDATA=/srv/home/data
export PGPASSFILE=/srv/home/pgpass BACKUP_DATABASE=postgres BACKUP_ONCE=1 ENTRYPOINT=/srv/entrypoint
chown -R postgres: /srv/home
as initdb -D "$PGDATA" -k --no-sync --auth=scram-sha-256 --pwfile=/srv/secrets/postgres_password -U postgres >/srv/log 2>&1
sh /srv/timescaledb/start.sh postgres -c listen_addresses= -c fsync=off >>/srv/log 2>&1 &
server=$!
trap 'kill -INT $server; wait $server' EXIT
until as pg_isready -q; do sleep 0.1; done
as sh /srv/timescaledb/backup.sh >>/srv/log 2>&1  # before the platform has its tables
as psql -X -q -d postgres -f /srv/tables.sql
as sh /srv/timescaledb/backup.sh >>/srv/log 2>&1  # nothing is due
sql "SELECT json_agg(json_build_array(type, ended_at <= now(), reported_at <= now())) FROM database_backup"
# A day later, by the repository's clock: all that is asked is when the newest backup ended.
sed "s/now()/(now() + interval '1 day')/g" /srv/timescaledb/backup.sql >/srv/home/tomorrow.sql
run() { as pgbackrest --config=/srv/home/pgbackrest.conf --stanza=iot "$@"; }
as psql -X -A -t -q -d postgres -v file=/srv/home/info.json -v full_days=7 -f /srv/home/tomorrow.sql
sed "s/now()/(now() + interval '8 days')/g" /srv/timescaledb/backup.sql >/srv/home/later.sql
as psql -X -A -t -q -d postgres -v file=/srv/home/info.json -v full_days=7 -f /srv/home/later.sql
sql "SELECT pg_switch_wal() IS NOT NULL"
run check
sql "SELECT archived_count > 0 AND failed_count = 0 FROM pg_stat_archiver"
as pgbackrest --config=/srv/home/pgbackrest-drill.conf repo-put iot-drill </dev/null 2>&1 | grep -o 'Read-only file system' | head -n 1
as pgbackrest --config=/srv/home/pgbackrest-drill.conf --stanza=iot info --output=json | grep -c '"type":"full"'
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What compose mounts, and where the server lives."""
    for name in ("secrets", "home", "backup"):
        (tmp_path / name).mkdir(mode=0o755)
    for name in ("backup_passphrase", "postgres_password"):
        (tmp_path / "secrets" / name).write_text(f"the {name}\n", "utf-8")
    shutil.copytree(ROOT / "deploy" / "compose" / "timescaledb", tmp_path / "timescaledb")
    shutil.copyfile(TABLES, tmp_path / "tables.sql")
    (tmp_path / "host.sh").write_text(_INSIDE, "utf-8")
    (tmp_path / "entrypoint").write_text('#!/bin/sh\nexec setpriv --reuid=postgres --regid=postgres --init-groups "$@"\n', "utf-8")
    (tmp_path / "entrypoint").chmod(0o755)
    tmp_path.chmod(0o755)
    return tmp_path


def test_backups_are_made_when_they_are_due_and_the_platform_is_told(folder: Path) -> None:
    settings = Settings()
    server = PostgresqlServer(folder, settings.cache_dir, 1, Passwords.load(folder / "passwords.json"))
    install_packages(server.missing_packages(), folder / "install.log", lambda _: None)
    installation = server._installation(lambda _: None)
    if os.geteuid() != 0 or installation.root == Path("/"):
        pytest.skip("the server's own root file system is needed, and root")
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _HOST, "sh", *map(str, (installation.root, folder))]
    done = subprocess.run([*command, installation.bin_dir], check=False, capture_output=True, text=True, timeout=500)
    log = (folder / "log").read_text("utf-8", "replace")
    assert done.returncode == 0, done.stdout + done.stderr + log
    told, tomorrow, later, *rest = done.stdout.splitlines()
    held: list[Any] = json.loads(told)
    assert held == [["full", True, True]], "one backup, though the script ran twice"
    assert (tomorrow, later) == ("diff", "full")
    assert rest == ["t", "t", "Read-only file system", "1"]
    assert "no backup was made" not in log
