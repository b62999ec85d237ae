"""`iot support-bundle` as a person runs it: secrets and payloads planted everywhere are in no file of the archive, and what helps is."""

import base64
import json
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from iot_platform.settings import Settings, exports
from iot_platform_tests.support.feeds.drain import Feed, drain

AWKWARD = "p@ss/w+rd=ü"
_PLACES = [
    "environment", "sasl", "url", "query", "dotenv", "mounted", "login", "file",
    "log", "json", "conf", "sql", "payload", "text", "conflict",
]  # fmt: skip
SECRETS = {name: f"planted-{name}-{number * 7919:x}" for number, name in enumerate(_PLACES, 11)}
KEY_LINE = base64.b64encode(b"planted private key, which nobody may see").decode()
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJwbGFudGVkIjoxfQ.cGxhbnRlZC1zaWduYXR1cmU"


def run(folder: Path, environment: dict[str, str]) -> tuple[dict[str, str], subprocess.CompletedProcess[str]]:
    """The files of the archive by name, and what the command said."""
    command = [sys.executable, "-m", "iot_platform.cli.main", "support-bundle", "--output", "iot-support-test.tar.gz"]
    own = {name: value for name, value in os.environ.items() if not name.startswith("IOT_")}
    done = subprocess.run(command, cwd=folder, env=own | environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = {}
    with tarfile.open(folder / "iot-support-test.tar.gz") as archive:
        for member in archive:
            opened = archive.extractfile(member)
            assert opened is not None
            found[member.name.removeprefix("iot-support-test/")] = opened.read().decode()
    return found, done


def plant_files(folder: Path, local: Path) -> dict[str, str]:
    """Secret files and logs; the variables that name them."""
    (folder / ".env").write_text(f"IOT_GRAFANA_DATABASE_PASSWORD={SECRETS['dotenv']}\n")
    (folder / "mounted").mkdir()
    (folder / "mounted" / "iot_harbor_url").write_text(f"http://robot:{SECRETS['mounted']}@127.0.0.1:9")
    (folder / "login").write_text(json.dumps({"name": "robot", "secret": SECRETS["login"]}))
    (folder / "password").write_text(f"{SECRETS['file']}\n")
    (folder / "key.pem").write_text(f"-----BEGIN PRIVATE KEY-----\n{KEY_LINE}\n-----END PRIVATE KEY-----\n")
    for name in ("logs", "run"):
        (local / name).mkdir(parents=True, exist_ok=True)
    known = [SECRETS[name] for name in ("environment", "sasl", "file", "login")] + [AWKWARD, KEY_LINE]
    lines = [f"2026-11-29T22:00:00Z [error ] odd thing {form}" for value in known for form in (value, quote(value), _base64(value))]
    lines += [
        json.dumps({"event": "kept words", "level": "error", "password": SECRETS["json"], "payload": SECRETS["payload"], "partition": 3}),
        f"connecting to amqp://user:{SECRETS['log']}@broker:5672/x",
        f"Authorization: Bearer {SECRETS['log']}",
        f"got {TOKEN}",
        f"-----BEGIN RSA PRIVATE KEY-----\n{SECRETS['log']}\n-----END RSA PRIVATE KEY-----",
    ]
    (local / "logs" / "ingest.log").write_text("old line\n" * 400_000 + "\n".join(lines) + "\nlast words\n")
    (local / "logs" / "postgresql.log").write_text(
        "2026-11-29 22:00:00.000 UTC [7] ERROR:  duplicate key value violates unique constraint\n"
        f"2026-11-29 22:00:00.000 UTC [7] DETAIL:  Key (text)=({SECRETS['text']}) already exists.\n"
        f'2026-11-29 22:00:00.000 UTC [7] CONTEXT:  COPY message, line 1: "{SECRETS["payload"]}"\n'
        f"2026-11-29 22:00:00.000 UTC [7] STATEMENT:  ALTER ROLE x PASSWORD '{SECRETS['sql']}'\n"
    )
    (local / "run" / "mosquitto.conf").write_text(f"listener 1883\nmax_queued_messages 77\nremote_password {SECRETS['conf']}\n")
    return {
        "IOT_SECRETS_DIR": str(folder / "mounted"),
        "IOT_HARBOR_LOGIN_FILE": str(folder / "login"),
        "IOT_KAFKA_SSL_KEY_FILE": str(folder / "key.pem"),
        "IOT_MQTT_PASSWORD_FILE": str(folder / "password"),
    }


def _base64(value: str) -> str:
    return base64.b64encode(value.encode()).decode()


def test_nothing_planted_leaves_the_machine_and_what_helps_does(settings: Settings, tmp_path: Path) -> None:
    feed = Feed(settings)
    now = int(time.time())
    feed.send(b'{"deviceId":"d1","ts":%d,"temp":1,"note":"%s"}' % (now, SECRETS["text"].encode()))
    feed.send(b'{"deviceId":"d1","ts":%d,"temp":2,"note":"%s"}' % (now, SECRETS["conflict"].encode()))
    feed.send(f"no json {SECRETS['payload']}".encode())
    feed.flush()
    drain(settings)
    environment = exports(settings) | plant_files(tmp_path, settings.local_dir)
    environment |= {
        "MY_SERVICE_TOKEN": SECRETS["environment"],
        "IOT_KAFKA_SASL_PASSWORD": SECRETS["sasl"],
        "IOT_PROMETHEUS_URL": f"http://reader:{SECRETS['url']}@127.0.0.1:9",
        "IOT_DAGSTER_STORAGE_URL": f"postgresql://d:{quote(AWKWARD, safe='')}@127.0.0.1:9/x?sslpassword={SECRETS['query']}",
        "IOT_INGEST_KAFKA_OPTIONS": json.dumps({"ssl.key.password": SECRETS["query"], "linger.ms": 7}),
    }
    files, done = run(tmp_path, environment)
    real = [
        urlsplit(environment[name]).password or "" for name in ("IOT_DATABASE_URL", "IOT_DATABASE_ADMIN_URL", "IOT_DATABASE_READER_URL")
    ]
    assert all(real)
    for secret in (*SECRETS.values(), *real, AWKWARD, KEY_LINE, TOKEN):
        for form in {secret, quote(secret, safe=""), _base64(secret), json.dumps(secret)[1:-1], secret.encode().hex()}:
            assert [name for name, text in files.items() if form in text] == [], form
            assert form not in done.stdout + done.stderr

    wanted = "README.txt versions.json machine.json settings.json status.json doctor.txt doctor.json audit.json database.json kafka.json"
    assert {*wanted.split(), "mqtt.json", "logs/ingest.log", "logs/postgresql.log", "config/mosquitto.conf"} <= set(files)
    documents = {name: json.loads(text) for name, text in files.items() if name.endswith(".json")}
    assert documents["audit.json"]["ok"] is True
    assert documents["kafka.json"]["topics"][settings.kafka_topic]["ends"]["0"]["high"] == 3
    assert documents["database.json"]["quarantine"][0]["reason"] == "not_json"
    assert documents["database.json"]["ledger"][0]["kafka_topic"] == settings.kafka_topic
    assert documents["settings.json"]["platform"]["prometheus_url"]["set_to"] == "http://reader:[redacted]@127.0.0.1:9"
    assert "mosquitto version" in documents["mqtt.json"]["sys"]["$SYS/broker/version"]
    assert any(item["state"] == "risk" and "fsync" in item["text"] for item in documents["doctor.json"])
    assert "duplicate key value violates" in files["logs/postgresql.log"]
    assert "max_queued_messages 77" in files["config/mosquitto.conf"]
    log = files["logs/ingest.log"]
    assert len(log) < 2_100_000
    assert log.startswith("…")
    assert log.endswith("last words\n")
    assert '"kept words"' in log
    for missing in ("ingest daemons", "Dagster", "iot metrics"):
        assert f"- {missing}: " in files["README.txt"]
        assert f"without {missing}" in done.stderr


@pytest.mark.parametrize("refused", [False, True])
def test_with_every_server_down_or_settings_refused_it_says_so(tmp_path: Path, refused: bool) -> None:
    nowhere = "127.0.0.1:9"
    environment = {
        "IOT_MQTT_URL": f"mqtt://u:{SECRETS['url']}@{nowhere}",
        "IOT_KAFKA_BOOTSTRAP_SERVERS": nowhere,
        "IOT_DATABASE_URL": f"postgresql://u:{SECRETS['sql']}@{nowhere}/iot",
        "IOT_DAGSTER_URL": f"http://{nowhere}",
        "IOT_INGEST_HTTP_URL": f"http://{nowhere}",
        "IOT_METRICS_PORT": "9",
        "IOT_LOCAL_DIR": str(tmp_path / "local"),
        **({"IOT_KAFKA_PARTITIONS": "none", "IOT_KAFKA_SASL_PASWORD": SECRETS["sasl"]} if refused else {}),
    }
    began = time.monotonic()
    files, _ = run(tmp_path, environment)
    assert time.monotonic() - began < 150
    readme = files["README.txt"]
    for name in ("ingest daemons", "iot metrics", "database", "Kafka", "MQTT broker", "Dagster", "audit", "logs"):
        assert f"- {name}: " in readme, readme
    assert not any(secret in text for secret in SECRETS.values() for text in files.values())
    assert {"versions.json", "machine.json", "settings.json"} <= set(files)
    if refused:
        assert "IOT_KAFKA_SASL_PASWORD is not a setting" in " ".join(json.loads(files["settings.json"])["problems"])
    else:
        assert json.loads(files["status.json"])["state"] == "bad"
        assert "not working" in files["doctor.txt"].splitlines()[0]
