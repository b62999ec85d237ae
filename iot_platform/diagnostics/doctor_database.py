"""What `iot doctor` says about PostgreSQL's settings: those with which a commit, or what was kept, does not outlive the next fault."""

from collections.abc import Iterator
from typing import Final, NamedTuple

from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.database.sessions import IS_CLIENT
from iot_platform.diagnostics.finding import Finding, State

FULL_SHARE: Final = 0.9
"""Of max_connections: from here on drains and logins soon find none."""


class _Rule(NamedTuple):
    """Values of a setting that endanger what is stored, and what may happen then."""

    values: frozenset[str]
    state: State
    consequence: str
    good: str


_RULES: Final = {
    "fsync": _Rule(frozenset({"off"}), "risk", "a power cut may destroy the whole database", "on"),
    "full_page_writes": _Rule(frozenset({"off"}), "risk", "a power cut may leave pages half written, and nobody notices", "on"),
    "synchronous_commit": _Rule(
        frozenset({"off"}),
        "risk",
        "a power cut takes back the last commits: the drain repeats its own out of Kafka; accepted losses, policies and tenants stay lost",
        "on",
    ),
    "zero_damaged_pages": _Rule(frozenset({"on"}), "risk", "rows on damaged pages vanish without an error", "off"),
    "ignore_checksum_failure": _Rule(frozenset({"on"}), "risk", "damaged rows are read as if they were whole", "off"),
    "autovacuum": _Rule(frozenset({"off"}), "risk", "tables bloat, and PostgreSQL stops writing before transaction ids run out", "on"),
    "data_checksums": _Rule(frozenset({"off"}), "note", "damage by the disk is not noticed", "on"),
}
_PLACES: Final = {
    "database": "ALTER DATABASE {database} RESET {name}",
    "user": "ALTER ROLE {role} RESET {name}",
    "database user": "ALTER ROLE {role} IN DATABASE {database} RESET {name}",
    "client": "take {name} out of the options in IOT_DATABASE_URL",
    "command line": "start PostgreSQL without -c {name}=…",
}
"""Where a value that is not the configuration file's was set, and so where to change it."""


def database_findings(connection: Connection) -> Iterator[Finding]:
    """Of the server that a writer's connection has reached. Raises psycopg2.Error."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only'), current_database(), current_user")
        standby, read_only, database, role = cursor.fetchone() or (False, "off", "", "")
        cursor.execute("SELECT name, setting, source FROM pg_settings WHERE name = ANY (%s)", ([*_RULES, "archive_mode"],))
        settings = {name: (value, source) for name, value, source in cursor.fetchall()}
    if standby:
        yield Finding("database", "bad", "this is a standby: nothing can be written", "name the primary in IOT_DATABASE_URL")
    elif read_only == "on":
        remedy = f"default_transaction_read_only = off: ALTER DATABASE {database}, ALTER ROLE {role}, postgresql.conf"
        yield Finding("database", "bad", "default_transaction_read_only=on: nothing can be written", remedy)
    found = [_judged(name, *settings[name], database=database, role=role) for name in _RULES if name in settings]
    told = [finding for finding in found if finding is not None]
    yield from told
    if not any(finding.state == "risk" for finding in told):
        yield Finding("database settings", "ok", "fsync, full_page_writes and synchronous_commit are on: a commit outlives a power cut")
    yield from _archive(connection, settings.get("archive_mode", ("off", ""))[0])
    yield from _connections(connection)


def _judged(name: str, value: str, source: str, *, database: str, role: str) -> Finding | None:
    rule = _RULES[name]
    if value not in rule.values:
        return None
    if name == "data_checksums":
        remedy = "data_checksums: stop the server, pg_checksums --enable"
    else:
        change = f"ALTER SYSTEM SET {name} = {rule.good}; SELECT pg_reload_conf()"
        remedy = _PLACES.get(source, change).format(name=name, database=database, role=role)
    return Finding("database settings", rule.state, f"{name}={value}: {rule.consequence}", remedy)


def _archive(connection: Connection, mode: str) -> Iterator[Finding]:
    """Whether the write-ahead log leaves the machine."""
    what = "WAL archive"
    if mode == "off":
        text = "archive_mode=off: what a lost disk takes comes back from the last backup, and from Kafka as far as it reaches"
        yield Finding(what, "note", text, "archive_mode = on and archive_command (or archive_library) in postgresql.conf, and a restart")
        return
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT bool_or(setting NOT IN ('', '(disabled)')) FROM pg_settings WHERE name IN ('archive_command', 'archive_library')"
        )
        (configured,) = cursor.fetchone() or (None,)
        cursor.execute(
            "SELECT last_failed_wal, last_failed_time > coalesce(last_archived_time, '-infinity'), archived_count, failed_count, "
            "extract(epoch FROM clock_timestamp() - coalesce(last_archived_time, stats_reset))::float8 FROM pg_stat_archiver"
        )
        segment, failing, archived, failed, age = cursor.fetchone() or (None, None, 0, 0, None)
    if configured is False:
        text = "archive_mode is on and archive_command is empty: WAL piles up until the disk is full, and then nothing is written any more"
        yield Finding(what, "risk", text, "set archive_command or archive_library, or archive_mode = off")
    elif failing:
        since = f", the last success was {age:,.0f} s ago" if archived else ", it never succeeded"
        text = f"archiving {segment} fails ({failed:,} failures{since}): WAL piles up, and a restore would end there"
        yield Finding(what, "risk", text, "what archive_command says of it is in PostgreSQL's log; correct archive_command or its target")
    else:
        yield Finding(what, "ok", f"{archived:,} segments archived")


def _connections(connection: Connection) -> Iterator[Finding]:
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT count(*) FILTER (WHERE {IS_CLIENT}), current_setting('max_connections')::int FROM pg_stat_activity",  # noqa: S608
        )
        used, most = cursor.fetchone() or (0, 1)
    full = used >= FULL_SHARE * most
    text = f"{used:,} of {most:,} are in use"
    yield Finding("connections", "risk" if full else "ok", text, "raise max_connections, or end what holds them (pg_stat_activity)")
