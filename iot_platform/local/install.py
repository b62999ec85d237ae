"""Installing what a bare Debian machine lacks: apt packages, and downloads kept in the user's cache."""

import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from iot_platform.local.errors import LocalStackError

Note = Callable[[str], None]
NETWORK = " (network, mirror or disk space?)"
_APT_OPTIONS = ("-o", "DPkg::Lock::Timeout=300")  # another installation may be going on
_DPKG = "/var/lib/dpkg"
_SYSTEM_PATHS = ("/usr/sbin", "/sbin", "/usr/local/sbin")  # not in an ordinary Debian user's PATH


def which(command: str) -> str | None:
    """Path of a command, system folders included."""
    return shutil.which(command, path=os.pathsep.join((os.environ.get("PATH", os.defpath), *_SYSTEM_PATHS)))


def debian_codename() -> str | None:
    """The Debian release of this machine, such as `trixie`; None elsewhere."""
    try:
        text = Path("/etc/os-release").read_text("utf-8")
    except OSError:
        return None
    fields = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    return fields.get("VERSION_CODENAME", "").strip('"') if fields.get("ID", "").strip('"') == "debian" else None


def run_logged(
    command: Sequence[str], log: Path, note: Note, *, what: str, environment: Mapping[str, str] | None = None, hint: str = ""
) -> None:
    """Run a command, its output in the log and its last line as progress; LocalStackError with the tail when it fails."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as out:
        out.write(f"\n$ {' '.join(command)}\n")
        lines: list[str] = []
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8", **(environment or {})},
        ) as process:
            for line in process.stdout or ():
                out.write(line)
                if line.strip():
                    lines = [*lines[-4:], line.strip()]
                    note(f"{what}: {line.strip()[:70]}")
    if process.returncode != 0:
        tail = "\n  ".join(lines)
        raise LocalStackError(f"{what} failed{hint}; the whole output is in {log}. It ended with:\n  {tail}")


def install_packages(wanted: Mapping[str, str], log: Path, note: Note) -> None:
    """Install Debian packages in one go.

    Args:
        wanted: package name → why it is needed.

    Raises:
        LocalStackError: not root, no apt, or apt failed; the message is the command to run by hand.
    """
    if not wanted:
        return
    reasons = ", ".join(f"{name} ({why})" for name, why in wanted.items())
    if os.geteuid() != 0 or which("apt-get") is None:
        remedy = f"apt-get install {' '.join(wanted)}" if which("apt-get") else "install them with your system's package manager"
        raise LocalStackError(f"not installed on this machine: {reasons}. Run as root: {remedy} - and then repeat this command")
    note(f"installing {reasons}")
    with _one_at_a_time(), _no_service_starts():
        run_logged(["apt-get", *_APT_OPTIONS, "update"], log, note, what="apt-get update", hint=NETWORK)
        run_logged(
            ["apt-get", *_APT_OPTIONS, "install", "-y", "--no-install-recommends", *wanted],
            log,
            note,
            what="apt-get install",
            hint=NETWORK,
        )
    if "mosquitto" in wanted and which("systemctl"):
        # Debian enables the system's broker on installation; it would take our port at the next boot.
        subprocess.run(["systemctl", "disable", "--now", "mosquitto"], check=False, capture_output=True)


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Of our own processes: `apt-get update` waits for no lock, and service starts are forbidden for as long as one installs."""
    folder = os.open(_DPKG, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


@contextmanager
def _no_service_starts() -> Iterator[None]:
    """While it lasts, package installation starts no system services (they would take our ports)."""
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    if ours:
        policy.write_text("#!/bin/sh\nexit 101\n", "ascii")
        policy.chmod(0o755)
    create = Path("/etc/postgresql-common/createcluster.d/iot-platform.conf")
    if not create.exists():
        create.parent.mkdir(parents=True, exist_ok=True)
        create.write_text("create_main_cluster = false\n", "ascii")
    try:
        yield
    finally:
        if ours:
            policy.unlink(missing_ok=True)


@contextmanager
def folder_lock(target: Path, note: Note) -> Iterator[None]:
    """One process at a time makes or changes a folder of the cache; others wait."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f".{target.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            note(f"waiting for another process that makes {target}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def cached(target: Path, note: Note) -> Iterator[Path | None]:
    """Make a folder of the cache once, also when several processes ask: yields a temporary folder to fill, or None when the target exists.

    Leaving the block renames the temporary folder to the target; an exception removes it. A lock serialises checkouts.
    """
    with folder_lock(target, note):
        if target.exists():
            yield None
            return
        for stale in target.parent.glob(f".{target.name}.new-*"):  # of a killed process: we hold the lock
            shutil.rmtree(stale, ignore_errors=True)
        temporary = Path(mkdtemp(prefix=f".{target.name}.new-", dir=target.parent))
        temporary.chmod(0o755)
        try:
            yield temporary
            temporary.rename(target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def debian_mirror(apt_dir: Path = Path("/etc/apt")) -> str:
    """The Debian archive that this machine's apt is configured with (deb822 `URIs:` or one-line `deb` entries; comments don't count)."""
    text = "\n".join(
        path.read_text("utf-8", "replace")
        for path in (apt_dir / "sources.list", *sorted((apt_dir / "sources.list.d").glob("*")))
        if path.is_file() and path.suffix in (".list", ".sources")
    )
    lines = [line.strip() for line in text.splitlines()]
    found = [uri for line in lines if line.startswith("URIs:") for uri in line.split()[1:]]
    found += [match[1] for line in lines if (match := re.match(r"deb\s+(?:\[[^]]*\]\s+)?(\S+)", line))]
    for uri in found:
        if uri.rstrip("/").endswith("/debian"):
            return uri
    raise LocalStackError(
        f"no Debian archive in {apt_dir}: install PostgreSQL with the timescaledb extension yourself, "
        "or set IOT_DATABASE_URL to a server of yours"
    )
