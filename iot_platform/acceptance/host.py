"""The physical host: registry, Kafka, database, Prometheus, Grafana."""

import json
from contextlib import closing
from typing import Any, Final

import yaml
from psycopg2.extensions import connection as Connection  # noqa: N812

from ingest_daemon.home import checkout
from iot_platform.acceptance.check import FailedError, NotCheckedError
from iot_platform.acceptance.http import Answer, ask, login, wanted
from iot_platform.database import DatabaseError, connect
from iot_platform.database.capabilities import read_capabilities
from iot_platform.files import DEPLOY
from iot_platform.local import probes
from iot_platform.local.errors import NotReadyError
from iot_platform.settings import Settings

MANIFESTS: Final = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)

BY_AUTOSCALER: Final = "by-autoscaler"
"""Value of the label `added` of Prometheus' targets that need not be there (deploy/compose/prometheus/targets/cluster.example.yml)."""


def harbor_answers(settings: Settings) -> str:
    """Harbor's own ping."""
    url = f"{wanted(settings.harbor_url, 'IOT_HARBOR_URL')}/api/v2.0/ping"
    answer = ask(url, "IOT_HARBOR_URL")
    if answer.status != 200 or answer.body.strip(b' "\n') != b"Pong":
        raise FailedError(f"{url} answers {answer.status}, not as Harbor does", "correct IOT_HARBOR_URL; look at Harbor's core container")
    return url


def images_are_there(settings: Settings) -> str:
    """Every image of deploy/harbor/images.yaml is in the registry, with the digest that the list names; of our own ones any version."""
    registry = wanted(settings.harbor_url, "IOT_HARBOR_URL")
    file = DEPLOY / "harbor" / "images.yaml"
    if not file.is_file():
        raise NotCheckedError("the list of images is not here", "run it in a checkout")
    listed = yaml.safe_load(file.read_text("utf-8"))
    headers = {"Accept": MANIFESTS} | login(settings.harbor_login_file, "IOT_HARBOR_LOGIN_FILE")

    def look(path: str, method: str) -> Answer:
        answer = ask(f"{registry}/v2/{path}", "IOT_HARBOR_URL", headers=headers, method=method)
        if answer.status in (401, 403):
            raise FailedError(f"the registry refuses the login ({answer.status})", "renew the robot account; IOT_HARBOR_LOGIN_FILE")
        return answer

    missing, other = [], []
    for image in listed["images"]:
        name, _, tag = image["to"].rpartition(":")
        answer = look(f"{name}/manifests/{tag}", "HEAD")
        digest = answer.headers.get("docker-content-digest")
        if answer.status != 200 or not digest:
            missing.append(image["to"])
        elif image["digest"] and digest != image["digest"]:
            other.append(image["to"])
    for item in listed["archives"]:
        answer = look(f"{item['to']}/tags/list", "GET")
        if answer.status != 200 or not answer.json(f"{registry}/v2/{item['to']}/tags/list")["tags"]:  # empty once all were deleted
            missing.append(item["to"])
    count = len(listed["images"]) + len(listed["archives"])
    if missing or other:
        parts = [f"{len(missing)} of {count} are missing: {_few(missing)}"] if missing else []
        parts += [f"{len(other)} have another digest: {_few(other)}"] if other else []
        raise FailedError("; ".join(parts), "deploy/harbor/images.py copy (or push); make images")
    if unknown := [image["to"] for image in listed["images"] if not image["digest"]]:
        raise NotCheckedError(f"{count} images; of {len(unknown)} the list has no digest: {_few(unknown)}", "deploy/harbor/images.py pin")
    return f"{count} images"


def kafka_answers(settings: Settings) -> str:
    """A metadata request."""
    try:
        probes.kafka(settings)
    except NotReadyError as error:
        raise FailedError(str(error), "start Kafka; its advertised listener must be an address that is reached from here") from error
    return settings.kafka_bootstrap_servers


def database_answers(settings: Settings) -> str:
    """PostgreSQL with TimescaleDB, Community edition."""
    try:
        connection = connect(settings, "reader", "iot-acceptance")
    except DatabaseError as error:
        raise FailedError(str(error), "start PostgreSQL, let this address into pg_hba.conf, or correct IOT_DATABASE_URL") from error
    with closing(connection):
        return can_compress(connection)


def can_compress(connection: Connection) -> str:
    """The database's edition and versions.

    Raises:
        FailedError: it is the Apache edition.
    """
    report = read_capabilities(connection)
    if not report.has("compression"):
        remedy = next(item.remedy for item in report.missing if item.name == "compression")
        raise FailedError(f"{report.headline()}: it cannot compress", remedy)
    return report.headline()


