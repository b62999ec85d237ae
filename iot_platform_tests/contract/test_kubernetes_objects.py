"""The objects of deploy/kubernetes: valid, and what every version of Kubernetes accepts in silence is not in them."""

import ipaddress
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from dagster_k8s.launcher import K8sRunLauncher
from dagster_postgres import DagsterPostgresStorage

from ingest_daemon.settings import Settings as IngestSettings
from iot_platform.api.server import STOP_SECONDS
from iot_platform.api.state import TENANT_CONNECTIONS
from iot_platform.settings import Settings
from iot_platform.tenants.access import CONNECTIONS
from iot_platform_tests.support.kubernetes.manifests import (
    FOLDER,
    KUBECTL,
    NAMESPACE,
    OVERLAYS,
    ROOT,
    Object,
    containers,
    example_secrets,
    instance,
    objects,
    of_kind,
    one,
    rendered,
    templates,
)
from iot_platform_tests.support.kubernetes.runs import run_job

EACH = pytest.mark.parametrize("overlay", OVERLAYS)
VERSION = "1.36"
CLUSTER_WIDE = {"Namespace", "PriorityClass", "StorageClass"}
RUN = "dagster-run"
NAME = "app.kubernetes.io/name"


def mebibytes(quantity: str) -> int:
    """Of a memory quantity in Mi or Gi, the only units that we write."""
    number, unit = int(quantity[:-2]), quantity[-2:]
    return number * {"Mi": 1, "Gi": 1024}[unit]


usual_run = cache(run_job)


def pods(overlay: str) -> Iterator[tuple[str, Object]]:
    """Every workload's name and pod template, and those of a Dagster run."""
    yield from templates(overlay).items()
    yield RUN, usual_run(overlay)["spec"]["template"]


@EACH
def test_types_and_fields_are_those_of_the_api(overlay: str) -> None:
    for item in objects(overlay):
        kubernetes_validate.validate(item, VERSION, strict=True)


@EACH
def test_every_object_is_in_our_namespace_and_says_whose_it_is(overlay: str) -> None:
    for item in objects(overlay):
        metadata = item["metadata"]
        assert metadata.get("namespace") == (None if item["kind"] in CLUSTER_WIDE else NAMESPACE), metadata
        assert metadata["annotations"]["owner"], metadata


@EACH
def test_images_are_pinned(overlay: str) -> None:
    for name, template in pods(overlay):
        for container in containers(template):
            _, _, tag = container["image"].rpartition("/")[2].partition(":")
            assert tag not in ("", "latest"), (name, container["image"])


@pytest.mark.parametrize("overlay", ["rke2", "managed"])
def test_a_release_sets_the_tag_of_everything_that_is_ours(overlay: str, tmp_path: Path) -> None:
    """Run pods among it. The placeholder is no build's, so an overlay without a release runs nothing."""
    assert {container["image"].rpartition(":")[2] for container in ours(rendered(overlay))} == {"0.1.0"}
    for part in ("deploy", "grafana"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("secrets", "dist"))
    program = [sys.executable, tmp_path / "deploy/argocd/release.py", "--overlay", overlay]
    refused = subprocess.run([*program, "latest"], capture_output=True, text=True, check=False)
    assert (refused.returncode, "not a tag for a release" in refused.stderr) == (1, True)
    subprocess.run([*program, "0123456789e1"], check=True)
    command = [KUBECTL, "kustomize", tmp_path / "deploy/kubernetes/overlays" / overlay]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert {container["image"].rpartition(":")[2] for container in ours(text)} == {"0123456789e1"}
    assert re.findall(r"name: DAGSTER_CURRENT_IMAGE\n\s+value: \S+:(\S+)", text) == ["0123456789e1"]


def ours(text: str) -> list[Object]:
    """Containers of our own images."""
    made = [item for item in yaml.safe_load_all(text) if item["kind"] in ("Deployment", "StatefulSet", "Job")]
    found = [container for item in made for container in containers(item["spec"]["template"])]
    return [container for container in found if re.search(r"/iot-(ingest|platform):", container["image"])]


