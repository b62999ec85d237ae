"""What `iot doctor` looks at: the machine, the ports, and every configured server. Each check says what to do about it."""

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Final, Literal, TypeVar

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812

from ingest_daemon.home import env_files
from iot_platform.compression.formats import ENOUGH_DAYS, outlook_text
from iot_platform.diagnostics.doctor_broker import broker_findings
from iot_platform.diagnostics.doctor_clocks import clock_findings
from iot_platform.diagnostics.doctor_database import database_findings
from iot_platform.diagnostics.doctor_drain import drain_findings
from iot_platform.diagnostics.doctor_influx import influx_findings
from iot_platform.diagnostics.doctor_ingest import ingest_findings, spool_finding
from iot_platform.diagnostics.doctor_kafka import disk_finding, topic_findings
from iot_platform.diagnostics.finding import Finding, State, by_urgency
from iot_platform.diagnostics.parallel import in_parallel
from iot_platform.ingest_pages import daemons
from iot_platform.local import probes
from iot_platform.local.errors import LocalStackError, NotReadyError
from iot_platform.local.kafka import KafkaServer, java_command
from iot_platform.local.plan import Plan
from iot_platform.local.ports import is_free, owner
from iot_platform.local.postgresql_install import RELEASE, find_installed
from iot_platform.local.supervisor import Supervisor
from iot_platform.settings import Settings, SettingsError
from iot_platform.telemetry.decode import DecodeRules

_ENOUGH_DISK_BYTES = 5 << 30
_ENOUGH_MEMORY_BYTES = 2 << 30
DEADLINE_SECONDS: Final = 50.0
"""One page in one minute."""
_T = TypeVar("_T")


def examine(plan: Plan, note: Callable[[str], None] = lambda _: None) -> list[Finding]:
    """All checks at once, ordered by what to fix first; within DEADLINE_SECONDS, whatever hangs. `note` hears what is still awaited."""
    groups = _groups(plan)
    found: dict[str, list[Finding]] = {name: [] for name in groups}
    failures = in_parallel({name: partial(_collect, found[name], check) for name, check in groups.items()}, DEADLINE_SECONDS, waiting=note)
    for name, why in failures.items():
        found[name].append(Finding(name, "bad", f"not examined to its end: {why}", "repeat it; `iot support-bundle` keeps what there is"))
    return by_urgency([finding for findings in list(found.values()) for finding in list(findings)])


def _collect(into: list[Finding], check: Callable[[], Iterable[Finding]]) -> None:
    into.extend(check())  # one by one: what was found before a check hangs counts


def _groups(plan: Plan) -> dict[str, Callable[[], Iterable[Finding]]]:
    """What can be examined side by side, along the way of the data."""
    settings, running = plan.settings, Supervisor(plan.settings.local_dir).alive()
    here = {"mqtt": plan.mosquitto is not None, "kafka": plan.kafka is not None, "database": plan.postgresql is not None}
    up = {name: running or not local for name, local in here.items()}
    groups: dict[str, Callable[[], Iterable[Finding]]] = {
        "machine": lambda: [*_machine(plan), *_installed(plan), *_ports(plan)],
        "MQTT": partial(_server, plan, "MQTT", running=running),
        "ingest daemons": partial(_server, plan, "ingest", running=running),
        "spool": spool_finding,
        "Kafka": partial(_kafka, plan, running=running),
        "Kafka's disk": lambda: [disk_finding(plan)],
        "database": partial(_server, plan, "database", running=running),
        "Dagster": partial(_server, plan, "Dagster", running=running),
        "InfluxDB": partial(influx_findings, settings),
        "clocks": partial(clock_findings, settings, database=up["database"], kafka=up["kafka"], ingest=up["mqtt"]),
    }
    if up["mqtt"]:
        groups["broker"] = partial(broker_findings, settings, _session_expiry())
        groups["probes"] = partial(ingest_findings, settings)
    if up["kafka"] and up["database"]:
        groups["drain"] = partial(drain_findings, settings)
    if up["database"]:
        groups["database settings"] = partial(_capabilities, settings)
        groups["tenants' logins"] = partial(_tenants, settings)
    return groups


def _session_expiry() -> int:
    """IOT_INGEST_SESSION_EXPIRY_SECONDS as a daemon of this machine reads it; its default where the daemon's settings are elsewhere."""
    from ingest_daemon import settings as daemon

    try:
        return daemon.load().ingest_session_expiry_seconds
    except SettingsError:
        return int(daemon.Settings.model_fields["ingest_session_expiry_seconds"].default)


