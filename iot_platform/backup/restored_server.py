"""A PostgreSQL on a folder that was just restored: started where nobody but us can connect, awaited until its recovery has ended."""

import re
import shlex
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Self

from iot_platform.backup.errors import BackupError
from iot_platform.backup.host import DatabaseHost
from iot_platform.backup.repository import server_settings

_PORT: Final = 5432  # of a socket in the folder, so nobody's
_POLL_SECONDS: Final = 0.2
_TAIL: Final = 12
_ACCESS: Final = "iot_restore_hba.conf"
_LOG: Final = "iot_restore.log"
# What the primary had, a server in recovery needs at least; the local stack and containers give it on the command line.
_AT_LEAST: Final = {
    "max_connections setting": "max_connections",
    "max_worker_processes setting": "max_worker_processes",
    "max_wal_senders setting": "max_wal_senders",
    "max_prepared_xacts setting": "max_prepared_transactions",
    "max_locks_per_xact setting": "max_locks_per_transaction",
}
_LAST_COMMIT: Final = re.compile(r"last completed transaction was at log time (\S+ \S+)")
_STOPPED: Final = re.compile(r"recovery stopping (?:before|after) (?:commit|abort) of transaction \d+, time (\S+ \S+)")
_HISTORY: Final = "SELECT pg_read_file('pg_wal/' || lpad(upper(to_hex(:timeline)), 8, '0') || '.history')"


@dataclass(frozen=True)
class Recovery:
    """What a recovery came to. `timeline`: where the server writes now; `left`: the timeline that it left for that; `last_commit_at`: of
    the last transaction that was restored; `stopped_at`: of the first one that was not, where a target ended it. Seconds since the
    epoch."""

    timeline: int
    left: int
    last_commit_at: float | None
    stopped_at: float | None


class RestoredServer:
    """In a `with`: started, and stopped at its end. It has no address but a socket in its folder, which only its user may enter.
    `archives`: a real one, which archives its new timeline from its first segment on; a copy never does."""

    def __init__(self, host: DatabaseHost, *, archives: bool) -> None:
        self._host, self._archives, self._data = host, archives, host.inside

    def __enter__(self) -> Self:
        self._host.run("sh", "-c", 'umask 077; cat >"$1"', "sh", f"{self._data}/{_ACCESS}", text="local all all trust\n")
        words = " ".join(f"-c {name}={shlex.quote(value)}" for name, value in self._settings().items())
        # 0 also when it stays in recovery, or ends later; and it says why it did not only in its log.
        started = self._host.run(
            "pg_ctl", "-D", self._data, "-w", "-t", "86400", "-l", f"{self._data}/{_LOG}", "-o", words, "start", check=False, seconds=None
        )
        if started.returncode != 0:
            raise BackupError(f"the restored server does not start: {self._reason()}")
        return self

    def __exit__(self, *_exception: object) -> None:
        self._host.run("pg_ctl", "-D", self._data, "-w", "-m", "fast", "-t", "600", "stop", check=False, seconds=660)
        if self._archives:
            self._host.run("rm", "-f", f"{self._data}/{_ACCESS}")

    def await_end(self) -> Recovery:
        """Until the recovery has ended, however long it takes.

        Raises:
            BackupError: the server ended itself, or will not write.
        """
        while self.value("SELECT pg_is_in_recovery()") != "f":
            if "pausing at the end of recovery" in self.log():
                raise BackupError("the recovery is paused at its target: recovery_target_action is not 'promote'")
            time.sleep(_POLL_SECONDS)
        self.require_writable()
        timeline = int(self.value("SELECT ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int"))
        history = self.rows(_HISTORY, timeline=str(timeline))
        forks = [row[0].split()[0] for row in history if row and row[0].strip()[:1].isdigit()]
        log = self.log()
        return Recovery(timeline, int(forks[-1]) if forks else timeline, _time(_LAST_COMMIT, log), _time(_STOPPED, log))

    def require_writable(self) -> None:
        """The server is still up, and takes a transaction that writes.

        Raises:
            BackupError: it does not.
        """
        self.value("SET default_transaction_read_only = off; SELECT pg_current_xact_id()")
        if self.value("SELECT current_setting('transaction_read_only')") != "off":
            raise BackupError("the restored server is read-only: default_transaction_read_only is on")

    def rows(self, query: str, database: str = "postgres", **values: str) -> list[list[str]]:
        """Rows of a query, as its superuser; :name and :'name' are the values.

        Raises:
            BackupError: the server is gone, with the end of its log, or refuses.
        """
        try:
            # No limit: the books of a large database take their time, and what was restored for hours is not given up for that.
            return self._host.sql(query, socket=self._data, port=_PORT, database=database, seconds=None, **values)
        except BackupError as error:
            if self._host.run("pg_ctl", "-D", self._data, "status", check=False).returncode == 0:
                raise
            raise BackupError(f"the restored server has ended: {self._reason()}") from error

    def value(self, query: str, database: str = "postgres") -> str:
        """The only value of a query's last row."""
        rows = self.rows(query, database)
        return rows[-1][0] if rows else ""

    def set_password(self, role: str, password: str) -> None:
        """The password is without quotes and backslashes."""
        self._host.sql(f"\\set secret '{password}'\nALTER ROLE :\"role\" PASSWORD :'secret';", socket=self._data, port=_PORT, role=role)

    def log(self) -> str:
        """All that it said since it was started."""
        return self._host.run("cat", f"{self._data}/{_LOG}", check=False).stdout

    def full_backup(self) -> None:
        """A full backup of this server. Blocks as long as it takes."""
        where = (f"--pg1-path={self._data}", f"--pg1-socket-path={self._data}", f"--pg1-port={_PORT}")
        self._host.pgbackrest("backup", "--type=full", *where)

    def _settings(self) -> dict[str, str]:
        shown = self._host.run("pg_controldata", self._data).stdout
        said = dict(line.split(":", 1) for line in shown.splitlines() if ":" in line)
        archiving = server_settings(self._host.config, self._data) if self._archives else {"archive_mode": "off"}
        return {
            **{setting: said[name].strip() for name, setting in _AT_LEAST.items() if name in said},
            "listen_addresses": "",
            "unix_socket_directories": self._data,
            "unix_socket_permissions": "0700",
            "port": str(_PORT),
            "hba_file": f"{self._data}/{_ACCESS}",
            "shared_preload_libraries": "timescaledb",
            "timescaledb.telemetry_level": "off",
            "logging_collector": "off",
            "log_destination": "stderr",
            "log_min_messages": "warning",
            "log_timezone": "UTC",
            "timezone": "UTC",
            "lc_messages": "C",
            **archiving,
        }

    def _reason(self) -> str:
        """Its own FATAL, explained where it is known; else the end of its log."""
        log = self.log()
        if "recovery ended before configured recovery target was reached" in log:
            last = _LAST_COMMIT.search(log)
            return "the archive ends before the target" + (f": its last transaction was at {last[1]}" if last else "")
        lines = [line for line in log.splitlines() if "FATAL" in line or "PANIC" in line] or log.splitlines()[-_TAIL:]
        return " / ".join(lines[-3:]) or "it said nothing"


def _time(pattern: re.Pattern[str], log: str) -> float | None:
    found = pattern.findall(log)
    return datetime.fromisoformat(found[-1]).timestamp() if found else None
