"""Writes sql/schema.sql and docs/schema.md from the catalogs of a freshly migrated database: `make schema`.

Only what the platform made: extensions' objects and chunks are left out. An integration test keeps both files equal to a fresh migration.
"""

import sys
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event
from typing import Any, Final, LiteralString

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.database.migrate import migrate
from iot_platform.local.passwords import Passwords
from iot_platform.local.ports import free_ports
from iot_platform.local.postgresql import PostgresqlServer
from iot_platform.local.postgresql_roles import create_database
from iot_platform.local.server import start
from iot_platform.local.supervisor import Supervisor
from iot_platform.settings import Settings

ROOT: Final = Path(__file__).resolve().parents[1]
SQL_FILE: Final = ROOT / "sql" / "schema.sql"
PAGE: Final = ROOT / "docs" / "schema.md"
WIDTH: Final = 140

GROUPS: Final[dict[str, tuple[str, ...]]] = {
    "Names": (
        "project", "project_option", "decode_correction", "source", "series", "mqtt_connection", "mqtt_connection_partition",
        "catalog_generation",
    ),
    "Messages": ("message", "quarantine", "measurement", "series_latest", "dead_letter", "sparkplug_node", "sparkplug_birth"),
    "Ledger and audit": (
        "kafka_offset", "kafka_watermark", "ledger", "accounting_1h", "mqtt_connection_report", "ingest_report", "schema_migration",
        "import_file", "audit_result",
    ),
    "Rollups": (
        "rollup_state", "rollup_change", "measurement_1h_stored", "measurement_1d_stored", "compression_policy", "compressed_chunk",
        "backup_drill", "database_backup",
    ),
    "Retention and tenants": (
        "retention_policy", "retention_mark", "retention_removed", "retention_sum", "removed_record", "mqtt_connection_removed",
        "ledger_removed", "tenant_role", "tenant_deletion", "tenant_deletion_series", "tenant_deletion_source", "tenant_deletion_offset",
    ),
    "Quality": (
        "quality_rule", "quality_watermark", "quality_feed", "quality_note", "quality_late", "quality_cadence", "quality_pause",
        "quality_gap", "quality_constant", "quality_recheck", "quality_incident", "quality_result",
    ),
    "Console": (
        "console_tenant", "console_user", "console_grant", "console_session", "console_unknown_name", "api_key", "console_action",
        "series_info",
        "series_info_change",
    ),
    "Second stores": ("sink", "sink_offset", "sink_range", "sink_replay", "sink_series", "sink_refused", "sink_backfill"),
}  # fmt: skip
"""The pictures of docs/schema.md; a table that is in none is an error."""
LOGICAL: Final = (
    ("source", "message", "source_id"),
    ("sparkplug_node", "sparkplug_birth", "identity, kafka_partition"),
    ("mqtt_connection", "message", "connection_id"),
    ("mqtt_connection", "quarantine", "connection_id"),
    ("series", "measurement", "series_id"),
    ("series", "series_latest", "series_id"),
    ("series", "measurement_1h_stored", "series_id"),
    ("series", "measurement_1d_stored", "series_id"),
    ("series", "rollup_change", "series_id"),
    ("series", "series_info", "series_id"),
    ("series_info", "series_info_change", "series_id"),
    ("series", "sink_series", "series_id"),
    ("series", "sink_refused", "series_id"),
    ("kafka_offset", "ledger", "kafka_topic, kafka_partition"),
    ("kafka_offset", "kafka_watermark", "topic, kafka_partition"),
    ("kafka_offset", "sink_offset", "topic, kafka_partition"),
    ("ledger", "quality_feed", "batch_id"),
    ("quality_feed", "quality_late", "feed_position"),
    ("quality_rule", "quality_watermark", "rule"),
    ("quality_rule", "quality_incident", "rule"),
    ("quality_incident", "quality_result", "incident_id"),
    ("mqtt_connection", "mqtt_connection_report", "client_id, connection_number"),
)
"""References that no constraint holds, because the rows come by the million: parent, child, columns of the child."""

