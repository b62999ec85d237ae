"""A certificate authority of the tests' own, made with the openssl command: server and client certificates, also ended ones."""

import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

_CONFIG = """
[ca]
default_ca = own
[own]
dir = {folder}
database = {folder}/index.txt
new_certs_dir = {folder}
serial = {folder}/serial
certificate = {folder}/ca.pem
private_key = {folder}/ca.key
default_md = sha256
policy = any
unique_subject = no
copy_extensions = copy
[any]
commonName = supplied
"""


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key (PKCS #8), both PEM."""

    cert_file: Path
    key_file: Path

    @property
    def keystore(self) -> str:
        """Both as a Java PEM keystore wants them."""
        return self.key_file.read_text("utf-8") + self.cert_file.read_text("utf-8")


class Authority:
    """Signs certificates for 127.0.0.1 and localhost; `ca_file` is what its clients trust."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True)
        self.ca_file = folder / "ca.pem"
        self._config = folder / "ca.conf"
        self._config.write_text(_CONFIG.format(folder=folder), "utf-8")
        (folder / "index.txt").touch()
        (folder / "serial").write_text("1000\n", "utf-8")
        _openssl("req", "-x509", *_NEW_KEY, f"{folder}/ca.key", "-days", "2", "-subj", f"/CN=CA {folder.name}", "-out", str(self.ca_file))

    def issue(self, folder: Path, name: str, *, seconds: float = 86_400) -> Pair:
        """A certificate for `CN=name`, written into `folder` under that name, replacing an earlier one. It ends so many seconds from
        now, which may be negative."""
        made = Pair(folder / f"{name}.pem", folder / f"{name}.key")
        request = self._folder / f"{name}.csr"
        addresses = "subjectAltName=IP:127.0.0.1,DNS:localhost"
        # The key is written beside its place, so that a reader never sees half of it.
        new_key, new_cert = (self._folder / f"{name}.{kind}.new" for kind in ("key", "pem"))
        _openssl("req", *_NEW_KEY, str(new_key), "-subj", f"/CN={name}", "-addext", addresses, "-out", str(request))
        end = datetime.now(UTC) + timedelta(seconds=seconds)
        dates = "-startdate", _date(min(end, datetime.now(UTC)) - timedelta(days=1)), "-enddate", _date(end)
        _openssl("ca", "-batch", "-notext", "-config", str(self._config), *dates, "-in", str(request), "-out", str(new_cert))
        new_key.replace(made.key_file)
        new_cert.replace(made.cert_file)
        return made


_NEW_KEY = "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout"


def _date(time: datetime) -> str:
    return f"{time:%Y%m%d%H%M%SZ}"


def _openssl(*arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
