"""deploy/compose: compose finds it valid without a word in every combination; and nothing is wrong of what it takes in silence."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from ingest_daemon.variables import known
from iot_platform.acceptance.host import BY_AUTOSCALER
from iot_platform.settings import Settings
from iot_platform_tests.support.kubernetes.manifests import example_secrets, of_kind, one

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "compose"
BASE, SASL, TLS, BACKUP = "compose.yaml", "compose.sasl.yaml", "compose.tls.yaml", "compose.backup.yaml"
PROFILES = ("--profile=all", "--profile=robots")
_OF_KAFKA = ((BASE,), (BASE, SASL), (BASE, SASL, TLS))
COMBINATIONS = [(*files, *backup, *profiles) for files in _OF_KAFKA for backup in ((), (BACKUP,)) for profiles in ((), PROFILES)]
LAN_PORTS = {"9092", "5432", "9090"}  # and Harbor's 8080: what the firewall lets in
UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def merged(*names: str) -> dict[str, Any]:
    """The files as compose puts them together, as far as ours go: maps key by key, lists joined."""

    def into(old: Any, new: Any) -> Any:
        if isinstance(old, dict) and isinstance(new, dict):
            return {**old, **{key: into(old[key], value) if key in old else value for key, value in new.items()}}
        return [*old, *new] if isinstance(old, list) and isinstance(new, list) else new

    found: dict[str, Any] = {}
    for name in names:
        found = into(found, yaml.safe_load((FOLDER / name).read_text("utf-8")))
    return found


ALL = merged(BASE, SASL, TLS, BACKUP)
SERVICES: dict[str, dict[str, Any]] = ALL["services"]
EACH = pytest.mark.parametrize("name", SERVICES)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository's part that compose reads, with secrets made as the manual says."""
    root = tmp_path_factory.mktemp("host")
    for folder in ("deploy/compose", "deploy/prometheus", "grafana/provisioning", "grafana/dashboards", "sql/superuser"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("secrets", ".env"))
    shutil.copyfile(FOLDER / "host.env", root / "deploy/compose/.env")
    subprocess.run(["sh", "secrets.sh"], check=True, cwd=root / "deploy/compose")
    return root / "deploy/compose"


@pytest.mark.parametrize("combination", COMBINATIONS, ids=" ".join)
def test_compose_finds_it_valid_and_has_nothing_to_warn_of(copy: Path, combination: tuple[str, ...]) -> None:
    compose = shutil.which("docker-compose")
    if compose is None or _run(compose, "version", "--short", cwd=copy).stdout.startswith("1."):
        pytest.skip("no docker-compose 2 here: .ci/run installs it")
    assert_silent(compose, copy, combination)


