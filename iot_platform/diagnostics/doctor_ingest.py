"""What `iot doctor` says of each ingest daemon: whether a probe comes back, what the daemon has to say, and when its certificates end."""

import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from iot_platform import ingest_pages
from iot_platform.diagnostics.finding import Finding
from iot_platform.diagnostics.ingest_probe import DeafError, ProbeError, probe_daemon
from iot_platform.settings import Settings, SettingsError

SOON_SECONDS: Final = 21 * 86_400
"""Certificates that end within three weeks are worth a remark: as in deploy/prometheus/rules/certificates.yaml."""
_EXPIRY: Final = "iot_ingest_certificate_expiry_timestamp_seconds"
_LOST: Final = "iot_ingest_mqtt_sessions_lost_total"
_SERVERS: Final = {"mqtt": "the MQTT broker", "kafka": "Kafka"}
_WHOSE: Final = {"server": "the certificate of {}", "client": "our certificate for {}", "ca": "the last CA for {}"}


def ingest_findings(settings: Settings) -> Iterator[Finding]:
    """Several findings for each daemon; blocks for BACK_SECONDS and a little more where it is deaf."""
    for url in ingest_pages.daemons(settings):
        try:
            for notice in ingest_pages.notices(url):
                yield Finding("ingest", "note", f"{url}: {notice}")
            labelled = ingest_pages.labelled(url)
        except ingest_pages.IngestPageError:
            continue  # another finding says so
        yield _probe(settings, url)
        yield from _sessions(url, labelled)
        yield from _certificates(url, labelled)


def _probe(settings: Settings, url: str) -> Finding:
    remedy = "the right of the daemon's user to read, the broker's window and the shared group; then restart the daemon"
    try:
        return Finding("probe", "ok", f"{url}: {probe_daemon(settings, url)}")
    except DeafError as error:
        return Finding("probe", "bad", f"{url}: {error}", remedy)
    except ProbeError as error:
        return Finding("probe", "note", f"not tried with {url}: {error}")
    except SettingsError as error:
        return Finding("probe", "bad", f"not tried with {url}: {error}", "correct the setting that it names")


def _sessions(url: str, labelled: list[tuple[str, dict[str, str], float]]) -> Iterator[Finding]:
    lost = sum(value for name, _, value in labelled if name == _LOST)
    if lost:
        text = f"{url}: the broker had no session any more at {lost:,.0f} connections: what devices had sent meanwhile did not come"
        yield Finding("sessions", "note", text, "the broker's persistence and session expiry; does nobody else use IOT_INGEST_CLIENT_ID?")


def spool_finding() -> Iterator[Finding]:
    """Whether the disk has room for the whole spool, where a daemon's state directory is on this machine."""
    from ingest_daemon.settings import load

    try:
        daemon = load()
    except SettingsError:
        return  # a daemon's settings are elsewhere
    folder, limit = daemon.ingest_state_dir, daemon.ingest_spool_bytes
    if not folder.is_dir():
        return
    used = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    room = shutil.disk_usage(folder).free + used
    text = f"may take {limit / (1 << 30):,.1f} GiB (IOT_INGEST_SPOOL_BYTES), and {folder} has room for {room / (1 << 30):,.1f} GiB"
    remedy = "make room, lower IOT_INGEST_SPOOL_BYTES, or move IOT_INGEST_STATE_DIR"
    yield Finding("spool", "ok" if room >= limit else "risk", text, remedy)


def _certificates(url: str, labelled: list[tuple[str, dict[str, str], float]]) -> Iterator[Finding]:
    for name, labels, end in labelled:
        if name != _EXPIRY:
            continue
        left = end - time.time()
        whose = _WHOSE[labels["certificate"]].format(_SERVERS[labels["server"]])
        day = datetime.fromtimestamp(end, UTC).date()
        if left <= 0:
            yield Finding("certificate", "bad", f"{url}: {whose} ended on {day}", "renew it; the daemon takes a new file over by itself")
        elif left < SOON_SECONDS:
            text = f"{url}: {whose} ends on {day}, in {left / 86_400:.0f} days"
            yield Finding("certificate", "risk", text, "renew it; the daemon takes a new file over by itself")
        else:
            yield Finding("certificate", "ok", f"{url}: {whose} ends on {day}")
