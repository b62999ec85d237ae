"""Running pgBackRest and PostgreSQL's programs where the database is: here, in its root file system, in its container, by ssh."""

import json
import os
import re
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from iot_platform.backup.errors import BackupError
from iot_platform.backup.repository import STANZA
from iot_platform.settings import Settings

FOLDER: Final = "{folder}"
"""In IOT_BACKUP_EXEC it stands for the folder that is restored to, which the program then sees as INSIDE."""
INSIDE: Final = "/media"
COPY: Final = "data"
"""Folder of a drill's copy in its scratch folder."""
_SCRATCH: Final = "iot-backup-drill"
"""File that marks a scratch folder as a drill's own: what is in it may be removed."""
_ERRORS_ASIDE: Final = ("--log-level-console=off", "--log-level-stderr=error")
_SPARE_BYTES: Final = 1 << 30
READ_ONLY: Final = "BACKUP_REPOSITORY_READ_ONLY"
"""Environment variable, `yes`: the local stack's script shows the repository read-only."""
_ERROR: Final = re.compile(r"ERROR: (\[\d+\].*?)(?=\n\S+ \S+ +P\d\d|\Z)", re.DOTALL)


class DatabaseHost:
    """The database's machine. `folder`: that is restored to; `read_only`: without the right to write into the repository, as far as the
    local stack's script can see to it."""

    def __init__(self, command: str, config: str, folder: Path | None = None, *, read_only: bool = False) -> None:
        self._words, self.config, self.folder = shlex.split(command), config, folder
        self._environment = {**os.environ, READ_ONLY: "yes" if read_only else ""}
        self._mounts = FOLDER in self._words
        self._scratch = False
        self._by_ssh = bool(self._words) and Path(self._words[0]).name == "ssh"

    @classmethod
    def of(cls, settings: Settings, folder: Path | None = None, *, read_only: bool = False) -> "DatabaseHost":
        """That of the settings.

        Raises:
            BackupError: no backups are set up.
        """
        if not settings.backup_config:
            raise BackupError(
                "no backups are set up: IOT_BACKUP_REPOSITORY and `iot up` do it for the local stack, IOT_BACKUP_CONFIG names those of a"
                " database of your own (docs/backup.md)"
            )
        config = (settings.backup_drill_config or settings.backup_config) if read_only else settings.backup_config
        return cls(settings.backup_exec, config, folder, read_only=read_only)

    @property
    def inside(self) -> str:
        """The folder that is restored to, as the programs see it."""
        return f"{self._root}/{COPY}" if self._scratch else self._root

    @property
    def _root(self) -> str:
        return INSIDE if self._mounts else str(self.folder)

    def make_folder(self) -> None:
        """The folder that is restored to, empty.

        Raises:
            BackupError: it holds something, or cannot be made.
        """
        self._make_root()
        if found := self._entries():
            pid = self.run("sh", "-c", 'head -n 1 "$1"', "sh", f"{self._root}/postmaster.pid", check=False).stdout.strip()
            server = f". A server may still run on it (process {pid}): stop that first" if pid else ""
            raise BackupError(
                f"{self.folder} is not empty ({found[0]}): a database is restored into an empty folder only. Move it away{server}"
            )

    def make_scratch(self) -> None:
        """The folder of a drill, from here on `inside` a scratch folder that is marked. What an earlier drill left there, which was
        killed, goes first: its server, its files.

        Raises:
            BackupError: it holds what is no drill's, or cannot be made.
        """
        self._make_root()
        if found := self._entries():
            if _SCRATCH not in found:
                raise BackupError(f"{self.folder} is not empty ({found[0]}), and no drill made that: IOT_BACKUP_DRILL_DIR or --scratch")
            self._scratch = True
            self.run("pg_ctl", "-D", self.inside, "-m", "immediate", "stop", check=False)
            try:
                self.remove_scratch()
            except BackupError as error:  # files come as fast as they go
                raise BackupError(
                    f"{self.folder}: the pgbackrest of a drill that was killed still works there; repeat soon ({error})"
                ) from error
            self._make_root()
        self._scratch = True
        self.run("touch", f"{self._root}/{_SCRATCH}")
        self.run("mkdir", "-m", "700", self.inside)

    def remove_scratch(self) -> None:
        """With all that is in it; the mark last. Blocks as long as it takes."""
        self.run("rm", "-rf", self.inside, seconds=None)
        self.run("rm", "-f", f"{self._root}/{_SCRATCH}")
        if self.folder is not None and self._mounts:
            self.folder.rmdir()
        else:
            self.run("rmdir", self._root, check=False)  # it may be a mount

    def require_room(self, size: int) -> None:
        """Enough of it on the disk of the folder for a database of so many bytes, and the WAL of its recovery.

        Raises:
            BackupError: there is not.
        """
        shown = self.run("df", "-Pk", self._root).stdout.splitlines()
        free, wanted = int(shown[-1].split()[3]) * 1024, size + _SPARE_BYTES
        if free < wanted:
            raise BackupError(f"{self.folder} has {free / 1e9:.1f} GB of room, and {wanted / 1e9:.1f} GB are needed to restore into it")

    def _make_root(self) -> None:
        if self.folder is not None and self._mounts:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        else:
            self.run("mkdir", "-p", "-m", "700", self._root)

    def _entries(self) -> list[str]:
        return self.run("ls", "-A", self._root).stdout.splitlines()

    def run(self, *argv: str, check: bool = True, seconds: float | None = 60, text: str = "") -> subprocess.CompletedProcess[str]:
        """A program there, `text` as its standard input.

        Raises:
            BackupError: it cannot be started, does not end in time, or (`check`) fails; the message has what it said.
        """
        remote = [shlex.quote(word) for word in argv] if self._by_ssh else list(argv)  # ssh hands one line to a shell there
        command = [str(self.folder or "-") if word == FOLDER else word for word in self._words] + remote
        try:
            done = subprocess.run(
                command,
                check=False,
                input=text,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=seconds,
                env=self._environment,
            )
        except OSError as error:
            raise BackupError(f"{command[0]} cannot be run: {error.strerror}. Is IOT_BACKUP_EXEC right?") from error
        except subprocess.TimeoutExpired as error:
            where = ": its repository does not answer" if argv[0] == "pgbackrest" else ""
            raise BackupError(f"{argv[0]} has not ended after {seconds:.0f} s{where}") from error
        if check and done.returncode != 0:
            raise BackupError(_said(argv, done))
        return done

    def pgbackrest(self, command: str, *options: str, seconds: float | None = None, arguments: Sequence[str] = ()) -> str:
        """A command of pgBackRest on our stanza; returns its output. Blocks as long as it takes.

        Raises:
            BackupError: it failed; the message has its error.
        """
        return self.run(
            "pgbackrest", f"--config={self.config}", f"--stanza={STANZA}", *options, command, *arguments, seconds=seconds
        ).stdout

    def pgbackrest_json(self, command: str, *options: str, arguments: Sequence[str] = ()) -> Any:
        """The same, of a command that answers in JSON; where warnings stand between, it would be none."""
        shown = self.pgbackrest(command, "--output=json", *_ERRORS_ASIDE, *options, arguments=arguments)
        try:
            return json.loads(shown, strict=False)  # a wrong passphrase has it show bytes as they are
        except ValueError as error:
            raise BackupError(f"pgbackrest {command} did not answer in JSON: {shown[:200]!r}") from error

    def sql(
        self, query: str, *, socket: str = "", port: int = 0, database: str = "postgres", seconds: float | None = 600, **values: str
    ) -> list[list[str]]:
        """Rows of a query as the server's superuser, as text; "" is NULL. `socket`, `port`: another server than the usual one. The query
        names the values :name, or :'name' as a literal.

        Raises:
            BackupError: no server answers, or it refuses.
        """
        where = [*(("-h", socket) if socket else ()), *(("-p", str(port)) if port else ())]
        options = ("-X", "-A", "-t", "-q", "-F", "\x1f", "-v", "ON_ERROR_STOP=1", "-d", database)
        variables = [part for name, value in values.items() for part in ("-v", f"{name}={value}")]
        shown = self.run("psql", *where, *options, *variables, seconds=seconds, text=query).stdout
        return [line.split("\x1f") for line in shown.splitlines()]


def _said(argv: Sequence[str], done: subprocess.CompletedProcess[str]) -> str:
    """pgBackRest's error is in the middle of its log, of others the last lines count."""
    shown = f"{done.stdout}\n{done.stderr}".strip()
    what = next((word for word in reversed(argv) if re.fullmatch(r"[a-z]+-?[a-z]+", word)), "") if argv[0] == "pgbackrest" else ""
    if found := _ERROR.findall(shown):
        text = " ".join(found[0].split())
        return f"pgbackrest {what}: {text}"
    return f"{argv[0]} failed ({done.returncode}): {' '.join(shown[-600:].split())}"
