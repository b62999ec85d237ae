"""`iot sql`: questions to the database, as the role that can only read."""

import csv
import json
import math
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Final, TextIO

import typer

from iot_platform.cli import terminal
from iot_platform.cli.errors import CliError
from iot_platform.visible import visible, visible_json

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812
    from rich.console import Console
    from rich.text import Text

    from iot_platform.settings import Settings

MAX_TABLE_ROWS: Final = 1000
NARROWEST_COLUMN: Final = 10  # characters, its frame included; with less for each, values become unreadable
FETCH_ROWS: Final = 5000
_STREAMABLE: Final = re.compile(r"(select|with|table|values)\b", re.IGNORECASE)
_ESCAPES: Final = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(sql)


def sql(
    query: Annotated[str | None, typer.Argument(help="SQL; of several statements each result is shown. psql opens without it.")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV with a header line.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Run a query, read-only: a table on a terminal, tab-separated lines without a header in a pipe.

    Tables for people: [b]measurement_by_series[/b] (quick about some devices), [b]measurement_named[/b] (the same, quick about all),
    [b]message_named[/b], [b]quarantine_named[/b], [b]latest_named[/b].

    [b]iot sql "SELECT * FROM measurement_named ORDER BY time DESC LIMIT 5"[/b]
    [b]iot sql --csv "SELECT reason, count(*) FROM quarantine GROUP BY 1" > reasons.csv[/b]
    """
    import psycopg2

    from iot_platform.database.connection import connect
    from iot_platform.database.errors import DatabaseError
    from iot_platform.database.statements import statements
    from iot_platform.settings import get_settings

    if as_csv and as_json:
        raise CliError("--csv and --json exclude each other")
    settings = get_settings()
    if query is None:
        _open_psql(settings)
        return
    try:
        connection = connect(settings, "reader", "iot sql")
    except DatabaseError as error:
        raise CliError(str(error)) from error
    try:
        connection.set_session(readonly=True)
        form = "csv" if as_csv else "json" if as_json else "table" if sys.stdout.isatty() else "text"
        for statement in statements(query):
            _print(*_execute(connection, statement), form)
    except psycopg2.Error as error:
        raise CliError(_explained(error)) from error
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # `| head` has read enough; the exit must not flush into it
    finally:
        connection.close()


def _execute(connection: "Connection", statement: str) -> tuple[list[str], Iterator[Sequence[Any]]]:
    """Column names and rows; a SELECT streams, so that it may return more than fits into memory."""
    cursor = connection.cursor(name="iot_sql") if _STREAMABLE.match(statement) else connection.cursor()
    cursor.itersize = cursor.arraysize = FETCH_ROWS
    cursor.execute(statement)
    first = cursor.fetchmany(FETCH_ROWS) if cursor.name or cursor.description else []
    columns = [column.name for column in cursor.description or ()]

    def rows() -> Iterator[Sequence[Any]]:
        chunk = first
        while chunk:
            yield from chunk
            chunk = cursor.fetchmany(FETCH_ROWS)
        cursor.close()

    return columns, rows()


def _print(columns: list[str], rows: Iterator[Sequence[Any]], form: str) -> None:
    out = sys.stdout
    if form == "table":
        _print_table(columns, rows)
    elif form == "csv":
        writer = csv.writer(_VisibleCsv() if out.isatty() else out, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([["" if value is None else _text(value) for value in row] for row in rows])
    elif form == "json":
        for row in rows:
            document = json.dumps(dict(zip(columns, map(_json, row), strict=True)), ensure_ascii=False, allow_nan=False)
            out.write(visible_json(document) + "\n")
    else:
        _print_text(columns, rows, out)


class _VisibleCsv:
    """Standard output when it is a terminal: CSV in a file or pipe is exact."""

    def write(self, line: str) -> None:
        sys.stdout.write(visible(line))


def _print_text(columns: list[str], rows: Iterator[Sequence[Any]], out: TextIO) -> None:
    empty = True
    for row in rows:
        out.write("\t".join(map(_field, row)) + "\n")
        empty = False
    if empty and columns:
        terminal.echo("0 rows", err=True)


def _field(value: Any) -> str:
    if value is None:
        return ""
    return _text(value) if isinstance(value, memoryview | bytes) else visible(_text(value).translate(_ESCAPES))


def _print_table(columns: list[str], rows: Iterator[Sequence[Any]]) -> None:
    console = terminal.console()
    shown = list(islice(rows, MAX_TABLE_ROWS))
    more = next(rows, None) is not None
    if shown and len(columns) * NARROWEST_COLUMN > console.width:
        _print_records(columns, shown, console)
    else:
        _print_grid(columns, shown, console)
    count = len(shown)
    console.print(f"the first {count} rows; --csv or a pipe gives all" if more else f"{count} row{'' if count == 1 else 's'}", style="dim")


def _print_grid(columns: list[str], rows: list[Sequence[Any]], console: "Console") -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(header_style="bold")
    for index, name in enumerate(columns):
        number = bool(rows) and isinstance(rows[0][index], int | float | Decimal)
        table.add_column(Text(visible(name)), justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(_cell, row))
    console.print(table)


def _print_records(columns: list[str], rows: list[Sequence[Any]], console: "Console") -> None:
    """Rows with more columns than the terminal has room for: a line for each value."""
    from rich.table import Table
    from rich.text import Text

    for number, row in enumerate(rows, 1):
        table = Table(title=f"row {number}", title_justify="left", show_header=False, box=None, padding=(0, 1, 0, 2))
        table.add_column(style="dim")
        table.add_column(overflow="fold")
        for name, value in zip(columns, row, strict=True):
            table.add_row(Text(visible(name)), _cell(value))
        console.print(table)


def _cell(value: Any) -> "Text":
    from rich.text import Text

    return Text("∅", style="dim") if value is None else Text(visible(_text(value, readable=True)))


def _text(value: Any, *, readable: bool = False) -> str:
    """A value as PostgreSQL would print it; with `readable`, bytes that are UTF-8 as text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return _time_text(value)
    if isinstance(value, memoryview | bytes):
        data = bytes(value)
        if readable:
            try:
                return data.decode()
            except UnicodeDecodeError:
                pass
        return "\\x" + data.hex()
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, default=str)
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return str(value)


def _time_text(value: datetime) -> str:
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z") if value.tzinfo else value.isoformat()


def _json(value: Any) -> Any:
    """A value that JSON has; numbers that it lacks, NaN and Infinity, as strings."""
    if isinstance(value, list):
        return [_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return _text(value)
    if isinstance(value, Decimal) and value.is_finite():
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, memoryview | bytes | datetime | date | time | timedelta | Decimal):
        return _text(value)
    return value


def _explained(error: Any) -> str:
    text = (error.diag.message_primary if error.diag else None) or str(error).strip()
    hint = f" ({error.diag.message_hint})" if error.diag and error.diag.message_hint else ""
    if error.pgcode in ("25006", "42501"):
        hint += " - iot sql only reads; `iot migrate` changes the schema"
    return f"{text}{hint}"


def _open_psql(settings: "Settings") -> None:
    """Replace this process by psql, as the reader; the password travels in the environment, never among the arguments."""
    from psycopg2.extensions import make_dsn, parse_dsn

    if shutil.which("psql") is None:
        raise CliError('psql is not installed: apt install postgresql-client, or ask here: iot sql "SELECT …"')
    reader = settings.database_reader_url
    parameters = parse_dsn(reader.get_secret_value() if reader else settings.writer_url)
    options = "-c default_transaction_read_only=on" + ("" if reader else " -c role=iot_reader")
    parameters["options"] = f"{parameters.get('options', '')} {options}".strip()
    password = parameters.pop("password", None)
    environment = os.environ | ({"PGPASSWORD": password} if password else {})
    os.execvpe("psql", ["psql", make_dsn(**parameters)], environment)  # noqa: S606 - no shell is wanted
