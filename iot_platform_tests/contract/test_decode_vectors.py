"""The binding cases of the decode contract, through `iot decode` and the decoder that the drain uses."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

VECTORS = Path(__file__).parent / "vectors.jsonl"
CASES: list[dict[str, Any]] = [json.loads(line) for line in VECTORS.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def answers() -> dict[str, Any]:
    command = [sys.executable, "-m", "iot_platform.cli.main", "decode"]
    done = subprocess.run(command, input=VECTORS.read_bytes(), capture_output=True, check=True, timeout=120)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["name"] for line in lines] == [case["name"] for case in CASES]
    return {line.pop("name"): line for line in lines}


def canonical(outcome: dict[str, Any]) -> str:
    """repr tells -0.0 from 0.0, and 1 from 1.0, which == does not; keys in any order."""
    return repr(
        [
            sorted((key, value) for key, value in outcome.items() if key != "measurements"),
            [sorted(item.items()) for item in outcome.get("measurements", [])],
        ]
    )


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_decode_answers_as_the_contract_says(case: dict[str, Any], answers: dict[str, Any]) -> None:
    assert canonical(answers[case["name"]]) == canonical(case["expect"])
