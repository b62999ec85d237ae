"""Where backups lie, and the pgbackrest.conf that says so to pgBackRest."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from iot_platform.backup.errors import BackupError
from iot_platform.settings import Settings

STANZA: Final = "iot"
"""pgBackRest's name for the database server that is backed up."""
ARCHIVE_TIMEOUT_SECONDS: Final = 60
"""A WAL segment with anything in it is archived after so long: the most that a lost disk takes away, and what Kafka still has."""


@dataclass(frozen=True)
class Repository:
    """A folder, or s3://bucket/prefix; what IOT_BACKUP_… say of it."""

    location: str
    cipher_file: Path | None
    keep_days: int
    s3_endpoint: str
    s3_region: str
    s3_key_file: Path | None
    s3_ca_file: Path | None = None
    s3_reader_key_file: Path | None = None

    @classmethod
    def of(cls, settings: Settings) -> Self | None:
        """That of the settings; None where they name none."""
        if not settings.backup_repository:
            return None
        return cls(
            settings.backup_repository,
            settings.backup_cipher_file,
            settings.backup_keep_days,
            settings.backup_s3_endpoint,
            settings.backup_s3_region,
            settings.backup_s3_key_file,
            settings.backup_s3_ca_file,
            settings.backup_s3_reader_key_file,
        )

    @property
    def folder(self) -> Path | None:
        """The folder on the database's machine; None in S3."""
        return None if self.location.startswith("s3://") else Path(self.location)

    @property
    def for_drills(self) -> Self | None:
        """By a key that may only read; None where that is not set, or the folder is shown read-only instead."""
        if self.folder is not None or self.s3_reader_key_file is None:
            return None
        return replace(self, s3_key_file=self.s3_reader_key_file)


@dataclass(frozen=True)
class Server:
    """The PostgreSQL that is backed up, as its own machine sees it: paths, and how pgBackRest connects."""

    data: str
    work: str
    """Folder for pgBackRest's locks; its user may write there."""
    port: int
    socket: str
    user: str = "postgres"


def pgbackrest_conf(repository: Repository, server: Server, folder: str = "", ca_file: str = "") -> str:
    """The text of pgbackrest.conf. Holds the passphrase and S3's key, so only the server's user may read it. `folder`, `ca_file`: other
    paths of the repository's folder and of S3's CA certificates than we see.

    Raises:
        BackupError: a file that the settings name cannot be read, or is empty.
    """
    lines = ["[global]", *_place(repository, folder, ca_file)]
    if repository.cipher_file is not None:
        lines += ["repo1-cipher-type=aes-256-cbc", f"repo1-cipher-pass={_secret(repository.cipher_file, 'IOT_BACKUP_CIPHER_FILE')}"]
    lines += [
        "repo1-bundle=y",
        "repo1-retention-full-type=time",
        f"repo1-retention-full={repository.keep_days}",
        "compress-type=zst",
        "start-fast=y",
        f"lock-path={server.work}/lock",
        "log-level-file=off",
        "log-level-console=warn",
        # archive-push-queue-max stays unset: with it PostgreSQL drops WAL, and everything but the restore goes on saying "ok".
        "",
        f"[{STANZA}]",
        f"pg1-path={server.data}",
        f"pg1-port={server.port}",
        f"pg1-user={server.user}",
        f"pg1-socket-path={server.socket}",
    ]
    return "\n".join(lines) + "\n"


def server_settings(config: str, data: str | None = None) -> dict[str, str]:
    """postgresql.conf settings that archive the WAL. `data`: the server's data folder where it is another than the configured one."""
    other = f" --pg1-path={data}" if data else ""
    return {
        "archive_mode": "on",
        "archive_command": f"pgbackrest --config={config} --stanza={STANZA}{other} archive-push %p",
        "archive_timeout": f"{ARCHIVE_TIMEOUT_SECONDS}s",
    }


def _place(repository: Repository, folder: str, ca_file: str) -> list[str]:
    if repository.folder is not None:
        return [f"repo1-path={folder or repository.folder}"]
    parts = urlsplit(repository.location)
    if not repository.s3_endpoint or repository.s3_key_file is None:
        raise BackupError("IOT_BACKUP_REPOSITORY is in S3: set IOT_BACKUP_S3_ENDPOINT and IOT_BACKUP_S3_KEY_FILE, too")
    key, colon, secret = _secret(repository.s3_key_file, "IOT_BACKUP_S3_KEY_FILE").partition(":")
    if not colon:
        raise BackupError("IOT_BACKUP_S3_KEY_FILE: must be key:secret in one line")
    authorities = ca_file or repository.s3_ca_file
    return [
        "repo1-type=s3",
        f"repo1-path={parts.path or '/'}",
        f"repo1-s3-bucket={parts.netloc}",
        f"repo1-s3-endpoint={repository.s3_endpoint}",
        f"repo1-s3-region={repository.s3_region}",
        f"repo1-s3-key={key}",
        f"repo1-s3-key-secret={secret}",
        f"repo1-s3-uri-style={'host' if repository.s3_endpoint.endswith('.amazonaws.com') else 'path'}",
        *([f"repo1-storage-ca-file={authorities}"] if authorities else []),
    ]


def _secret(path: Path, variable: str) -> str:
    try:
        text = path.read_text("utf-8").strip()
    except OSError as error:
        raise BackupError(f"{variable}: {path} cannot be read: {error.strerror}") from error
    if not text or "\n" in text:
        raise BackupError(f"{variable}: {path} must hold one line")
    return text