@EACH
def test_run_pods_get_the_code_servers_image(overlay: str) -> None:
    (container,) = templates(overlay)["dagster-code"]["spec"]["containers"]
    assert {"name": "DAGSTER_CURRENT_IMAGE", "value": container["image"]} in container["env"]


@EACH
def test_run_pods_get_the_settings_that_the_others_have(overlay: str) -> None:
    """The names' hashes change with the content; dagster.yaml has them from variables."""
    for name in ("dagster-daemon", "dagster-webserver"):
        (container,) = templates(overlay)[name]["spec"]["containers"]
        told = [variable["value"] for variable in container["env"] if variable["name"].startswith("RUN_")]
        assert told == [source["configMapRef"]["name"] for source in container["envFrom"] if "configMapRef" in source]
        assert [{"env": variable["name"]} for variable in container["env"]] == instance(overlay)["run_launcher"]["config"][
            "env_config_maps"
        ]


@EACH
def test_nothing_runs_as_root_or_may_become_it(overlay: str) -> None:
    for name, template in pods(overlay):
        spec = template["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] >= 100, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in containers(template):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name


@EACH
def test_every_container_has_requests_and_limits(overlay: str) -> None:
    for name, template in pods(overlay):
        for container in containers(template):
            requests, limits = container["resources"]["requests"], container["resources"]["limits"]
            assert {*requests} == {*limits} == {"cpu", "memory"}, name
            assert mebibytes(requests["memory"]) <= mebibytes(limits["memory"]), name


def test_the_ingest_daemon_has_the_size_of_the_plan() -> None:
    (container,) = templates("rke2")["iot-ingest"]["spec"]["containers"]
    assert container["resources"] == {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "200m", "memory": "256Mi"}}


@EACH
def test_every_server_has_probes(overlay: str) -> None:
    for item in of_kind(overlay, "Deployment", "StatefulSet"):
        (container,) = item["spec"]["template"]["spec"]["containers"]
        wanted = {"startupProbe", "livenessProbe"} | ({"readinessProbe"} if container.get("ports") else set())
        assert {key for key in container if key.endswith("Probe")} == wanted, item["metadata"]["name"]


@EACH
def test_tokens_are_only_where_the_api_is_asked(overlay: str) -> None:
    holders = {name for name, template in pods(overlay) if template["spec"]["automountServiceAccountToken"]}
    assert holders == {"dagster-daemon", "dagster-webserver"}
    assert all(account["automountServiceAccountToken"] is False for account in of_kind(overlay, "ServiceAccount"))
    bound = [subject["name"] for binding in of_kind(overlay, "RoleBinding") for subject in binding["subjects"]]
    assert {*bound} == holders
    assert of_kind(overlay, "ClusterRole", "ClusterRoleBinding") == []
    assert not any("*" in [*rule["verbs"], *rule["resources"]] for role in of_kind(overlay, "Role") for rule in role["rules"])


@EACH
def test_nothing_grows_or_stays_for_ever(overlay: str) -> None:
    for name, template in pods(overlay):
        for volume in template["spec"]["volumes"]:
            assert "emptyDir" not in volume or volume["emptyDir"]["sizeLimit"], name
            assert "hostPath" not in volume, name
        assert template["spec"]["enableServiceLinks"] is False, name
        assert template["spec"]["priorityClassName"].startswith("iot-"), name
    for job in of_kind(overlay, "Job"):
        assert {"activeDeadlineSeconds", "ttlSecondsAfterFinished", "backoffLimit"} <= {*job["spec"]}


@EACH
def test_there_is_never_more_than_one_dagster_daemon(overlay: str) -> None:
    """A Deployment would make the next one while the last one ends, when a node is drained."""
    assert one(overlay, "StatefulSet", "dagster-daemon")["spec"]["replicas"] == 1


