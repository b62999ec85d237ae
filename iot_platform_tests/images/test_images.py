"""The images: small, without what an intruder would use, the same when built twice, and the whole path from broker to row runs in them."""

import itertools
import json
import shutil
import subprocess
import tarfile
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import psycopg2
import pytest
import yaml
from psycopg2 import sql
from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.ingest_pages import counters
from iot_platform.local import probes
from iot_platform.local.ports import free_ports
from iot_platform.local.postgresql_roles import create_database
from iot_platform.settings import Settings
from iot_platform.simulator.comparison import Scope, compare, read
from iot_platform_tests.support.feeds.drain import check_books, drain
from iot_platform_tests.support.feeds.simulation import Simulation, await_everything_stored, count, stored_messages
from iot_platform_tests.support.servers.containers import Containers, build
from iot_platform_tests.support.servers.stack import Programs, Servers
from iot_platform_tests.support.waiting import eventually

pytestmark = [pytest.mark.images, pytest.mark.timeout(1500)]
ROOT = Path(__file__).parents[2]
MESSAGES, ROLLED = 3000, 40_000
LIMITS = {"ingest": 130e6, "platform": 500e6}
DATABASE = "from_images"
BASE_IMAGE = "localhost/debian:13"  # build.py's own, in the place of a database's
EACH = pytest.mark.parametrize("target", LIMITS)
_numbers = itertools.count(1)
UNWANTED = ("sh", "bash", "dash", "apt", "apt-get", "dpkg", "gcc", "cc", "ld", "pip", "pip3", "perl", "busybox")


@EACH
def test_an_image_holds_what_it_needs_and_no_more(containers: Containers, target: str) -> None:
    root = containers.root(target)
    files = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    assert sum(path.stat().st_size for path in files) < LIMITS[target]
    assert not [path for path in files if path.parent.name in ("bin", "sbin") and path.name in UNWANTED]
    packages = root / "opt/iot-platform/lib/python3.13/site-packages"
    assert not [name for name in ("pip", "setuptools", "pytest", "iot_platform_tests") if (packages / name).exists()]
    assert not [path for path in packages.rglob("tests") if path.is_dir()]
    assert not [path for path in files if path.stat().st_mode & 0o6000]
    assert (packages / "iot_platform").exists() == (packages / "dagster").exists() == (target == "platform")
    stale = [path for path in packages.rglob("*.py") if not (path.parent / "__pycache__" / f"{path.stem}.cpython-313.pyc").exists()]
    assert [path for path in stale if path.parts[-2] in ("iot_platform", "ingest_daemon", "dagster")] == []


@EACH
def test_an_image_says_what_it_is(containers: Containers, target: str) -> None:
    manifest, config = _oci(containers.images[target].archive)
    assert manifest["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert config["config"]["User"] == "10001:10001"
    assert "Healthcheck" not in config["config"]
    labels = config["config"]["Labels"]
    revision = subprocess.run(
        ["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True, cwd=Path(__file__).parent
    ).stdout.strip()
    assert labels["org.opencontainers.image.revision"].removesuffix("-dirty") == revision
    assert labels["org.opencontainers.image.title"] == f"iot-{target}"
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"


@EACH
def test_its_bill_lists_debian_and_python_packages(containers: Containers, target: str) -> None:
    image = containers.images[target]
    bill = json.loads(image.bill.read_text("utf-8"))
    assert bill["metadata"]["component"]["purl"].endswith(image.digest.replace(":", "%3A"))
    purls = [item["purl"] for item in bill["components"]]
    pinned = dict(line.split(" ;")[0].split("==") for line in _pins())
    python = dict(purl.removeprefix("pkg:pypi/").split("@") for purl in purls if purl.startswith("pkg:pypi/"))
    assert {name: version for name, version in python.items() if name != "iot-platform"}.items() <= pinned.items()
    assert {"confluent-kafka", "iot-platform"} <= python.keys()
    assert any(purl.startswith("pkg:deb/debian/libssl3t64@3.") for purl in purls)


@pytest.fixture
def settings(settings: Settings, servers: Servers) -> Iterator[Settings]:
    """On a database that nobody has migrated yet, and topics of the test's own."""
    create_database(servers.superuser_url(), DATABASE)
    url = partial(servers.postgresql.url, database=DATABASE)
    values = {
        "database_url": url("iot_writer"),
        "database_admin_url": url("iot_migrator"),
        "database_reader_url": url("iot_reader"),
        "console_database_url": url("iot_console"),
    }
    topic = f"images-{next(_numbers)}"
    yield Settings(
        **{**settings.model_dump(exclude_unset=True), **values, "kafka_topic": topic, "kafka_dead_letter_topic": f"{topic}-dead"}
    )
    connection = psycopg2.connect(servers.superuser_url())
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(DATABASE)))
    connection.close()


