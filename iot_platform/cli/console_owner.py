"""What the commands below `iot console` share: a connection as the owner of the database, passwords, and errors as people read them."""

import getpass
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from iot_platform.cli.errors import CliError

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812

    from iot_platform.settings import Settings


@contextmanager
def owner() -> "Iterator[tuple[Settings, Connection]]":
    """The settings and a connection as the owner of the database; its errors become ours."""
    from ingest_daemon.extras import needs

    with needs("console", "iot console"):
        from iot_platform.accounts.errors import AccountError
        from iot_platform.database import DatabaseError, connect
        from iot_platform.database.migrate import require_migrated
        from iot_platform.settings import get_settings

        settings = get_settings()
        try:
            connection = connect(settings, "admin", "iot-console")
            try:
                require_migrated(connection)
                connection.commit()
                yield settings, connection
            finally:
                connection.close()
        except (DatabaseError, AccountError) as error:
            raise CliError(str(error)) from error


def who() -> str:
    """Who changes something, for the books."""
    return f"iot console ({getpass.getuser()})"


def new_password(file: Path | None) -> str:
    """From a file, from a pipe, or asked for twice. Nothing has a default password."""
    if file is not None:
        try:
            return file.read_text("utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise CliError(f"cannot read {file}: {error}") from error
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    return str(typer.prompt("Password (12 characters or more)", hide_input=True, confirmation_prompt=True))
