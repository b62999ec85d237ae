"""What is taken out of a support bundle, and what has to stay so that it helps."""

import json
import tarfile
import time
from pathlib import Path

import pytest

from iot_platform.diagnostics.bundle import write_bundle
from iot_platform.diagnostics.redaction import GONE, Scrubber, is_secret, known_secrets, without_password

PLANT = "pl4nt/ed+s3cr=t ü"
FORMS = ("pl4nt/ed+s3cr=t ü", "pl4nt%2Fed%2Bs3cr%3Dt%20%C3%BC", "cGw0bnQvZWQrczNjcj10IMO8", "pl4nt/ed+s3cr=t \\u00fc")


@pytest.mark.parametrize("form", FORMS)
def test_a_known_secret_goes_in_every_form(form: str) -> None:
    shown = Scrubber([PLANT]).text(f"before {form} after\n" + json.dumps({"event": f"x {form}", "deep": [{"a": form}]}))
    assert form not in shown
    assert "before" in shown
    assert "after" in shown
    assert json.loads(shown.splitlines()[1])["deep"] == [{"a": GONE}]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("postgresql://iot:hunter22@db/iot?sslmode=require", f"postgresql://iot:{GONE}@db/iot?sslmode=require"),
        ("mqtt://u:p@ss@broker:1883", f"mqtt://u:{GONE}@broker:1883"),
        ("postgresql://db/iot?user=a&password=hunter22&x=1", f"postgresql://db/iot?user=a&password={GONE}&x=1"),
        ("Authorization: Bearer abc.def-123", None),
        ("token eyJhbGciOi.eyJzdWIi.sig", None),
        ("ALTER ROLE x PASSWORD 'hunter22'", f"ALTER ROLE x PASSWORD {GONE}"),
        ("remote_password hunter22", f"remote_password {GONE}"),
        ("sasl.password=hunter22,linger.ms=5", f"sasl.password={GONE},linger.ms=5"),
        ('{"sasl.password": "hunter22", "linger.ms": 5}', json.dumps({"sasl.password": GONE, "linger.ms": 5})),
        ('{"event": "x", "payload": "hunter22"}', json.dumps({"event": "x", "payload": GONE})),
        ("x DETAIL:  Key (device)=(hunter22) exists.", "x DETAIL: [left out]"),
        ('ERROR:  invalid input syntax for type json: "hunter22"', "ERROR:  invalid input syntax for type json: [left out]"),
        ("a\n-----BEGIN RSA PRIVATE KEY-----\nhunter22\n-----END RSA PRIVATE KEY-----\nb", f"a\n{GONE}\nb"),
        ("scram SCRAM-SHA-256$4096:hunter22", None),
    ],
)  # fmt: skip
def test_what_looks_like_a_secret_goes_and_the_rest_stays(text: str, left: str | None) -> None:
    shown = Scrubber([]).text(text)
    assert "hunter22" not in shown
    assert "abc.def" not in shown
    assert "eyJ" not in shown
    if left is not None:
        assert shown == left


@pytest.mark.parametrize(
    "text",
    [
        "connection refused: no password supplied for user iot_writer",
        'FATAL:  password authentication failed for user "iot_writer"',
        "IOT_KAFKA_SASL_PASSWORD_FILE: no such file",
        "batch 812 of partition 3, offsets 100 to 199, run 0f3d8a52-9a41-4c6e-8f5e-2f1e5f0c7a11",
        "http://127.0.0.1:9108/readyz answers 503",
        "topic mtic/msg/client/realtime/1968193631353446400/7: not_json",
    ],
)
def test_what_helps_stays(text: str) -> None:
    assert Scrubber(["hunter22"]).text(text) == text


def test_a_password_that_is_a_word_takes_no_other_word_apart() -> None:
    shown = Scrubber(["postgres", "x1"]).text("postgresql at db, user postgres, x1 of 3")
    assert shown == f"postgresql at db, user {GONE}, x1 of 3"