_SCHEMAS: Final = "SELECT nspname, obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname IN ('tenant', 'dagster') ORDER BY 1"
_RELATIONS: Final = """
SELECT c.oid, format('%s%I', CASE n.nspname WHEN 'public' THEN '' ELSE n.nspname || '.' END, c.relname), c.relkind,
       coalesce(array_to_string(c.reloptions, ', '), ''), obj_description(c.oid, 'pg_class')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'v') AND n.nspname IN ('public', 'tenant')
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
ORDER BY n.nspname, c.relname"""
_COLUMNS: Final = """
SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
       CASE a.attidentity WHEN '' THEN pg_get_expr(e.adbin, e.adrelid) ELSE 'identity' END, col_description(a.attrelid, a.attnum)
FROM pg_attribute a LEFT JOIN pg_attrdef e ON e.adrelid = a.attrelid AND e.adnum = a.attnum
WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum"""
_CONSTRAINTS: Final = """
SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = %s AND contype <> 'n'
ORDER BY array_position(ARRAY['p', 'u', 'f', 'c']::"char"[], contype), conname"""
_INDEXES: Final = """
SELECT pg_get_indexdef(i.indexrelid),
       (SELECT string_agg(a.attnum || ': ' || a.attstattarget, ', ' ORDER BY a.attnum) FROM pg_attribute a
        WHERE a.attrelid = i.indexrelid AND a.attstattarget IS NOT NULL AND a.attstattarget >= 0)
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid = %s AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u'))
ORDER BY c.relname"""
_HYPERTABLES: Final = """
SELECT d.hypertable_name, d.column_name, d.time_interval FROM timescaledb_information.dimensions d WHERE d.hypertable_schema = 'public'"""
_FUNCTIONS: Final = """
SELECT format('%s%I(%s)', CASE n.nspname WHEN 'public' THEN '' ELSE n.nspname || '.' END, p.proname,
              pg_get_function_identity_arguments(p.oid)),
       pg_get_function_result(p.oid), p.prosecdef, obj_description(p.oid, 'pg_proc'), pg_get_functiondef(p.oid)
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE p.prokind = 'f' AND n.nspname IN ('public', 'tenant')
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
ORDER BY n.nspname, 1"""
_FOREIGN: Final = """
SELECT confrelid::regclass::text, conrelid::regclass::text,
       (SELECT string_agg(a.attname, ', ' ORDER BY k.place) FROM unnest(conkey) WITH ORDINALITY k (attnum, place)
        JOIN pg_attribute a ON a.attrelid = conrelid AND a.attnum = k.attnum)
FROM pg_constraint WHERE contype = 'f' AND connamespace = 'public'::regnamespace AND conparentid = 0 ORDER BY 1, 2, 3"""
_KEYS: Final = """
SELECT a.attname, string_agg(DISTINCT upper(k.contype::text) || 'K', ', ' ORDER BY upper(k.contype::text) || 'K' DESC)
FROM pg_constraint k JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey)
WHERE k.conrelid = %s AND k.contype IN ('p', 'f') GROUP BY 1"""


def sql_text(connection: Connection, *, bodies: bool = False) -> str:
    """sql/schema.sql: tables in full, views with their columns, functions with their signature; `bodies`: these in full, too."""
    parts = [
        "-- Generated by `make schema` from a freshly migrated database, to be read: `iot migrate` makes it from\n"
        "-- migrations/ and repeatable/.\n"
        "-- Queries of views and bodies of functions are in repeatable/; who may do what, in repeatable/grants.sql.\n"
    ]
    parts += [f"CREATE SCHEMA {name};\n{_comment('SCHEMA', name, comment)}" for name, comment in _rows(connection, _SCHEMAS)]
    hypertables = {name: (column, interval) for name, column, interval in _rows(connection, _HYPERTABLES)}
    relations = _rows(connection, _RELATIONS)
    parts += [_table(connection, relation, hypertables) for relation in relations if relation[2] == "r"]
    parts += [_view(connection, relation, bodies=bodies) for relation in relations if relation[2] == "v"]
    parts += [_function(*function, bodies=bodies) for function in _rows(connection, _FUNCTIONS)]
    return "\n".join(parts)


