"""`iot alert-bridge`: takes Alertmanager's web hook and posts to a group robot; answers well only when the robot has taken the message."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from http.client import HTTPException
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from ingest_daemon import http_page
from ingest_daemon.http_page import TEXT, Page
from iot_platform.logs import get_logger
from iot_platform.notifications.message import MalformedError, read
from iot_platform.notifications.robots import ROBOTS, BusyError, RefusedError, Robot
from iot_platform.settings import Settings

log = get_logger(__name__)

ANSWER_SECONDS: Final = 8.0
"""Shorter than Alertmanager waits (10 s): it must hear of a robot that hangs."""
MOST_BYTES: Final = 4 * 1024 * 1024


class NotSetError(Exception):
    """No address is set for the robot, or its file cannot be read or is empty."""


class Bridge:
    """Delivers to the robots whose files the settings name; a file is read for each message, so that a new key needs no restart. An empty
    secret: the robot has no signature."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._files: Mapping[str, tuple[Path | None, Path | None]] = {
            "wecom": (settings.alert_wecom_url_file, None),
            "dingtalk": (settings.alert_dingtalk_url_file, settings.alert_dingtalk_secret_file),
            "feishu": (settings.alert_feishu_url_file, settings.alert_feishu_secret_file),
        }

    def deliver(self, name: str, document: Any) -> None:
        """Blocks for ANSWER_SECONDS at most.

        Raises:
            MalformedError, NotSetError, RefusedError: never retry. BusyError: retry.
        """
        robot = ROBOTS[name]
        url_file, secret_file = self._files[name]
        if url_file is None:
            raise NotSetError(f"IOT_ALERT_{name.upper()}_URL_FILE is not set")
        if not (url := _content(url_file)):
            raise NotSetError(f"{url_file} is empty: the robot's address belongs there")
        secret = _content(secret_file) or None if secret_file is not None else None
        request = robot.request(read(document), url, secret, self._clock())
        robot.judge(_post(robot, request.url, request.body))


def _content(file: Path) -> str:
    try:
        return file.read_text("utf-8").strip()
    except OSError as error:
        raise NotSetError(f"cannot read {file}: {error.strerror}") from error


def _post(robot: Robot, url: str, body: dict[str, Any]) -> dict[str, Any]:
    """The robot's answer. What is raised never holds the address: it is a secret."""
    data = json.dumps(body, ensure_ascii=False).encode()
    try:
        request = urllib.request.Request(url, data, {"Content-Type": "application/json; charset=utf-8"})  # noqa: S310 - our own setting
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:  # noqa: S310 - as above
            content = answer.read(MOST_BYTES)
            if answer.length:  # still to come: `read` with a number of bytes does not tell
                raise BusyError(f"{robot.name} ended in the middle of its answer")
            found = json.loads(content)
    except urllib.error.HTTPError as error:
        error.close()
        raise (BusyError if error.code >= 500 or error.code == 429 else RefusedError)(f"{robot.name} answers {error.code}") from None
    except (OSError, HTTPException) as error:
        raise BusyError(f"{robot.name} does not answer: {getattr(error, 'reason', None) or type(error).__name__}") from None
    except ValueError:
        raise RefusedError(f"{robot.name} does not answer with JSON, or its address is none") from None
    if not isinstance(found, dict):
        raise RefusedError(f"{robot.name} does not answer with an object")
    return found


def serve(bridge: Bridge, host: str, port: int) -> ThreadingHTTPServer:
    """POST /wecom, /dingtalk, /feishu; GET /healthz. 502 makes Alertmanager try again, 422 does not; it counts both as failures.

    Raises:
        SettingsError: the port is taken.
    """

    class Hook(Page):
        def do_GET(self) -> None:  # noqa: N802  http.server looks for it
            self._say(200 if self.path == "/healthz" else 404)

        def do_POST(self) -> None:  # noqa: N802  http.server looks for it
            name = self.path.strip("/")
            length = self.headers.get("Content-Length", "")
            if name not in ROBOTS or not length.isdecimal() or int(length) > MOST_BYTES:
                return self._say(404, "POST /wecom, /dingtalk or /feishu")
            body = self.rfile.read(int(length))
            try:
                bridge.deliver(name, json.loads(body))
            except BusyError as error:
                return self._failed(502, name, error)
            except (RefusedError, NotSetError, MalformedError, ValueError) as error:
                return self._failed(422, name, error)
            return self._say(200)

        def _failed(self, status: int, name: str, error: Exception) -> None:
            log.warning("notification not delivered", robot=name, error=str(error), again=status == 502)
            self._say(status, str(error))

        def _say(self, status: int, text: str = "") -> None:
            self.answer(status, TEXT, text.encode() + b"\n")

    return http_page.serve(Hook, host, port, variable="IOT_ALERT_BRIDGE_PORT")
