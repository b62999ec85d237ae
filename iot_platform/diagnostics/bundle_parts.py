"""What is in a support bundle, part by part, and what each file tells."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr
from pydantic_settings import BaseSettings

from ingest_daemon import home
from ingest_daemon import settings as daemon_settings
from ingest_daemon.variables import INTERNAL, known, secrets_dir
from iot_platform.diagnostics import bundle_servers
from iot_platform.diagnostics.bundle import Part
from iot_platform.diagnostics.redaction import GONE, Scrubber, is_secret, known_secrets, without_password
from iot_platform.settings import Settings, SettingsError, exports, get_settings, user_settings

JOURNAL_LINES: Final = 20_000
JOURNAL_SECONDS: Final = 30
MEANING: Final[Mapping[str, str]] = {
    "versions.json": "of Python, its packages, the system and this code",
    "machine.json": "processors, memory, disks, clock",
    "settings.json": "every setting of both programs that is not the default, and where it comes from; errors in them",
    "config": "configuration of the local stack's servers",
    "logs": "the end of each log (`iot logs - < FILE` reads it)",
    "status.json": "what `iot status --json` says",
    "doctor.txt": "what `iot doctor --all` says, first what to fix first",
    "doctor.json": "the same for programs",
    "audit.json": "the audit of the last day: whether messages are missing or doubled",
    "metrics": "the pages of ingest daemons and `iot metrics`",
    "database.json": "settings, sessions, sizes, offsets, the newest batches; counts of quarantine and quality incidents",
    "kafka.json": "brokers, topics with their settings, where their partitions begin and end",
    "mqtt.json": "what the broker says of itself",
    "dagster.json": "daemons, sensors, schedules, the newest runs and why they failed",
}


def gather(log_bytes: int) -> tuple[dict[str, Part], Scrubber]:
    """The parts of a bundle, and what takes the secrets out of them. `log_bytes`: at most, of the end of each log. Works with settings that
    are refused: then nothing is asked of servers."""
    settings, problems = _settings()
    folder = settings.local_dir if settings else home.stack_notes_file().parent
    parts: dict[str, Part] = {
        "versions": _versions,
        "machine": partial(_machine, folder),
        "settings": partial(_shown_settings, settings, problems),
        "configuration": partial(_configuration, folder),
        "logs": partial(_logs, folder, log_bytes),
        "journal": partial(_journal, log_bytes),
    }
    questions: dict[str, Callable[[Settings], dict[str, Any]]] = {
        "status": _status,
        "doctor": _doctor,
        "audit": bundle_servers.audit,
        "ingest daemons": bundle_servers.daemons,
        "iot metrics": bundle_servers.exporter,
        "database": bundle_servers.database,
        "Kafka": bundle_servers.kafka,
        "MQTT broker": bundle_servers.mqtt,
        "Dagster": bundle_servers.dagster,
    }
    for name, ask in questions.items():
        parts[name] = partial(ask, settings) if settings else partial(_refused, problems)
    return parts, Scrubber(_secrets(settings, folder))


def _settings() -> tuple[Settings | None, list[str]]:
    try:
        return get_settings(), []
    except SettingsError as error:
        return None, str(error).splitlines()


def _refused(problems: list[str]) -> dict[str, Any]:
    raise SettingsError(f"settings are refused: {'; '.join(problems)}")


def _secrets(settings: Settings | None, folder: Path) -> set[str]:
    values: dict[str, Any] = dict(exports(settings)) if settings else {}
    if settings:
        values["IOT_DAGSTER_STORAGE_URL"] = settings.dagster_database_url
    places = (*home.env_files(), home.stack_notes_file(), folder / "stack.env")
    try:
        mounted = secrets_dir(home.env_files())
    except SettingsError:
        mounted = Path(os.environ["IOT_SECRETS_DIR"]) if os.environ.get("IOT_SECRETS_DIR") else None
    return known_secrets(values, places, (mounted,) if mounted else (), (folder / "data" / "passwords.json",))


def _versions() -> dict[str, Any]:
    packages = sorted({f"{item.metadata['Name']} {item.version}" for item in importlib.metadata.distributions()}, key=str.lower)
    release = Path("/etc/os-release")
    checkout = home.checkout()
    return {
        "versions.json": {
            "iot_platform": importlib.metadata.version("iot-platform"),
            "commit": _head(checkout) if checkout else None,
            "python": sys.version,
            "executable": sys.executable,
            "platform": platform.platform(),
            "system": release.read_text("utf-8").splitlines()[0] if release.is_file() else None,
            "packages": packages,
        }
    }


def _head(checkout: Path) -> str | None:
    """The checkout's commit, without git."""
    try:
        head = (checkout / ".git" / "HEAD").read_text("ascii").strip()
        return (checkout / ".git" / head.removeprefix("ref: ")).read_text("ascii").strip() if head.startswith("ref: ") else head
    except OSError:
        return None


