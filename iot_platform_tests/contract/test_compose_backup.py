"""compose.backup.yaml: its scripts write the pgbackrest.conf that `iot backup config` would, and refuse what is not set."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from iot_platform.backup.repository import Repository, Server, pgbackrest_conf, server_settings
from iot_platform.settings import Settings

FOLDER = Path(__file__).parents[2] / "deploy" / "compose"
SCRIPTS = FOLDER / "timescaledb"
SERVICES = yaml.safe_load((FOLDER / "compose.backup.yaml").read_text("utf-8"))["services"]


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """Of which the S3 keys are still placeholders."""
    made = tmp_path / "secrets"
    made.mkdir()
    values = {
        "backup_passphrase": "a passphrase",
        "backup_s3_key": "key:placeholder-of-the-writer",
        "backup_s3_reader_key": "key:placeholder-of-the-reader",
        "postgres_password": "password",
    }
    for name, value in values.items():
        (made / name).write_text(value + "\n", "utf-8")
    return made


def write(secrets: Path, home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    home.mkdir(exist_ok=True)
    environment = {
        "PATH": os.environ["PATH"],
        "SECRETS": str(secrets),
        "BACKUP_HOME": str(home),
        "OWNER": str(os.geteuid()),
        **variables,
    }
    return subprocess.run(["sh", "-euc", f". {SCRIPTS}/pgbackrest.sh"], check=False, capture_output=True, text=True, env=environment)


def expected(home: Path, **values: object) -> list[str]:
    repository = Repository.of(Settings(**values))  # type: ignore[arg-type]
    assert repository is not None
    server = Server("/var/lib/postgresql/data", f"{home}/pgbackrest", 5432, "/var/run/postgresql")
    return sorted(pgbackrest_conf(repository, server).splitlines())


def test_a_folder_of_the_host(secrets: Path, tmp_path: Path) -> None:
    done = write(secrets, tmp_path / "home", BACKUP_FOLDER="/mnt/backup", BACKUP_KEEP_DAYS="30")
    assert done.returncode == 0, done.stderr
    values = {"backup_cipher_file": secrets / "backup_passphrase", "backup_keep_days": 30}
    for name, folder in (("pgbackrest.conf", "/backup"), ("pgbackrest-drill.conf", "/backup-read-only")):
        file = tmp_path / "home" / name
        assert sorted(file.read_text("utf-8").splitlines()) == expected(tmp_path / "home", backup_repository=folder, **values)
        assert file.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "home" / "pgpass").read_text("utf-8") == "*:*:*:postgres:password\n"
    mounts = SERVICES["backup"]["volumes"]
    assert {"backup:/backup", "backup:/backup-read-only:ro"} < set(mounts), "a drill's configuration names the one that is read-only"


def test_a_bucket_with_a_key_for_drills(secrets: Path, tmp_path: Path) -> None:
    s3 = {"BACKUP_S3_BUCKET": "bucket", "BACKUP_S3_ENDPOINT": "s3.example:9000", "BACKUP_S3_REGION": "eu-1", "BACKUP_S3_PREFIX": "iot"}
    refused = write(secrets, tmp_path / "home", **s3)
    assert (refused.returncode, "secrets/backup_s3_key is a placeholder" in refused.stderr) == (1, True)
    assert not (tmp_path / "home" / "pgbackrest.conf").exists()
    for name, key in (("backup_s3_key", "writer:wr:ites"), ("backup_s3_reader_key", "reader:reads")):
        (secrets / name).write_text(f"{key}\n", "utf-8")
    done = write(secrets, tmp_path / "home", BACKUP_S3_CA_FILE="/ca.pem", **s3)
    assert done.returncode == 0, done.stderr
    for name, key in (("pgbackrest.conf", "backup_s3_key"), ("pgbackrest-drill.conf", "backup_s3_reader_key")):
        wanted = expected(
            tmp_path / "home",
            backup_repository="s3://bucket/iot",
            backup_s3_endpoint="s3.example:9000",
            backup_s3_region="eu-1",
            backup_s3_key_file=secrets / key,
            backup_s3_ca_file=Path("/ca.pem"),
            backup_cipher_file=secrets / "backup_passphrase",
        )
        assert sorted((tmp_path / "home" / name).read_text("utf-8").splitlines()) == wanted
    assert "BACKUP_S3_ENDPOINT" in write(secrets, tmp_path / "home", BACKUP_S3_BUCKET="bucket").stderr


def test_neither_is_refused_and_names_both(secrets: Path, tmp_path: Path) -> None:
    done = write(secrets, tmp_path / "home")
    assert (done.returncode, "set BACKUP_FOLDER" in done.stderr, "BACKUP_S3_BUCKET" in done.stderr) == (1, True, True)


def test_the_server_archives_as_the_local_one_does(secrets: Path, tmp_path: Path) -> None:
    """And without the secret's file it is started as ever."""
    (tmp_path / "backup").mkdir()
    environment = {
        "PATH": os.environ["PATH"],
        "SECRETS": str(secrets),
        "BACKUP_HOME": str(tmp_path),
        "REPOSITORY": str(tmp_path / "backup"),
        "OWNER": str(os.geteuid()),
        "ENTRYPOINT": "echo",
        "BACKUP_FOLDER": "/mnt/backup",
    }

    def started() -> str:
        command = ["sh", str(SCRIPTS / "start.sh"), "postgres", "-c", "a=b"]
        return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout.strip()

    shown = started()
    for name, value in server_settings(f"{tmp_path}/pgbackrest.conf").items():
        assert f"-c {name}={value}" in shown
    assert shown.startswith("postgres -c a=b -c archive_mode=on")
    (secrets / "backup_passphrase").unlink()
    assert started() == "postgres -c a=b"


def test_both_services_are_of_the_one_image_and_have_the_same_environment() -> None:
    assert SERVICES["backup"]["image"] == SERVICES["timescaledb"]["image"]
    assert SERVICES["backup"]["environment"] == SERVICES["timescaledb"]["environment"]
    assert SERVICES["backup"]["secrets"] == SERVICES["timescaledb"]["secrets"]
