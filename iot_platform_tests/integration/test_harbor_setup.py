"""deploy/harbor/harbor.py: Harbor's configuration, projects and robot account, against a server that keeps state and knows its keys."""

import json
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from iot_platform_tests.support.servers.harbor import HarborFake
from iot_platform_tests.support.servers.http_pages import HttpPages

PROGRAM = Path(__file__).parents[2] / "deploy/harbor/harbor.py"
PULL = [{"resource": "repository", "action": "pull"}]


@dataclass
class Operator:
    """Who runs the program."""

    harbor: HarborFake
    admin_file: Path
    robot_file: Path

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        files = ["--admin-file", str(self.admin_file)]
        return subprocess.run([sys.executable, str(PROGRAM), *files, *arguments], capture_output=True, text=True, check=False)

    def setup(self, *arguments: str) -> str:
        """Its output, which holds no secret."""
        done = self.run("setup", "--url", self.harbor.url, "--robot-file", str(self.robot_file), *arguments)
        assert done.returncode == 0, done.stderr
        secrets = [self.harbor.admin_password, *self.harbor.secrets.values()]
        assert not any(secret in done.stdout + done.stderr for secret in secrets)
        return done.stdout

    def robot(self) -> tuple[str, str]:
        """Name and secret as in the file."""
        held = json.loads(self.robot_file.read_text("utf-8"))
        return held["name"], held["secret"]


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Operator]:
    harbor = HarborFake("Right1password")
    admin_file = tmp_path / "harbor-admin"
    admin_file.write_text("Right1password\n", "ascii")
    yield Operator(harbor, admin_file, tmp_path / "new" / "rke2-puller.json")
    harbor.close()


def test_projects_and_robot_are_made(operator: Operator) -> None:
    operator.setup()
    assert operator.harbor.projects == {"library": {"public": "true"}, "rke2": {"public": "false"}, "rancher": {"public": "false"}}
    (robot,) = operator.harbor.robots.values()
    assert [(each["namespace"], each["access"]) for each in robot["permissions"]] == [("rke2", PULL), ("rancher", PULL)]
    assert operator.robot() == ("robot$rke2-puller", operator.harbor.secrets["robot$rke2-puller"])
    assert stat.S_IMODE(operator.robot_file.stat().st_mode) == 0o600


def test_a_second_time_changes_nothing(operator: Operator) -> None:
    operator.setup()
    written, held = operator.harbor.written, operator.robot()
    operator.setup()
    assert (operator.harbor.written, operator.robot()) == (written, held)


@pytest.mark.parametrize("lost", ["gone", "broken", "of another"])
def test_a_lost_secret_is_replaced(operator: Operator, lost: str) -> None:
    operator.setup()
    if lost == "gone":
        operator.robot_file.unlink()
    else:
        operator.robot_file.write_text("[" if lost == "broken" else '{"name": "robot$other", "secret": "x"}', "ascii")
    assert "new secret" in operator.setup()
    assert operator.robot() == ("robot$rke2-puller", operator.harbor.secrets["robot$rke2-puller"])
    assert len(operator.harbor.robots) == 1


def test_a_secret_that_was_changed_in_harbor_is_replaced(operator: Operator) -> None:
    operator.setup()
    operator.harbor.secrets["robot$rke2-puller"] = "Changed1inHarbor"
    operator.setup()
    assert operator.robot()[1] == operator.harbor.secrets["robot$rke2-puller"] != "Changed1inHarbor"


def test_a_new_secret_on_demand(operator: Operator) -> None:
    operator.setup()
    before = operator.robot()
    operator.setup("--renew")
    assert operator.robot() != before


@pytest.mark.parametrize("rights", [0, 1])
def test_what_was_changed_by_hand_is_put_right(operator: Operator, rights: int) -> None:
    operator.setup()
    held = operator.robot()
    operator.harbor.projects["rke2"] = {"public": "true"}
    robot = operator.harbor.robots[1]
    robot["permissions"], robot["disable"], robot["description"] = robot["permissions"][:rights], True, ""
    operator.setup()
    assert operator.harbor.projects["rke2"] == {"public": "false"}
    assert [each["namespace"] for each in operator.harbor.robots[1]["permissions"]] == ["rke2", "rancher"]
    assert operator.harbor.robots[1]["disable"] is False
    assert operator.robot() == held


def test_the_robot_is_found_behind_a_hundred_others(operator: Operator) -> None:
    for number in range(100, 230):
        operator.harbor.robots[number] = {"id": number, "name": f"robot$other-{number}"}
    operator.setup()
    held = operator.robot()
    operator.setup()
    assert operator.robot() == held