def _machine(folder: Path) -> dict[str, Any]:
    memory = Path("/proc/meminfo")
    places = {str(path): next(item for item in (path, *path.parents) if item.exists()) for path in (folder, Path.cwd(), Path("/var"))}
    return {
        "machine.json": {
            "host": platform.node(),
            "now": datetime.now(UTC),
            "processors": os.cpu_count(),
            "load": os.getloadavg(),
            "memory": memory.read_text("ascii").splitlines()[:8] if memory.is_file() else None,
            "disks": {name: shutil.disk_usage(path)._asdict() for name, path in places.items()},
            "uid": os.geteuid(),
        }
    }


def _shown_settings(settings: Settings | None, problems: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {"problems": problems}
    if settings:
        found["platform"] = _not_default(settings, set(user_settings().model_fields_set))
    try:
        daemon = daemon_settings.load()
        found["ingest"] = _not_default(daemon, set(daemon.model_fields_set))
    except SettingsError as error:
        found["ingest"] = f"refused: {error}"
    names = {name for name in os.environ if name.startswith("IOT_")} - INTERNAL
    found["environment"] = {name: "a setting" if name in known() else "no setting" for name in sorted(names)}
    found["files"] = {str(file): "there" if file.exists() else "not there" for file in (*home.env_files(), home.stack_notes_file())}
    return {"settings.json": found}


def _not_default(settings: BaseSettings, said: set[str]) -> dict[str, dict[str, str]]:
    shown: dict[str, dict[str, str]] = {}
    for name, value in settings:
        variable = f"IOT_{name.upper()}"
        if name not in settings.model_fields_set:
            continue
        if isinstance(value, SecretStr):
            plain = value.get_secret_value()
            text = without_password(plain) if "://" in plain else GONE
        elif isinstance(value, dict):
            text = str({key: GONE if is_secret(key) else item for key, item in value.items()})
        else:
            text = without_password(str(value))
        origin = "environment" if variable in os.environ else "`.env` or a file of IOT_SECRETS_DIR" if name in said else "noted by `iot up`"
        shown[variable.lower().removeprefix("iot_")] = {"set_to": text, "by": origin}
    return shown


def _configuration(folder: Path) -> dict[str, Any]:
    files = [*(folder / "run").glob("*.conf"), *(folder / "run").glob("*.properties"), *(folder / "dagster").glob("*.yaml")]
    return {f"config/{file.name}": file.read_text("utf-8", "replace") for file in sorted(files)}


def _logs(folder: Path, log_bytes: int) -> dict[str, Any]:
    found = {f"logs/{file.name}": _end(file, log_bytes) for file in sorted((folder / "logs").glob("*.log"))}
    if not found:
        raise LookupError(f"there are no logs in {folder / 'logs'}")
    return found


def _end(file: Path, most: int) -> str:
    with file.open("rb") as opened:
        size = os.fstat(opened.fileno()).st_size
        opened.seek(max(0, size - most))
        text = opened.read(most).decode("utf-8", "replace")
    return text if size <= most else f"… {size - most:,} bytes before are left out\n" + text.partition("\n")[2]


def _journal(log_bytes: int) -> dict[str, Any]:
    """Of systemd's units iot-*, where there are any."""
    command = shutil.which("journalctl")
    if command is None:
        return {}
    asked = [command, "--unit=iot-*", f"--lines={JOURNAL_LINES}", "--output=short-iso-precise", "--no-pager", "--quiet"]
    done = subprocess.run(asked, check=False, capture_output=True, timeout=JOURNAL_SECONDS)
    lines = deque(done.stdout.decode("utf-8", "replace")[-log_bytes:].splitlines())
    return {"logs/journal.txt": "\n".join(lines)} if done.returncode == 0 and lines else {}


def _status(settings: Settings) -> dict[str, Any]:
    from iot_platform.diagnostics.status import collect

    return {"status.json": collect(settings).as_json()}


def _doctor(_settings: Settings) -> dict[str, Any]:
    from iot_platform.diagnostics.doctor import examine
    from iot_platform.diagnostics.finding import verdict
    from iot_platform.local.plan import make_plan

    found = examine(make_plan(user_settings()))
    remedies = [f" -> {item.remedy}" if item.remedy and item.state != "ok" else "" for item in found]
    lines = [verdict(found), *(f"{item.state:<5}{item.what}: {item.text}{todo}" for item, todo in zip(found, remedies, strict=True))]
    return {"doctor.txt": "\n".join(lines) + "\n", "doctor.json": [asdict(item) for item in found]}
