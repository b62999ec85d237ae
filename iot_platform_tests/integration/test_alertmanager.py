"""A real Alertmanager with deploy's configuration delivers e-mail, and by the bridge what the vendors of group robots want; what it
inhibits is told by labels that all have."""

import email
import email.policy
import json
import re
import shutil
import socketserver
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from iot_platform.local import probes
from iot_platform.local.errors import NotReadyError
from iot_platform.local.ports import LOOPBACK, free_ports
from iot_platform.notifications.bridge import Bridge, serve
from iot_platform.settings import Settings
from iot_platform_tests.support.oracles.robots import problems
from iot_platform_tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "compose" / "prometheus"
CONFIG: dict[str, Any] = yaml.safe_load((FOLDER / "alertmanager.yml").read_text("utf-8"))
SECRETS = {"dingtalk": "SEC-dingtalk", "feishu": "SEC-feishu"}
PATHS = {"wecom": "/cgi-bin/webhook/send?key=k", "dingtalk": "/robot/send?access_token=t", "feishu": "/open-apis/bot/v2/hook/h"}


@dataclass
class Vendors:
    """All three robots behind one address, as strict as their documentation; and a mail server."""

    bodies: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {name: [] for name in PATHS})
    wrong: list[str] = field(default_factory=list)
    mails: list[email.message.EmailMessage] = field(default_factory=list)
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What a robot answers instead of judging."""
    url: str = ""
    smarthost: str = ""


@contextmanager
def vendors() -> Iterator[Vendors]:
    found = Vendors()

    class Robot(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            name = next(name for name, path in PATHS.items() if self.path.startswith(path))
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            wrong = problems(name, self.path, body, SECRETS.get(name), time.time())
            found.wrong += wrong
            code = "code" if name == "feishu" else "errcode"
            answer = found.answers.get(name) or {code: int(wrong[0].split()[0]) if wrong else 0}
            if answer[code] == 0:
                found.bodies[name].append(body)
            data = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    class Mail(socketserver.StreamRequestHandler):
        timeout = 10

        def handle(self) -> None:
            self.wfile.write(b"220 mail\r\n")
            while line := self.rfile.readline():
                verb = line.split()[0].upper()
                if verb == b"DATA":
                    self.wfile.write(b"354 go on\r\n")
                    data = b""
                    while (part := self.rfile.readline()) != b".\r\n":
                        data += part.removeprefix(b".")
                    found.mails.append(email.message_from_bytes(data, policy=email.policy.default))  # type: ignore[arg-type]
                self.wfile.write(b"221 bye\r\n" if verb == b"QUIT" else b"250 ok\r\n")
                if verb == b"QUIT":
                    return

    with ExitStack() as stack:
        for kind, handler in ((ThreadingHTTPServer, Robot), (socketserver.ThreadingTCPServer, Mail)):
            server = stack.enter_context(kind((LOOPBACK, 0), handler))
            server.daemon_threads = True
            stack.callback(server.shutdown)
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
            address = f"{LOOPBACK}:{server.server_address[1]}"
            if handler is Robot:
                found.url = f"http://{address}"
            else:
                found.smarthost = address
        yield found


@contextmanager
def bridged(folder: Path, found: Vendors) -> Iterator[str]:
    """The bridge with its secrets in files; its address."""
    settings: dict[str, Path] = {}
    for name, path in PATHS.items():
        (folder / f"{name}_url").write_text(f"{found.url}{path}\n", "utf-8")
        settings[f"alert_{name}_url_file"] = folder / f"{name}_url"
    for name, secret in SECRETS.items():
        (folder / f"{name}_secret").write_text(secret + "\n", "utf-8")
        settings[f"alert_{name}_secret_file"] = folder / f"{name}_secret"
    server = serve(Bridge(Settings(**settings)), LOOPBACK, 0)  # type: ignore[arg-type]
    try:
        yield f"http://{LOOPBACK}:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def alertmanager(folder: Path, receiver: dict[str, Any]) -> Iterator[str]:
    """With deploy's routing, inhibition and templates, all of it to one receiver, and without its waits; its address."""
    program = shutil.which("prometheus-alertmanager")
    if program is None:
        pytest.skip("no prometheus-alertmanager here: .ci/run installs it")
    route = {
        "receiver": "test",
        "group_by": CONFIG["route"]["group_by"],
        "group_wait": "1s",
        "group_interval": "1s",
        "repeat_interval": "1h",
    }
    config = {**CONFIG, "templates": [str(FOLDER / "templates" / "*.tmpl")], "route": route, "receivers": [{"name": "test", **receiver}]}
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(config, allow_unicode=True), "utf-8")
    (port,) = free_ports(1)
    url = f"http://{LOOPBACK}:{port}"
    command = [program, f"--config.file={folder}/alertmanager.yml", f"--storage.path={folder}/data", "--cluster.listen-address="]
    with (folder / "alertmanager.log").open("wb") as log:
        process = subprocess.Popen([*command, f"--web.listen-address={LOOPBACK}:{port}"], stdout=log, stderr=log)
    try:
        eventually(lambda: process.poll() is None and _answers(partial(probes.http, f"{url}/-/ready")), 30, "Alertmanager", pause=0.05)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def _answers(probe: Callable[[], None]) -> bool:
    try:
        probe()
    except NotReadyError:
        return False
    return True


