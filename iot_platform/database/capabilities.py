"""What this database can and cannot do, by the edition of its TimescaleDB: one report for `iot doctor` and for asset metadata."""

from dataclasses import dataclass
from typing import Final

from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.database.edition import version_numbers

TESTED: Final = ((2, 19), (2, 31))
"""TimescaleDB's releases, first and last, that the suite has run on; where it ran: docs/compression.md."""
SWITCH: Final = (
    "install TimescaleDB's Community edition of the same or a newer version (packages or image timescale/timescaledb of the vendor),"
    " set timescaledb.license = 'timescale', and update, by the steps of docs/compression.md; data stays in place"
)
"""How to get from the Apache to the Community edition."""


@dataclass(frozen=True)
class Capability:
    """One thing that the database can do, or cannot; then `remedy` says how to get it. `broken`: it must be able to, data can't be read."""

    name: str
    available: bool
    text: str
    remedy: str = ""
    broken: bool = False


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

    @property
    def tested(self) -> bool:
        """Whether the suite has run on such a TimescaleDB."""
        return TESTED[0] <= version_numbers(self.timescaledb)[:2] <= TESTED[1]


def read_capabilities(connection: Connection) -> Capabilities:
    """Ask a migrated database; any role."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT timescale_edition(), extversion, current_setting('server_version'),"
            " (SELECT count(*) FROM timescaledb_information.chunks WHERE is_compressed)"
            " FROM pg_extension WHERE extname = 'timescaledb'"
        )
        row = cursor.fetchone()
    connection.rollback()
    if row is None:
        raise LookupError("the database has no timescaledb extension")
    edition, timescaledb, postgresql, compressed = row
    return Capabilities(edition, timescaledb, postgresql.split()[0], _items(edition == "community", compressed))


def _items(community: bool, compressed: int) -> tuple[Capability, ...]:
    unreadable = Capability(
        "compressed chunks",
        False,
        f"{compressed:,} chunks are compressed, and nobody can read them: the licence was taken back to apache",
        "set timescaledb.license = 'timescale' in postgresql.conf and restart PostgreSQL; see docs/compression.md",
        broken=True,
    )
    return (
        *([unreadable] if compressed and not community else []),
        Capability("hypertables", True, "tables in chunks of time; retention drops chunks whole"),
        Capability("rollups", True, "measurement_1h and measurement_1d, exact under late data, kept in tables by this platform"),
        Capability(
            "compression",
            community,
            "chunks older than the policy are compressed" if community else "chunks stay as large as they were written",
            "" if community else SWITCH,
        ),
    )
