"""Passwords of the local PostgreSQL's roles, and the console's key: generated once, kept with the data, readable by the user only."""

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROLES = ("postgres", "iot_migrator", "iot_writer", "iot_reader", "iot_console", "iot_monitor")


def console_key(path: Path) -> Path:
    """The file with the console's key; made when there is none."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, secrets.token_urlsafe(48) + "\n")
    return path


def _write(path: Path, text: str) -> None:
    """Whole, or not at all; readable by the user only."""
    temporary = path.with_suffix(".new")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    temporary.rename(path)


@dataclass(frozen=True, repr=False)
class Passwords:
    """Role name → password."""

    by_role: Mapping[str, str]

    def of(self, role: str) -> str:
        """The role's password."""
        return self.by_role[role]

    @classmethod
    def load(cls, path: Path) -> "Passwords":
        """Read the file; make it, with new passwords, when there is none, or none for a role that a release added."""
        known = json.loads(path.read_text("utf-8")) if path.exists() else {}
        if not set(ROLES) <= set(known):
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, json.dumps({role: secrets.token_hex(16) for role in ROLES} | known))
        return cls(json.loads(path.read_text("utf-8")))
