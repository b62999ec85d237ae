"""The page of `iot metrics` on this machine, read: what it last found out costs nothing to ask for."""

import urllib.request
from http.client import HTTPException
from typing import Final

from iot_platform.settings import Settings

SECONDS: Final = 2.0
MAX_BYTES: Final = 64 << 20


def exporter_url(settings: Settings) -> str:
    """Where it listens, as seen from this machine."""
    host = settings.metrics_host
    shown = "127.0.0.1" if host in ("", "0.0.0.0", "::") else f"[{host}]" if ":" in host else host  # noqa: S104 - compared, not bound
    return f"http://{shown}:{settings.metrics_port}/metrics"


def read_exporter(settings: Settings) -> bytes | None:
    """The page; None where no exporter answers: it may run elsewhere."""
    try:
        with urllib.request.urlopen(exporter_url(settings), timeout=SECONDS) as answer:  # noqa: S310 - our own setting
            return bytes(answer.read(MAX_BYTES))
    except (OSError, HTTPException):
        return None


def audit_differences(settings: Settings) -> dict[str, int] | None:
    """What the exporter's last audit found, by proof; None where there is no exporter, or it has not audited yet."""
    from prometheus_client.parser import text_string_to_metric_families

    page = read_exporter(settings)
    try:
        families = list(text_string_to_metric_families(page.decode())) if page else []
    except ValueError:
        return None
    found = [sample for family in families for sample in family.samples if sample.name == "iot_audit_differences"]
    return {sample.labels.get("proof", ""): int(sample.value) for sample in found} if found else None
