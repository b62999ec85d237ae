"""`iot acceptance`: what passes, what fails with its remedy, what nobody can tell, and going on where it was."""

import json
import ssl
from base64 import b64encode
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr
from typer.testing import CliRunner

from ingest_daemon.home import checkout
from iot_platform.acceptance import data, host
from iot_platform.acceptance.check import Check, FailedError, NotCheckedError
from iot_platform.acceptance.http import ask, login
from iot_platform.acceptance.plan import WEEKS
from iot_platform.acceptance.record import Record
from iot_platform.cli.main import app
from iot_platform.drills.catalog import all_drills
from iot_platform.files import DEPLOY
from iot_platform.settings import Settings
from iot_platform_tests.support.servers.certificates import Authority
from iot_platform_tests.support.servers.http_pages import HttpPages

Pages = dict[str, tuple[int, Any]]


@pytest.fixture
def serve() -> Iterator[Callable[[Pages], str]]:
    """A server with these pages, JSON but for bytes; its URL."""
    running: list[HttpPages] = []

    def start(pages: Pages) -> str:
        def answer(path: str) -> tuple[int, bytes]:
            status, body = pages.get(path, (404, {}))
            return status, body if isinstance(body, bytes) else json.dumps(body).encode()

        running.append(HttpPages(answer))
        return running[-1].url

    yield start
    for server in running:
        server.close()


def acceptance(settings: Settings, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str]:
    monkeypatch.setattr("iot_platform.settings.get_settings", lambda: settings)
    result = CliRunner().invoke(app, ["acceptance", *arguments])
    return result.exit_code, result.output


def test_what_nobody_can_tell_is_not_green(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(local_dir=tmp_path)
    code, output = acceptance(settings, monkeypatch, "week6")
    assert (code, output.count("not checked"), "IOT_PROMETHEUS_URL" in output) == (3, 3, True)
    code, output = acceptance(settings, monkeypatch, "week6", "--json")
    document = json.loads(output)
    assert (code, document["passed"], {item["state"] for item in document["checks"]}) == (3, False, {"not checked"})
    assert acceptance(settings, monkeypatch, "week9")[0] == 1


def test_it_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serve: Callable[[Pages], str]) -> None:
    pages: Pages = {"/api/v2.0/ping": (200, b'"Pong"')}
    settings = Settings(
        local_dir=tmp_path, harbor_url=serve(pages), kafka_bootstrap_servers="127.0.0.1:1", harbor_login_file=tmp_path / "login"
    )
    code, output = acceptance(settings, monkeypatch, "week1")
    assert (code, "✓ Harbor answers" in output, "✗ Kafka answers" in output) == (1, True, True)
    asked = Record(settings).passed_at("harbor")
    assert asked is not None

    pages.clear()
    assert "✓ Harbor answers" in acceptance(settings, monkeypatch, "week1")[1], "what passed is not asked again"
    assert "1 of 4 passed" in acceptance(settings, monkeypatch)[1]
    assert "✗ Harbor answers" in acceptance(settings, monkeypatch, "week1", "--again")[1]
    assert Record(settings).passed_at("harbor") is None

    whole = (tmp_path / "acceptance.json").read_text()
    for odd in (
        "half a fi",
        "[]",
        "null",
        '{"version": 2, "checks": [1]}',
        whole.replace('"at"', '"when"'),
        whole.replace("addresses", "of"),
    ):
        (tmp_path / "acceptance.json").write_text(odd)
        assert Record(settings).passed_at("kafka") is None
        assert Record(settings).verdict("kafka") is None
    nowhere = settings.model_copy(update={"local_dir": tmp_path / "acceptance.json"})
    code, output = acceptance(nowhere, monkeypatch, "week1")
    assert (code, "what passed is asked again next time" in output, "✗ Kafka answers" in output) == (1, True, True)


def test_a_missing_file_that_a_setting_names_fails_one_check_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(
        local_dir=tmp_path,
        kafka_bootstrap_servers="127.0.0.1:1",
        kafka_security_protocol="SASL_PLAINTEXT",
        kafka_sasl_mechanism="SCRAM-SHA-512",
        kafka_sasl_username="iot-platform",
        kafka_sasl_password_file=tmp_path / "absent",
        database_url=SecretStr("postgresql://iot_writer@127.0.0.1:1/iot"),
    )
    code, output = acceptance(settings, monkeypatch, "week1")
    assert (code, "✗ Kafka answers: IOT_KAFKA_SASL_PASSWORD_FILE: can't read" in output, "✗ TimescaleDB answers" in output) == (
        1,
        True,
        True,
    )


