"""Prepares Harbor: its configuration, its projects, and the robot account that the nodes pull with. Each may be repeated.

    python3 deploy/harbor/harbor.py configure --output harbor.yml    # before Harbor's installer: passwords of its own
    python3 deploy/harbor/harbor.py setup                            # when Harbor answers

Passwords are made here, written to files that only their owner reads, and never printed.
"""

import argparse
import base64
import json
import os
import secrets
import string
import sys
import urllib.parse
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any

TEMPLATE = Path(__file__).with_name("harbor.template.yml")
SECRETS = Path.home() / ".config/iot-platform"
# rke2: what we run. rancher: RKE2 itself, whose images' names begin so (its setting system-default-registry replaces the registry only).
PROJECTS = ("rke2", "rancher")
ROBOT = "rke2-puller"
_TIMEOUT_SECONDS = 30
_HINTS = {
    401: "; the password in the file is not Harbor's (harbor.yml counts at the first start only)",
    404: "; what answers there is not Harbor: is --url right, and does no proxy stand between",
}


class HarborError(Exception):
    """Harbor is away, or refuses; the message says what to do. Worth a retry when it is away."""


class Api:
    """Harbor's API v2.0 with a user's password."""

    def __init__(self, url: str, user: str, password: str) -> None:
        self.url = url.rstrip("/")
        self._authorization = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    def call(self, method: str, path: str, body: object = None, *, accepted: tuple[int, ...] = (200, 201)) -> tuple[int, Any]:
        """Status and answer. Raises HarborError for any status but the accepted ones."""
        try:
            request = urllib.request.Request(self.url + path, method=method)  # noqa: S310 - the operator's own address
        except ValueError as error:
            raise HarborError(f"{self.url}: {error}: http://host:port is wanted") from error
        request.add_header("Authorization", self._authorization)
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        try:
            with _OPENER.open(request, timeout=_TIMEOUT_SECONDS) as answer:
                status, content, where = answer.status, answer.read(), answer.headers.get("Location")
        except (OSError, HTTPException, ValueError) as error:
            raise HarborError(f"{self.url} does not answer: {getattr(error, 'reason', error)}") from error
        if status in range(300, 400):
            raise HarborError(f"{self.url} sends on to {where}: --url has to be Harbor's own address, with https where Harbor has it")
        if status not in accepted:
            hint = _HINTS.get(status, "")
            raise HarborError(f"{method} {self.url}{path}: status {status}{hint}: {content[:300].decode('utf-8', 'replace')}")
        try:
            return status, json.loads(content) if content.strip() else None
        except ValueError as error:
            raise HarborError(
                f"{method} {self.url}{path}: an answer that is no JSON: does Harbor listen at {self.url}, or a proxy?"
            ) from error


class _StayHere(urllib.request.HTTPErrorProcessor):
    """Every status is an answer. Nothing is followed: a redirect takes the password along, and makes a GET of a POST."""

    def http_response(self, request: urllib.request.Request, response: Any) -> Any:
        return response

    https_response = http_response


_OPENER = urllib.request.build_opener(_StayHere)


def ensure_project(api: Api, name: str) -> str:
    """Make a project that nobody reads without a login; what was done, in a word."""
    status, _ = api.call("HEAD", f"/api/v2.0/projects?project_name={name}", accepted=(200, 404))
    if status == 404:
        status, _ = api.call("POST", "/api/v2.0/projects", {"project_name": name, "metadata": {"public": "false"}}, accepted=(201, 409))
        if status == 201:
            return "made"
    _, project = api.call("GET", f"/api/v2.0/projects/{name}")
    if project["metadata"].get("public") == "false":
        return "is there"
    api.call("PUT", f"/api/v2.0/projects/{name}", {"metadata": {"public": "false"}})
    return "no longer public"


def ensure_robot(api: Api, file: Path, *, renew: bool = False) -> str:
    """Make the robot account, with its name and secret in `file`; what was done, in a few words.

    Harbor tells a secret once. Where the file is not there, or holds one that Harbor no longer takes, the robot gets a new one.
    """
    _, settings = api.call("GET", "/api/v2.0/configurations")
    full_name = settings["robot_name_prefix"]["value"] + ROBOT
    robot = find_robot(api, full_name)
    access = [{"resource": "repository", "action": "pull"}]
    wanted = [{"kind": "project", "namespace": project, "access": access} for project in PROJECTS]
    if robot is None:
        body = {"name": ROBOT, "description": "RKE2's nodes", "level": "system", "disable": False, "duration": -1, "permissions": wanted}
        _, made = api.call("POST", "/api/v2.0/robots", body)
        write_secret(file, json.dumps({"name": made["name"], "secret": made["secret"]}))
        return "made"
    done = []
    if rights(robot.get("permissions") or []) != rights(wanted) or robot.get("disable") or robot.get("duration", -1) != -1:
        body = {"id": robot["id"], "name": full_name, "description": "RKE2's nodes", "level": "system", "disable": False, "duration": -1}
        api.call("PUT", f"/api/v2.0/robots/{robot['id']}", {**body, "permissions": wanted})
        done.append("rights set")
    if renew or not is_valid(api.url, file, full_name):
        secret, new = password(), file.with_name(f"{file.name}.new")
        write_secret(new, json.dumps({"name": full_name, "secret": secret}))  # first: Harbor must not have one that nobody could write
        api.call("PATCH", f"/api/v2.0/robots/{robot['id']}", {"secret": secret})
        new.replace(file)
        done.append("new secret: the nodes need it, run the playbook")
    return ", ".join(done) or "is there"


