"""What an AdminClient of confluent-kafka 2.16.1 can do to the whole process. Each one ends where a `with` ends, never by the garbage
collector: that may run in the client's own thread, between two of its answers, and librdkafka then aborts (confluent-kafka's own tests met
it: its pull request 2131). None asks for a group's offsets: librdkafka 2.16.0 dies of some answers; a consumer of the group asks.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLACES = ("iot_platform", "ingest_daemon", "iot_platform_tests", "bench")


def clients(source: str) -> Iterator[tuple[int, str]]:
    """Line of each AdminClient that no `with` ends, and what becomes of it. One that is returned, or kept in an object, is the other's."""
    tree = ast.parse(source)
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for call in ast.walk(tree):
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "AdminClient"):
            continue
        parent = parents[call]
        if isinstance(parent, ast.withitem | ast.Return):
            continue
        if isinstance(parent, ast.Assign) and isinstance(parent.targets[0], ast.Attribute):
            continue
        if isinstance(parent, ast.Assign) and isinstance(name := parent.targets[0], ast.Name):
            scope: ast.AST = parent
            while not isinstance(scope, ast.FunctionDef | ast.Module):
                scope = parents[scope]
            ended = (item.context_expr for node in ast.walk(scope) if isinstance(node, ast.With) for item in node.items)
            if any(isinstance(item, ast.Name) and item.id == name.id for item in ended):
                continue
        yield call.lineno, ast.unparse(parent)


def test_every_admin_client_ends_with_its_block() -> None:
    files = [path for place in PLACES for path in sorted((ROOT / place).rglob("*.py"))]
    sources = {path: text for path in files if "AdminClient(" in (text := path.read_text("utf-8"))}
    assert len(sources) > 20
    assert [f"{path.relative_to(ROOT)}:{line}: {text}" for path, source in sources.items() for line, text in clients(source)] == []


@pytest.mark.parametrize(
    "source",
    [
        "admin = AdminClient({})\nadmin.list_topics()",
        "AdminClient({}).list_topics()",
        "def f():\n    admin = AdminClient({})\n\ndef g(admin):\n    with admin:\n        pass",
    ],
)
def test_one_that_does_not_is_seen(source: str) -> None:
    assert len(list(clients(source))) == 1


def test_no_admin_client_asks_for_a_groups_offsets() -> None:
    files = [path for place in PLACES for path in sorted((ROOT / place).rglob("*.py")) if path != Path(__file__)]
    assert [str(path) for path in files if ".list_consumer_group_offsets(" in path.read_text("utf-8")] == []
