"""Requests made up from the API's own description, right and wrong ones: no answer is a 500, and each is as described."""

import subprocess
import sys
from pathlib import Path

import pytest

from iot_platform_tests.support.feeds.tenants import OWN
from iot_platform_tests.support.servers.console import Console
from scripts.openapi import TARGET

pytestmark = pytest.mark.api

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,negative_data_rejection"


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("who", ["key", "boss"])
def test_every_answer_is_as_described(console: Console, tmp_path: Path, who: str) -> None:
    if who == "key":
        headers = {"Authorization": f"Bearer {console.key}"}
    else:
        browser = console.browser("boss")
        headers = {"Cookie": f"iot_session={browser.cookies['iot_session']}", "X-CSRF-Token": browser.csrf}
    config = tmp_path / "schemathesis.toml"
    config.write_text(f'[parameters]\ntenant = "{OWN}"\nproject = "plant-0"\n')
    command = [str(Path(sys.executable).parent / "schemathesis"), "--config-file", str(config), "run", str(TARGET)]
    command += ["--url", f"http://127.0.0.1:{console.port}", "--checks", CHECKS, "--max-examples", "20", "--seed", "1", "--no-color"]
    command += ["--phases", "examples,coverage,fuzzing", "--generation-database", "none"]
    # Logging out would end the session that the rest needs.
    command += ["--exclude-path", "/api/v1/session"] if who == "boss" else []
    for name, value in headers.items():
        command += ["-H", f"{name}: {value}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[done.stdout.find("FAILURES") :]
