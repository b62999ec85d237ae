"""The commands' connection to the database: migrated, and with the database's errors as theirs."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from iot_platform.cli.errors import CliError

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812

    from iot_platform.database.connection import Role


@contextmanager
def migrated(role: "Role", application_name: str, exit_code: int = 2) -> "Iterator[Connection]":
    """A connection for the block.

    Raises:
        CliError: with the exit code, for every DatabaseError, of the block, too.
    """
    from iot_platform.database import DatabaseError, connect
    from iot_platform.database.migrate import require_migrated
    from iot_platform.settings import get_settings

    try:
        with closing(connect(get_settings(), role, application_name)) as connection:
            require_migrated(connection)
            yield connection
    except DatabaseError as error:
        raise CliError(str(error), exit_code) from error