class Host:
    """The services of compose.yaml's profile `all` as containers: their commands, settings, secrets, limits and health checks from there.
    In their place: the addresses, since there is no network but the host's, and the ports, which others use."""

    COMPOSE: ClassVar = yaml.safe_load((ROOT / "deploy/compose/compose.yaml").read_text("utf-8"))["services"]

    def __init__(self, containers: Containers, programs: Programs, settings: Settings, folder: Path) -> None:
        self._containers, self._programs, self._folder = containers, programs, folder
        self._code_port = str(free_ports(1)[0])
        for name in ("mqtt_url", "database_url", "database_admin_url", "database_reader_url", "console_database_url"):
            (folder / f"iot_{name}").write_text(getattr(settings, name).get_secret_value() + "\n", "utf-8")
        assert settings.console_key_file is not None
        shutil.copyfile(settings.console_key_file, folder / "console_key")
        (folder / "console_key").chmod(0o644)
        names = ("kafka_bootstrap_servers", "kafka_topic", "kafka_dead_letter_topic", "kafka_partitions", "ingest_http_url", "dagster_url")
        self._addresses = {
            f"IOT_{name.upper()}": str(getattr(settings, name)) for name in (*names, "ingest_http_port", "metrics_port", "console_port")
        }
        self._ports = {"4000": self._code_port, "3000": str(settings.dagster_port), "0.0.0.0": "127.0.0.1"}  # noqa: S104
        self._pages = {"9108": str(settings.ingest_http_port), "9109": str(settings.metrics_port), "8000": str(settings.console_port)}
        self._filter = settings.mqtt_topic_filter
        (folder / "workspace.yaml").write_text(
            (ROOT / "deploy/compose/dagster/workspace.yaml")
            .read_text("utf-8")
            .replace("dagster-code", "127.0.0.1")
            .replace("4000", self._code_port)
        )

    @property
    def code_server(self) -> str:
        """Its address for a client here."""
        return f"127.0.0.1:{self._code_port}"

    def prepare(self, name: str) -> None:
        """Run a service that ends."""
        self._containers.run("platform", *self._command(name), options=self._options(name))

    def daemon(self, name: str, port: int) -> None:
        """Run one of several ingest daemons that share the topics; a later one of the same name has its volume."""
        own = {"IOT_INGEST_CLIENT_ID": name, "IOT_INGEST_SHARED_GROUP": "images", "IOT_MQTT_TOPIC_FILTER": self._filter}
        options = self._options("ingest", own | {"IOT_INGEST_HTTP_PORT": str(port)}, state=name)
        made = self._containers.program(name, "ingest", stop_seconds=self._stop_seconds("ingest"), options=options)
        self._programs.start(made, partial(probes.http, f"http://127.0.0.1:{port}/readyz"))

    def start(self, name: str, check: Callable[[], None] = lambda: None) -> None:
        """Run a service that stays, until the check and its own health check pass."""
        service = self.COMPOSE[name]
        target = service["image"].partition("/iot-")[2].partition(":")[0]
        options = self._options(name)
        made = self._containers.program(name, target, *self._command(name), stop_seconds=self._stop_seconds(name), options=options)
        self._programs.start(made, check)
        test = [self._here(part, self._ports | self._pages) for part in service["healthcheck"]["test"]]
        assert test[0] == "CMD"
        self._containers.inside(name, *test[1:])

    def _stop_seconds(self, name: str) -> int:
        return int(self.COMPOSE[name]["stop_grace_period"].removesuffix("s"))

    def _command(self, name: str) -> list[str]:
        return [self._here(part, self._ports) for part in self.COMPOSE[name].get("command", [])]

    def _options(self, name: str, own: Mapping[str, str] = MappingProxyType({}), state: str = "state") -> list[str]:
        """podman's, of a service; `own` settings besides, and the folder of its volume."""
        service = self.COMPOSE[name]
        assert service["read_only"]
        assert service["init"]
        assert service["cap_drop"] == ["ALL"]
        environment = {"IOT_INGEST_CLIENT_ID": "from-images"} | service["environment"]
        environment = {key: self._addresses.get(key, value) for key, value in (self._addresses | environment).items()} | own
        options = [f"--env={key}={value}" for key, value in environment.items()]
        options += [f"--volume={self._folder}/{secret}:/run/secrets/{secret}:ro" for secret in service["secrets"]]
        options += [f"--tmpfs={mount}" for mount in service["tmpfs"]]
        for volume in service.get("volumes", []):
            source, target = volume.split(":")[:2]
            here = {"./dagster": f"{self._folder}/workspace.yaml:{target}/workspace.yaml:ro", "ingest": f"{self._folder}/{state}:{target}"}
            if source == "ingest":
                (self._folder / state).mkdir(exist_ok=True)
                (self._folder / state).chmod(0o777)  # of 10001, whatever user we are; compose's named volume takes over the image's owner
            options.append(f"--volume={here[source]}")
        return [*options, f"--memory={service['mem_limit']}"]

    @staticmethod
    def _here(text: str, replacements: Mapping[str, str]) -> str:
        for old, new in replacements.items():
            text = text.replace(f":{old}/", f":{new}/") if "/" in text else new if text == old else text
        return text


