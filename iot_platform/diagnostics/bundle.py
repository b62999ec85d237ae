"""The support bundle: one archive from which a stranger can tell what is wrong, and no password or payload."""

import io
import json
import os
import socket
import tarfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from iot_platform.diagnostics.parallel import in_parallel
from iot_platform.diagnostics.redaction import Scrubber

DEADLINE_SECONDS: Final = 120.0
_LEFT_OUT: Final = """\
Left out:
- passwords, tokens, private keys: by their values, wherever they stand, and by what they look like
- what devices sent: no payload, no measured value; lines of PostgreSQL's log that tell rows, parameters or statements
- the text of statements that sessions are running

In it are names: of hosts, users, tenants, projects and MQTT topics. Look through it before you hand it on.
"""

Part = Callable[[], Mapping[str, Any]]
"""Gathers some files of the archive: name → text, or a document that becomes JSON."""


@dataclass
class Report:
    """What became of a bundle: its files with their sizes, and what could not be gathered, and why."""

    path: Path
    files: dict[str, int] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    took_seconds: float = 0.0


@dataclass
class _Gathered:
    """Filled by the parts' threads; one that comes after the deadline finds it closed."""

    files: dict[str, Any] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    closed: bool = False

    def add(self, part: Part) -> None:
        found = part()
        with self.lock:
            if not self.closed:
                self.files.update(found)


def write_bundle(  # noqa: PLR0917  one caller
    path: Path,
    parts: Mapping[str, Part],
    meaning: Mapping[str, str],
    scrubber: Scrubber,
    note: Callable[[str], None] = lambda _: None,
    seconds: float = DEADLINE_SECONDS,
) -> Report:
    """Gather all parts at once and write the archive, readable by this user only. A part that fails or does not end in time is missing, and
    the archive says so. `meaning`: file or folder → one line about it. `note` hears of what is awaited.

    Raises:
        OSError: the archive can't be written.
    """
    began = time.monotonic()
    report, gathered = Report(path), _Gathered()
    report.missing = in_parallel({name: lambda part=part: gathered.add(part) for name, part in parts.items()}, seconds, note)  # type: ignore[misc]
    with gathered.lock:
        gathered.closed = True
    texts = {name: _scrubbed(name, content, scrubber, report) for name, content in sorted(gathered.files.items())}
    report.missing = {name: scrubber.text(why) for name, why in report.missing.items()}
    report.files = {name: len(text.encode()) for name, text in texts.items() if text is not None}
    report.took_seconds = time.monotonic() - began
    _pack(path, {"README.txt": _readme(report, meaning), **{name: text for name, text in texts.items() if text is not None}})
    return report


def _scrubbed(name: str, content: Any, scrubber: Scrubber, report: Report) -> str | None:
    text = (
        scrubber.text(content) if isinstance(content, str) else json.dumps(scrubber.document(content), indent=1, ensure_ascii=False) + "\n"
    )
    if scrubber.holds_secret(text):
        report.missing[name] = "left out: a secret was still in it"
        return None
    return text


def _readme(report: Report, meaning: Mapping[str, str]) -> str:
    lines = [
        "Support bundle of the IoT platform",
        f"made {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC on {socket.gethostname()} in {report.took_seconds:.0f} s",
        "",
        "What is in it:",
        *(f"- {name} ({size:,} bytes){_about(name, meaning)}" for name, size in report.files.items()),
        "",
    ]
    if report.missing:
        lines += ["What could not be gathered:", *(f"- {name}: {why}" for name, why in report.missing.items()), ""]
    return "\n".join([*lines, _LEFT_OUT])


def _about(name: str, meaning: Mapping[str, str]) -> str:
    text = meaning.get(name) or meaning.get(name.partition("/")[0], "")
    return f": {text}" if text else ""


def _pack(path: Path, texts: Mapping[str, str]) -> None:
    part = path.with_name(f"{path.name}.part")
    root = path.name.removesuffix(".tar.gz")
    try:
        opened = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(opened, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
            for name, text in texts.items():
                data = text.encode()
                entry = tarfile.TarInfo(f"{root}/{name}")
                entry.size, entry.mtime, entry.mode = len(data), int(time.time()), 0o600
                archive.addfile(entry, io.BytesIO(data))
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)
