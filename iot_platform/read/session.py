"""One session of the reader's own login, and the statement that fetches rows as CSV: short, outside of any transaction, into a file that
leaves memory when it grows."""

import tempfile
import time
from collections.abc import Iterator
from typing import IO, Any, Final, cast

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import connection as Connection  # noqa: N812
from psycopg2.extensions import parse_dsn

from iot_platform.database.connection import DEFAULTS, explained
from iot_platform.database.errors import DatabaseAccessError
from iot_platform.read.errors import ReadAccessError, ReadInterruptedError

SPOOL_BYTES: Final = 32 * 1024 * 1024
"""What is kept of an answer in memory, and in one part of it; the rest is in a temporary file."""
ATTEMPTS: Final = 6
FIRST_WAIT_SECONDS: Final = 0.25
_TIMEOUT: Final = "57014"
_ENDED: Final = ("57P01", "57P02", "57P03", "53300", "40001", "40P01", "55P03")
"""Of errors of a session that a new one may not meet: ended, starting up, too many connections, deadlock, lock timeout."""


class TooMuchError(Exception):
    """The statement took longer than the login's statements may take, or answered with more than was asked for: ask for less."""


class Answer:
    """Rows of one statement as CSV, in parts of a bounded number of rows and bytes."""

    def __init__(self, part_rows: int, most_rows: int | None) -> None:
        self._file = cast(IO[bytes], tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES))  # noqa: SIM115  closed by its reader
        self._part_rows, self._most_rows = part_rows, most_rows
        self._ends: list[int] = []
        self._position = self._begin = 0
        self._in_part = 0
        self.rows = 0

    def write(self, row: bytes) -> None:
        """psycopg2 calls this once for each row: PostgreSQL sends each in a message of its own."""
        if self._most_rows is not None and self.rows >= self._most_rows:
            raise TooMuchError
        self._file.write(row)
        self.rows += 1
        self._in_part += 1
        self._position += len(row)
        if self._in_part >= self._part_rows or self._position - self._begin >= SPOOL_BYTES:
            self._end_part()

    def _end_part(self) -> None:
        self._ends.append(self._position)
        self._begin, self._in_part = self._position, 0

    def parts(self) -> Iterator[bytes]:
        """The parts, once."""
        if self._in_part:
            self._end_part()
        self._file.seek(0)
        begin = 0
        for end in self._ends:
            yield self._file.read(end - begin)
            begin = end

    def close(self) -> None:
        """Give up the memory, and the file."""
        self._file.close()


class Session:
    """A connection that is made when it is needed, and made anew when it breaks. Not for two threads at once."""

    def __init__(self, url: str, variable: str) -> None:
        self._url, self._variable = url, variable
        self._connection: Connection | None = None

    def fetch(self, query: sql.Composable, parameters: dict[str, Any], part_rows: int, most_rows: int | None) -> Answer:
        """All rows of a query.

        Raises:
            TooMuchError: ask for less.
            ReadAccessError: the login may not read this. Never retry.
            ReadInterruptedError: broken, ended or refused ATTEMPTS times, a few seconds long. Retry.
        """
        wait = FIRST_WAIT_SECONDS
        for attempt in range(1, ATTEMPTS + 1):
            answer = Answer(part_rows, most_rows)
            try:
                self._copy(query, parameters, answer)
                return answer
            except BaseException as error:
                answer.close()
                unconnected, lost = self._connection is None, self._connection is None or self._connection.closed != 0
                self.close()
                if not isinstance(error, psycopg2.Error):
                    raise
                if error.pgcode == _TIMEOUT:
                    raise TooMuchError from error
                if unconnected and isinstance(error, psycopg2.OperationalError) and "too many connections" not in str(error):
                    why = explained(error, self._url, self._variable)
                    if isinstance(why, DatabaseAccessError):
                        raise ReadAccessError(str(why)) from error
                elif not (lost or error.pgcode in _ENDED):
                    raise ReadAccessError(f"{' '.join(str(error).split())}: is the login one that `iot tenant grant` made?") from error
                if attempt == ATTEMPTS:
                    raise ReadInterruptedError(_lost(error)) from error
                time.sleep(wait)  # a server that starts, or a connection of ours that is just ending
                wait *= 2
        raise AssertionError

    def _copy(self, query: sql.Composable, parameters: dict[str, Any], answer: Answer) -> None:
        connection = self._open()
        with connection.cursor() as cursor:
            text = cursor.mogrify(query, parameters).decode(psycopg2.extensions.encodings[connection.encoding])
            cursor.copy_expert(f"COPY ({text}) TO STDOUT (FORMAT csv)", answer)

    def _open(self) -> Connection:
        if self._connection is None:
            connection = self._connection = psycopg2.connect(**{**DEFAULTS, "application_name": "iot-read", **parse_dsn(self._url)})
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("SET timezone = 'UTC'; SET datestyle = 'ISO'; SET extra_float_digits = 1; SET client_encoding = 'UTF8'")
                _require_tenant(cursor, self._variable)
        return self._connection

    def check(self) -> str:
        """The tenant whose login this is.

        Raises:
            ReadAccessError: the server refuses the login, or it belongs to no tenant. Never retry.
            ReadInterruptedError: no server answers. Retry.
        """
        try:
            with self._open().cursor() as cursor:
                cursor.execute("SELECT tenant.current_tenant()")
                (tenant,) = cursor.fetchone() or ("",)
                return str(tenant)
        except psycopg2.OperationalError as error:
            self.close()
            why = explained(error, self._url, self._variable)
            raise (ReadAccessError if isinstance(why, DatabaseAccessError) else ReadInterruptedError)(str(why)) from error
        except ReadAccessError:
            self.close()
            raise

    def close(self) -> None:
        """End the session."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _require_tenant(cursor: Any, variable: str) -> None:
    remedy = f"set {variable} to a login that `iot tenant grant` made"
    try:
        cursor.execute("SELECT tenant.current_tenant(), session_user")
    except (psycopg2.errors.InvalidSchemaName, psycopg2.errors.UndefinedFunction, psycopg2.errors.InsufficientPrivilege) as error:
        raise ReadAccessError(
            f"this is no database of the platform, or not a tenant's login ({error.diag.message_primary}): {remedy}"
        ) from error
    tenant, role = cursor.fetchone()
    if tenant is None:
        raise ReadAccessError(f"the login {role} belongs to no tenant, so it would read nothing: {remedy}")


def _lost(error: psycopg2.Error) -> str:
    words = " ".join(str(error).split())
    if "too many connections" in words:
        return f"the login has all its connections open ({words}): close some, or `iot tenant grant T --connections N`"
    return f"the session broke {ATTEMPTS} times ({words}): is the server up?"