def test_a_wrong_password_and_a_missing_server_are_said(operator: Operator) -> None:
    operator.admin_file.write_text("wrong", "ascii")
    refused = operator.run("setup", "--url", operator.harbor.url, "--robot-file", str(operator.robot_file))
    assert refused.returncode == 1
    assert "401" in refused.stderr
    assert "is not Harbor's" in refused.stderr
    operator.admin_file.unlink()
    assert "is not there" in operator.run("setup", "--url", operator.harbor.url).stderr
    operator.admin_file.write_text("Right1password", "ascii")
    away = operator.run("setup", "--url", "http://127.0.0.1:9", "--robot-file", str(operator.robot_file))
    assert (away.returncode, "does not answer" in away.stderr) == (1, True)
    other = operator.run("setup", "--url", f"{operator.harbor.url}/elsewhere", "--robot-file", str(operator.robot_file))
    assert (other.returncode, "is not Harbor: is --url right" in other.stderr) == (1, True), other.stderr
    assert not operator.robot_file.exists()


def test_the_configuration_has_passwords_of_its_own_once(operator: Operator, tmp_path: Path) -> None:
    operator.admin_file.unlink()
    output = tmp_path / "harbor.yml"
    done = operator.run("configure", "--output", str(output))
    assert done.returncode == 0, done.stderr
    text = output.read_text("utf-8")
    written = yaml.safe_load(text)
    admin, database = written["harbor_admin_password"], written["database"]["password"]
    assert operator.admin_file.read_text("ascii").strip() == admin != database
    assert admin not in done.stdout
    assert database not in done.stdout
    assert [stat.S_IMODE(file.stat().st_mode) for file in (output, operator.admin_file)] == [0o600, 0o600]
    assert "https" not in written
    assert (written["hostname"], written["http"]["port"]) == ("192.168.1.100", 8080)
    assert written["metric"]["port"] not in {8080, 9090, 9092, 9093, 5432}
    assert operator.run("configure", "--output", str(output)).returncode == 0
    assert output.read_text("utf-8") == text


def test_a_robot_that_would_expire_is_made_to_last(operator: Operator) -> None:
    """One made by hand has Harbor's 30 days: all is well until then, and nothing is pulled afterwards."""
    operator.setup()
    held = operator.robot()
    operator.harbor.robots[1]["duration"] = 30
    assert "rights set" in operator.setup()
    assert (operator.harbor.robots[1]["duration"], operator.robot()) == (-1, held)


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, b"<!doctype html><title>Log in</title>", "no JSON"),
        (200, b"[]", "not as Harbor's are"),
        (200, b"null", "not as Harbor's are"),
        (200, b"{}", "not as Harbor's are"),
        (302, b"", "sends on to"),
        (301, b"", "sends on to"),
        (308, b"", "sends on to"),
        (503, b"<html>", "status 503"),
    ],
)
def test_what_is_not_harbor_is_named(operator: Operator, status: int, body: bytes, said: str) -> None:
    other = HttpPages(lambda _: (status, body))
    try:
        done = operator.run("setup", "--url", other.url, "--robot-file", str(operator.robot_file))
    finally:
        other.close()
    assert (done.returncode, done.stderr.startswith("error: "), said in done.stderr) == (1, True, True), done.stderr
    assert not operator.robot_file.exists()


@pytest.mark.parametrize("url", ["192.168.1.100:8080", "http://", "http://[::1", "http://a b"])
def test_an_address_that_is_none(operator: Operator, url: str) -> None:
    done = operator.run("setup", "--url", url, "--robot-file", str(operator.robot_file))
    assert (done.returncode, done.stderr.startswith("error: ")) == (1, True), done.stderr


def test_a_secret_that_cannot_be_written_is_given_to_nobody(operator: Operator) -> None:
    """A folder where the file should be stands for a disk that is full."""
    operator.setup()
    before = dict(operator.harbor.secrets)
    (operator.robot_file.parent / "rke2-puller.json.new").mkdir()
    done = operator.run("setup", "--renew", "--url", operator.harbor.url, "--robot-file", str(operator.robot_file))
    assert (done.returncode, done.stderr.startswith("error: "), operator.harbor.secrets) == (1, True, before)


@pytest.mark.parametrize("chosen", ["0123456", "yes", 'a"b\\c: #d', "123e45"])
def test_an_admin_password_of_ones_own(operator: Operator, tmp_path: Path, chosen: str) -> None:
    operator.admin_file.write_text(f"{chosen}\n", "ascii")
    assert operator.run("configure", "--output", str(tmp_path / "harbor.yml")).returncode == 0
    assert yaml.safe_load((tmp_path / "harbor.yml").read_text("utf-8"))["harbor_admin_password"] == chosen


def test_an_empty_admin_password_is_refused(operator: Operator, tmp_path: Path) -> None:
    operator.admin_file.write_text("\n", "ascii")
    for command in (["configure", "--output", str(tmp_path / "harbor.yml")], ["setup", "--url", operator.harbor.url]):
        done = operator.run(*command)
        assert (done.returncode, "is empty" in done.stderr) == (1, True)
    assert not (tmp_path / "harbor.yml").exists()
