"""HTTP towards one InfluxDB: the 1.x paths, which 1.x, 2.x and 3 all answer. Judges answers; repeats nothing."""

import json
from collections.abc import Iterator
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlencode

import urllib3

from iot_platform.influx.errors import InfluxConfigError, InfluxRefusedError, InfluxUnavailableError
from iot_platform.influx.target import VARIABLE, Target

CONNECT_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 60.0
"""InfluxDB's own write-timeout is 10 s; what it has not answered by then is repeated."""
SHOWN: Final = 400
"""Characters of a server's words."""
_REFUSED: Final = (400, 413, 422)
_CONFIGURATION: Final = {
    401: "it does not take the user and password, or token",
    403: "the user, or token, may not do that",
    404: "it has no such database",
}


class InfluxClient:
    """One connection, used by one thread."""

    def __init__(self, target: Target) -> None:
        self.target = target
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        if target.user:
            headers |= urllib3.make_headers(basic_auth=f"{target.user}:{target.password}")
        elif target.password:
            headers["Authorization"] = f"Token {target.password}"
        timeout = urllib3.Timeout(connect=CONNECT_SECONDS, read=ANSWER_SECONDS)
        self._pool = urllib3.PoolManager(headers=headers, timeout=timeout, retries=False, maxsize=1)
        place = {"db": target.database, "precision": "ns"} | ({"rp": target.retention_policy} if target.retention_policy else {})
        self._write = f"{target.address}/write?{urlencode(place)}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._pool.clear()

    def write(self, body: bytes) -> None:
        """When it returns, InfluxDB has the points on its disk (204: it syncs before it answers).

        Raises:
            InfluxRefusedError, InfluxConfigError, InfluxUnavailableError: see there. In all three cases it may have any of them.
        """
        status, text = self._ask("POST", self._write, body)
        if status == 204:
            return
        self._judge(status, text)

    def query(self, text: str) -> list[dict[str, Any]]:
        """The series of an InfluxQL statement's answer; times as integers, in ns.

        Raises:
            As write; InfluxRefusedError: it does not understand the statement.
        """
        return [series for part in self._query(text) for series in part.get("series", [])]

    def _query(self, text: str) -> Iterator[dict[str, Any]]:
        place = {"db": self.target.database, "epoch": "ns", "chunked": "true", "chunk_size": "10000"}
        if self.target.retention_policy:
            place["rp"] = self.target.retention_policy
        body = urlencode({"q": text}).encode()
        url = f"{self.target.address}/query?{urlencode(place)}"
        status, answer = self._ask("POST", url, body, {"Content-Type": "application/x-www-form-urlencoded"})
        if status != 200:
            self._judge(status, answer)
        try:
            parts = [part for line in answer.split("\n") if line for part in json.loads(line, parse_int=_integer)["results"]]
        except (ValueError, KeyError, TypeError) as error:  # cut off, or a proxy's page
            raise InfluxUnavailableError(f"{self.target.name}: an answer that is none of InfluxDB's: {answer[:SHOWN]}") from error
        for part in parts:
            if "error" in part:
                self._judge(404 if "database not found" in part["error"] else 400, part["error"])
            yield part

    def delete(self, condition: str, measurement: str) -> None:
        """Delete points by tags and time; 1.x only. Raises as query."""
        self.query(f"DELETE FROM {identifier(measurement)} WHERE {condition}")  # noqa: S608 - InfluxQL, quoted

    def _ask(self, method: str, url: str, body: bytes, headers: dict[str, str] | None = None) -> tuple[int, str]:
        try:
            merged = {**self._pool.headers, **headers} if headers else None
            response = self._pool.request(method, url, body=body, headers=merged)
            return response.status, response.data.decode("utf-8", "replace")
        except urllib3.exceptions.HTTPError as error:
            raise InfluxUnavailableError(f"{self.target.name} ({self.target.address}) does not answer: {_reason(error)}") from error

    def _judge(self, status: int, text: str) -> None:
        words = _words(text)
        named = f"{self.target.name} ({self.target.address}, database {self.target.database})"
        if status in _CONFIGURATION:
            raise InfluxConfigError(f"{named} answers {status}: {words}. See {VARIABLE}: {_CONFIGURATION[status]}")
        if "retention policy not found" in words:  # a 500, but nothing that passes
            policy = f"?rp={self.target.retention_policy}" if self.target.retention_policy else "its default one"
            raise InfluxConfigError(f"{named} answers {status}: {words}. See {VARIABLE}: it has no such retention policy ({policy})")
        if status in _REFUSED:
            raise InfluxRefusedError(words)
        hint = "; it stays so until influxd is restarted, even with room again" if "no space left" in words else ""
        raise InfluxUnavailableError(f"{named} answers {status}: {words}{hint}")


def identifier(name: str) -> str:
    """A name in InfluxQL."""
    quoted = name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{quoted}"'


def literal(text: str) -> str:
    """A string in InfluxQL."""
    quoted = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{quoted}'"


def span(begin: datetime, end: datetime) -> str:
    """InfluxQL's condition for begin <= time < end (UTC)."""
    return f"time >= '{begin:%Y-%m-%dT%H:%M:%S.%fZ}' AND time < '{end:%Y-%m-%dT%H:%M:%S.%fZ}'"


def _integer(digits: str) -> int | float:
    """A float without a fraction comes without one, too: of minus zero the sign would go."""
    return -0.0 if digits == "-0" else int(digits)


def _words(text: str) -> str:
    try:
        found = json.loads(text)
        text = str(found.get("error") or found.get("message") or text) if isinstance(found, dict) else text
    except ValueError:
        pass
    return " ".join(text.split())[:SHOWN] or "(nothing more)"


def _reason(error: Exception) -> str:
    return " ".join(str(getattr(error, "reason", None) or error).split())[:SHOWN]