def test_every_image_is_asked_for(serve: Callable[[Pages], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "login").write_text('{"name": "robot$rke2-puller", "secret": "s"}')
    assert login(tmp_path / "login", "") == {"Authorization": f"Basic {b64encode(b'robot$rke2-puller:s').decode()}"}
    pages: Pages = {}
    settings = Settings(harbor_url=serve(pages), harbor_login_file=tmp_path / "login")
    with pytest.raises(FailedError, match=r"are missing: rke2/debian:13-slim, .* and \d+ more"):
        host.images_are_there(settings)
    listed = yaml.safe_load((DEPLOY / "harbor" / "images.yaml").read_text("utf-8"))
    pages |= {f"/v2/{item['to'].replace(':', '/manifests/')}": (200, {}) for item in listed["images"]}
    with pytest.raises(FailedError, match=f"{len(listed['archives'])} of .* are missing: rke2/iot-ingest"):
        host.images_are_there(settings)
    pages |= {f"/v2/{item['to']}/tags/list": (200, {"tags": None}) for item in listed["archives"]}  # every tag was deleted
    with pytest.raises(FailedError, match=f"{len(listed['archives'])} of .* are missing: rke2/iot-ingest"):
        host.images_are_there(settings)
    pages |= {f"/v2/{item['to']}/tags/list": (200, {"tags": ["c0ffee"]}) for item in listed["archives"]}
    with pytest.raises(NotCheckedError, match="the list has no digest: rke2/debian:13-slim"):  # before `images.py pin`
        host.images_are_there(settings)
    for item in listed["images"]:
        item["digest"] = f"sha256:{sha256(b'{}').hexdigest()}"
    (tmp_path / "harbor").mkdir()
    (tmp_path / "harbor/images.yaml").write_text(yaml.safe_dump(listed))
    monkeypatch.setattr(host, "DEPLOY", tmp_path)
    assert host.images_are_there(settings) == f"{len(listed['images']) + len(listed['archives'])} images"
    pages[f"/v2/{listed['images'][0]['to'].replace(':', '/manifests/')}"] = (200, [])
    with pytest.raises(FailedError, match="1 have another digest: rke2/debian:13-slim"):
        host.images_are_there(settings)


def test_a_wheel_has_no_lists_to_compare_with(monkeypatch: pytest.MonkeyPatch, serve: Callable[[Pages], str], tmp_path: Path) -> None:
    (tmp_path / "login").write_text("a:b")
    monkeypatch.setattr(host, "DEPLOY", tmp_path)
    settings = Settings(harbor_url=serve({}), harbor_login_file=tmp_path / "login", prometheus_url=serve({}))
    for look in (host.images_are_there, host.alerts_are_loaded):
        with pytest.raises(NotCheckedError, match="not here"):
            look(settings)


def test_every_check_has_a_name_of_its_own() -> None:
    names = [check.name for week in WEEKS for check in week.checks]
    assert len(set(names)) == len(names)
    assert [week.milestone for week in WEEKS] == sorted(week.milestone for week in WEEKS)


def test_prometheus_names_what_is_down(serve: Callable[[Pages], str]) -> None:
    target = {"labels": {"job": "ingest"}, "scrapeUrl": "http://10.0.0.1:9108/metrics", "lastError": "connection refused", "health": "down"}
    pages: Pages = {
        "/api/v1/targets?state=active": (200, {"data": {"activeTargets": [target]}}),
        "/api/v1/rules": (200, {"data": {"groups": []}}),
    }
    settings = Settings(prometheus_url=serve(pages))
    with pytest.raises(FailedError, match=r"1 of 1 targets are not up: ingest http:.*: connection refused"):
        host.prometheus_answers(settings)
    with pytest.raises(FailedError, match=r"groups of rules are missing: .*ingest"):
        host.alerts_are_loaded(settings)
    target["health"] = "up"
    query = "/api/v1/query?query=count(iot_ingest_mqtt_connected)"
    pages[query] = (200, {"data": {"result": []}})
    with pytest.raises(FailedError, match="none of them an ingest daemon"):  # it scrapes only itself
        host.prometheus_answers(settings)
    pages[query] = (200, {"data": {"result": [{"metric": {}, "value": [0, "3"]}]}})
    assert host.prometheus_answers(settings) == "1 targets are up"
    spare = target | {"labels": {"job": "iot-cluster", "added": "by-autoscaler"}, "health": "down"}
    pages["/api/v1/targets?state=active"] = (200, {"data": {"activeTargets": [target, spare]}})
    assert host.prometheus_answers(settings) == "1 targets are up, 1 wait for daemons of the autoscaler's"


def test_grafana_has_every_dashboard(serve: Callable[[Pages], str], tmp_path: Path) -> None:
    root = checkout()
    assert root is not None
    boards = [json.loads(path.read_text("utf-8")) for path in (root / "grafana" / "dashboards").glob("*.json")]
    assert len(boards) >= 4
    pages: Pages = {"/api/health": (200, {"database": "ok"}), "/api/datasources": (200, [])}
    pages |= {f"/api/dashboards/uid/{board['uid']}": (200, {"dashboard": {"uid": board["uid"]}}) for board in boards[1:]}
    pages["/api/datasources/uid/t/health"] = (400, {"message": "pq: password authentication failed"})
    token = tmp_path / "token"
    settings = Settings(grafana_url=serve(pages), grafana_login_file=token)
    with pytest.raises(FailedError, match="token: No such file"):
        host.dashboards_answer(settings)
    token.write_text("secret\n")
    with pytest.raises(FailedError, match=f"dashboards are missing: {boards[0]['title']}"):
        host.dashboards_answer(settings)
    pages[f"/api/dashboards/uid/{boards[0]['uid']}"] = (200, {"dashboard": {"uid": boards[0]["uid"]}})
    with pytest.raises(FailedError, match="no data source"):
        host.dashboards_answer(settings)
    pages["/api/datasources"] = (200, [{"uid": "t", "name": "TimescaleDB"}])
    with pytest.raises(FailedError, match="data source TimescaleDB: pq: password authentication failed"):
        host.dashboards_answer(settings)
    pages["/api/datasources/uid/t/health"] = (200, {"status": "OK"})
    assert "data sources answer" in host.dashboards_answer(settings)


def test_an_authority_of_ones_own_is_named_by_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(tmp_path / "authority")
    pair = authority.issue(tmp_path, "grafana")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pair.cert_file, pair.key_file)
    server = HttpPages(lambda _: (200, b"{}"), tls)
    try:
        with pytest.raises(FailedError, match="certificate verify failed") as caught:
            ask(server.url, "IOT_GRAFANA_URL")
        assert "SSL_CERT_FILE" in caught.value.remedy
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca_file))
        assert ask(server.url, "IOT_GRAFANA_URL").status == 200
    finally:
        server.close()


