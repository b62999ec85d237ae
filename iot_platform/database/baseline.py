"""Takes over a database made by the first chain of migrations, which sql/migrations replaced: whether it may, and what is recorded then."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from psycopg2.extensions import cursor as Cursor  # noqa: N812

from iot_platform.database.errors import MigrationError

FILE: Final = "baseline/0013_take_over_first_chain.sql"
"""Runs instead of the numbered files up to this number."""
CHAIN: Final = "baseline/first_chain.sha256"
"""The files of the first chain, as `sha256sum` prints them."""


def must_take_over(applied: Mapping[str, str], sql_dir: Path) -> bool:
    """Whether these files (name → checksum) are the first chain's, all of them.

    Raises:
        MigrationError: some of the chain are, but not all, or one was changed. Never retry.
    """
    chain = _chain(sql_dir)
    found = applied.keys() & chain.keys()
    if not found:
        return False
    for name in sorted(found):
        if applied[name] != chain[name]:
            raise MigrationError(
                f"the database's {name} is not the one that was released (its checksum differs): this version can't take it over"
            )
    newer = sorted(name for name in applied.keys() - found if not name.startswith("repeatable/"))
    if newer:
        raise MigrationError(f"the database has {newer[0]}, which this version does not know: it can't take the database over")
    lacks = sorted(chain.keys() - found)
    if lacks:
        raise MigrationError(
            f"the database has {len(found)} of the {len(chain)} migrations that this version takes over; it lacks {lacks[0]}"
            + (f" and {len(lacks) - 1} more" if lacks[1:] else "")
            + ": bring it up to date with `iot migrate` of the last version that has this file, then repeat"
        )
    return True


def stands_for(name: str) -> bool:
    """Whether the baseline does what this file does in an empty database."""
    return name.startswith("migrations/") and name[len("migrations/") :][:4] <= FILE[len("baseline/") :][:4]


def record(cursor: Cursor, checksums: Mapping[str, str], sql_dir: Path) -> None:
    """Write into schema_migration, in the baseline's transaction, that the new chain (name → checksum) is applied, and nothing else."""
    cursor.execute("DELETE FROM schema_migration WHERE name = ANY (%s) OR name LIKE 'repeatable/%%'", (list(_chain(sql_dir)),))
    for name, checksum in checksums.items():
        cursor.execute("INSERT INTO schema_migration (name, checksum) VALUES (%s, %s)", (name, checksum))


def _chain(sql_dir: Path) -> dict[str, str]:
    if not (sql_dir / CHAIN).exists():
        return {}
    lines = (sql_dir / CHAIN).read_text("utf-8").splitlines()
    return {name: checksum for checksum, name in (line.split() for line in lines)}