def _table(connection: Connection, relation: tuple[Any, ...], hypertables: dict[str, Any]) -> str:
    oid, name, _, options, comment = relation
    columns = _rows(connection, _COLUMNS, oid)
    lines = [f"    {_column(*column[:4])}" for column in columns]
    lines += [f"    CONSTRAINT {constraint} {definition}" for constraint, definition in _rows(connection, _CONSTRAINTS, oid)]
    text = f"CREATE TABLE {name} (\n" + ",\n".join(lines) + "\n)" + (f" WITH ({options})" if options else "") + ";\n"
    if name in hypertables:
        column, interval = hypertables[name]
        text += (
            f"SELECT create_hypertable('{name}', by_range('{column}', INTERVAL '{interval.days} days'), create_default_indexes => false);\n"
        )
    for index, statistics in _rows(connection, _INDEXES, oid):
        text += index.replace(" ON public.", " ON ") + ";" + (f"  -- statistics by column: {statistics}" if statistics else "") + "\n"
    text += _comment("TABLE", name, comment)
    return text + "".join(_comment("COLUMN", f"{name}.{column[0]}", column[4]) for column in columns if column[4])


def _column(name: str, type_: str, not_null: bool, default: str | None) -> str:
    if default == "identity":
        default = "GENERATED ALWAYS AS IDENTITY"
    elif default is not None:
        default = f"DEFAULT {default}"
    return " ".join(part for part in (name, _short(type_), default, "NOT NULL" if not_null else None) if part)


def _view(connection: Connection, relation: tuple[Any, ...], *, bodies: bool) -> str:
    oid, name, _, options, comment = relation
    if bodies:
        ((query,),) = _rows(connection, "SELECT pg_get_viewdef(%s, true)", oid)
        return f"CREATE VIEW {name}{f' WITH ({options})' if options else ''} AS\n{query}\n{_comment('VIEW', name, comment)}"
    columns = ", ".join(f"{column[0]} {_short(column[1])}" for column in _rows(connection, _COLUMNS, oid))
    return f"-- VIEW {name}{f' WITH ({options})' if options else ''}\n{_lines(comment)}{_lines(f'({columns})')}"


def _function(name: str, result: str, as_owner: bool, comment: str | None, definition: str, *, bodies: bool) -> str:
    if bodies:
        return f"{definition};\n{_comment('FUNCTION', name, comment)}"
    head = _lines(_short(f"FUNCTION {name} RETURNS {result}{' SECURITY DEFINER' if as_owner else ''}"))
    return head.replace("--     ", "-- ", 1) + _lines(comment)


def _comment(kind: str, name: str, comment: str | None) -> str:
    quoted = "'" + " ".join((comment or "").split()).replace("'", "''") + "'"
    line = f"COMMENT ON {kind} {name} IS {quoted};\n"
    if len(line) <= WIDTH:
        return line
    parts = textwrap.wrap(quoted[1:-1], WIDTH - 10, break_on_hyphens=False, drop_whitespace=False)
    return f"COMMENT ON {kind} {name} IS\n" + "\n".join(f"    '{part}'" for part in parts) + ";\n"


def _lines(text: str | None) -> str:
    return textwrap.fill(text or "", WIDTH, initial_indent="--     ", subsequent_indent="--     ", break_on_hyphens=False) + "\n"


def _short(text: str) -> str:
    return text.replace("timestamp with time zone", "timestamptz")


