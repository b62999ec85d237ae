"""Who may talk to whom, as the NetworkPolicies of an overlay say it."""

from collections.abc import Iterator
from typing import NamedTuple

from iot_platform_tests.support.kubernetes.manifests import Object, of_kind

NAME = "app.kubernetes.io/name"
EVERYBODY = "every pod"


class Flow(NamedTuple):
    """Who connects to whom, at which port; for DNS the UDP port is meant, too."""

    source: str
    target: str
    port: int


def flows(overlay: str, direction: str) -> set[Flow]:
    """All that policies of this direction (`ingress`, `egress`) allow. Who is not a pod of ours has the name of its namespace, or that of
    the policy without to-."""
    found = set()
    for policy in of_kind(overlay, "NetworkPolicy"):
        for rule in policy["spec"].get(direction, []):
            ours = _names(policy["spec"]["podSelector"])
            peers = rule.get("from", rule.get("to"))
            others = (
                [policy["metadata"]["name"].removeprefix("to-")]
                if peers is None
                else [name for peer in peers for name in _peer(peer, policy["metadata"]["name"])]
            )
            for port in rule["ports"]:
                for one in ours:
                    for other in others:
                        found.add(Flow(one, other, port["port"]) if direction == "egress" else Flow(other, one, port["port"]))
    return found


def _peer(peer: Object, policy: str) -> Iterator[str]:
    if "ipBlock" in peer:
        yield policy.removeprefix("to-")
    elif "namespaceSelector" in peer:
        namespace = peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
        pods = peer.get("podSelector", {}).get("matchLabels", {})
        yield pods.get("k8s-app", namespace)
    else:
        yield from _names(peer["podSelector"])


def _names(selector: Object) -> list[str]:
    """The names that a selector of pods takes."""
    if not selector:
        return [EVERYBODY]
    if "matchLabels" in selector:
        return [selector["matchLabels"][NAME]]
    (expression,) = selector["matchExpressions"]
    assert (expression["key"], expression["operator"]) == (NAME, "In")
    return list(expression["values"])