@EACH
def test_several_of_one_are_spread_and_not_all_taken_at_once(overlay: str) -> None:
    budgets = {budget["spec"]["selector"]["matchLabels"][NAME]: budget for budget in of_kind(overlay, "PodDisruptionBudget")}
    several = {"iot-ingest", "dagster-code", "grafana", "iot-console"}
    assert {*budgets} == several  # a budget for one alone would hold up every drain of a node
    for name in several:
        (spread,) = templates(overlay)[name]["spec"]["topologySpreadConstraints"]
        assert spread["nodeTaintsPolicy"] == "Honor", name  # else a tainted node counts as an empty one, and a pod waits for ever
        assert spread["labelSelector"]["matchLabels"] == {NAME: name}
        assert budgets[name]["spec"]["maxUnavailable"] == 1


def test_the_daemon_has_time_to_drain() -> None:
    settings = one("rke2", "ConfigMap", "iot-ingest-settings")["data"]
    grace = templates("rke2")["iot-ingest"]["spec"]["terminationGracePeriodSeconds"]
    assert grace >= float(settings["IOT_INGEST_SHUTDOWN_SECONDS"]) + 30


def test_the_spool_fits_its_volume_and_the_flight_its_memory() -> None:
    settings = one("rke2", "ConfigMap", "iot-ingest-settings")["data"]
    (claim,) = one("rke2", "StatefulSet", "iot-ingest")["spec"]["volumeClaimTemplates"]
    assert int(settings["IOT_INGEST_SPOOL_BYTES"]) * 1.25 <= mebibytes(claim["spec"]["resources"]["requests"]["storage"]) * 2**20
    assert int(settings["IOT_INGEST_IN_FLIGHT_BYTES"]) * 2 <= 64 * 2**20


def test_autoscaling_takes_no_daemon_away_and_owns_their_number() -> None:
    (autoscaler,) = of_kind("rke2", "HorizontalPodAutoscaler")
    assert autoscaler["spec"]["behavior"]["scaleDown"] == {"selectPolicy": "Disabled"}
    assert "replicas" not in one("rke2", "StatefulSet", "iot-ingest")["spec"]


def test_the_daemons_own_metric_is_wanted_where_an_adapter_serves_it() -> None:
    """Elsewhere the autoscaler would lack a metric for ever; `managed` has what every cluster has."""
    metrics = {
        overlay: [m["type"] for m in one(overlay, "HorizontalPodAutoscaler", "iot-ingest")["spec"]["metrics"]]
        for overlay in ("managed", "rke2")
    }
    assert metrics == {"managed": ["Resource"], "rke2": ["Resource", "Pods"]}
    wanted = one("rke2", "HorizontalPodAutoscaler", "iot-ingest")["spec"]["metrics"][1]["pods"]["metric"]["name"]
    exported = re.findall(r'"(messages_in_flight)"', (ROOT / "ingest_daemon/metrics.py").read_text("utf-8"))
    assert [wanted] == [f"iot_ingest_{name}" for name in exported]
    (rule,) = yaml.safe_load((FOLDER / "metrics-adapter/config.yaml").read_text("utf-8"))["rules"]
    assert rule["seriesQuery"] == wanted + '{namespace!="",pod!=""}'


def test_prometheus_names_the_pods_as_they_are_called() -> None:
    """By its own rules, of the addresses that it asks."""
    config = yaml.safe_load((ROOT / "deploy/compose/prometheus/prometheus.yml").read_text("utf-8"))
    (job,) = [job for job in config["scrape_configs"] if job["job_name"] == "iot-cluster"]
    hosts = [rule["host"] for rule in one("rke2", "Ingress", "metrics")["spec"]["rules"]]
    labels = {}
    for host in hosts:
        found = labels[host] = {"__address__": f"{host}:443"}
        for rule in job["relabel_configs"]:
            if matched := re.fullmatch(rule["regex"], ";".join(found.get(name, "") for name in rule["source_labels"])):
                found[rule["target_label"]] = matched.expand(rule["replacement"].replace("$", "\\"))
    paths = [rule["http"]["paths"][0]["backend"]["service"]["name"] for rule in one("rke2", "Ingress", "metrics")["spec"]["rules"]]
    services = dict(zip(hosts, paths, strict=True))
    for host, found in labels.items():
        pod = one("rke2", "Service", services[host])["spec"]["selector"].get("statefulset.kubernetes.io/pod-name")
        assert (found.get("pod"), found.get("namespace")) == ((pod, NAMESPACE) if pod else (None, None))


