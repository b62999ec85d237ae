"""Keeps Dagster's dynamic partition sets equal to what exists: Kafka partitions of the topic, tenants and projects of the database."""

from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import Final

from dagster import DagsterInstance

from iot_platform.database import connect
from iot_platform.orchestration.partition_keys import project_key, tenant_key
from iot_platform.settings import Settings
from iot_platform.telemetry.sums import known_projects

KAFKA_PARTITION: Final = "kafka_partition"
TENANT: Final = "tenant"
PROJECT: Final = "project"
MAX_KEYS: Final = 20_000
"""Dagster's pages stay usable up to about this many keys of one set (10,000 measured); more projects are counted, not shown."""
_BATCH: Final = 5_000


def sync_kafka_partitions(instance: DagsterInstance, partitions: Sequence[int]) -> None:
    """Make the keys those of the topic, in numeric order (a range of keys means what it says only then). Materializations stay."""
    wanted = [str(partition) for partition in sorted(partitions)]
    stored = list(instance.get_dynamic_partitions(KAFKA_PARTITION))
    if stored == wanted:
        return
    if stored != wanted[: len(stored)]:  # a smaller topic, or keys that somebody added by hand in another order
        for key in stored:
            instance.delete_dynamic_partition(KAFKA_PARTITION, key)
    instance.add_dynamic_partitions(KAFKA_PARTITION, wanted)


def forget_tenant(instance: DagsterInstance, tenant: str) -> int:
    """Delete the partition keys of a tenant and of its projects; returns how many there were. Their materializations stay in Dagster's
    history until it is purged."""
    prefix = project_key(tenant, "")
    doomed = [(PROJECT, key) for key in instance.get_dynamic_partitions(PROJECT) if key.startswith(prefix)]
    doomed += [(TENANT, key) for key in instance.get_dynamic_partitions(TENANT) if key == tenant_key(tenant)]
    for name, key in doomed:
        instance.delete_dynamic_partition(name, key)
    return len(doomed)


class ProjectKeys:
    """Tenants and projects as partition keys: knows those that Dagster has, adds new ones before their first event."""

    def __init__(self, instance: DagsterInstance) -> None:
        self._instance = instance
        self._known = {name: set(instance.get_dynamic_partitions(name)) for name in (TENANT, PROJECT)}

    def add(self, projects: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """Add the projects, and their tenants, that Dagster lacks; returns the projects added now. Two processes may add the same ones.
        A tenant may lack its key though Dagster knows all its projects: its deletion took the key from under a drain that went on."""
        found = list(projects)
        new = [item for item in found if project_key(*item) not in self._known[PROJECT]]
        new = new[: max(0, MAX_KEYS - len(self._known[PROJECT]))]
        tenants = [key for key in dict.fromkeys(tenant_key(tenant) for tenant, _ in found) if key not in self._known[TENANT]]
        self._add(TENANT, tenants[: max(0, MAX_KEYS - len(self._known[TENANT]))])
        self._add(PROJECT, [project_key(*item) for item in new])
        return new

    def has(self, tenant: str, project: str) -> bool:
        """Whether the project is a partition key."""
        return project_key(tenant, project) in self._known[PROJECT]

    def _add(self, name: str, keys: list[str]) -> None:
        for start in range(0, len(keys), _BATCH):
            batch = keys[start : start + _BATCH]
            self._instance.add_dynamic_partitions(name, batch)
            self._known[name].update(batch)


def sync_projects(instance: DagsterInstance, settings: Settings) -> tuple[list[tuple[str, str]], int]:
    """Add the projects of the database that Dagster lacks, of every run; returns those, and how many there are. Compares all of them
    (tens of ms at 10,000): counts would not tell a new project from one that is gone. 10,000 new ones cost a second or two.

    Raises:
        DatabaseError, psycopg2.Error: the database does not answer.
    """
    with closing(connect(settings, application_name="dagster-projects")) as connection:
        projects = known_projects(connection)
    return ProjectKeys(instance).add(projects), len(projects)