@pytest.fixture
def host(containers: Containers, programs: Programs, settings: Settings, tmp_path: Path) -> Iterator[Host]:
    """Its containers end with the test."""
    (tmp_path / "host").mkdir()
    yield Host(containers, programs, settings, tmp_path / "host")
    programs.close()


@pytest.fixture
def platform(host: Host, settings: Settings) -> Settings:
    """Topics, schema and storage made, daemon and Dagster running: everything in containers."""
    for name in ("topics", "migrate", "dagster-storage"):
        host.prepare(name)
    host.start("ingest", partial(probes.http, f"{settings.ingest_http_url}/readyz"))
    host.start("metrics", partial(probes.http, f"http://127.0.0.1:{settings.metrics_port}/healthz"))
    host.start("dagster-code", partial(probes.code_server, host.code_server))
    host.start("dagster-webserver", partial(probes.http, f"{settings.dagster_url}/server_info"))
    host.start("dagster-daemon", partial(probes.dagster, settings.dagster_url))
    return settings


def test_the_whole_path_runs_in_containers(
    platform: Settings, simulation: Simulation, database: Connection, containers: Containers
) -> None:
    simulation.start("--tenants=2", "--projects=2", "--devices=10", "--seed=3", f"--count={MESSAGES}", "--rate=500", "--malformed=0.03")
    published = simulation.finish()
    await_everything_stored(platform, database, MESSAGES)
    assert compare(published, read(database, Scope(platform.kafka_topic))) == []
    assert count(database, "SELECT count(*) FROM measurement") > MESSAGES
    users = {line.split()[0] for line in containers.podman("top", "dagster-code", "huser").splitlines()[1:]}
    assert users == {"10001"}
    for command in ("status", "audit"):  # exit code 1 when something is not well
        containers.inside("dagster-code", "iot", command)


def test_the_console_answers_and_shows_its_pages(host: Host, settings: Settings) -> None:
    host.prepare("migrate")
    url = f"http://127.0.0.1:{settings.console_port}"
    host.start("console", partial(probes.http, f"{url}/readyz"))
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert b'<script type="module"' in answer.read()