def test_the_adapter_is_as_the_platforms_own_pods_are() -> None:
    built = subprocess.run([KUBECTL, "kustomize", FOLDER / "metrics-adapter"], capture_output=True, text=True, check=True)
    made = list(yaml.safe_load_all(built.stdout))
    for item in made:
        if item["kind"] != "APIService":  # of another group's schema
            kubernetes_validate.validate(item, VERSION, strict=True)
        assert item["metadata"]["annotations"]["owner"]
    (deployment,) = [item for item in made if item["kind"] == "Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    (usual,) = templates("rke2")["iot-ingest"]["spec"]["containers"]
    assert container["securityContext"] == usual["securityContext"]
    assert {*container["resources"]["requests"]} == {*container["resources"]["limits"]} == {"cpu", "memory"}
    (config,) = [item["metadata"]["name"] for item in made if item["kind"] == "ConfigMap"]
    assert {"name": "config", "configMap": {"name": config}} in deployment["spec"]["template"]["spec"]["volumes"]


def test_every_daemon_that_the_autoscaler_may_make_has_an_address() -> None:
    """Prometheus on the physical host asks each by a name of the Ingress."""
    most = one("rke2", "HorizontalPodAutoscaler", "iot-ingest")["spec"]["maxReplicas"]
    daemons = [f"iot-ingest-{number}" for number in range(most)]
    rules = {rule["host"]: rule["http"]["paths"] for rule in one("rke2", "Ingress", "metrics")["spec"]["rules"]}
    rules.pop("metrics.iot.lan")
    assert [host.partition(".")[0] for host in rules] == [name.removeprefix("iot-") for name in daemons]
    assert [path["backend"]["service"]["name"] for (path,) in rules.values()] == daemons
    for name in daemons:
        selector = one("rke2", "Service", name)["spec"]["selector"]
        assert selector == {NAME: "iot-ingest", "statefulset.kubernetes.io/pod-name": name}
    others = {item["metadata"]["name"] for item in of_kind("rke2", "Service") if item["metadata"]["name"].startswith("iot-ingest-")}
    assert others == {*daemons}


@EACH
def test_an_external_name_is_a_name(overlay: str) -> None:
    for service in of_kind(overlay, "Service"):
        if name := service["spec"].get("externalName"):
            with pytest.raises(ValueError, match="does not appear to be"):
                ipaddress.ip_address(name)
            assert re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", name)


@EACH
def test_endpoint_slices_belong_to_a_service_without_a_selector(overlay: str) -> None:
    slices = of_kind(overlay, "EndpointSlice")
    bare = [s for s in of_kind(overlay, "Service") if "selector" not in s["spec"] and "externalName" not in s["spec"]]
    assert {item["metadata"]["labels"]["kubernetes.io/service-name"] for item in slices} == {s["metadata"]["name"] for s in bare}
    for item in slices:
        assert "controller" not in item["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"]
        (service,) = [s for s in bare if s["metadata"]["name"] == item["metadata"]["labels"]["kubernetes.io/service-name"]]
        shown = [(port["name"], port["port"]) for port in service["spec"]["ports"]]
        assert shown == [(port["name"], port["port"]) for port in item["ports"]]


@EACH
def test_every_service_and_ingress_leads_to_a_port(overlay: str) -> None:
    ports = {
        (template["metadata"]["labels"][NAME], port["name"])
        for _, template in pods(overlay)
        for container in containers(template)
        for port in container.get("ports", [])
    }
    services = {}
    for service in of_kind(overlay, "Service"):
        if selector := service["spec"].get("selector"):
            services[service["metadata"]["name"]] = {port["name"] for port in service["spec"]["ports"]}
            assert {(selector[NAME], port["targetPort"]) for port in service["spec"]["ports"]} <= ports
    for ingress in of_kind(overlay, "Ingress"):
        assert {host for entry in ingress["spec"]["tls"] for host in entry["hosts"]} == {rule["host"] for rule in ingress["spec"]["rules"]}
        for rule in ingress["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                backend = path["backend"]["service"]
                assert backend["port"]["name"] in services[backend["name"]]
                asks = any("auth-" in key for key in ingress["metadata"]["annotations"])
                assert backend["name"] != "dagster-webserver" or asks, "Dagster's UI has no login"


@EACH
def test_secrets_that_are_named_are_those_of_the_example(overlay: str) -> None:
    named = set()
    for _, template in pods(overlay):
        named |= {volume["secret"]["secretName"] for volume in template["spec"]["volumes"] if "secret" in volume}
        named |= {source["secretRef"]["name"] for c in containers(template) for source in c.get("envFrom", []) if "secretRef" in source}
    launcher = instance(overlay)["run_launcher"]["config"]
    named |= {*launcher["env_secrets"]} | {v["secret"]["secret_name"] for v in launcher["volumes"] if "secret" in v}
    named |= {i["metadata"]["annotations"].get("nginx.ingress.kubernetes.io/auth-secret") for i in of_kind(overlay, "Ingress")} - {None}
    certificates = {tls["secretName"] for ingress in of_kind(overlay, "Ingress") for tls in ingress["spec"]["tls"]}
    example = {secret["metadata"]["name"]: secret for secret in example_secrets()}
    assert named | certificates <= {*example}
    assert overlay != "rke2" or named | certificates == {*example}
    made = {re.sub(r"-[a-z0-9]{10}$", "", s["metadata"]["name"]) for s in of_kind(overlay, "Secret")}
    assert made == (named if overlay == "dev" else set())


@pytest.mark.parametrize("overlay", ["rke2", "managed"])
def test_no_password_stands_in_an_object(overlay: str) -> None:
    text = rendered(overlay)
    assert not re.search(r"(password|secret_key)\s*[:=]\s*(?![/$])[^\s{]", text, re.IGNORECASE)
    assert not re.search(r"//[^/\s:]+:[^/\s@]+@", text)
    assert of_kind(overlay, "Secret") == []
    assert all(
        "REPLACE" in value for secret in example_secrets() for key, value in secret["stringData"].items() if "password" in key.lower()
    )


@EACH
def test_settings_are_settings_and_fit_together(overlay: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """Both programs take what their containers would have, files apart, which lie elsewhere here."""
    file = tmp_path / "file"
    file.write_text("secret", "ascii")
    for program, name in ((IngestSettings, "iot-ingest-settings"), (Settings, "iot-platform-settings")):
        data = one(overlay, "ConfigMap", "iot-settings")["data"] | one(overlay, "ConfigMap", name)["data"]
        for variable, value in data.items():
            if variable.startswith("IOT_"):
                assert f"#{variable}=" in (ROOT / ".env.example").read_text("utf-8"), variable
                monkeypatch.setenv(variable, str(file) if variable.endswith("_FILE") else value)
        assert str(program().kafka_bootstrap_servers)
        for variable in data:
            monkeypatch.delenv(variable, raising=False)


@EACH
def test_dagster_is_set_up_as_elsewhere_but_for_its_runs(overlay: str) -> None:
    elsewhere = yaml.safe_load((ROOT / "deploy/dagster/dagster.yaml").read_text("utf-8"))
    here = instance(overlay)
    launcher, monitoring = here.pop("run_launcher"), here.pop("run_monitoring")
    assert issubclass(getattr(import_module(launcher["module"]), launcher["class"]), K8sRunLauncher)
    assert monitoring == elsewhere.pop("run_monitoring") | {"start_timeout_seconds": 180, "max_resume_run_attempts": 0}
    assert here.pop("concurrency") == elsewhere.pop("concurrency") | {
        "runs": {"max_concurrent_runs": 3},
    }
    assert here == elsewhere
    migrating = yaml.safe_load(one(overlay, "ConfigMap", "dagster-storage")["data"]["dagster.yaml"])
    storage = migrating["storage"]["custom"]
    assert migrating["storage"] == here["storage"]
    assert storage["config"] == {"postgres_url": {"env": "IOT_DAGSTER_STORAGE_URL"}}
    assert issubclass(getattr(import_module(storage["module"]), storage["class"]), DagsterPostgresStorage)


def test_a_runs_tags_choose_its_size_and_no_more() -> None:
    tags = {"dagster-k8s/config": '{"container_config": {"resources": {"limits": {"memory": "1Gi"}}}}'}
    (container,) = run_job("rke2", tags)["spec"]["template"]["spec"]["containers"]
    assert container["resources"] == {"requests": {"cpu": "200m", "memory": "384Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}}
    with pytest.raises(Exception, match=r"violated the allowed list: pod_spec_config\.security_context"):
        run_job("rke2", {"dagster-k8s/config": '{"pod_spec_config": {"security_context": {"run_as_non_root": false}}}'})


def test_a_run_is_a_valid_job_that_ends_and_goes() -> None:
    job = run_job("rke2")
    kubernetes_validate.validate(job, VERSION, strict=True)
    assert (job["spec"]["backoffLimit"], job["spec"]["ttlSecondsAfterFinished"]) == (0, 3600)
    assert job["spec"]["activeDeadlineSeconds"] > 0
    assert job["metadata"]["annotations"]["owner"]
    assert job["spec"]["template"]["metadata"]["labels"][NAME] == RUN


def test_runs_fit_beside_everything_else() -> None:
    """Of memory that is asked for: two workers less their system's tenth and 700 MiB of what a cluster brings itself."""
    asked = {
        name: sum(mebibytes(c["resources"]["requests"]["memory"]) for c in template["spec"]["containers"])
        for name, template in pods("rke2")
    }
    most = one("rke2", "HorizontalPodAutoscaler", "iot-ingest")["spec"]["maxReplicas"]
    number = {item["metadata"]["name"]: item["spec"].get("replicas", most) for item in of_kind("rke2", "Deployment", "StatefulSet")}
    standing = sum(asked[name] * count for name, count in number.items())
    runs = instance()["concurrency"]["runs"]["max_concurrent_runs"] + 2  # two shifts of a shard
    assert standing + runs * asked[RUN] <= 2 * (4096 * 9 // 10 - 700)


def test_a_rolled_console_leaves_every_tenant_connections() -> None:
    """Its login has 10; a roll runs one pod more, and as many may be ending."""
    spec = one("rke2", "Deployment", "iot-console")["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert (2 * spec["replicas"] + 1) * TENANT_CONNECTIONS <= CONNECTIONS
    (container,) = spec["template"]["spec"]["containers"]
    slept = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert slept + STOP_SECONDS + 5 < spec["template"]["spec"]["terminationGracePeriodSeconds"]


@EACH
def test_the_console_takes_its_settings(overlay: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no rights of others: not the writer's database, not Kafka's password."""
    (container,) = templates(overlay)["iot-console"]["spec"]["containers"]
    sources = [next(iter(source.values()))["name"] for source in container["envFrom"]]
    assert [name.partition("-settings")[0] for name in sources] == ["iot-console", "iot-console"]
    for variable, value in one(overlay, "ConfigMap", "iot-console-settings")["data"].items():
        if variable.startswith("IOT_"):
            assert f"#{variable}=" in (ROOT / ".env.example").read_text("utf-8"), variable
            monkeypatch.setenv(variable, value)
    settings = Settings()
    assert ("", settings.console_port) == (settings.console_host.strip("0."), container["ports"][0]["containerPort"])
    assert all(ipaddress.ip_network(proxy).is_private or proxy == "100.64.0.0/10" for proxy in settings.console_proxies.split(","))
    ingress = one(overlay, "Ingress", "iot-console")
    hosts = {f"https://{rule['host']}" for rule in ingress["spec"]["rules"]}
    assert overlay == "dev" or {settings.console_url} == hosts
    assert overlay != "rke2" or ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-buffering"] == "off"


def test_the_namespace_takes_restricted_pods_only() -> None:
    (namespace,) = of_kind("rke2", "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_every_file_is_used() -> None:
    """Of base and components, by a kustomization; what is not named there is not applied."""
    for kustomization in FOLDER.rglob("kustomization.yaml"):
        text = kustomization.read_text("utf-8")
        for path in kustomization.parent.rglob("*"):
            if path.is_file() and path != kustomization:
                assert str(path.relative_to(kustomization.parent)) in text, path
