"""What of Harbor's API the robot account needs: keeps state, and refuses what Harbor's own description of its API lets pass."""

import base64
import json
import re
import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

PREFIX = "robot$"
_ROBOT = {"name", "description", "level", "disable", "duration", "permissions"}


class RefusedError(Exception):
    """An answer other than success."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class HarborFake:
    """Serves on a free port until it is closed. `written` counts what changed anything."""

    def __init__(self, admin_password: str) -> None:
        self.admin_password = admin_password
        self.projects: dict[str, dict[str, str]] = {"library": {"public": "true"}}
        self.robots: dict[int, dict[str, Any]] = {}
        self.secrets: dict[str, str] = {}
        self.written = 0
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                try:
                    status, answered = fake.respond(self.command, self.path, self.headers.get("Authorization", ""), body)
                except RefusedError as error:
                    status, answered = error.status, {"errors": [{"code": "REFUSED", "message": str(error)}]}
                content = b"" if answered is None or self.command == "HEAD" else json.dumps(answered).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = answer  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()

    def respond(self, method: str, target: str, authorization: str, body: bytes) -> tuple[int, object]:
        """Status and answer for a request. Raises RefusedError."""
        user, _, password = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
        address, query = urlsplit(target), {key: value[0] for key, value in parse_qs(urlsplit(target).query).items()}
        if address.path == "/service/token" and query.get("service") == "harbor-registry":
            if self.secrets.get(user) != password or not password:
                raise RefusedError(401, "unauthorized")
            return 200, {"token": secrets.token_hex(8), "expires_in": 1800}
        if (user, password) != ("admin", self.admin_password):
            raise RefusedError(401, "unauthorized")
        path = address.path.removeprefix("/api/v2.0")
        if path == address.path:
            raise RefusedError(404, f"no page {address.path}")
        given = json.loads(body) if body else {}
        if method not in {"GET", "HEAD"}:
            self.written += 1
        for pattern, answer in (
            ("HEAD /projects", lambda: self._has_project(query)),
            ("POST /projects", lambda: self._make_project(given)),
            ("GET /configurations", lambda: (200, {"robot_name_prefix": {"editable": True, "value": PREFIX}})),
            ("GET /robots", lambda: self._list_robots(query)),
            ("POST /robots", lambda: self._make_robot(given)),
        ):
            if f"{method} {path}" == pattern:
                return answer()
        if match := re.fullmatch(r"/projects/(\w+)", path):
            return self._project(method, match[1], given)
        if match := re.fullmatch(r"/robots/(\d+)", path):
            return self._robot(method, int(match[1]), given)
        raise RefusedError(405, f"{method} {path}")

    def _has_project(self, query: dict[str, str]) -> tuple[int, object]:
        return (200 if query["project_name"] in self.projects else 404), None

    def _make_project(self, given: dict[str, Any]) -> tuple[int, object]:
        known(given, {"project_name", "metadata"})
        if not re.fullmatch(r"[a-z0-9]+(?:[._-][a-z0-9]+)*", given["project_name"]):
            raise RefusedError(400, "project name")
        if given["project_name"] in self.projects:
            raise RefusedError(409, f"The project named {given['project_name']} already exists")
        self.projects[given["project_name"]] = metadata(given)
        return 201, None

    def _project(self, method: str, name: str, given: dict[str, Any]) -> tuple[int, object]:
        if name not in self.projects:
            raise RefusedError(404, f"project {name}")
        if method == "PUT":
            known(given, {"metadata"})
            self.projects[name] = metadata(given)
            return 200, None
        return 200, {"name": name, "metadata": self.projects[name]}

    def _list_robots(self, query: dict[str, str]) -> tuple[int, object]:
        size = int(query.get("page_size", "10"))
        first = (int(query.get("page", "1")) - 1) * size
        listed = list(self.robots.values())[first : first + size]
        return 200, [{key: value for key, value in robot.items() if value not in ("", [])} for robot in listed]  # as Harbor's answers do

    def _make_robot(self, given: dict[str, Any]) -> tuple[int, object]:
        known(given, _ROBOT)
        self._check_robot(given)
        if any(robot["name"] == PREFIX + given["name"] for robot in self.robots.values()):
            raise RefusedError(409, f"robot {given['name']} already exists")
        number, name, secret = max(self.robots, default=0) + 1, PREFIX + given["name"], "Aa1" + secrets.token_hex(13)
        self.robots[number] = {**given, "id": number, "name": name, "editable": True}
        self.secrets[name] = secret
        return 201, {"id": number, "name": name, "secret": secret, "expires_at": -1}

    def _robot(self, method: str, number: int, given: dict[str, Any]) -> tuple[int, object]:
        robot = self.robots.get(number)
        if robot is None:
            raise RefusedError(404, f"robot {number}")
        if method == "PATCH":
            known(given, {"secret"})
            secret = given["secret"]
            if not (8 <= len(secret) <= 128 and all(re.search(kind, secret) for kind in ("[a-z]", "[A-Z]", "[0-9]"))):
                raise RefusedError(400, "the secret must be 8 to 128 characters with an upper, a lower and a digit")
            self.secrets[robot["name"]] = secret
            return 200, {"secret": ""}
        known(given, {*_ROBOT, "id"})
        self._check_robot(given)
        if (given["name"], given["level"], given["id"]) != (robot["name"], robot["level"], number):
            raise RefusedError(400, "name and level of a robot cannot be changed")
        robot.update(given)
        return 200, None

    def _check_robot(self, given: dict[str, Any]) -> None:
        if given["level"] not in {"system", "project"} or not isinstance(given["duration"], int) or given["duration"] == 0:
            raise RefusedError(400, "level or duration")
        for permission in given["permissions"]:
            known(permission, {"kind", "namespace", "access"})
            if permission["namespace"] not in self.projects:
                raise RefusedError(404, f"project {permission['namespace']}")
            for access in permission["access"]:
                known(access, {"resource", "action"})


def known(given: dict[str, Any], keys: set[str]) -> None:
    """Raises RefusedError for a key that is misspelt or missing."""
    if set(given) != keys:
        raise RefusedError(422, f"keys {sorted(set(given) ^ keys)}")


def metadata(given: dict[str, Any]) -> dict[str, str]:
    """A project's; Harbor keeps texts, no booleans."""
    known(given["metadata"], {"public"})
    if given["metadata"]["public"] not in {"true", "false"}:
        raise RefusedError(400, 'metadata.public is "true" or "false"')
    return dict(given["metadata"])
