"""deploy/secrets: what is encrypted, who can read it, and what is noticed; by the real sops, with keys that only these tests have."""

import os
import re
import subprocess
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import yaml

from iot_platform_tests.support.deploy import tools
from iot_platform_tests.support.deploy.tools import CHECKOUT

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(1800)]  # building sops: six minutes of processor time, once
EXAMPLE = """# What the pods read.
apiVersion: v1
kind: Secret
metadata:
  name: iot-ingest
  namespace: iot
stringData:
  mqtt.password: "0644"
  kafka.password: "pa$word: \\"1.10\\""
  ca.pem: |
    -----BEGIN CERTIFICATE-----
    MIIB
    -----END CERTIFICATE-----
---
apiVersion: v1
kind: Secret
metadata:
  name: iot-database
  namespace: iot
stringData:
  IOT_DATABASE_URL: "postgresql://iot_writer:secret@timescaledb:5432/iot?sslmode=verify-full"
"""


@dataclass(frozen=True)
class Sops:
    """The program in a folder with the rules, and three keys: an operator's, the backup's, a stranger's."""

    program: Path
    folder: Path
    keys: dict[str, Path]

    def __call__(self, *arguments: str, key: str = "operator", fails: bool = False) -> str:
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "SOPS_AGE_KEY_FILE": str(self.keys[key])}
        command = [self.program, "--disable-version-check", *arguments]
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode != 0) is fails, done.stdout + done.stderr
        return done.stderr if fails else done.stdout


@pytest.fixture
def sops(tmp_path: Path) -> Sops:
    program = tools.installed(tools.sops, tmp_path / "install.log")
    keygen = tools.installed(partial(tools.go_program, "filippo.io/age/cmd/age-keygen", "v1.3.1"), tmp_path / "install.log")
    rules = (CHECKOUT / "deploy/secrets/.sops.yaml").read_text("utf-8")
    keys = {}
    for name in ("operator", "backup", "stranger"):
        keys[name] = tmp_path / f"{name}.txt"
        subprocess.run([keygen, "-o", keys[name]], check=True, capture_output=True)
        public = subprocess.run([keygen, "-y", keys[name]], check=True, capture_output=True, text=True).stdout.strip()
        rules = rules.replace(f"age1REPLACE-{name}", public)
    (tmp_path / ".sops.yaml").write_text(rules, "utf-8")
    (tmp_path / "clear.yaml").write_text(EXAMPLE, "utf-8")
    return Sops(program, tmp_path, keys)


def encrypted(sops: Sops) -> Path:
    file = sops.folder / "rke2.sops.yaml"
    file.write_text(sops("encrypt", "--filename-override", "rke2.sops.yaml", "clear.yaml"), "utf-8")
    return file


def test_either_key_reads_what_went_in(sops: Sops) -> None:
    file = encrypted(sops)
    for key in ("operator", "backup"):
        assert list(yaml.safe_load_all(sops("decrypt", file.name, key=key))) == list(yaml.safe_load_all(EXAMPLE))
    sops("decrypt", file.name, key="stranger", fails=True)


def test_values_are_hidden_and_names_are_not(sops: Sops) -> None:
    text = encrypted(sops).read_text("utf-8")
    for item in yaml.safe_load_all(text):
        assert all(value.startswith("ENC[AES256_GCM,") for value in item["stringData"].values())
    assert {item["metadata"]["name"] for item in yaml.safe_load_all(text)} == {"iot-ingest", "iot-database"}
    assert not re.search("0644|1\\.10|MIIB|iot_writer", text)


def test_a_change_by_hand_is_noticed(sops: Sops) -> None:
    file = encrypted(sops)
    file.write_text(file.read_text("utf-8").replace("name: iot-ingest", "name: iot-other"), "utf-8")
    assert "MAC mismatch" in sops("decrypt", file.name, fails=True)


def test_a_new_value_leaves_the_others_as_they_are(sops: Sops) -> None:
    file = encrypted(sops)
    before = file.read_text("utf-8").splitlines()
    sops("set", file.name, '["stringData"]["mqtt.password"]', '"new"')
    after = file.read_text("utf-8").splitlines()
    changed = {line.strip().partition(":")[0] for line in set(before) ^ set(after)}
    assert changed <= {"mqtt.password", "lastmodified", "mac"}
    assert next(yaml.safe_load_all(sops("decrypt", file.name)))["stringData"]["mqtt.password"] == "new"


def test_a_file_of_another_name_is_refused(sops: Sops) -> None:
    assert "no matching creation rules" in sops("encrypt", "clear.yaml", fails=True)


def test_without_keys_of_your_own_nothing_is_encrypted(sops: Sops) -> None:
    (sops.folder / ".sops.yaml").write_bytes((CHECKOUT / "deploy/secrets/.sops.yaml").read_bytes())
    sops("encrypt", "--filename-override", "rke2.sops.yaml", "clear.yaml", fails=True)


def test_every_secret_of_the_cluster_can_be_kept_so(sops: Sops) -> None:
    example = CHECKOUT / "deploy/kubernetes/secrets.example.yaml"
    if not example.exists():
        pytest.skip("not run: deploy/kubernetes is not here")
    (sops.folder / "clear.yaml").write_bytes(example.read_bytes())
    assert list(yaml.safe_load_all(sops("decrypt", encrypted(sops).name))) == list(yaml.safe_load_all(example.read_text("utf-8")))