def page_text(connection: Connection) -> str:
    """docs/schema.md: six pictures, and below each what a row of its tables is and what their columns mean."""
    oids = {name: (oid, comment) for oid, name, kind, _, comment in _rows(connection, _RELATIONS) if kind == "r"}
    grouped = [table for tables in GROUPS.values() for table in tables]
    if sorted(oids) != sorted(grouped):
        raise SystemExit(
            f"scripts/schema.py: GROUPS lacks {set(oids) - set(grouped)} and names {set(grouped) - set(oids)}, which is no table"
        )
    edges = [(*edge, "..") for edge in LOGICAL] + [(*edge, "--") for edge in _rows(connection, _FOREIGN)]
    parts = [
        "# Schema\n\nGenerated by `make schema` from the comments in the database. Lines: a foreign key; dotted: the same without a\n"
        "constraint. Views for people are in [sql/schema.sql](../sql/schema.sql).\n"
    ]
    for title, tables in GROUPS.items():
        parts.append(f"## {title}\n\n```mermaid\nerDiagram\n{_picture(connection, tables, oids, edges)}```\n")
        for table in tables:
            oid, comment = oids[table]
            lines = [f"**{table}**: {_plain(comment)}"]
            lines += [f"- `{column[0]}`: {_plain(column[4])}" for column in _rows(connection, _COLUMNS, oid) if column[4]]
            parts.append(lines[0] + ("\n\n" + "\n".join(lines[1:]) if lines[1:] else "") + "\n")
    return "\n".join(parts)


def _picture(connection: Connection, tables: tuple[str, ...], oids: dict[str, Any], edges: list[Any]) -> str:
    text, identity = "", dict[str, set[str]]()
    for table in tables:
        keys = dict(_rows(connection, _KEYS, oids[table][0]))
        identity[table] = {name for name, kinds in keys.items() if "PK" in kinds}
        text += f"    {table} {{\n"
        for name, type_, *_ in _rows(connection, _COLUMNS, oids[table][0]):
            shown = _short(type_).replace(" ", "_").replace("[]", "_array")
            text += f"        {shown} {name} {keys.get(name, '')}".rstrip() + "\n"
        text += "    }\n"
    for parent, child, columns, line in edges:
        if child in tables:
            many = "|" if set(columns.split(", ")) == identity[child] else "{"
            text += f'    {parent} ||{line}o{many} {child} : "{columns}"\n'
    return text


def _plain(comment: str | None) -> str:
    return " ".join((comment or "").split()).replace("<", "&lt;")


def _rows(connection: Connection, query: LiteralString, *parameters: object) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query, parameters or None)
        return cursor.fetchall()


@contextmanager
def fresh_database() -> Iterator[Connection]:
    """A PostgreSQL of its own with a migrated database; gone after the block."""
    with tempfile.TemporaryDirectory(prefix="iot-schema-") as name:
        folder = Path(name)
        supervisor = Supervisor(folder, die_with_parent=True)
        passwords = Passwords.load(folder / "data" / "passwords.json")
        server = PostgresqlServer(folder, Settings().cache_dir, free_ports(1)[0], passwords, durable=False)
        supervisor.ensure_running()
        try:
            start(server, supervisor, lambda _: None, abort=Event())
            create_database(server.url("postgres", "postgres"), "schema")
            url = server.url("iot_migrator", "schema")
            migrate(Settings(database_url=url, database_admin_url=url))  # type: ignore[arg-type]
            with closing(psycopg2.connect(url)) as connection:
                yield connection
        finally:
            supervisor.shutdown()


if __name__ == "__main__":
    with fresh_database() as fresh:
        SQL_FILE.write_text(sql_text(fresh), "utf-8")
        PAGE.write_text(page_text(fresh), "utf-8")
    sys.stdout.write(f"{SQL_FILE.relative_to(ROOT)} and {PAGE.relative_to(ROOT)} are written\n")