def _machine(plan: Plan) -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("Python", "ok", f"{version} ({sys.executable})")
    if os.geteuid() == 0:
        yield Finding("root", "ok", "yes: what is missing can be installed")
    else:
        yield Finding("root", "note", "no: `iot up` uses what is installed, and names what is not")
    for what, folder in (("data", plan.settings.local_dir), ("downloads", plan.settings.cache_dir)):
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(existing).free
        short: Literal["risk", "note"] = "risk" if what == "data" else "note"
        state: State = "ok" if free >= _ENOUGH_DISK_BYTES else short
        variable = "IOT_LOCAL_DIR" if what == "data" else "IOT_CACHE_DIR"
        yield Finding(f"disk for {what}", state, f"{free / (1 << 30):.1f} GiB free at {folder}", f"make room, or set {variable}")
    memory = _available_memory()
    if memory is not None:
        enough = memory >= _ENOUGH_MEMORY_BYTES
        yield Finding("memory", "ok" if enough else "note", f"{memory / (1 << 30):.1f} GiB available; the whole stack takes about 1.7 GiB")
    files = [str(path) for path in env_files() if path.exists()]
    try:
        DecodeRules.from_settings(plan.settings)
    except SettingsError as error:
        yield Finding("settings", "bad", str(error), "docs/payloads.md, .env.example")
        return
    yield Finding("settings", "ok", f"valid; from the environment{''.join(f' and {name}' for name in files)}")


def _installed(plan: Plan) -> Iterator[Finding]:
    if plan.kafka is not None:
        java = java_command()
        remedy = "as root: apt-get install default-jre-headless; or set JAVA_HOME"
        yield Finding("Java", "ok" if java else "bad", java or "no Java >= 17", "" if os.geteuid() == 0 else remedy)
        yield _kafka_jars(plan.kafka)
    if plan.postgresql is not None:
        found = find_installed() or find_installed(plan.settings.cache_dir / f"postgresql-{RELEASE}")
        where = f"PostgreSQL {found.major} with TimescaleDB in {found.root}" if found else "not here yet: `iot up` downloads it (700 MB)"
        yield Finding("TimescaleDB", "ok" if found else "note", where)
    for server in plan.servers:
        try:
            missing = server.missing_packages()
        except LocalStackError as error:
            yield Finding(server.name, "bad", str(error))
            continue
        for package, why in missing.items():
            state: Literal["note", "bad"] = "note" if os.geteuid() == 0 else "bad"
            yield Finding(package, state, f"not installed ({why})", f"`iot up` as root, or: apt-get install {package}")


def _kafka_jars(kafka: KafkaServer) -> Finding:
    libraries = kafka.libraries()
    if libraries.exists():
        return Finding("Kafka", "ok", str(libraries))
    return Finding("Kafka", "note", f"not in {libraries} yet: `iot up` downloads it (54 MB)")


def _ports(plan: Plan) -> Iterator[Finding]:
    supervisor = Supervisor(plan.settings.local_dir)
    for name, port, variable, _ in plan.ports:
        if supervisor.state(name).pid:
            yield Finding(f"port {port}", "ok", f"{name}, running here")
        elif is_free(port):
            yield Finding(f"port {port}", "ok", f"free for {name}")
        else:
            yield Finding(f"port {port}", "bad", f"wanted for {name}, used by {owner(port)}", f"stop that, or set {variable}")


def _server(plan: Plan, wanted: str, *, running: bool) -> Iterator[Finding]:
    """Whether what we were told the address of answers, and as it should."""
    settings = plan.settings
    checks: list[tuple[str, str, bool, Callable[[], str]]] = [
        ("MQTT", "IOT_MQTT_URL", plan.mosquitto is not None, lambda: f"accepts our CONNECT by MQTT {probes.mqtt(settings)}"),
        ("Kafka", "IOT_KAFKA_BOOTSTRAP_SERVERS", plan.kafka is not None, lambda: _said(probes.kafka, settings, "answers")),
        ("database", "IOT_DATABASE_URL", plan.postgresql is not None, lambda: _database(settings)),
        *(("ingest", "IOT_INGEST_HTTP_URL", plan.local_ingest, partial(_ingest, url)) for url in daemons(settings)),
        ("Dagster", "IOT_DAGSTER_URL", plan.local_dagster, lambda: _said(probes.dagster, settings.dagster_url, "loaded, daemons beat")),
    ]
    for what, variable, local, check in checks:
        if what != wanted:
            continue
        if local and not running:
            yield Finding(what, "note", "not running", "`iot up`")
            continue
        try:
            yield Finding(what, "ok", check())
        except _ToldError as error:
            yield Finding(what, "bad", str(error))
        except (NotReadyError, LocalStackError) as error:
            # Kafka's error names the setting itself: the address is only one of many.
            wrong = "the setting that it names" if what == "Kafka" else variable
            remedy = f"`iot logs`, `iot up`; or set {variable} to a server of yours" if local else f"correct {wrong}"
            yield Finding(what, "bad", str(error), remedy)


