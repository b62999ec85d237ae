"""JSON and status codes of the installation's HTTP servers."""

import base64
import json
import ssl
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final, NamedTuple

from iot_platform.acceptance.check import FailedError, NotCheckedError

TIMEOUT_SECONDS: Final = 10
MOST_BYTES: Final = 16 * 1024 * 1024


class Answer(NamedTuple):
    """Of any status code; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self, url: str) -> Any:
        """The body as JSON.

        Raises:
            FailedError: it is none.
        """
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise FailedError(f"{url} answers {self.status}, but no JSON", "does another program listen there?") from error


def ask(url: str, variable: str, *, headers: Mapping[str, str] | None = None, method: str = "GET") -> Answer:
    """Send a request and return the answer, whatever its status.

    Raises:
        FailedError: nobody answers, or it sends on to another address (a login page: what is there says nothing of ours, and no stranger
            gets our login); the remedy names the variable.
    """
    opener = urllib.request.build_opener(_StayHere, urllib.request.HTTPSHandler(context=ssl.create_default_context()))
    try:
        request = urllib.request.Request(url, headers=dict(headers or {}), method=method)  # noqa: S310 - our own setting
        with opener.open(request, timeout=TIMEOUT_SECONDS) as response:
            answer = Answer(response.status, {name.lower(): value for name, value in response.headers.items()}, response.read(MOST_BYTES))
    except (OSError, HTTPException, ValueError) as error:
        why = getattr(error, "reason", error)
        remedy = f"start it, open its port, or correct {variable}"
        if isinstance(why, ssl.SSLCertVerificationError):
            remedy = f"let SSL_CERT_FILE name the file of the authority that signed its certificate (ca.pem), or correct {variable}"
        raise FailedError(f"{url} does not answer: {why}", remedy) from error
    if answer.status in range(300, 400):
        raise FailedError(
            f"{url} sends on to {answer.headers.get('location')}", f"set {variable} to the server itself, not to a proxy or login before it"
        )
    return answer


def wanted(url: str, variable: str) -> str:
    """The URL that is set.

    Raises:
        NotCheckedError: none is set.
    """
    if not url:
        raise NotCheckedError("no address is set", f"set {variable}")
    return url


def login(file: Path | None, variable: str) -> dict[str, str]:
    """Headers of a login out of a file: JSON with name and secret (as harbor.py writes it), `name:password` in one line, or a token.

    Raises:
        NotCheckedError: no file is set.
        FailedError: it cannot be read.
    """
    if file is None:
        raise NotCheckedError("no login is set", f"set {variable}")
    try:
        text = file.read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        raise FailedError(f"{file}: {getattr(error, 'strerror', None) or error}", f"correct {variable}") from error
    if not text or not text.isprintable():
        raise FailedError(f"{file}: {'several lines' if text else 'empty'}", f"correct {variable}")
    if text.startswith("{"):
        try:
            document = json.loads(text)
            text = f"{document['name']}:{document['secret']}"
        except (ValueError, KeyError, TypeError) as error:
            raise FailedError(f"{file}: JSON, but without name and secret", f"correct {variable}") from error
    if ":" in text:
        return {"Authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}
    return {"Authorization": f"Bearer {text}"}


class _StayHere(urllib.request.HTTPErrorProcessor):
    """Every status is an answer; nothing is followed anywhere."""

    def http_response(self, request: urllib.request.Request, response: Any) -> Any:
        return response

    https_response = http_response
