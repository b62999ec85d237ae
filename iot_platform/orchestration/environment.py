"""What a Dagster process of this deployment needs in its environment, and its instance for commands outside of Dagster."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from iot_platform.settings import Settings

if TYPE_CHECKING:
    from dagster import DagsterInstance

# Measured: 200 partitions in one run 5.75 s → 0.41 s, and a killed run is retried after 2.8 s instead of 5.9 s.
_DAGSTER_TUNING = {
    "DAGSTER_EVENT_BATCH_SIZE": "1000",
    "DAGSTER_EMIT_PARTITION_SUBSET_IN_PLANNED_EVENTS": "1",
    "DAGSTER_EVENT_LOG_CONSUMER_DAEMON_INTERVAL_SECONDS": "1",
}


def dagster_environment(settings: Settings) -> dict[str, str]:
    """What a Dagster process needs beside the user's environment; holds the storage password."""
    return {
        **_DAGSTER_TUNING,
        "DAGSTER_HOME": str(settings.local_dir / "dagster"),
        "IOT_DAGSTER_STORAGE_URL": settings.dagster_database_url,
        "PYTHONWARNINGS": os.environ.get("PYTHONWARNINGS", "ignore"),
    }


class NoInstanceError(Exception):
    """There is no Dagster instance on this machine; the message says where it was looked for."""


@contextmanager
def open_instance(settings: Settings) -> "Iterator[DagsterInstance]":
    """The deployment's Dagster instance; what the user's environment does not say of it is set there.

    Raises:
        NoInstanceError: its home has no dagster.yaml.
    """
    environment = dagster_environment(settings)
    home = os.environ.get("DAGSTER_HOME") or environment["DAGSTER_HOME"]
    if not (Path(home) / "dagster.yaml").exists():
        raise NoInstanceError(f"no Dagster instance at {home}")
    for name, value in environment.items():
        os.environ.setdefault(name, value)
    from dagster import DagsterInstance

    with DagsterInstance.get() as instance:
        yield instance
