"""What passed already: acceptance goes on where it was, in a file of this machine. What another installation passed counts for nothing."""

import json
import os
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from iot_platform.acceptance.check import PASSED, Verdict
from iot_platform.settings import Settings

VERSION: Final = 2


def addresses(settings: Settings) -> dict[str, str]:
    """Where the installation is, by the setting's name, without logins; what is not set is left out."""
    urls = {
        "harbor_url": settings.harbor_url,
        "prometheus_url": settings.prometheus_url,
        "grafana_url": settings.grafana_url,
        "dagster_url": settings.dagster_url,
        "mqtt_url": settings.mqtt_url.get_secret_value(),
        "database_url": settings.database_url.get_secret_value(),
    }
    places = {name: "".join((urlsplit(url).netloc.rpartition("@")[2], urlsplit(url).path)) for name, url in urls.items()}
    places |= {"kafka": settings.kafka_bootstrap_servers, "kubeconfig": os.environ.get("KUBECONFIG", "")}
    return {name: place for name, place in places.items() if place}


class Record:
    """The newest verdict of each check, with its time."""

    def __init__(self, settings: Settings) -> None:
        self.path = settings.local_dir / "acceptance.json"
        self._addresses = addresses(settings)
        self._found: dict[str, dict[str, Any]] = {
            check: entry
            for check, entry in _read(self.path).items()
            if all(self._addresses.get(name) == place for name, place in entry["addresses"].items())  # one that was added is no other
        }

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
        self._found[check] = asdict(verdict) | {"at": datetime.now(UTC).isoformat(timespec="seconds"), "addresses": self._addresses}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_suffix(".new")
        fresh.write_text(json.dumps({"version": VERSION, "checks": self._found}, indent=1, ensure_ascii=False), "utf-8")
        fresh.replace(self.path)


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        document = json.loads(path.read_text("utf-8"))
        if document["version"] != VERSION:
            return {}
        for entry in document["checks"].values():
            Verdict(entry["state"], entry["text"], entry["remedy"])
            datetime.fromisoformat(entry["at"])
            dict(entry["addresses"])
        return dict(document["checks"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}  # not there, or not ours any more: everything is asked
