"""`python -m ingest_daemon --check`: every broken setting is named, and what was checked is said; never a secret."""

import subprocess
import sys
from pathlib import Path


def test_check_names_options_that_librdkafka_does_not_know(tmp_path: Path) -> None:
    environment = {"IOT_INGEST_KAFKA_OPTIONS": '{"linger.hours": 1}', "IOT_LOCAL_DIR": str(tmp_path), "PATH": ""}
    done = subprocess.run([sys.executable, "-m", "ingest_daemon", "--check"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "IOT_INGEST_KAFKA_OPTIONS" in done.stderr
    assert "linger.hours" in done.stderr


def test_check_prints_every_broken_setting_and_exits_with_2(tmp_path: Path) -> None:
    environment = {"IOT_MQTT_URL": "nonsense", "IOT_INGEST_CLIENT_ID": " ", "IOT_LOCAL_DIR": str(tmp_path), "PATH": ""}
    done = subprocess.run([sys.executable, "-m", "ingest_daemon", "--check"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "IOT_MQTT_URL" in done.stderr
    assert "IOT_INGEST_CLIENT_ID" in done.stderr
    assert "Traceback" not in done.stderr


def test_check_names_a_state_directory_that_cannot_be_written(tmp_path: Path) -> None:
    environment = {"IOT_INGEST_STATE_DIR": "/proc/nowhere", "IOT_LOCAL_DIR": str(tmp_path), "PATH": ""}
    done = subprocess.run([sys.executable, "-m", "ingest_daemon", "--check"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "IOT_INGEST_STATE_DIR" in done.stderr


def test_check_says_what_was_checked(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("hush\n")
    environment = {
        "IOT_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "IOT_KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
        "IOT_KAFKA_SASL_USERNAME": "ingest",
        "IOT_KAFKA_SASL_PASSWORD_FILE": str(tmp_path / "password"),
        "IOT_INGEST_STATE_DIR": str(tmp_path / "state"),
        "IOT_LOCAL_DIR": str(tmp_path),
        "PATH": "",
    }
    command = [sys.executable, "-m", "ingest_daemon", "--check"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for part in ("settings are valid", str(tmp_path / "state"), "SASL_PLAINTEXT to 127.0.0.1:9092 as ingest", "not checked"):
        assert part in done.stdout
    assert "hush" not in done.stdout + done.stderr
    (tmp_path / "password").write_text("")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, "IOT_KAFKA_SASL_PASSWORD_FILE" in done.stderr) == (2, True)
