"""The local MQTT broker: Debian's Mosquitto, with queues that survive an outage of the ingest daemon."""

import os
from dataclasses import dataclass
from pathlib import Path

from iot_platform.local import probes
from iot_platform.local.errors import LocalStackError
from iot_platform.local.install import Note, which
from iot_platform.local.ports import LOOPBACK
from iot_platform.local.program import Program, base_environment
from iot_platform.settings import Settings


@dataclass(frozen=True)
class MosquittoServer:
    """Mosquitto on the loopback interface, anonymous, its sessions and queues on disk."""

    local_dir: Path
    port: int
    name: str = "mosquitto"

    @property
    def log_dir(self) -> Path:
        """Where its output goes."""
        return self.local_dir / "logs"

    @property
    def url(self) -> str:
        """Value for IOT_MQTT_URL."""
        return f"mqtt://{LOOPBACK}:{self.port}"

    def missing_packages(self) -> dict[str, str]:
        """See Server."""
        missing = {} if which("mosquitto") else {"mosquitto": "the MQTT broker"}
        if os.geteuid() == 0 and not which("mosquitto_pub"):  # a convenience: no reason to refuse anybody else
            missing["mosquitto-clients"] = "mosquitto_pub, to try things out"
        return missing

    def prepare(self, note: Note) -> None:
        """See Server."""
        note("writing its configuration")
        data = self.local_dir / "data" / "mosquitto"
        data.mkdir(parents=True, exist_ok=True)
        self._config_file.write_text(self._config(data), "utf-8")

    def program(self) -> Program:
        """See Server."""
        command = which("mosquitto")
        if command is None:
            raise LocalStackError("mosquitto is not installed. Run as root: apt-get install mosquitto")
        return Program(
            name=self.name,
            command=(command, "-c", str(self._config_file)),
            directory=self.local_dir,
            environment=base_environment(self.local_dir),
            stop_seconds=60,  # it writes its queues to disk, and killed meanwhile it would lose them
            fingerprint=self._config_file.read_text("utf-8"),
        )

    def check(self) -> None:
        """See Server."""
        probes.mqtt(Settings(mqtt_url=self.url))

    def provision(self, note: Note) -> None:
        """See Server: a broker needs nothing."""

    @property
    def _config_file(self) -> Path:
        return self.local_dir / "run" / "mosquitto.conf"

    def _config(self, data: Path) -> str:
        # As root Mosquitto would change to a user that may not enter the checkout's parent folders.
        user = "user root\n" if os.geteuid() == 0 else ""
        return f"""# written by `iot up`
listener {self.port} {LOOPBACK}
allow_anonymous true
{user}persistence true
persistence_location {data}/
autosave_interval 10
max_queued_messages 1000000
max_inflight_messages 10000
persistent_client_expiration 14d
set_tcp_nodelay true
log_dest stdout
log_type error
log_type warning
log_type notice
"""