def test_names_that_hold_a_secret_and_names_that_say_where_it_is() -> None:
    assert all(map(is_secret, ("IOT_KAFKA_SASL_PASSWORD", "PGPASSWORD", "AWS_SECRET_ACCESS_KEY", "GRAFANA_TOKEN", "ssl.key.password")))
    assert not any(
        map(is_secret, ("IOT_KAFKA_SASL_PASSWORD_FILE", "IOT_SECRETS_DIR", "IOT_MQTT_URL", "key", "PWD", "OLDPWD", "ssl.key.location"))
    )
    assert without_password("http://a:b@c,http://d") == f"http://a:{GONE}@c,http://d"


def test_secrets_are_found_where_they_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("IOT_DATABASE_URL=postgresql://a:from%2Dfile@h/d\nOTHER_TOKEN=other-token\n")
    (tmp_path / "login").write_text('{"name": "robot$x", "secret": "harbor-secret"}')
    (tmp_path / "password").write_text("in-a-file\n")
    (tmp_path / "key.pem").write_text("-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0\n-----END PRIVATE KEY-----\n")
    (tmp_path / "mounted").mkdir()
    (tmp_path / "mounted" / "iot_mqtt_url").write_text("mqtt://u:mounted-one@h")
    (tmp_path / "mounted" / "grafana").write_text("mounted-two")
    (tmp_path / "pgpass").write_text("h:5432:d:u:in-pgpass\n")
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "pgpass"))
    monkeypatch.setenv("MY_API_KEY", "in-the-environment")
    values = {
        "IOT_HARBOR_LOGIN_FILE": tmp_path / "login",
        "IOT_KAFKA_SASL_PASSWORD_FILE": tmp_path / "password",
        "IOT_KAFKA_SSL_KEY_FILE": tmp_path / "key.pem",
        "IOT_INGEST_KAFKA_OPTIONS": '{"ssl.key.password": "in-options", "linger.ms": 5}',
    }
    (tmp_path / "passwords.json").write_text('{"iot_writer": "of-the-stack"}')
    found = known_secrets(values, [tmp_path / ".env", tmp_path / "none"], [tmp_path / "mounted"], [tmp_path / "passwords.json"])
    assert found >= {
        "from-file", "other-token", "harbor-secret", "in-a-file", "MIIEvQIBADANBgkqhkiG9w0", "mounted-one", "mounted-two", "in-pgpass",
        "in-the-environment", "in-options", "of-the-stack",
    }  # fmt: skip


def test_a_part_that_fails_or_hangs_is_named_and_costs_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "iot-support-x.tar.gz"
    parts = {
        "good": lambda: {"good.json": {"at": 1}},
        "broken": lambda: 1 / 0,
        "hangs": lambda: time.sleep(60),
    }
    report = write_bundle(path, parts, {"good.json": "something"}, Scrubber([]), seconds=0.5)  # type: ignore[arg-type]
    assert report.missing == {"broken": "division by zero", "hangs": "no answer within 0 s"}
    assert path.stat().st_mode & 0o777 == 0o600
    with tarfile.open(path) as archive:
        assert archive.getnames() == ["iot-support-x/README.txt", "iot-support-x/good.json"]
        opened = archive.extractfile("iot-support-x/README.txt")
        assert opened is not None
        readme = opened.read().decode()
    assert "- good.json (13 bytes): something" in readme
    assert "- broken: division by zero" in readme
    assert "Left out:" in readme
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_would_still_hold_a_secret_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scrubber, "text", lambda _self, text: text)
    report = write_bundle(tmp_path / "x.tar.gz", {"a": lambda: {"a.txt": "hunter22", "b.txt": "b"}}, {}, Scrubber(["hunter22"]))
    assert (set(report.files), set(report.missing)) == ({"b.txt"}, {"a.txt"})
