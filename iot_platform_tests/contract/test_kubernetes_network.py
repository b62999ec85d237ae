"""Who may talk to whom in the cluster: both ends agree, and docs/kubernetes.md has the table."""

import re

import pytest

from iot_platform_tests.support.kubernetes.flows import EVERYBODY, NAME, Flow, flows
from iot_platform_tests.support.kubernetes.manifests import OVERLAYS, ROOT, containers, of_kind, one, templates

EACH = pytest.mark.parametrize("overlay", OVERLAYS)
RUN = "dagster-run"


@EACH
def test_nothing_is_allowed_that_no_policy_names(overlay: str) -> None:
    spec = one(overlay, "NetworkPolicy", "default-deny")["spec"]
    assert spec == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


@EACH
def test_what_may_be_sent_may_be_received(overlay: str) -> None:
    ours = {template["metadata"]["labels"][NAME] for template in templates(overlay).values()} | {RUN}
    sent = {flow for flow in flows(overlay, "egress") if flow.target in ours}
    received = {flow for flow in flows(overlay, "ingress") if flow.source in ours}
    assert sent == received != set()


@EACH
def test_policies_are_of_pods_that_exist(overlay: str) -> None:
    ours = {template["metadata"]["labels"][NAME] for template in templates(overlay).values()} | {RUN, EVERYBODY}
    assert {flow.source for flow in flows(overlay, "egress")} <= ours
    assert {flow.target for flow in flows(overlay, "ingress")} <= ours


@EACH
def test_every_port_is_in_a_policy(overlay: str) -> None:
    served = {
        (template["metadata"]["labels"][NAME], port["containerPort"])
        for template in templates(overlay).values()
        for container in containers(template)
        for port in container.get("ports", [])
    }
    reached = {(flow.target, flow.port) for flow in flows(overlay, "ingress")}
    assert reached <= served
    by_hand = {"rke2": set(), "managed": {("dagster-webserver", 3000)}, "dev": {("dagster-webserver", 3000), ("iot-metrics", 9109)}}
    assert served - reached == by_hand[overlay]  # `kubectl port-forward` comes by the node, which no policy holds up


def test_servers_outside_are_reached_where_they_are() -> None:
    for item in of_kind("rke2", "EndpointSlice"):
        name = item["metadata"]["labels"]["kubernetes.io/service-name"]
        (rule,) = one("rke2", "NetworkPolicy", f"to-{name}")["spec"]["egress"]
        assert [peer["ipBlock"]["cidr"] for peer in rule["to"]] == [
            f"{address}/32" for e in item["endpoints"] for address in e["addresses"]
        ]
        assert [port["port"] for port in rule["ports"]] == [port["port"] for port in item["ports"]]


def test_who_asks_the_api_are_those_with_a_token() -> None:
    asking = {flow.source for flow in flows("rke2", "egress") if flow.target == "kubernetes-api"}
    assert asking == {name for name, template in templates("rke2").items() if template["spec"]["automountServiceAccountToken"]}


@pytest.mark.parametrize("page", ["kubernetes.md", "kubernetes.zh-CN.md"])
def test_the_page_has_the_table(page: str) -> None:
    text = (ROOT / "docs" / page).read_text("utf-8")
    rows = re.findall(r"^\| `([\w-]+)` \| `([\w-]+)` \| ([\d, ]+) \|", text, re.MULTILINE)
    told = {Flow(source, target, int(port)) for source, target, ports in rows for port in ports.split(",")}
    allowed = {flow for direction in ("egress", "ingress") for flow in flows("rke2", direction)}
    assert told == {flow for flow in allowed if flow.source != EVERYBODY}
