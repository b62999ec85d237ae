"""The files that deploy/compose mounts, each read by the server it is for: Kafka, PostgreSQL, Prometheus, Alertmanager, started without
containers. What differs from a container are ports and paths."""

import hashlib
import json
import os
import re
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import psycopg2
import pytest
import yaml
from confluent_kafka import Producer

from iot_platform.database.migrate import migrate
from iot_platform.kafka.topics import ensure_topics
from iot_platform.local import probes
from iot_platform.local.errors import NotReadyError
from iot_platform.local.install import install_packages
from iot_platform.local.kafka import KafkaServer
from iot_platform.local.passwords import Passwords
from iot_platform.local.ports import LOOPBACK, free_ports
from iot_platform.local.postgresql import PostgresqlServer
from iot_platform.local.program import Program
from iot_platform.settings import Settings
from iot_platform_tests.support.servers.certificates import Authority, Pair
from iot_platform_tests.support.servers.ingest import records_held
from iot_platform_tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "deploy" / "compose"


@contextmanager
def running(command: list[str], log: Path, ready: Callable[[], object], environment: dict[str, str] | None = None) -> Iterator[None]:
    """A server until the block ends; the end of its log if it does not get ready."""
    with log.open("ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, **(environment or {})})
    try:
        eventually(lambda: process.poll() is not None or ready(), 60, lambda: log.read_text("utf-8", "replace")[-3000:])
        assert process.poll() is None, log.read_text("utf-8", "replace")[-3000:]
        yield
    finally:
        process.terminate()
        process.wait(60)


def answers(check: Callable[[], object]) -> bool:
    """Whether a probe passes."""
    try:
        check()
    except NotReadyError:
        return False
    return True


def made_secrets(folder: Path) -> Path:
    """What secrets.sh makes for a host at 127.0.0.1, in compose/secrets."""
    made = folder / "compose"
    made.mkdir()
    for name in ("secrets.sh", "openssl.conf"):
        shutil.copyfile(COMPOSE / name, made / name)
    subprocess.run(["sh", "secrets.sh"], check=True, cwd=made, env={**os.environ, "HOST_ADDRESS": LOOPBACK})
    return made / "secrets"


# -- Kafka -------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class KafkaHost:
    """Kafka as compose.yaml starts it: `lan` is the listener that it publishes, `inside` the one of the other containers."""

    lan: str
    inside: str
    data: Path


class KafkaFiles:
    """An /opt/kafka whose scripts run Maven's jars, and the data folder."""

    SCRIPTS: ClassVar = {
        "kafka-storage.sh": "kafka.tools.StorageTool",
        "kafka-server-start.sh": "kafka.Kafka",
        "kafka-configs.sh": "kafka.admin.ConfigCommand",
        "kafka-acls.sh": "org.apache.kafka.tools.AclCommand",
        "kafka-broker-api-versions.sh": "org.apache.kafka.tools.BrokerApiVersionsCommand",
    }

    def __init__(self, folder: Path) -> None:
        self.folder, self.data = folder, folder / "data"
        self.data.mkdir()
        settings = Settings()
        server = KafkaServer(folder, settings.cache_dir, 0, settings)
        install_packages(server.missing_packages(), folder / "install.log", lambda _: None)
        server.fetch(lambda _: None)
        (folder / "bin").mkdir()
        for name, main in self.SCRIPTS.items():
            command = " ".join(f"'{part}'" for part in server.java(main))
            (folder / "bin" / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n', "utf-8")
            (folder / "bin" / name).chmod(0o755)

    @contextmanager
    def start(self, protocol: str, keystore: Path | None = None) -> Iterator[KafkaHost]:
        """Run start.sh until the block ends."""
        lan, inside, controller = free_ports(3)
        changed = {
            "listeners": f"HOST://{LOOPBACK}:{lan},INTERNAL://{LOOPBACK}:{inside},CONTROLLER://localhost:{controller}",
            "advertised.listeners": f"HOST://{LOOPBACK}:{lan},INTERNAL://{LOOPBACK}:{inside}",
            "controller.quorum.voters": f"1@localhost:{controller}",
            **({"listener.name.host.ssl.keystore.location": str(keystore)} if keystore else {}),
        }
        overrides = [part for name, value in changed.items() for part in ("--override", f"{name}={value}")]
        environment = {
            "KAFKA_HOME": str(self.folder),
            "KAFKA_DATA": str(self.data),
            "HOST_ADDRESS": LOOPBACK,
            "KAFKA_HOST_PROTOCOL": protocol,
        }
        inner = Settings(kafka_bootstrap_servers=f"{LOOPBACK}:{inside}")
        command = ["sh", str(COMPOSE / "kafka" / "start.sh"), *overrides]
        with running(command, self.folder / "kafka.log", lambda: answers(partial(probes.kafka, inner)), environment):
            yield KafkaHost(f"{LOOPBACK}:{lan}", f"{LOOPBACK}:{inside}", self.data)


def test_kafka_has_its_exporter_where_the_jar_is_and_starts_in_any_case(tmp_path: Path) -> None:
    text = (COMPOSE / "kafka" / "start.sh").read_text("utf-8")
    pom = (ROOT / "deploy" / "local" / "jmx-exporter-pom.xml").read_text("utf-8")
    (version,), (digest,) = (re.findall(pattern, pom) for pattern in (r"javaagent</artifactId><version>([^<]+)", r"<sha256>(\w+)"))
    assert f"jmx_prometheus_javaagent-{version}.jar" in text
    assert digest in text, "as the local stack has it"
    jar = tmp_path / f"jmx_prometheus_javaagent-{version}.jar"
    server = tmp_path / "bin" / "kafka-server-start.sh"
    server.parent.mkdir()
    server.write_text('#!/bin/sh\necho "options: ${KAFKA_OPTS:-}"\n', "utf-8")
    server.chmod(0o755)
    for name in ("meta.properties", ".kafka_cleanshutdown"):
        (tmp_path / name).touch()
    option = f"options:  -javaagent:{jar}=0.0.0.0:9404:/etc/iot-platform/kafka-jmx.yaml"
    for held, wanted in ((None, "options: "), (b"another", "options: "), (b"published", option)):
        if held is not None:
            jar.write_bytes(held)
        published = text.replace(digest, hashlib.sha256(b"published").hexdigest())
        (tmp_path / "start.sh").write_text(published, "utf-8")
        environment = {"PATH": os.environ["PATH"], "KAFKA_HOME": str(tmp_path), "KAFKA_DATA": str(tmp_path)}
        done = subprocess.run(["sh", str(tmp_path / "start.sh")], check=True, capture_output=True, text=True, env=environment)
        assert done.stdout == f"{wanted}\n"
        assert ("starts without its metrics" in done.stderr) == (held == b"another")


@pytest.fixture(scope="module")
def kafka_files(tmp_path_factory: pytest.TempPathFactory) -> KafkaFiles:
    return KafkaFiles(tmp_path_factory.mktemp("kafka"))


def send(config: dict[str, Any], *, idempotent: bool = True, seconds: float = 20) -> str:
    """Produce one message; "" when Kafka has it, else the error's name; _MSG_TIMED_OUT for whom Kafka does not let in."""
    failed: list[str] = []
    producer = Producer(
        {**config, "message.timeout.ms": int(seconds * 1000), "enable.idempotence": idempotent, "acks": "all", "log_level": 0}
    )
    producer.produce("iot-messages", b"x", on_delivery=lambda error, _: failed.append(error.name() if error else ""))
    producer.flush(seconds + 5)
    return failed[0]


@pytest.mark.timeout(240)
def test_kafka_keeps_what_it_has_when_passwords_and_tls_come(kafka_files: KafkaFiles, tmp_path: Path) -> None:
    """An installation's life: open, then with users, passwords and TLS, on the same disk."""
    secrets = made_secrets(tmp_path)
    for user in ("ingest", "platform"):
        (secrets / f"kafka_{user}_password").write_text(f"{user}-password\n", "utf-8")
    with kafka_files.start("PLAINTEXT") as kafka:
        ensure_topics(Settings(kafka_bootstrap_servers=kafka.lan))  # refuses a Kafka whose settings could lose messages
        assert send({"bootstrap.servers": kafka.lan}) == ""
        cluster = (kafka.data / "meta.properties").read_text("utf-8")
        environment = {**os.environ, "KAFKA_HOME": str(kafka_files.folder), "SECRETS": str(secrets)}
        users = ["sh", str(COMPOSE / "kafka" / "users.sh"), kafka.inside]
        done = subprocess.run(users, check=False, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "ingest-password" not in done.stdout + done.stderr

    with kafka_files.start("SASL_SSL", secrets / "kafka_keystore.pem") as kafka:
        login = partial(client, kafka, secrets / "ca.pem")
        assert send(login("ingest", "ingest-password")) == ""
        assert send(login("ingest", "wrong"), seconds=2) == "_MSG_TIMED_OUT"
        assert send({"bootstrap.servers": kafka.lan}, seconds=2) == "_MSG_TIMED_OUT"
        assert send(login("platform", "platform-password"), idempotent=False) == "TOPIC_AUTHORIZATION_FAILED"
        assert send({"bootstrap.servers": kafka.inside}) == ""  # the other containers
        assert (kafka.data / "meta.properties").read_text("utf-8") == cluster
        assert records_held(kafka.inside, "iot-messages") == 3


def client(kafka: KafkaHost, ca_file: Path, user: str, password: str) -> dict[str, Any]:
    """librdkafka's settings of a client in the LAN."""
    return {
        "bootstrap.servers": kafka.lan,
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": str(ca_file),
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": f"iot-{user}",
        "sasl.password": password,
    }


# -- PostgreSQL --------------------------------------------------------------------------------------------------------
class ComposePostgresql(PostgresqlServer):
    """The tests' own PostgreSQL as compose.tls.yaml starts it, with the files that it mounts; they lie in its data folder: it may see no
    other."""

    @property
    def secrets(self) -> Path:
        """What secrets.sh made."""
        return self.local_dir / "compose" / "secrets"

    def program(self) -> Program:
        made = super().program()
        command = list(made.command)
        service = yaml.safe_load((COMPOSE / "compose.tls.yaml").read_text("utf-8"))["services"]["timescaledb"]
        assert service["entrypoint"] == ["sh", "/etc/iot-platform/timescaledb/start.sh"]
        arguments = [re.sub("=/.*/", f"={self._path(self._installation(lambda _: None), '')}", part) for part in service["command"][1:]]
        own = ["-c", f"port={self.port}", "-c", "unix_socket_directories="]
        start = "sh", str(COMPOSE / "timescaledb" / "start.sh")
        environment = {
            "SECRETS": str(self.secrets),
            "KEYSTORE": str(self._data / "keystore.pem"),
            "OWNER": str(self._data.stat().st_uid),
            "ENTRYPOINT": "env",
        }
        return replace(
            made,
            command=(*start, *command[: command.index("-D") + 2], *arguments, *own),
            environment={**made.environment, **environment},
        )


@pytest.fixture(scope="module")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComposePostgresql]:
    folder = tmp_path_factory.mktemp("postgresql")
    passwords = Passwords.load(folder / "data" / "passwords.json")
    server = ComposePostgresql(folder, Settings().cache_dir, free_ports(1)[0], passwords)
    install_packages(server.missing_packages(), folder / "install.log", lambda _: None)
    server.prepare(lambda _: None)
    (made_secrets(folder) / "backup_passphrase").unlink()  # compose.backup.yaml's; with it the server archives its WAL
    for name in ("postgresql.conf", "pg_hba.conf"):
        shutil.copyfile(COMPOSE / "timescaledb" / name, server._data / name)
        (server._data / name).chmod(0o644)
    program = server.program()
    ready = lambda: answers(partial(probes.postgresql, server.url("postgres", "postgres")))  # noqa: E731
    with running(list(program.command), folder / "postgresql.log", ready, dict(program.environment)):
        yield server


@pytest.fixture(scope="module")
def roles(postgresql: ComposePostgresql) -> ComposePostgresql:
    """After roles.sh, as the image runs it."""
    for role in ("migrator", "writer", "reader", "monitor", "console"):
        (postgresql.secrets / f"{role}_password").write_text(postgresql.passwords.of(f"iot_{role}") + "\n", "utf-8")
    environment = {
        **os.environ,
        "SECRETS": str(postgresql.secrets),
        "SUPERUSER_SQL": str(ROOT / "sql" / "superuser"),
        "PGHOST": LOOPBACK,
        "PGPORT": str(postgresql.port),
        "PGPASSWORD": postgresql.passwords.of("postgres"),
    }
    done = subprocess.run(["sh", str(COMPOSE / "timescaledb" / "roles.sh")], check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return postgresql


def ask(url: str, query: str) -> list[tuple[Any, ...]]:
    """All rows."""
    connection = psycopg2.connect(url)
    try:
        with connection.cursor() as cursor:
            cursor.execute(query)
            return list(cursor.fetchall())
    finally:
        connection.close()


def test_postgresql_takes_every_line_of_its_files(postgresql: ComposePostgresql) -> None:
    superuser = postgresql.url("postgres", "postgres")
    assert ask(superuser, "SELECT sourceline, name, error FROM pg_file_settings WHERE error IS NOT NULL AND NOT applied") == []
    assert ask(superuser, "SELECT line_number, error FROM pg_hba_file_rules WHERE error IS NOT NULL") == []
    shown = dict(ask(superuser, "SELECT name, current_setting(name) FROM pg_settings"))
    wanted = {"shared_buffers": "1GB", "effective_cache_size": "3GB", "fsync": "on", "synchronous_commit": "on", "data_checksums": "on"}
    assert {name: shown[name] for name in wanted} == wanted


def test_the_roles_are_enough_for_the_platform(roles: ComposePostgresql) -> None:
    urls = {"database_url": "iot_writer", "database_admin_url": "iot_migrator", "database_reader_url": "iot_reader"}
    settings = Settings(**{field: roles.url(role) for field, role in urls.items()})  # type: ignore[arg-type]
    migrate(settings)
    assert ask(roles.url("iot_reader"), "SELECT count(*) FROM measurement") == [(0,)]
    assert ask(roles.url("iot_console"), "SELECT count(*) FROM console_user") == [(0,)]
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        ask(roles.url("iot_console"), "SELECT count(*) FROM measurement")
    with pytest.raises(psycopg2.OperationalError, match=r"pg_hba\.conf|permission denied"):
        ask(roles.url("iot_writer", "postgres"), "SELECT 1")


def test_the_exporters_role_sees_the_servers_figures_and_not_the_platforms_database(roles: ComposePostgresql) -> None:
    figures = "SELECT pg_database_size('iot') > 0, (SELECT count(*) > 0 FROM pg_ls_waldir())"
    assert ask(roles.url("iot_monitor", "postgres"), figures) == [(True, True)]
    with pytest.raises(psycopg2.OperationalError, match=r"pg_hba\.conf"):
        ask(roles.url("iot_monitor"), "SELECT 1")


def test_a_client_that_checks_the_certificate_gets_in_by_tls(roles: ComposePostgresql) -> None:
    """As deploy/kubernetes/secrets.example.yaml writes the URLs, by the service's name; and by the address."""
    query = "SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    checked = f"{roles.url('iot_writer')}?sslmode=verify-full&sslrootcert={roles.secrets}/ca.pem"
    for url in (checked, f"{checked}&host=timescaledb&hostaddr={LOOPBACK}"):
        assert ask(url, query) == [(True, "TLSv1.3")]
    with pytest.raises(psycopg2.OperationalError, match="does not match host name"):
        ask(f"{checked}&host=elsewhere&hostaddr={LOOPBACK}", query)
    other = Authority(roles.local_dir / "other").ca_file
    with pytest.raises(psycopg2.OperationalError, match="certificate verify failed"):
        ask(f"{roles.url('iot_writer')}?sslmode=verify-full&sslrootcert={other}", query)


def test_the_clusters_grafana_has_a_database_of_its_own_and_no_other(roles: ComposePostgresql) -> None:
    password = (roles.secrets / "grafana_database_password").read_text("utf-8").strip()
    url = f"postgresql://grafana:{password}@{LOOPBACK}:{roles.port}/"
    assert ask(f"{url}grafana?sslmode=require", "CREATE TABLE public.dashboard (id int); SELECT count(*) FROM dashboard") == [(0,)]
    for address in (f"{url}iot", f"{url}postgres", roles.url("iot_writer", "grafana")):
        with pytest.raises(psycopg2.OperationalError, match=r"pg_hba\.conf"):
            ask(address, "SELECT 1")


@pytest.mark.parametrize(
    ("user", "database", "answer"),
    [
        ("iot_writer", "iot", b"R"),
        ("grafana", "grafana", b"R"),
        ("postgres", "postgres", b"E"),
        ("iot_writer", "postgres", b"E"),
        ("grafana", "iot", b"E"),
    ],
)
def test_a_neighbour_is_asked_for_a_password_and_the_superuser_is_refused(
    roles: ComposePostgresql, user: str, database: str, answer: bytes
) -> None:
    """From an address beside the server's own (samenet), which 127.0.0.2 is to it."""
    with socket.create_connection((LOOPBACK, roles.port), source_address=("127.0.0.2", 0)) as connection:
        body = struct.pack("!i", 196608) + f"user\0{user}\0database\0{database}\0\0".encode()
        connection.sendall(struct.pack("!i", len(body) + 4) + body)
        assert connection.recv(1) == answer


# -- Prometheus and Alertmanager -----------------------------------------------------------------------------------------
class Hook:
    """A web hook that keeps what it is sent."""

    def __init__(self) -> None:
        self.received: list[dict[str, Any]] = []
        received = self.received

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._server = HTTPServer((LOOPBACK, 0), Handler)
        self.url = f"http://{LOOPBACK}:{self._server.server_address[1]}/hook"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Cluster:
    """/metrics by https."""

    def __init__(self, pair: Pair) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write(b"iot_ingest_up 1\n")

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._server = HTTPServer((LOOPBACK, 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.cert_file, pair.key_file)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.address = f"{LOOPBACK}:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def installed(folder: Path, replacements: dict[str, str]) -> Path:
    """deploy/compose/prometheus with other paths and addresses in its files; each must occur."""
    made = folder / "prometheus"
    shutil.copytree(COMPOSE / "prometheus", made)
    texts = {path: path.read_text("utf-8") for path in made.rglob("*.yml")}
    for old, new in replacements.items():
        assert any(old in text for text in texts.values()), old
        texts = {path: text.replace(old, new) for path, text in texts.items()}
    for path, text in texts.items():
        path.write_text(text, "utf-8")
    return made


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own
        return json.load(answer)["data"]


@pytest.mark.timeout(120)
def test_prometheus_reads_its_files_and_an_alert_reaches_the_hook(tmp_path: Path) -> None:
    programs = {name: shutil.which(name) for name in ("prometheus", "prometheus-alertmanager")}
    if None in programs.values():
        pytest.skip("no prometheus and prometheus-alertmanager here: .ci/run installs them")
    hook = Hook()
    (tmp_path / "alert_webhook_url").write_text(hook.url + "\n", "utf-8")
    port, alerts = free_ports(2)
    authority = Authority(tmp_path / "authority")
    shutil.copyfile(authority.ca_file, tmp_path / "ca.pem")
    cluster = Cluster(authority.issue(tmp_path, "ingress"))
    folder = installed(
        tmp_path,
        {
            "/etc/iot-platform/rules": str(ROOT / "deploy" / "prometheus" / "rules"),
            "/etc/iot-platform/prometheus": str(tmp_path / "prometheus"),
            "/run/secrets": str(tmp_path),
            "alertmanager:9093": f"{LOOPBACK}:{alerts}",
            "localhost:9090": f"{LOOPBACK}:{port}",
            "group_wait: 30s": "group_wait: 100ms",
            "scrape_interval: 15s": "scrape_interval: 1s",
            "metrics.iot.lan:443": cluster.address,
        },
    )
    for name in ("host", "cluster", "kafka"):
        (folder / "targets" / f"{name}.example.yml").rename(folder / "targets" / f"{name}.yml")
    alertmanager = [
        str(programs["prometheus-alertmanager"]), f"--config.file={folder}/alertmanager.yml", f"--storage.path={tmp_path}/alertmanager",
        "--cluster.listen-address=", f"--web.listen-address={LOOPBACK}:{alerts}",
    ]  # fmt: skip
    prometheus = [
        str(programs["prometheus"]), f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/tsdb",
        "--storage.tsdb.retention.time=30d", "--storage.tsdb.retention.size=20GB", f"--web.listen-address={LOOPBACK}:{port}",
    ]  # fmt: skip
    base = f"http://{LOOPBACK}:{port}"
    with (
        running(alertmanager, tmp_path / "alertmanager.log", lambda: answers(partial(probes.http, f"http://{LOOPBACK}:{alerts}/-/ready"))),
        running(prometheus, tmp_path / "prometheus.log", lambda: answers(partial(probes.http, f"{base}/-/ready"))),
    ):
        rules = [rule["name"] for group in get(f"{base}/api/v1/rules")["groups"] for rule in group["rules"]]
        assert "IngestSilent" in rules
        jobs = {"prometheus", "alertmanager", "grafana", "iot", "iot-cluster", "kafka", "postgres", "node"}
        targets = eventually(lambda: _jobs(base) >= jobs and _jobs(base), 20)
        assert targets == jobs
        eventually(lambda: cluster.address in _scraped(base), 20)
        eventually(lambda: [item["url"] for item in get(f"{base}/api/v1/alertmanagers")["activeAlertmanagers"]], 20)
        body = json.dumps([{"labels": {"alertname": "IngestCertificateEnded", "severity": "critical", "instance": "a"}}]).encode()
        request = urllib.request.Request(f"http://{LOOPBACK}:{alerts}/api/v2/alerts", body, {"Content-Type": "application/json"})
        urllib.request.urlopen(request, timeout=5).close()  # noqa: S310 - our own
        eventually(lambda: hook.received, 20)
    assert hook.received[0]["alerts"][0]["labels"]["alertname"] == "IngestCertificateEnded"
    hook.close()
    cluster.close()


def _jobs(base: str) -> set[str]:
    return {target["labels"]["job"] for target in get(f"{base}/api/v1/targets")["activeTargets"]}


def _scraped(base: str) -> set[str]:
    """Addresses of the targets whose last scrape went well."""
    return {target["labels"]["instance"] for target in get(f"{base}/api/v1/targets")["activeTargets"] if target["health"] == "up"}
