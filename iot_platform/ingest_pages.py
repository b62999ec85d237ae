"""The ingest daemon's HTTP pages, read: /readyz, /metrics, /accounting, /probe. Whatever asks a daemon asks through here."""

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterable
from http.client import HTTPException
from typing import IO, Any, Final
from urllib.parse import urlsplit

from iot_platform.settings import Settings

READY_SECONDS: Final = 3.0
ACCOUNTING_SECONDS: Final = 5.0
MAX_BYTES: Final = 64 * 1024 * 1024


class IngestPageError(Exception):
    """A daemon did not answer, or not as one does; the message names the page and the setting. Retry later."""


def daemons(settings: Settings) -> tuple[str, ...]:
    """One URL for each ingest daemon of IOT_INGEST_HTTP_URL. A name that stands for several is looked up at each call; one that cannot be
    stands for a daemon that does not answer."""
    return tuple(address for url in settings.ingest_http_url.split(",") for address in _addresses(url))


def _addresses(url: str) -> list[str]:
    parts = urlsplit(url)
    if parts.scheme != "dns+http":
        return [url]
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port, socket.AF_INET, socket.SOCK_STREAM)
    except OSError:
        return [url.removeprefix("dns+")]
    return sorted(f"http://{address[0]!s}:{parts.port}" for *_, address in found)


def is_ready(url: str) -> bool:
    """Whether the daemon says that messages flow. Blocks for READY_SECONDS at most, as `counters` does for each daemon."""
    try:
        _read(url, "readyz", READY_SECONDS)
    except IngestPageError:
        return False
    return True


def problems(url: str) -> list[str]:
    """What keeps messages from flowing, as the daemon says; empty while they flow.

    Raises:
        IngestPageError: see there.
    """
    return _readyz(url)["problems"]


def notices(url: str) -> list[str]:
    """What the daemon has to say besides, whether messages flow or not.

    Raises:
        IngestPageError: see there.
    """
    return _readyz(url)["notices"]


def _readyz(url: str) -> dict[str, list[str]]:
    try:
        body = _read(url, "readyz", READY_SECONDS)
    except IngestPageError as error:
        if not isinstance(error.__cause__, urllib.error.HTTPError):
            raise
        body = _body(error.__cause__, f"{url}/readyz")  # it is not ready, and says why
    try:
        document = dict(json.loads(body))
        return {"problems": list(document["problems"]), "notices": list(document.get("notices", []))}
    except (ValueError, TypeError, KeyError) as error:
        raise IngestPageError(f"what answers at {url}/readyz (IOT_INGEST_HTTP_URL) is no ingest daemon: {error!r}") from error


def samples(url: str) -> Iterable[tuple[str, float]]:
    """Name and value of each sample of a daemon's metrics.

    Raises:
        IngestPageError: see there.
    """
    return [(name, value) for name, _, value in labelled(url)]


def labelled(url: str) -> list[tuple[str, dict[str, str], float]]:
    """Name, labels and value of each sample of a daemon's metrics.

    Raises:
        IngestPageError: see there.
    """
    from prometheus_client.parser import text_string_to_metric_families

    body = _read(url, "metrics", READY_SECONDS)
    try:
        families = list(text_string_to_metric_families(body.decode()))
    except ValueError as error:
        raise IngestPageError(f"what answers at {url}/metrics (IOT_INGEST_HTTP_URL) gives no metrics: {error}") from error
    return [(sample.name, sample.labels, sample.value) for family in families for sample in family.samples]


def counters(urls: Iterable[str]) -> dict[str, float]:
    """The metrics of all these daemons, summed; those with labels summed over them, too.

    Raises:
        IngestPageError: see there.
    """
    sums: dict[str, float] = {}
    for url in urls:
        for name, value in samples(url):
            sums[name] = sums.get(name, 0.0) + value
    return sums


def page(url: str, name: str) -> bytes:
    """The body of another page.

    Raises:
        IngestPageError: see there.
    """
    return _read(url, name, READY_SECONDS)


def date(url: str) -> str | None:
    """What a daemon's host takes for the time, as HTTP writes it: whole seconds, rounded down.

    Raises:
        IngestPageError: see there.
    """
    try:
        with urllib.request.urlopen(f"{url}/healthz", timeout=READY_SECONDS) as answer:  # noqa: S310 - our own setting
            return str(answer.headers["Date"]) if "Date" in answer.headers else None
    except urllib.error.HTTPError as error:
        with error:
            return error.headers.get("Date")
    except (OSError, ValueError, HTTPException) as error:
        raise _no_answer(f"{url}/healthz", error) from error


def accounting(url: str) -> dict[str, Any]:
    """Where every message is that the daemon ever received.

    Raises:
        IngestPageError: see there.
    """
    try:
        return dict(json.loads(_read(url, "accounting", ACCOUNTING_SECONDS)))
    except (ValueError, TypeError) as error:
        raise IngestPageError(f"the ingest daemon at {url}/accounting (IOT_INGEST_HTTP_URL) gives no accounting: {error}") from error


def _read(url: str, page: str, seconds: float) -> bytes:
    address = f"{url}/{page}"
    try:
        answer = urllib.request.urlopen(address, timeout=seconds)  # noqa: S310 - our own setting
    except (OSError, ValueError, HTTPException) as error:
        raise _no_answer(address, error) from error
    return _body(answer, address)


def _body(answer: IO[bytes], address: str) -> bytes:
    try:
        with answer:
            return bytes(answer.read(MAX_BYTES))
    except (OSError, HTTPException) as error:
        raise _no_answer(address, error) from error


def _no_answer(address: str, error: Exception) -> IngestPageError:
    reason = getattr(error, "reason", error)
    return IngestPageError(f"the ingest daemon at {address} (IOT_INGEST_HTTP_URL) does not answer: {reason}")