def post(url: str, *alerts: dict[str, Any]) -> None:
    body, header = json.dumps(alerts).encode(), {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/api/v2/alerts", body, header)  # noqa: S310 - our own
    urllib.request.urlopen(request, timeout=5).close()  # noqa: S310 - our own


def metric(url: str, name: str) -> float:
    with urllib.request.urlopen(f"{url}/metrics", timeout=5) as answer:  # noqa: S310 - our own
        return sum(float(line.split()[-1]) for line in answer.read().decode().splitlines() if line.startswith(name))


def alert(name: str, *, ended: bool = False, **labels: str) -> dict[str, Any]:
    """As Prometheus sends the alert of our rules, by a case of promtool in which it fires."""
    case = FIRING[name]
    ends = {"endsAt": "2026-01-01T00:00:00Z"} if ended else {}
    own = {label: str(value) for label, value in case["exp_labels"].items()}
    return {"labels": {"alertname": name, **own, **labels}, "annotations": case["exp_annotations"], **ends}


FIRING: dict[str, dict[str, Any]] = {
    one["alertname"]: one["exp_alerts"][0]
    for file in sorted((ROOT / "deploy" / "prometheus" / "tests").glob("*.yaml"))
    for case in yaml.safe_load(file.read_text("utf-8"))["tests"]
    for one in case["alert_rule_test"]
    if one["exp_alerts"]
}


def email_receiver(found: Vendors) -> dict[str, Any]:
    (receiver,) = [item for item in CONFIG["receivers"] if item["name"] == "email"]
    (settings,) = receiver["email_configs"]
    own = {key: value for key, value in settings.items() if not key.startswith("auth_")}
    return {"email_configs": [{**own, "smarthost": found.smarthost, "require_tls": False}]}


def test_every_way_delivers_what_fires_and_what_ends(tmp_path: Path) -> None:
    with vendors() as found, bridged(tmp_path, found) as bridge:
        hooks = [{"url": f"{bridge}/{name}", "send_resolved": True} for name in PATHS]
        with alertmanager(tmp_path, {"webhook_configs": hooks, **email_receiver(found)}) as url:
            post(url, alert("DrainStalled"), alert("AuditDifference"))
            eventually(lambda: found.mails and all(found.bodies.values()), 30, "four notifications", pause=0.05)
            shown = [json.dumps(bodies[0], ensure_ascii=False) for bodies in found.bodies.values()]
            shown += [part.get_content() for part in found.mails[0].walk() if part.get_content_maintype() == "text"]
            assert len(shown) == 5
            for text in shown:
                assert "nothing has been committed for two minutes" in text
                assert "而两分钟没有提交" in text
                assert "docs/runbooks/DrainStalled.md" in text
                assert "docs/runbooks/AuditDifference.md" in text
            assert found.mails[0]["Subject"] == "[FIRING 2 告警] telemetry"
            assert found.bodies["feishu"][0]["card"]["header"]["template"] == "red"
            post(url, alert("DrainStalled", ended=True), alert("AuditDifference", ended=True))
            eventually(lambda: len(found.mails) > 1 and all(len(bodies) > 1 for bodies in found.bodies.values()), 30, "the end", pause=0.05)
            assert found.mails[1]["Subject"] == "[RESOLVED 2 恢复] telemetry"
            assert found.bodies["feishu"][1]["card"]["header"]["template"] == "green"
        assert found.wrong == []


def test_an_alert_is_rendered_whatever_it_says(tmp_path: Path) -> None:
    with vendors() as found, bridged(tmp_path, found) as bridge:
        hooks = [{"url": f"{bridge}/{name}"} for name in PATHS]
        with alertmanager(tmp_path, {"webhook_configs": hooks, **email_receiver(found)}) as url:
            for name in FIRING:
                post(url, alert(name, unique=name, tenant="<@all> *x* [y](http://evil)"))
            told = eventually(lambda: _told(found) >= set(FIRING) - _inhibited(url) and _told(found), 30, "all alerts", pause=0.2)
            assert told
            texts = [json.dumps(body, ensure_ascii=False) for bodies in found.bodies.values() for body in bodies]
            assert not [text for text in texts if re.search(r"<@|<no value>|%!", text)]
            html = [part.get_content() for mail in found.mails for part in mail.walk() if part.get_content_subtype() == "html"]
            assert html
            assert not [text for text in html if "<@all>" in text or "<no value>" in text]
        assert found.wrong == []


def _told(found: Vendors) -> set[str]:
    """Alerts whose runbook stands in a mail."""
    text = "".join(part.get_content() for mail in found.mails for part in mail.walk() if part.get_content_subtype() == "plain")
    return set(re.findall(r"docs/runbooks/(\w+)\.md", text))


def _inhibited(url: str) -> set[str]:
    with urllib.request.urlopen(f"{url}/api/v2/alerts?silenced=false&inhibited=true", timeout=5) as answer:  # noqa: S310 - our own
        return {item["labels"]["alertname"] for item in json.load(answer) if item["status"]["inhibitedBy"]}


def test_a_robot_that_refuses_is_a_failure_that_alertmanager_counts(tmp_path: Path) -> None:
    failed, requests = (f'alertmanager_{name}_failed_total{{integration="webhook"' for name in ("notifications", "notification_requests"))
    with (
        vendors() as found,
        bridged(tmp_path, found) as bridge,
        alertmanager(tmp_path, {"webhook_configs": [{"url": f"{bridge}/dingtalk"}]}) as url,
    ):
        found.answers["dingtalk"] = {"errcode": 310000, "errmsg": "keywords not in content"}
        post(url, alert("DrainStalled"))
        eventually(lambda: metric(url, failed) >= 1, 30, "it counts", pause=0.1)
        before = metric(url, requests)
        found.answers["dingtalk"] = {"errcode": 130101, "errmsg": "send too fast"}
        post(url, alert("IngestKafkaDown"))
        eventually(lambda: metric(url, requests) >= before + 1, 30, "refused", pause=0.1)
        found.answers.clear()
        eventually(lambda: any("IngestKafkaDown" in str(body) for body in found.bodies["dingtalk"]), 60, "tried again", pause=0.1)


def test_the_bridges_answers_never_tell_an_address(tmp_path: Path) -> None:
    with vendors() as found, bridged(tmp_path, found) as bridge:
        (tmp_path / "wecom_url").write_text("http://127.0.0.1:1/send?key=geheim", "utf-8")
        (tmp_path / "feishu_url").write_text("geheim", "utf-8")
        (tmp_path / "dingtalk_secret").unlink()
        body = json.dumps({"alerts": [], "commonLabels": {}}).encode()
        for name, status in (("wecom", 502), ("feishu", 422), ("dingtalk", 422)):
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(urllib.request.Request(f"{bridge}/{name}", body), timeout=5)  # noqa: S310 - our own
            assert refused.value.code == status
            said = refused.value.read().decode()
            refused.value.close()
            assert "geheim" not in said
            assert said.strip()


def _alerts_of(matchers: list[str]) -> list[str]:
    (matcher,) = matchers
    found = re.fullmatch(r'alertname =~? "([\w|]+)"', matcher)
    assert found is not None
    return found[1].split("|")


@pytest.mark.parametrize("rule", CONFIG["inhibit_rules"], ids=lambda rule: rule["target_matchers"][0])
def test_inhibition_compares_labels_that_all_have(rule: dict[str, Any]) -> None:
    sources, targets = _alerts_of(rule["source_matchers"]), _alerts_of(rule["target_matchers"])
    assert not set(sources) & set(targets)
    for name in (*sources, *targets):
        assert {str(FIRING[name]["exp_labels"].get(label, "")) for label in rule["equal"]}.isdisjoint({""}), name


def test_what_is_inhibited_stays_quiet_and_its_neighbour_does_not(tmp_path: Path) -> None:
    with vendors() as found, alertmanager(tmp_path, email_receiver(found)) as url:
        post(url, alert("IngestSpoolFull", instance="b"))
        post(url, alert("IngestSpoolFilling", instance="b"), alert("IngestSpoolFilling", instance="c"))
        eventually(lambda: "SpoolFilling" in "".join(str(mail["Subject"]) for mail in found.mails), 30, "the neighbour's", pause=0.05)
        assert _inhibited(url) == {"IngestSpoolFilling"}
        (told,) = [mail for mail in found.mails if "SpoolFilling" in str(mail["Subject"])]
        assert "FIRING 1" in str(told["Subject"])
