"""An S3 server of the test's own, by TLS: versitygw on a folder, with a bucket, a key that may do everything and one that may only read."""

import hashlib
import hmac
import json
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Final

from iot_platform.local.errors import NotReadyError
from iot_platform.local.ports import LOOPBACK, free_ports
from iot_platform.local.program import Program
from iot_platform.local.server import await_ready
from iot_platform.local.supervisor import Supervisor
from iot_platform_tests.support.deploy import tools
from iot_platform_tests.support.servers.certificates import Authority

VERSION: Final = "v1.8.0"
REGION: Final = "us-east-1"
BUCKET: Final = "iot-backup"
_READS: Final = ["s3:GetObject", "s3:ListBucket", "s3:GetBucketLocation"]


@dataclass(frozen=True)
class Key:
    """An access key: `name` and `secret`."""

    name: str
    secret: str

    def write(self, folder: Path) -> Path:
        """As IOT_BACKUP_S3_KEY_FILE wants it."""
        file = folder / f"{self.name}.key"
        file.write_text(f"{self.name}:{self.secret}\n", "ascii")
        return file


ROOT: Final = Key("root-of-the-test", "the-roots-secret")
WRITER: Final = Key("platform", "the-platforms-secret")
READER: Final = Key("drill", "the-drills-secret")


class S3Server:
    """Can be stopped and started again with what it holds; `objects` is the bucket's folder."""

    name: Final = "s3"

    def __init__(self, folder: Path, supervisor: Supervisor) -> None:
        self.folder, self._supervisor = folder / "s3", supervisor
        self.objects = self.folder / "objects" / BUCKET
        accounts, metadata = self.folder / "accounts", self.folder / "metadata"
        for path in (self.objects.parent, accounts, metadata):
            path.mkdir(parents=True)
        users = {key.name: {"access": key.name, "secret": key.secret, "role": "user"} for key in (WRITER, READER)}
        (accounts / "users.json").write_text(json.dumps({"accessAccounts": users}), "utf-8")
        authority = Authority(self.folder / "authority")
        pair, self.ca_file = authority.issue(self.folder, "s3"), authority.ca_file
        self.endpoint = f"{LOOPBACK}:{free_ports(1)[0]}"
        program = tools.installed(versitygw, self.folder / "install.log")
        server = (str(program), f"--port={self.endpoint}", f"--region={REGION}", f"--cert={pair.cert_file}", f"--key={pair.key_file}")
        command = (*server, f"--iam-dir={accounts}", "--quiet", "posix", f"--sidecar={metadata}", str(self.objects.parent))
        secrets = {"ROOT_ACCESS_KEY": ROOT.name, "ROOT_SECRET_KEY": ROOT.secret}
        self._program = Program(self.name, command, folder, secrets, stop_seconds=5)

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._supervisor.apply(self._program)
        await_ready(self.name, self._answers, self._supervisor, lambda _: None, abort=Event(), seconds=60)

    def stop(self) -> None:
        """End it."""
        self._supervisor.stop(self.name)

    def make_bucket(self) -> None:
        """With the rights of both keys."""
        arn = f"arn:aws:s3:::{BUCKET}"
        grants = {WRITER: ["s3:*"], READER: _READS}
        statements = [
            {"Effect": "Allow", "Principal": {"AWS": [key.name]}, "Action": actions, "Resource": [arn, f"{arn}/*"]}
            for key, actions in grants.items()
        ]
        self._put(f"/{BUCKET}", "", b"")
        self._put(f"/{BUCKET}", "policy=", json.dumps({"Version": "2012-10-17", "Statement": statements}).encode())

    def _answers(self) -> None:
        try:
            with urllib.request.urlopen(f"https://{self.endpoint}/", timeout=5, context=self._context):
                pass
        except urllib.error.HTTPError:
            return
        except (urllib.error.URLError, OSError) as error:
            raise NotReadyError(str(error)) from error

    @property
    def _context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.ca_file))

    def _put(self, path: str, query: str, body: bytes) -> None:
        """Signed as AWS's signature version 4 says."""
        at = datetime.now(UTC)
        day, moment, digest = f"{at:%Y%m%d}", f"{at:%Y%m%dT%H%M%SZ}", hashlib.sha256(body).hexdigest()
        headers = {"host": self.endpoint, "x-amz-content-sha256": digest, "x-amz-date": moment}
        names = ";".join(headers)
        canonical = "\n".join(("PUT", path, query, *(f"{name}:{value}" for name, value in headers.items()), "", names, digest))
        scope = f"{day}/{REGION}/s3/aws4_request"
        signed = "\n".join(("AWS4-HMAC-SHA256", moment, scope, hashlib.sha256(canonical.encode()).hexdigest()))
        key = f"AWS4{ROOT.secret}".encode()
        for part in (day, REGION, "s3", "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        signature = hmac.digest(key, signed.encode(), "sha256").hex()
        headers["Authorization"] = f"AWS4-HMAC-SHA256 Credential={ROOT.name}/{scope}, SignedHeaders={names}, Signature={signature}"
        address = f"https://{self.endpoint}{path}" + (f"?{query}" if query else "")
        request = urllib.request.Request(address, body, headers, method="PUT")
        with urllib.request.urlopen(request, timeout=10, context=self._context):  # noqa: S310 - our own
            pass


def versitygw(cache_dir: Path, log: Path, note: tools.Note) -> Path:
    """The program; about three minutes of processor time to build."""
    return tools.go_program("github.com/versity/versitygw/cmd/versitygw", VERSION, cache_dir, log, note)
