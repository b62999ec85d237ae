"""Kills a process (SIGKILL) at a point of PostgreSQL's protocol: a proxy before its database reads along and holds it there."""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr

from iot_platform.drills.rig.proxy import Proxy
from iot_platform.drills.rig.wire import Fault, Point, PostgresFaults
from iot_platform.settings import Settings, exports

SECONDS = 60.0


class Killer:
    """Runs programs whose database lies behind a proxy."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy

    def arm(self, point: Point, text: str, number: int = 1) -> Fault:
        """The process that begins next is held at the point of the n-th statement that contains the text, or of its transaction."""
        faults = PostgresFaults("", text)
        self._proxy.watch(faults)
        return faults.arm(point, number, hold=True)

    def environment(self, settings: Settings) -> dict[str, str]:
        """Of a process that works on these settings through the proxy."""
        urls = {
            name: SecretStr(self._behind(url.get_secret_value()))
            for name in ("database_url", "database_admin_url", "database_reader_url")
            if (url := getattr(settings, name)) is not None
        }
        return exports(settings.model_copy(update=urls))

    def kill(self, command: Sequence[str], settings: Settings, point: Point, text: str, number: int = 1) -> None:
        """Run the command, and kill it at the point. Fails if it ends by itself, or does not come there."""
        fault = self.arm(point, text, number)
        environment = {**os.environ, **self.environment(settings)}
        with tempfile.TemporaryFile() as errors:
            with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=errors) as process:
                deadline = time.monotonic() + SECONDS
                while not fault.reached.wait(0.02) and process.poll() is None and time.monotonic() < deadline:
                    pass
                process.kill()
            fault.cut()
            errors.seek(0)
            assert fault.reached.is_set(), f"'{point}' of '{text}' was never reached: {errors.read()[-2000:].decode()}"
        assert process.returncode == -signal.SIGKILL

    def _behind(self, url: str) -> str:
        parts = urlsplit(url)
        return parts._replace(netloc=parts.netloc.rpartition(":")[0] + f":{self._proxy.port}").geturl()


@pytest.fixture
def killer(settings: Settings) -> Iterator[Killer]:
    """Kills processes that work on the test's database."""
    with Proxy("127.0.0.1", urlsplit(settings.writer_url).port or 5432) as proxy:
        yield Killer(proxy)
