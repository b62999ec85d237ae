"""What Grafana shows of a query's result: its own packages (`@grafana/data`, three modules of `@grafana/scenes`), run by Node.

The packages are pinned in grafana_display/package-lock.json and bundled once into a file of the cache. What Grafana's server does between
database and browser (types of columns, the wide form of time series) is written anew here, after its PostgreSQL data source.
"""

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Protocol

import pytest

from iot_platform.local.install import install_packages, run_logged
from iot_platform.settings import Settings
from iot_platform_tests.support import npm

FOLDER: Final = Path(__file__).parent / "grafana_display"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TYPES: Final = {16: "boolean", 20: "number", 21: "number", 23: "number", 700: "number", 701: "number", 1700: "number", 1184: "time"}
"""Grafana's field type by PostgreSQL's type; everything else is text."""


class Answer(Protocol):
    """What a data source answered to the queries of a panel."""

    def frames(self, panel: dict[str, Any]) -> list[dict[str, Any]]:
        """As the data source hands it to the panel, as JSON."""


@dataclass(frozen=True)
class Result:
    """A query's rows, and the names and PostgreSQL types of its columns."""

    names: list[str]
    types: list[int]
    rows: list[tuple[Any, ...]]

    def kind(self, column: int) -> str:
        """Grafana's type of a column."""
        return _TYPES.get(self.types[column], "string")

    def frames(self, panel: dict[str, Any]) -> list[dict[str, Any]]:
        """See Answer."""
        return [_frame(panel, self)]


@dataclass(frozen=True)
class Shown:
    """One column of a panel: its name on the screen, its type, and of each row the text and the addresses of its links."""

    name: str
    type: str
    unit: str | None
    shown: list[str]
    links: list[list[str]]


@dataclass(frozen=True)
class Display:
    """A panel: its columns or lines, and (stat) its figures by title."""

    fields: list[Shown]
    figures: dict[str, str]


@dataclass(frozen=True)
class Grafana:
    """Grafana's code, ready to run."""

    bundle: Path

    def show(self, panels: Sequence[tuple[dict[str, Any], Answer]]) -> list[Display]:
        """Each panel with the answer to its queries."""
        asked = [{"panel": panel, "frames": answer.frames(panel)} for panel, answer in panels]
        found = self._run({"panels": asked, "formats": []})["panels"]
        return [
            Display([Shown(**field) for field in item["fields"]], {one.get("title", ""): one["text"] for one in item["figures"] or ()})
            for item in found
        ]

    def formats(self, values: Sequence[tuple[str, str | list[str]]]) -> list[str]:
        """Values of variables, each in the format of that name (`sqlstring`)."""
        return list(self._run({"panels": [], "formats": list(values)})["formats"])

    def _run(self, asked: dict[str, Any]) -> dict[str, Any]:
        command = ["node", "--no-warnings", str(FOLDER / "display.mjs"), str(self.bundle)]
        done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        assert isinstance(answer, dict)
        return answer


@pytest.fixture(scope="session")
def grafana_display(tmp_path_factory: pytest.TempPathFactory) -> Grafana:
    """Grafana's code, bundled once for all test runs of this user."""
    return Grafana(_bundle(Settings().cache_dir, tmp_path_factory.mktemp("grafana") / "install.log"))


def _bundle(cache_dir: Path, log: Path) -> Path:
    sources = [FOLDER / name for name in ("package.json", "package-lock.json", "grafana.js", "i18n.js")]
    version = sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    target = cache_dir / f"grafana-display-{version}"
    install_packages(npm.missing(target, "runs Grafana's own code in tests"), log, lambda _: None)

    def bundle(new: Path) -> None:
        command = [str(new / "node_modules" / ".bin" / "esbuild"), str(new / "grafana.js"), f"--outfile={new / 'grafana.mjs'}"]
        options = ["--bundle", "--platform=node", "--format=esm", "--main-fields=module,main", "--log-level=warning"]
        options.append(f"--alias:@grafana/i18n={new / 'i18n.js'}")
        run_logged([*command, *options], log, lambda _: None, what="esbuild")
        shutil.rmtree(new / "node_modules")  # hundreds of MB for one file

    # No peers: scenes would bring Grafana's whole user interface.
    return npm.installed(sources, target, log, lambda _: None, "--legacy-peer-deps", then=bundle) / "grafana.mjs"


def _frame(panel: dict[str, Any], result: Result) -> dict[str, Any]:
    """As the data source's answer holds it."""
    names, kinds = list(result.names), [result.kind(column) for column in range(len(result.names))]
    columns = [[_value(row[column]) for row in result.rows] for column in range(len(names))]
    if panel["targets"][0]["format"] == "time_series":
        names, kinds, columns = _wide(names, kinds, columns)
    fields = [{"name": name, "type": kind, "config": {}} for name, kind in zip(names, kinds, strict=True)]
    return {"schema": {"refId": "A", "fields": fields}, "data": {"values": columns}}


def _wide(names: list[str], kinds: list[str], columns: list[list[Any]]) -> tuple[list[str], list[str], list[list[Any]]]:
    """Long rows (time, metric, value) as one field for each metric, named by it; other results only get a field named Time."""
    if "metric" not in names:
        return ["Time" if name == "time" else name for name in names], kinds, columns
    times, metrics, values = (columns[names.index(name)] for name in ("time", "metric", "value"))
    moments, lines = sorted(set(times)), sorted(set(metrics))
    found = dict(zip(zip(times, metrics, strict=True), values, strict=True))
    wide = [[found.get((moment, line)) for moment in moments] for line in lines]
    return ["Time", *lines], ["time", *("number" for _ in lines)], [list(moments), *wide]


def _value(value: Any) -> Any:
    if isinstance(value, datetime):
        return (value - _EPOCH) // timedelta(milliseconds=1)
    return float(value) if isinstance(value, Decimal) else value