def _kafka(plan: Plan, *, running: bool) -> Iterator[Finding]:
    """Its topics, too, if it answers: asked alone they would wait three times as long for the same words."""
    found = list(_server(plan, "Kafka", running=running))
    yield from found
    if all(finding.state == "ok" for finding in found):
        yield from topic_findings(plan.settings)


def _capabilities(settings: Settings) -> Iterator[Finding]:
    """What the database's edition can do, and the disk forecast; nothing when the database does not answer, which another finding says."""
    from iot_platform.database import DatabaseError, connect

    try:
        connection = connect(settings, "writer", "iot-doctor")
    except DatabaseError:
        return
    with contextlib.closing(connection):
        yield from _readable("database settings", database_findings(connection))
        yield from _readable("edition", _edition(connection))
        yield from _readable("disk forecast", _forecast(connection, settings))


def _readable(what: str, findings: Iterator[Finding]) -> Iterator[Finding]:
    """These findings; where the database refuses to tell them, that."""
    try:
        yield from findings
    except (psycopg2.Error, LookupError) as error:
        yield Finding(
            what, "bad", f"cannot be read: {' '.join(str(error).split())}", "run `iot migrate`; after an update of TimescaleDB, too"
        )


def _edition(connection: Connection) -> Iterator[Finding]:
    from iot_platform.database.capabilities import TESTED, read_capabilities

    report = read_capabilities(connection)
    first, last = (".".join(map(str, version)) for version in TESTED)
    text = f"tested with {first} to {last}" if report.tested else f"not among the releases that were tested: {first} to {last}"
    yield Finding("edition", "ok" if report.tested else "note", f"{report.headline()} ({text})")
    for item in report.items:
        yield Finding(item.name, "ok" if item.available else "bad" if item.broken else "note", item.text, item.remedy)


def _forecast(connection: Connection, settings: Settings) -> Iterator[Finding]:
    from iot_platform.compression.forecast import forecast

    outlook = forecast(connection, settings)
    full = outlook.days is not None and outlook.days < ENOUGH_DAYS
    yield Finding("disk forecast", "note" if full else "ok", outlook_text(outlook), "make room, keep less, or raise IOT_DISK_LIMIT_BYTES")


def _tenants(settings: Settings) -> Iterator[Finding]:
    """Whether sessions of tenants' logins that stay in a transaction too long can be ended; nothing where there are none."""
    from iot_platform.database import DatabaseError, connect

    try:
        connection = connect(settings, "admin", "iot-doctor")
    except DatabaseError:
        return
    with contextlib.closing(connection):
        yield from _readable("tenants' logins", _logins(connection))


def _logins(connection: Connection) -> Iterator[Finding]:
    from iot_platform.tenants.access import list_access, too_much, unguarded

    logins, found, more = list_access(connection), unguarded(connection), too_much(connection)
    if logins and more:
        text = f"may {'; '.join(more)}"
        yield Finding("tenants' logins", "bad", text, "let a superuser run sql/superuser/harden_database.sql in this database")
    elif found:
        text = f"the owner of the database may not end sessions of {', '.join(found)}: their transactions may hold locks for ever"
        yield Finding("tenants' logins", "bad", text, "repeat `iot tenant grant`, or let a superuser GRANT these roles to the owner")
    elif logins:
        yield Finding("tenants' logins", "ok", f"{len(logins):,}; transactions that take too long are ended")


def _ingest(url: str) -> str:
    probes.http(f"{url}/readyz")
    return f"{url}: ready"


class _ToldError(LocalStackError):
    """A problem whose words say what to do."""


def _said(probe: Callable[[_T], None], argument: _T, text: str) -> str:
    probe(argument)
    return text


def _database(settings: Settings) -> str:
    from iot_platform.database import DatabaseError, MigrationError, connect, newer, pending

    try:
        connection = connect(settings, "writer", "iot-doctor")
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT current_setting('server_version'), extversion, current_setting('timescaledb.license', true) "
                "FROM pg_extension WHERE extname = 'timescaledb'"
            )
            row = cursor.fetchone()
        connection.close()
        connect(settings, "reader", "iot-doctor").close()
        todo, later = pending(settings), newer(settings)
    except MigrationError as error:
        raise _ToldError(str(error)) from error
    except DatabaseError as error:
        raise LocalStackError(str(error)) from error
    if row is None:
        raise _ToldError("the database has no timescaledb extension: a superuser runs CREATE EXTENSION timescaledb")
    if todo:
        raise _ToldError(f"{len(todo)} migration(s) are missing: run `iot migrate`")
    schema = f"schema of a newer release ({later[-1]})" if later else "schema up to date"
    return f"PostgreSQL {row[0]}, TimescaleDB {row[1]} ({row[2]} edition), {schema}"


def _available_memory() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:
        return None
    values = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
    return values.get("MemAvailable")