def find_robot(api: Api, full_name: str) -> dict[str, Any] | None:
    """The system's robot of that name."""
    page = 1
    while True:
        _, robots = api.call("GET", f"/api/v2.0/robots?page={page}&page_size=100")
        for robot in robots or ():
            if robot["name"] == full_name:
                return dict(robot)
        if len(robots or ()) < 100:
            return None
        page += 1


def rights(permissions: list[dict[str, Any]]) -> set[tuple[str, str, str, str]]:
    """What a robot may do, for comparison."""
    return {(each["kind"], each["namespace"], access["resource"], access["action"]) for each in permissions for access in each["access"]}


def is_valid(url: str, file: Path, full_name: str) -> bool:
    """Whether Harbor gives a token for what the file holds."""
    try:
        robot = json.loads(file.read_text("utf-8"))
        if robot["name"] != full_name:
            return False
        secret = robot["secret"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return False
    scope = urllib.parse.quote(f"repository:{PROJECTS[0]}/any:pull")
    status, _ = Api(url, full_name, secret).call("GET", f"/service/token?service=harbor-registry&scope={scope}", accepted=(200, 401))
    return status == 200


def password() -> str:
    """32 letters and digits, of each kind that Harbor asks for."""
    while True:
        made = "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(32))
        if any(c.islower() for c in made) and any(c.isupper() for c in made) and any(c.isdigit() for c in made):
            return made


def write_secret(file: Path, content: str) -> None:
    """Write at once, readable by the owner only."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)  # of a process that was killed
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:  # noqa: PTH123
            out.write(content + "\n")
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def configure(output: Path, admin_file: Path) -> str:
    """Write Harbor's configuration; what was done. An existing one stays: Harbor's database has its password."""
    if output.exists():
        return f"{output} is there and stays: its passwords are in Harbor's database"
    if not admin_file.exists():
        write_secret(admin_file, password())
    text = TEMPLATE.read_text("utf-8").replace("@ADMIN_PASSWORD@", json.dumps(admin_password(admin_file)))
    write_secret(output, text.replace("@DATABASE_PASSWORD@", password()).rstrip("\n"))
    return f"{output} written; the password of admin is in {admin_file}"


def admin_password(file: Path) -> str:
    """Of Harbor's admin. Raises HarborError where there is none."""
    try:
        if found := file.read_text("utf-8").strip():
            return found
    except FileNotFoundError:
        raise HarborError(f"{file} is not there: it holds the password of Harbor's admin") from None
    except ValueError as error:
        raise HarborError(f"{file}: {error}") from error
    raise HarborError(f"{file} is empty: it holds the password of Harbor's admin")


def setup(url: str, admin_file: Path, robot_file: Path, *, renew: bool = False) -> list[str]:
    """Projects and robot account; a line for each. Raises HarborError."""
    api = Api(url, "admin", admin_password(admin_file))
    lines = [f"project {name}: {ensure_project(api, name)}" for name in PROJECTS]
    return [*lines, f"robot account {ROBOT}: {ensure_robot(api, robot_file, renew=renew)} ({robot_file})"]


def main() -> int:
    """Do what the command line says; 1 when Harbor refuses or is away."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--admin-file", type=Path, default=SECRETS / "harbor-admin", help="password of admin (%(default)s)")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("configure", help="write harbor.yml")
    command.add_argument("--output", type=Path, required=True, help="harbor.yml in the installer's folder")
    command = commands.add_parser("setup", help="make projects and robot account")
    command.add_argument("--url", default="http://192.168.1.100:8080", help="Harbor (%(default)s)")
    command.add_argument("--robot-file", type=Path, default=SECRETS / "rke2-puller.json", help="name and secret (%(default)s)")
    command.add_argument("--renew", action="store_true", help="a new secret, though the old one works")
    options = parser.parse_args()
    try:
        if options.command == "configure":
            lines = [configure(options.output, options.admin_file)]
        else:
            lines = setup(options.url, options.admin_file, options.robot_file, renew=options.renew)
    except (HarborError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (LookupError, TypeError, AttributeError) as error:
        print(f"error: an answer that is not as Harbor's are: {error!r}", file=sys.stderr)
        return 1
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
