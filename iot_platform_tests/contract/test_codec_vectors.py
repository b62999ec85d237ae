"""The cases of every codec, with bytes of real encoders among them, through what `iot decode` does. Each case names its codecs."""

import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from iot_platform.cli.decode import _answers, _case
from iot_platform.settings import Settings
from iot_platform.telemetry.decode import Decoder, DecodeRules
from iot_platform_tests.contract.test_decode_vectors import canonical

FILES = sorted(Path(__file__).parent.glob("codec_vectors*.jsonl"))
CASES: list[dict[str, Any]] = [json.loads(line) for file in FILES for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def answers() -> dict[str, Any]:
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for case in CASES:
        groups[json.dumps(case["codecs"])].append(case)
    found = {}
    for codecs, cases in groups.items():
        decoder = Decoder(DecodeRules.from_settings(Settings(topic_codecs=json.loads(codecs))))
        for line in _answers(decoder, [_case(json.dumps(case).encode()) for case in cases], details=False):
            answer = json.loads(line)
            found[answer.pop("name")] = answer
    return found


def test_names_are_unique() -> None:
    assert len({case["name"] for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_codec_answers_as_the_contract_says(case: dict[str, Any], answers: dict[str, Any]) -> None:
    assert canonical(answers[case["name"]]) == canonical(case["expect"])


def test_iot_decode_takes_the_codec_from_the_topic() -> None:
    case = next(case for case in CASES if case["name"] == "auto: CBOR in gzip")
    environment = {**os.environ, "IOT_TOPIC_CODECS": json.dumps(case["codecs"])}
    command = [sys.executable, "-m", "iot_platform.cli.main", "decode"]
    done = subprocess.run(command, input=json.dumps(case).encode(), capture_output=True, check=True, timeout=120, env=environment)
    answer = json.loads(done.stdout)
    assert answer.pop("name") == case["name"]
    assert canonical(answer) == canonical(case["expect"])
