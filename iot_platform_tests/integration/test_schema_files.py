"""sql/schema.sql and docs/schema.md show the schema as a fresh migration makes it."""

import runpy
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.settings import Settings

pytestmark = pytest.mark.sql

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "schema.py"))


@pytest.fixture
def fresh(settings: Settings) -> Iterator[Connection]:
    with closing(psycopg2.connect(settings.admin_url)) as connection:
        yield connection


@pytest.mark.parametrize(("file", "render"), [("SQL_FILE", "sql_text"), ("PAGE", "page_text")])
def test_the_file_is_what_a_fresh_migration_makes(fresh: Connection, file: str, render: str) -> None:
    text: Any = SCRIPT[render](fresh)
    assert SCRIPT[file].read_text("utf-8") == text, "run `make schema`"


def test_every_table_and_its_short_names_are_explained(fresh: Connection) -> None:
    """A table's line says what a row is; a column without a comment says it by its name."""
    page = SCRIPT["page_text"](fresh)
    for tables in SCRIPT["GROUPS"].values():
        for table in tables:
            assert f"\n**{table}**: One row " in page
