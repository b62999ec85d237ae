"""What this database can and cannot do, by the edition of its TimescaleDB: one report for `iot doctor` and for asset metadata."""

from dataclasses import dataclass
from typing import Final

from psycopg2.extensions import connection as Connection  # noqa: N812

SWITCH: Final = (
    "install TimescaleDB's Community edition of the same or a newer version (packages or image timescale/timescaledb of the vendor),"
    " set timescaledb.license = 'timescale' in postgresql.conf, restart PostgreSQL,"
    " ALTER EXTENSION timescaledb UPDATE, and run `iot compression run`; data stays in place"
)
"""How to get from the Apache to the Community edition."""


@dataclass(frozen=True)
class Capability:
    """One thing that the database can do, or cannot; then `remedy` says how to get it."""

    name: str
    available: bool
    text: str
    remedy: str = ""


@dataclass(frozen=True)
class Capabilities:
    """The report."""

    edition: str
    """community or apache"""
    timescaledb: str
    postgresql: str
    items: tuple[Capability, ...]

    def has(self, name: str) -> bool:
        """Whether the capability of that name is available."""
        return any(item.available for item in self.items if item.name == name)

    @property
    def missing(self) -> tuple[Capability, ...]:
        """What is not available."""
        return tuple(item for item in self.items if not item.available)

    def headline(self) -> str:
        """Edition and versions in one line."""
        return f"PostgreSQL {self.postgresql}, TimescaleDB {self.timescaledb}, {self.edition.capitalize()} edition"


def read_capabilities(connection: Connection) -> Capabilities:
    """Ask a migrated database; any role."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT timescale_edition(), extversion, current_setting('server_version') FROM pg_extension WHERE extname = 'timescaledb'"
        )
        row = cursor.fetchone()
    connection.rollback()
    if row is None:
        raise LookupError("the database has no timescaledb extension")
    edition, timescaledb, postgresql = row
    return Capabilities(edition, timescaledb, postgresql.split()[0], _items(edition == "community"))


def _items(community: bool) -> tuple[Capability, ...]:
    return (
        Capability("hypertables", True, "tables in chunks of time; retention drops chunks whole"),
        Capability("rollups", True, "measurement_1h and measurement_1d, exact under late data, kept in tables by this platform"),
        Capability(
            "compression",
            community,
            "chunks older than the policy are compressed" if community else "chunks stay as large as they were written",
            "" if community else SWITCH,
        ),
    )
