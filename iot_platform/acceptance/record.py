"""What passed already: acceptance goes on where it was, in a file of this machine."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from iot_platform.acceptance.check import PASSED, Verdict
from iot_platform.settings import Settings

VERSION: Final = 1


class Record:
    """The newest verdict of each check, with its time."""

    def __init__(self, settings: Settings) -> None:
        self.path = settings.local_dir / "acceptance.json"
        self._found: dict[str, dict[str, Any]] = _read(self.path)

    def passed_at(self, check: str) -> datetime | None:
        """When the check passed, if nothing else came of it since."""
        entry = self._found.get(check)
        return datetime.fromisoformat(entry["at"]) if entry and entry["state"] == PASSED else None

    def verdict(self, check: str) -> Verdict | None:
        """The newest verdict."""
        entry = self._found.get(check)
        return Verdict(entry["state"], entry["text"], entry["remedy"]) if entry else None

    def note(self, check: str, verdict: Verdict) -> None:
        """Keep it, at once and whole."""
        self._found[check] = asdict(verdict) | {"at": datetime.now(UTC).isoformat(timespec="seconds")}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_suffix(".new")
        fresh.write_text(json.dumps({"version": VERSION, "checks": self._found}, indent=1, ensure_ascii=False), "utf-8")
        fresh.replace(self.path)


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        document = json.loads(path.read_text("utf-8"))
        return dict(document["checks"]) if document["version"] == VERSION else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # not there, or not ours any more: everything is asked