def prometheus_answers(settings: Settings) -> str:
    """Ready, every target up but those of daemons that the autoscaler has not added."""
    base = wanted(settings.prometheus_url, "IOT_PROMETHEUS_URL")
    url = f"{base}/api/v1/targets?state=active"
    answer = ask(url, "IOT_PROMETHEUS_URL")
    if answer.status != 200:
        raise FailedError(f"{url} answers {answer.status}", "look at Prometheus' log; correct IOT_PROMETHEUS_URL")
    targets: list[dict[str, Any]] = answer.json(url)["data"]["activeTargets"]
    if not targets:
        raise FailedError("Prometheus scrapes nothing", "give it deploy's scrape configuration")
    up = [item for item in targets if item["health"] == "up"]
    spare = [item for item in targets if item not in up and item["labels"].get("added") == BY_AUTOSCALER]
    down = [
        f"{item['labels'].get('job')} {item['scrapeUrl']}: {item['lastError'] or item['health']}"
        for item in targets
        if item not in up and item not in spare
    ]
    if down:
        raise FailedError(
            f"{len(down)} of {len(targets)} targets are not up: {_few(down)}", "start them, or open their ports to Prometheus"
        )
    url = f"{base}/api/v1/query?query=count(iot_ingest_mqtt_connected)"
    if not ask(url, "IOT_PROMETHEUS_URL").json(url)["data"]["result"]:
        raise FailedError(f"{len(targets)} targets, none of them an ingest daemon", "deploy/compose/prometheus/targets: say where they are")
    return f"{len(up)} targets are up" + (f", {len(spare)} wait for daemons of the autoscaler's" if spare else "")


def alerts_are_loaded(settings: Settings) -> str:
    """Every group of deploy/prometheus/rules, and none of its rules fails."""
    base = wanted(settings.prometheus_url, "IOT_PROMETHEUS_URL")
    files = sorted((DEPLOY / "prometheus" / "rules").glob("*.yaml"))
    if not files:
        raise NotCheckedError("the rules' files are not here", "run it in a checkout")
    url = f"{base}/api/v1/rules"
    groups = {group["name"]: group for group in ask(url, "IOT_PROMETHEUS_URL").json(url)["data"]["groups"]}
    ours = [group["name"] for file in files for group in yaml.safe_load(file.read_text("utf-8"))["groups"]]
    if missing := [name for name in ours if name not in groups]:
        raise FailedError(f"groups of rules are missing: {_few(missing)}", "mount deploy/prometheus/rules into Prometheus and reload it")
    broken = [rule["name"] for name in ours for rule in groups[name]["rules"] if rule.get("health") == "err"]
    if broken:
        raise FailedError(f"rules fail: {_few(broken)}", f"their errors: {base}/rules")
    return f"{len(ours)} groups, {sum(len(groups[name]['rules']) for name in ours)} rules"


def dashboards_answer(settings: Settings) -> str:
    """Grafana has every dashboard of the repository, and its database answers."""
    base = wanted(settings.grafana_url, "IOT_GRAFANA_URL")
    health = ask(f"{base}/api/health", "IOT_GRAFANA_URL")
    if health.status != 200 or health.json(f"{base}/api/health").get("database") != "ok":
        raise FailedError(
            f"{base}/api/health answers {health.status}: {health.body[:200].decode('utf-8', 'replace')}", "look at Grafana's log"
        )
    headers = login(settings.grafana_login_file, "IOT_GRAFANA_LOGIN_FILE")
    boards = _boards()
    missing = []
    for uid, title in boards.items():
        url = f"{base}/api/dashboards/uid/{uid}"
        answer = ask(url, "IOT_GRAFANA_URL", headers=headers)
        if answer.status in (401, 403):
            raise FailedError(f"Grafana refuses the login ({answer.status})", "renew it; IOT_GRAFANA_LOGIN_FILE")
        if answer.status != 200 or answer.json(url)["dashboard"]["uid"] != uid:
            missing.append(title)
    if missing:
        raise FailedError(f"dashboards are missing: {_few(missing)}", "provision grafana/dashboards again")
    sources = ask(f"{base}/api/datasources", "IOT_GRAFANA_URL", headers=headers)
    if sources.status != 200:
        raise NotCheckedError(f"{len(boards)} dashboards are there; the login may not see data sources", "use one of an admin")
    known = sources.json(f"{base}/api/datasources")
    if not known:
        raise FailedError("Grafana has no data source", "provision grafana/provisioning again")
    for source in known:
        url = f"{base}/api/datasources/uid/{source['uid']}/health"
        answer = ask(url, "IOT_GRAFANA_URL", headers=headers)
        if answer.status != 200:
            raise FailedError(
                f"data source {source['name']}: {answer.json(url).get('message', answer.status)}", "correct its address or login"
            )
    return f"{len(boards)} dashboards, their data sources answer"


def _boards() -> dict[str, str]:
    """Identifier and title of each dashboard of the repository."""
    root = checkout()
    if root is None:
        raise NotCheckedError("the dashboards' files are not here", "run it in a checkout")
    documents = [json.loads(path.read_text("utf-8")) for path in sorted((root / "grafana" / "dashboards").glob("*.json"))]
    return {document["uid"]: document["title"] for document in documents}


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