def test_daemons_are_rolled_without_loss(
    host: Host, programs: Programs, settings: Settings, simulation: Simulation, database: Connection
) -> None:
    """Three that share the topics, each replaced in turn, the last first as a StatefulSet does it, while 1,000 messages a second come."""
    for name in ("topics", "migrate"):
        host.prepare(name)
    ports = {f"iot-ingest-{number}": port for number, port in enumerate(free_ports(3))}
    for name, port in ports.items():
        host.daemon(name, port)
    urls = [f"http://127.0.0.1:{port}" for port in ports.values()]
    simulation.start("--tenants=3", "--projects=4", "--devices=25", "--seed=7", f"--count={ROLLED}", "--rate=1000")
    eventually(lambda: counters(urls).get("iot_ingest_messages_delivered_total", 0) > 1000, 60, "nothing comes")
    for name, port in reversed(ports.items()):
        programs.stop(name)
        host.daemon(name, port)
    assert simulation.running, "the devices stopped before the roll had ended: the test proved less than it should"
    published = simulation.finish(300)
    eventually(lambda: counters(urls)["iot_ingest_messages_in_flight"] == 0, 60, lambda: str(counters(urls)))

    def stored() -> int:
        drain(settings)
        return stored_messages(database)

    eventually(lambda: stored() >= ROLLED, 300, lambda: f"{stored_messages(database)} of {ROLLED}")
    assert compare(published, read(database, Scope(settings.kafka_topic))) == []
    assert stored_messages(database) == ROLLED
    assert count(database, "SELECT count(*) FROM mqtt_connection") >= 2 * len(urls), "not every daemon was replaced"
    check_books(settings)


def test_it_launches_runs_as_pods(containers: Containers) -> None:
    """What deploy/kubernetes asks of the platform's image: the launcher, and a Kubernetes client that is whole without its sources."""
    code = (
        "from iot_platform.orchestration.run_pods import RunPodLauncher\n"
        "from dagster_k8s.models import k8s_model_from_dict\n"
        "from kubernetes import client, config, watch\n"
        "job = k8s_model_from_dict(client.V1Job, {'spec': {'template': {'spec': {'containers': [{'name': 'run'}]}}}})\n"
        "print(client.ApiClient().sanitize_for_serialization(job)['spec']['template'], RunPodLauncher.__name__)"
    )
    assert "{'spec': {'containers': [{'name': 'run'}]}} RunPodLauncher" in containers.run("platform", "python", "-c", code)


def test_the_same_commit_gives_the_same_digest(containers: Containers, tmp_path: Path) -> None:
    """Built anew, without what the first build left."""
    again = build(tmp_path, "ingest")["ingest"]
    assert again.digest == containers.images["ingest"].digest


def test_pgbackrest_is_added_to_a_databases_image_and_needs_nothing_of_it(containers: Containers, tmp_path: Path) -> None:
    """Of Alpine's C library, for example: it runs where there is nothing but its own folder."""
    image = build(tmp_path / "made", f"--database={BASE_IMAGE}", "timescaledb")["timescaledb"]
    assert containers.podman("run", "--rm", image.name, "pgbackrest", "version").startswith("pgBackRest 2.")
    (tmp_path / "root").mkdir()
    folder = Path(containers.podman("image", "mount", image.name)) / "opt" / "pgbackrest"
    shutil.copytree(folder, tmp_path / "root" / "opt" / "pgbackrest")
    command = ["chroot", str(tmp_path / "root"), "/opt/pgbackrest/pgbackrest", "version"]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.startswith("pgBackRest 2.")


def _pins() -> list[str]:
    text = (ROOT / "requirements.txt").read_text("utf-8")
    return [line for line in text.splitlines() if "==" in line and "python_full_version < '3.12'" not in line]


def _oci(archive: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Manifest and configuration of the one image in an OCI archive."""
    with tarfile.open(archive) as tar:

        def load(name: str) -> Any:
            file = tar.extractfile(name)
            assert file is not None
            return json.load(file)

        digest = load("index.json")["manifests"][0]["digest"]
        manifest = load(f"blobs/{digest.replace(':', '/')}")
        return {"mediaType": manifest.get("mediaType", manifest["config"]["mediaType"]), **manifest}, load(
            f"blobs/{manifest['config']['digest'].replace(':', '/')}"
        )
