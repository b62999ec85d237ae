"""Prints .env.example from the settings classes: `make env-example` writes it, a contract test keeps it equal to the code."""

import json
import textwrap
from pathlib import Path

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from ingest_daemon.home import PACKAGES
from ingest_daemon.settings import Settings as IngestSettings
from iot_platform.settings import Settings

HEADER = """\
# Every setting of the platform. Copy this file to .env and uncomment what you change; the environment beats .env.
# A name IOT_… that is not here is refused. Passed over: IOT_TEST_…, IOT_DRILL_…, IOT_GRAFANA_DATABASE_…, IOT_GRAFANA_DASHBOARDS, and
# what Kubernetes adds for a service called iot-…: IOT_…_SERVICE_HOST, IOT_…_SERVICE_PORT…, IOT_…_PORT_1883_TCP…, and IOT_…_PORT if it
# holds tcp://… In names of files and folders ~ is the user's home directory.
# Generated from the code by `make env-example`: each entry says what it does, and shows its default.
"""
ONLY_ENVIRONMENT = """
# -- read from the environment only, by the local stack ------------------------------------------------------------
# SIMULATOR=0       make up without the device simulator
# MONITORING=1      make up with Prometheus and Alertmanager, which must be installed, and the exporters that are
# KAFKA_HOME=       an installed Kafka that the local stack uses instead of downloading one
# JAVA_HOME=        the Java that runs Kafka (17 or newer)
# PYTHON=           the Python that .venv is made with (3.11 or newer)
"""


def render() -> str:
    """The text of .env.example."""
    platform = _entries(Settings)
    ingest = {name: entry for name, entry in _entries(IngestSettings).items() if name not in platform}
    titled = {"the platform": platform, "the ingest daemon alone": ingest}
    parts = [f"\n# -- {title} {'-' * (110 - len(title))}\n" + "\n".join(entries.values()) for title, entries in titled.items()]
    return HEADER + "\n".join(parts) + ONLY_ENVIRONMENT


def _entries(settings: type[BaseSettings]) -> dict[str, str]:
    return {name: _entry(name, field) for name, field in settings.model_fields.items()}


def _entry(name: str, field: FieldInfo) -> str:
    comment = textwrap.fill(field.description or "", 118, initial_indent="# ", subsequent_indent="# ")
    return f"{comment}\n#IOT_{name.upper()}={_shown(field.get_default(call_default_factory=True))}\n"


def _shown(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, Path):
        return str(value.relative_to(PACKAGES) if value.is_relative_to(PACKAGES) else value)
    return json.dumps(value) if isinstance(value, (tuple, dict)) else str(value)


if __name__ == "__main__":
    print(render(), end="")