def test_drills_count_for_a_month(tmp_path: Path) -> None:
    settings = Settings(local_dir=tmp_path)
    check = Check("drills", "", data.drills_passed)
    assert check.run(settings).state == "not checked"

    def report(name: str, at: datetime, outcomes: dict[str, bool]) -> None:
        items = [{"drill": drill, "passed": passed, "skipped": ""} for drill, passed in outcomes.items()]
        folder = tmp_path / "drills" / name
        folder.mkdir(parents=True)
        (folder / "report.json").write_text(json.dumps({"started_at": at.isoformat(), "outcomes": items}))

    names = [drill.name for drill in all_drills()]
    now = datetime.now(UTC)
    report("1", now - timedelta(days=31), dict.fromkeys(names, True))
    assert check.run(settings).text.startswith(f"{len(names)} of {len(names)} drills did not run")
    report("2", now - timedelta(days=2), dict.fromkeys(names, True) | {names[3]: False})
    verdict = check.run(settings)
    assert (verdict.state, verdict.remedy) == ("failed", f"iot drill run {names[3]} --keep")
    report("3", now, {names[3]: True})
    assert check.run(settings).state == "passed"


@pytest.mark.both_editions
def test_upkeep_of_a_fresh_database(settings: Settings, edition: str) -> None:
    """Nothing is due yet, the schema is whole; that upkeep works is not known before it did something."""
    assert data.schema_is_current(settings) == "every migration is applied"
    with pytest.raises(NotCheckedError, match="nothing is overdue"):
        data.old_rows_are_gone(settings)
    if edition == "community":
        with pytest.raises(NotCheckedError, match="none is overdue"):
            data.chunks_are_compressed(settings)
    else:
        with pytest.raises(FailedError, match="Apache edition: it cannot compress"):
            data.chunks_are_compressed(settings)
    with pytest.raises(NotCheckedError, match="nothing is rolled up yet"):
        data.rollups_are_current(settings)


def test_another_installation_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serve: Callable[[Pages], str]) -> None:
    """What the local stack passed says nothing of the servers that the settings name now; one more address changes nothing."""
    settings = Settings(local_dir=tmp_path, harbor_url=serve({"/api/v2.0/ping": (200, b'"Pong"')}), kafka_bootstrap_servers="127.0.0.1:1")
    assert "✓ Harbor answers" in acceptance(settings, monkeypatch, "week1")[1]
    more = settings.model_copy(update={"prometheus_url": "http://127.0.0.1:1"})
    assert Record(more).passed_at("harbor") is not None
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "one"))
    assert Record(more).passed_at("harbor") is not None
    other = settings.model_copy(update={"harbor_url": "http://127.0.0.1:1"})
    assert "✗ Harbor answers" in acceptance(other, monkeypatch, "week1")[1]
    assert Record(settings).passed_at("harbor") is None
    assert "secret" not in (tmp_path / "acceptance.json").read_text()


@pytest.mark.apache_only("says what the Apache edition cannot do")
def test_the_apache_edition_is_not_accepted(settings: Settings) -> None:
    with pytest.raises(FailedError, match="Apache edition: it cannot compress"):
        host.database_answers(settings)