def assert_silent(compose: str, copy: Path, combination: tuple[str, ...]) -> None:
    """This compose takes the files without a word."""
    files = [part for name in combination if not name.startswith("-") for part in ("-f", name)]
    options = [part for part in combination if part.startswith("-")]
    done = _run(compose, *files, *options, "config", "-q", cwd=copy)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_secrets_it_mounts_are_those_that_the_script_makes(copy: Path) -> None:
    made = {path.name for path in (copy / "secrets").iterdir()}
    mounted = {Path(secret["file"]).name for secret in ALL["secrets"].values()}
    # Nothing here reads the authority's key and what the cluster gets; the robots' files are mounted as a folder.
    assert mounted | {"ca.key", "ingress_keystore.pem", "robots"} == made
    assert set(ALL["secrets"]) == mounted
    used = {name for service in SERVICES.values() for name in service.get("secrets", [])}
    assert used == mounted
    assert all((copy / "secrets" / name).stat().st_size > 16 for name in made - {"robots"})
    files = {Path(value).name for name, value in SERVICES["alert-bridge"]["environment"].items() if name.endswith("_FILE")}
    assert files == {path.name for path in (copy / "secrets" / "robots").iterdir()}
    assert (copy / "secrets").stat().st_mode & 0o777 == 0o700
    assert (copy / "secrets" / "ca.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["kafka", "timescaledb", "ingress"])
def test_a_certificate_is_the_authoritys_for_every_name_and_address_that_clients_use(copy: Path, name: str) -> None:
    checks = [["-verify_hostname", name], ["-verify_hostname", "localhost"], ["-verify_ip", "192.168.1.100"]]
    if name == "ingress":
        rules = [rule for item in of_kind("rke2", "Ingress") for rule in item["spec"]["rules"]]
        checks = [["-verify_hostname", rule["host"]] for rule in rules]
    verify = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", "secrets/ca.pem"]
    for check in checks:
        done = _run(*verify, *check, f"secrets/{name}_keystore.pem", cwd=copy)
        assert done.returncode == 0, done.stdout + done.stderr
    assert (copy / "secrets" / f"{name}_keystore.pem").read_text("utf-8").startswith("-----BEGIN PRIVATE KEY-----")


def test_secrets_stay_when_the_script_runs_again(copy: Path) -> None:
    before = {path.name: path.read_text("utf-8") for path in (copy / "secrets").iterdir() if path.is_file()}
    subprocess.run(["sh", "secrets.sh"], check=True, cwd=copy)
    assert {path.name: path.read_text("utf-8") for path in (copy / "secrets").iterdir() if path.is_file()} == before
    assert len(set(before.values())) == len(before)
    Settings(database_url=before["iot_database_url"].strip(), database_admin_url=before["iot_database_admin_url"].strip())


def test_what_the_operator_gives_the_script_counts_at_any_time_and_a_placeholder_is_told(copy: Path, tmp_path: Path) -> None:
    for name in ("secrets.sh", "openssl.conf"):
        shutil.copyfile(copy / name, tmp_path / name)
    values = {"iot_mqtt_url": "MQTT_URL", "alert_webhook_url": "ALERT_WEBHOOK_URL"}
    before = ""
    for given in ("", "first", "second", ""):
        done = _run("sh", "secrets.sh", cwd=tmp_path, HOST_ADDRESS="192.168.1.100", **dict.fromkeys(values.values(), given))
        assert done.returncode == 0, done.stderr
        before = given or before
        for name, variable in values.items():
            held = (tmp_path / "secrets" / name).read_text("utf-8").strip()
            assert (held == before) == bool(before)
            assert (f"secrets/{name} is a placeholder" in done.stderr, f"{variable}=" in done.stderr) == (not before, not before)


@pytest.mark.parametrize("listed", [(), ("host",), ("cluster", "kafka")], ids=str)
def test_promtool_finds_prometheus_files_valid(copy: Path, tmp_path: Path, listed: tuple[str, ...]) -> None:
    if (promtool := shutil.which("promtool")) is None:
        pytest.skip("no promtool here: .ci/run installs it")
    shutil.copytree(copy / "prometheus", tmp_path / "prometheus")
    targets = tmp_path / "prometheus" / "targets"
    for name in listed:
        shutil.copyfile(targets / f"{name}.example.yml", targets / f"{name}.yml")
    config = tmp_path / "prometheus" / "prometheus.yml"
    text = config.read_text("utf-8").replace("/etc/iot-platform/prometheus", str(tmp_path / "prometheus"))
    text = text.replace("/etc/iot-platform/rules", str(ROOT / "deploy/prometheus/rules")).replace("/run/secrets", str(copy / "secrets"))
    config.write_text(text, "utf-8")
    done = _run(promtool, "check", "config", str(config), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("WARNING") == 3 - len(listed)  # of a file that is not there


def test_targets_are_services_of_the_profile_and_names_of_the_ingress() -> None:
    folder = FOLDER / "prometheus" / "targets"
    of = {path.name: yaml.safe_load(path.read_text("utf-8")) for path in folder.glob("*.example.yml")}
    addresses = {name: {target for group in groups for target in group["targets"]} for name, groups in of.items()}
    assert all(SERVICES[target.split(":")[0]]["profiles"] == ["all"] for target in addresses["host.example.yml"])
    assert {SERVICES[target.split(":")[0]].get("profiles") for target in addresses["kafka.example.yml"]} == {None}
    metrics = one("rke2", "Ingress", "metrics")
    assert addresses["cluster.example.yml"] == {f"{rule['host']}:443" for rule in metrics["spec"]["rules"]}
    # Of the daemons, those that there always are, and those that there may be.
    autoscaler = one("rke2", "HorizontalPodAutoscaler", "iot-ingest")["spec"]
    always, perhaps = (
        {target for group in of["cluster.example.yml"] for target in group["targets"] if group["labels"] == {"part": "ingest"} | added}
        for added in ({}, {"added": BY_AUTOSCALER})
    )
    assert always == {f"ingest-{number}.iot.lan:443" for number in range(autoscaler["minReplicas"])}
    assert perhaps == {f"ingest-{number}.iot.lan:443" for number in range(autoscaler["minReplicas"], autoscaler["maxReplicas"])}


def test_no_certificate_is_made_without_the_hosts_address_and_one_for_another_is_told(copy: Path, tmp_path: Path) -> None:
    for name in ("secrets.sh", "openssl.conf"):
        shutil.copyfile(copy / name, tmp_path / name)
    refused = _run("sh", "secrets.sh", cwd=tmp_path)
    assert refused.returncode != 0
    assert "set HOST_ADDRESS first" in refused.stderr
    for address, told in (("192.168.1.100", 0), ("192.168.1.99", 2)):
        (tmp_path / ".env").write_text(f"HOST_ADDRESS={address}\r\n", "utf-8")
        done = _run("sh", "secrets.sh", cwd=tmp_path)
        assert (done.returncode, done.stderr.count(f"is not for {address}: remove it")) == (0, told), done.stderr


def test_a_robots_address_is_taken_at_any_time_and_stays(copy: Path, tmp_path: Path) -> None:
    for name in ("secrets.sh", "openssl.conf"):
        shutil.copyfile(copy / name, tmp_path / name)
    url = "https://oapi.dingtalk.com/robot/send?access_token=t&x=%25"
    for given, held in (("", ""), (url, url), ("", url)):
        done = _run("sh", "secrets.sh", cwd=tmp_path, HOST_ADDRESS="192.168.1.100", DINGTALK_URL=given)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "secrets/robots/dingtalk_url").read_text("utf-8").strip() == held


@pytest.fixture
def bare(copy: Path, tmp_path: Path) -> Path:
    """A folder with a space in its name, in which secrets.sh never ran."""
    folder = tmp_path / "a host"
    folder.mkdir()
    for name in ("secrets.sh", "openssl.conf"):
        shutil.copyfile(copy / name, folder / name)
    (folder / ".env").write_text('HOST_ADDRESS="192.168.1.7"  # of the LAN\nOTHER=1\n', "utf-8")
    return folder


def run_secrets(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = ["sh", str(folder / "secrets.sh")]
    given = {"PATH": os.environ["PATH"], "MQTT_URL": "mqtt://u:p@broker", "ALERT_WEBHOOK_URL": "https://hook"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**given, **environment})


def test_a_password_that_was_made_anew_is_missed_in_its_url(bare: Path) -> None:
    assert run_secrets(bare).stderr == ""
    (bare / "secrets/writer_password").unlink()
    assert "secrets/iot_database_url has another password than writer_password" in run_secrets(bare).stderr
    (bare / "secrets/iot_database_url").unlink()
    assert run_secrets(bare).stderr == ""


def test_no_password_is_made_without_random_numbers(bare: Path) -> None:
    tools = bare / "tools"
    tools.mkdir()
    for name in ("dirname", "mkdir", "chmod", "cat", "tr", "mv", "rm", "sed", "openssl", "grep", "date"):
        (tools / name).symlink_to(str(shutil.which(name)))
    done = subprocess.run(
        [str(shutil.which("sh")), str(bare / "secrets.sh")], capture_output=True, text=True, check=False, env={"PATH": str(tools)}
    )
    assert (done.returncode != 0, "no random numbers" in done.stderr) == (True, True), done.stderr
    assert list((bare / "secrets").iterdir()) == []


@pytest.mark.parametrize("address", ["fd00::1", "host.lan", "192.168.1.7:8080", "192.168.1.0/24"])
def test_what_is_no_address_makes_no_authority(bare: Path, address: str) -> None:
    done = run_secrets(bare, HOST_ADDRESS=address)
    assert (done.returncode, f"HOST_ADDRESS is {address}: an IPv4 address is wanted" in done.stderr) == (1, True), done.stderr
    assert not (bare / "secrets/ca.pem").exists()


def test_a_certificate_that_clients_would_refuse_is_told(bare: Path) -> None:
    assert run_secrets(bare).stderr == ""
    shutil.copytree(bare / "secrets", bare / "before")
    for name in ("ca.pem", "ca.key"):  # a new authority, and the certificates of the one before
        (bare / "secrets" / name).unlink()
    assert run_secrets(bare).stderr.count("is not signed by ca.pem") == 3
    shutil.rmtree(bare / "secrets")
    shutil.copytree(bare / "before", bare / "secrets")
    for name in ("ca.pem", "timescaledb_keystore.pem"):
        (bare / "secrets" / name).unlink()
    conf = (bare / "secrets.sh").read_text("utf-8")
    (bare / "secrets.sh").write_text(conf.replace("-days 3650", "-days 20"), "utf-8")
    assert run_secrets(bare).returncode == 0
    (bare / "secrets.sh").write_text(conf, "utf-8")
    assert "timescaledb_keystore.pem is not signed by ca.pem, or ends within 30 days" in run_secrets(bare).stderr


@pytest.mark.parametrize("page", ["deployment.md", "deployment.zh-CN.md"])
def test_the_pages_say_where_each_value_of_the_clusters_secrets_comes_from(copy: Path, page: str) -> None:
    rows = re.findall(r"^\| (.+?) \| ((?:`[\w-]+`: `.+)) \|$", (ROOT / "docs" / page).read_text("utf-8"), re.M)
    files = {name[1:-1] for name, _ in rows if name.startswith("`")}
    assert files <= {path.name for path in (copy / "secrets").iterdir()}
    shown = {
        (secret, key)
        for _, keys in rows
        for secret, names in re.findall(r"`([\w-]+)`: ([^;]+)", keys)
        for key in re.findall(r"`(.+?)`", names)
    }
    wanted = {
        (item["metadata"]["name"], key) for item in example_secrets() for key, value in item["stringData"].items() if "REPLACE" in value
    }
    assert shown == wanted


def test_every_variable_has_its_line_in_host_env() -> None:
    text = "".join((FOLDER / name).read_text("utf-8") for name in (BASE, SASL, TLS, BACKUP))
    assert set(re.findall(r"(?<!\$)\$\{(\w+)", text)) == set(re.findall(r"^(\w+)=", (FOLDER / "host.env").read_text("utf-8"), re.M))


@EACH
def test_a_service_is_bounded_and_comes_back(name: str) -> None:
    service = SERVICES[name]
    once = service["restart"] == "no"
    assert once or service["restart"] == "unless-stopped"
    assert _bytes(service["mem_limit"]) >= 128 << 20
    assert 0 < float(service["cpus"]) <= 4
    assert service["logging"] == {"driver": "json-file", "options": {"max-size": "20m", "max-file": "5"}}
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert once or {"test", "interval", "timeout", "retries", "start_period"} == service["healthcheck"].keys()
    assert service.get("stop_signal", "SIGTERM") in ("SIGTERM", "SIGINT")
    for limit in service.get("ulimits", {}).values():
        assert limit["soft"] <= limit["hard"]
    assert set(service.get("ulimits", {})) <= {"nofile", "nproc", "memlock"}
    assert not {"network_mode", "privileged", "env_file", "container_name"} & service.keys()


@EACH
def test_an_image_comes_from_the_registry_by_tag_and_may_be_pinned(name: str) -> None:
    registry, _, rest = SERVICES[name]["image"].partition("}/")
    assert registry == "${REGISTRY:-192.168.1.100:8080/rke2"
    path, _, tag = rest.partition(":")
    assert re.fullmatch(r"[a-z0-9/-]+", path)
    assert re.fullmatch(r"(\$\{IOT_TAG:-0\.1\.0\}|v?\d+\.\d+\.\d+(-pg17)?)\$\{[A-Z_]+_DIGEST:-\}", tag)


@EACH
def test_what_it_waits_for_can_come_true(name: str) -> None:
    service = SERVICES[name]
    for other, how in service.get("depends_on", {}).items():
        awaited = SERVICES[other]
        assert set(awaited.get("profiles", [])) <= set(service.get("profiles", []))
        assert (how["condition"] == "service_completed_successfully") == (awaited["restart"] == "no")
        assert how["condition"] in ("service_completed_successfully", "service_healthy")
    assert set(service.get("profiles", [])) <= {"all", "robots"}


@EACH
def test_what_it_mounts_is_there(name: str) -> None:
    service = SERVICES[name]
    for volume in service.get("volumes", []):
        source, target, *how = volume.split(":")
        assert target.startswith("/")
        if source == "/":  # of the host, whose disks it looks at
            assert (name, how) == ("node-exporter", ["ro"])
            continue
        made = source == "./secrets/robots"  # by secrets.sh
        assert made or (FOLDER / source).exists() if source.startswith(".") else source in ALL["volumes"]
        assert how in ([], ["ro"])
        assert how == ["ro"] or not source.startswith(".")
    for mount in service.get("tmpfs", []):
        assert re.fullmatch(r"/\w+:size=\d+m,mode=1777", mount)


@EACH
def test_its_settings_are_ours_and_no_password_is_among_them(name: str) -> None:
    environment = SERVICES[name].get("environment", {})
    ours = {key for key in environment if key.startswith("IOT_") and not key.startswith("IOT_GRAFANA_")}
    assert ours <= known()
    assert {key.upper() for key in SERVICES[name].get("secrets", []) if key.startswith("iot_")} <= known()
    assert all(isinstance(value, str) for value in environment.values())
    open_ones = [key for key in environment if re.search("PASSWORD|SECRET|TOKEN", key) and not key.endswith("_FILE")]
    assert [key for key in open_ones if key != "IOT_SECRETS_DIR"] == []
    assert [value for value in environment.values() if "$" in value and not value.startswith(("${HOST_ADDRESS", "${BACKUP_"))] == []


def test_ports_are_published_once_and_only_what_the_firewall_lets_in_to_the_lan() -> None:
    ports = [port.rsplit(":", 2) for service in SERVICES.values() for port in service.get("ports", [])]
    assert len({published for _, published, _ in ports}) == len(ports)
    assert {published for address, published, _ in ports if address == "${HOST_ADDRESS}"} == LAN_PORTS
    assert {address for address, published, _ in ports if published not in LAN_PORTS} == {"127.0.0.1"}


def test_the_firewall_lets_in_what_is_published_and_harbor() -> None:
    opened = re.search(r"\$services = \[ordered\]@\{(.*)\}", (FOLDER / "firewall.ps1").read_text("utf-8"))
    assert opened is not None
    services = dict(re.findall(r"'(\w+)' = (\d+)", opened[1]))
    assert set(services.values()) == LAN_PORTS | {"8080"}
    for page in ("deployment.md", "deployment.zh-CN.md"):
        text = (ROOT / "docs" / page).read_text("utf-8")
        assert all(f"{name} {port}" in text for name, port in services.items())


def test_the_pages_show_the_memory_and_the_processors_of_each_service() -> None:
    for page in ("deployment.md", "deployment.zh-CN.md"):
        text = (ROOT / "docs" / page).read_text("utf-8")
        rows = [line.split("|")[1:4] for line in text.splitlines() if line.startswith("| `") and line.count("|") == 6]
        shown = {
            name: (re.search(r"(\d+) ([MG])B", memory), re.search(r"[\d.]+", cpus))
            for row, memory, cpus in rows
            for name in re.findall(r"`([\w-]+)`", row)
        }
        stay = {name: service for name, service in SERVICES.items() if service["restart"] != "no"}
        assert shown.keys() == stay.keys()
        for name, (memory, cpus) in shown.items():
            assert memory is not None
            assert cpus is not None
            assert f"{memory[1]}{memory[2].lower()}" == stay[name]["mem_limit"]
            assert float(cpus[0]) == float(stay[name]["cpus"])


def test_the_memory_fits_into_a_host_of_32_gb() -> None:
    assert sum(_bytes(service["mem_limit"]) for service in SERVICES.values() if service["restart"] != "no") < 20 << 30


def _bytes(text: str) -> int:
    return int(text[:-1]) * UNITS[text[-1]]


def _run(*command: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(cwd), **variables}
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=cwd, env=environment)
