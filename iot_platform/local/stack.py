"""The local stack as a whole: the order in which its parts start, and how they all end."""

import fcntl
import importlib.metadata
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from threading import Event
from typing import Any

from ingest_daemon.home import stack_notes_file
from iot_platform.local import applications, exporters, jmx_exporter, leftovers, monitoring, probes
from iot_platform.local.errors import GivenUpError, LocalStackError, NotReadyError
from iot_platform.local.install import Note, install_packages, run_logged
from iot_platform.local.plan import Plan, write_notes
from iot_platform.local.ports import LOOPBACK, require_free
from iot_platform.local.program import Program
from iot_platform.local.server import Server, await_ready, start
from iot_platform.local.step_report import Report
from iot_platform.local.supervisor import Supervisor
from iot_platform.orchestration.environment import dagster_environment
from iot_platform.settings import Settings, stack_notes

_WAVES = (
    ("simulator", "console", *monitoring.NAMES, *exporters.NAMES),
    ("ingest", "metrics", *applications.DAGSTER),
    ("mosquitto", "kafka", "postgresql"),
)


class Stack:
    """Starts and stops what a plan says. One `up` at a time per IOT_LOCAL_DIR."""

    def __init__(self, plan: Plan, report: Report) -> None:
        self._plan = plan
        self._settings = plan.settings
        self._report = report
        self._supervisor = Supervisor(plan.settings.local_dir)
        self._abort = Event()
        self._unwatched: list[str] = []

    def up(self, *, simulator: bool, monitoring: bool = False) -> None:
        """Bring everything up and return when all of it is ready. Repeating it restarts only what changed.

        Raises:
            LocalStackError: with the cause and the remedy; what did start goes on running.
        """
        with _only_one(self._settings):
            programs = self._monitoring() if monitoring else []
            self._install()
            if not self._supervisor.alive():
                leftovers.end(self._settings.local_dir)
            self._supervisor.ensure_running()
            self._require_ports()
            self._require_monitoring_ports(programs)
            write_notes(self._plan, stack_notes_file())
            self._remove_unwanted(programs, simulator=simulator)
            self._start_all(programs, simulator=simulator)

    # -- steps -----------------------------------------------------------------------------------------------
    def _install(self) -> None:
        packages = {name: why for server in self._plan.servers for name, why in server.missing_packages().items()}
        if packages:
            with self._report.step("packages", f"installed {', '.join(packages)}") as note:
                install_packages(packages, self._settings.local_dir / "logs" / "install.log", note)

    def _require_ports(self) -> None:
        notes = stack_notes()
        for name, port, variable, note in self._plan.ports:
            ours = self._supervisor.state(name).pid and notes.get(note) == self._plan.notes.get(note)
            if not ours:
                require_free(port, name, variable)

    def _monitoring(self) -> Sequence[Program]:
        settings = self._settings
        ports = settings.prometheus_port, settings.alertmanager_port
        monitoring.require_installed()
        programs = self._exporters()
        targets = {program.name.removesuffix("_exporter"): self._address(program.name) for program in programs}
        if self._watch_kafka():
            targets["kafka"] = self._address("kafka_exporter")
        return [
            *monitoring.local(settings.local_dir, ports, settings.ingest_http_port, settings.metrics_port, targets).programs(),
            *programs,
        ]

    def _exporters(self) -> list[Program]:
        """Of PostgreSQL, if it runs here, and of this machine; of one that is not installed, a warning."""
        settings, database = self._settings, self._plan.postgresql
        makes: dict[str, Callable[[], Program]] = {
            "this machine": partial(exporters.node_exporter, settings.local_dir, settings.node_exporter_port)
        }
        if database is not None:
            url = database.url("iot_monitor", "postgres")
            makes["PostgreSQL"] = partial(exporters.postgres_exporter, settings.local_dir, settings.postgres_exporter_port, url)
        found = []
        for what, make in makes.items():
            try:
                found.append(make())
            except FileNotFoundError as missing:
                self._unwatched.append(
                    f"no metrics of {what}: apt-get install {missing} (and, so that only ours runs, systemctl disable --now {missing})"
                )
        return found

    def _watch_kafka(self) -> bool:
        """Have Kafka, if it runs here, start with the JMX exporter in it. False, and a warning, where that cannot be had."""
        plan, settings = self._plan, self._settings
        if plan.kafka is None:
            return False
        try:
            with self._report.step("kafka_exporter", "Kafka's JMX exporter is here") as note:
                jar = jmx_exporter.fetch(settings.cache_dir, settings.local_dir / "logs", note)
        except LocalStackError as error:
            self._unwatched.append(f"no metrics of Kafka: {error}")
            return False
        option = jmx_exporter.agent(jar, settings.kafka_exporter_port)
        spec = settings.local_dir / "run" / "kafka.json"
        if not (self._supervisor.state("kafka").pid and option in spec.read_text("utf-8")):
            require_free(settings.kafka_exporter_port, "kafka_exporter", "IOT_KAFKA_EXPORTER_PORT")
        self._plan = replace(plan, kafka=replace(plan.kafka, java_options=(option,)))
        return True

    def _address(self, exporter: str) -> str:
        return f"{LOOPBACK}:{getattr(self._settings, f'{exporter}_port')}"

    def _require_monitoring_ports(self, programs: Sequence[Program]) -> None:
        for program in programs:
            if not self._supervisor.state(program.name).pid:
                port = getattr(self._settings, f"{program.name}_port")
                require_free(port, program.name, f"IOT_{program.name.upper()}_PORT")

    def _remove_unwanted(self, programs: Sequence[Program], *, simulator: bool) -> None:
        wanted = {server.name for server in self._plan.servers} | {"ingest", "metrics"} | {program.name for program in programs}
        wanted |= set(applications.DAGSTER) if self._plan.local_dagster else set()
        wanted |= {"console"} if self._plan.local_console else set()
        wanted |= {"simulator"} if simulator else set()
        for name in set(self._supervisor.states()) - wanted:
            self._supervisor.remove(name)

    def _start_all(self, programs: Sequence[Program], *, simulator: bool) -> None:
        plan = self._plan
        with ThreadPoolExecutor(12) as pool:
            submit = partial(_submit, pool)
            mqtt = submit(self._mqtt)
            kafka = submit(self._kafka)
            database = submit(self._database)
            ingest = submit(self._ingest, mqtt, kafka)
            metrics = submit(self._metrics, database)
            tasks = [mqtt, kafka, database, ingest, metrics]
            tasks += [submit(self._console, database)] if plan.local_console else []
            tasks += [submit(self._monitor, program, ingest, metrics, database) for program in programs]
            if plan.local_dagster:
                code = submit(self._dagster_code, database)
                tasks += [code, submit(self._dagster, kafka, code)]
            if simulator:
                tasks.append(submit(self._simulator, mqtt, ingest))
            try:
                wait(tasks, return_when=FIRST_EXCEPTION)
            finally:
                if any(task.done() and task.exception() for task in tasks) or not all(task.done() for task in tasks):
                    self._abort.set()
        errors = [error for task in tasks if (error := task.exception())]
        for error in sorted(errors, key=lambda item: isinstance(item, GivenUpError)):
            raise error

    def _mqtt(self) -> None:
        self._server_or_external(self._plan.mosquitto, "mqtt", "IOT_MQTT_URL", partial(probes.mqtt, self._settings))

    def _kafka(self) -> None:
        self._server_or_external(self._plan.kafka, "kafka", "IOT_KAFKA_BOOTSTRAP_SERVERS", partial(probes.kafka, self._settings))
        if self._plan.kafka is None:
            from iot_platform.kafka.topics import ensure_topics

            with self._report.step("topics", "ready"):
                ensure_topics(self._settings)

    def _database(self) -> None:
        self._server_or_external(
            self._plan.postgresql, "postgresql", "IOT_DATABASE_URL", partial(probes.postgresql, self._settings.writer_url)
        )
        from iot_platform.database.migrate import migrate

        with self._report.step("migrations", "the schema is up to date") as note:
            migrate(self._settings, note)

    def _server_or_external(self, server: Server | None, name: str, variable: str, check: Callable[[], object]) -> None:
        if server is not None:
            with self._report.step(server.name, "ready") as note:
                start(server, self._supervisor, note, abort=self._abort)
            return
        with self._report.step(name, f"your own server ({variable}) answers"):
            try:
                check()
            except NotReadyError as error:
                raise LocalStackError(
                    f"{variable}: {error}. Correct it (environment or .env), or unset it to have one started here"
                ) from error

    def _ingest(self, *needed: Future[None]) -> None:
        _all(needed)
        url = self._plan.notes["ingest_http_url"]
        self._run(applications.ingest(self._settings), partial(probes.http, f"{url}/readyz"), f"ready, {url}/metrics")

    def _metrics(self, *needed: Future[None]) -> None:
        _all(needed)
        url = f"http://{LOOPBACK}:{self._settings.metrics_port}"
        self._run(applications.metrics(self._settings), partial(probes.http, f"{url}/healthz"), f"ready, {url}/metrics")

    def _console(self, *needed: Future[None]) -> None:
        _all(needed)
        url = f"http://{LOOPBACK}:{self._settings.console_port}"
        self._run(applications.console(self._settings), partial(probes.http, f"{url}/readyz"), f"ready, {url}")

    def _monitor(self, program: Program, *needed: Future[None]) -> None:
        _all(needed)
        url = f"http://{self._address(program.name)}"
        page, shown = ("/", "/metrics") if program.name in exporters.NAMES else ("/-/ready", "")
        self._run(program, partial(probes.http, f"{url}{page}"), f"ready, {url}{shown}")

    def _dagster_code(self, *needed: Future[None]) -> None:
        _all(needed)
        applications.write_dagster_home(self._settings)
        self._dagster_storage()
        socket = str(applications.code_socket(self._settings))
        self._run(applications.dagster_code(self._settings), partial(probes.code_server, socket), "definitions loaded")

    def _dagster(self, *needed: Future[None]) -> None:
        _all(needed)
        self._supervisor.apply(applications.dagster_daemon(self._settings))
        url = self._settings.dagster_url
        self._run(applications.dagster_webserver(self._settings), partial(probes.dagster, url), f"ready, {url}", "dagster")

    def _dagster_storage(self) -> None:
        """Create or upgrade Dagster's own tables, once per Dagster version, before three processes try at once."""
        done = self._settings.local_dir / "dagster" / "storage"
        key = f"{importlib.metadata.version('dagster')} {self._settings.dagster_database_url.rsplit('@', 1)[-1]}"
        if done.exists() and done.read_text("utf-8") == key:
            return
        with self._report.step("dagster storage", "its tables are up to date") as note:
            environment = dagster_environment(self._settings)
            log = self._settings.local_dir / "logs" / "install.log"
            command = [sys.executable, "-m", "dagster", "instance", "migrate"]
            run_logged(command, log, note, what="dagster instance migrate", environment=environment)
            done.write_text(key, "utf-8")

    def warnings(self) -> list[str]:
        """What is up but will not do what one expects; after `up`."""
        from iot_platform.kafka.topics import ensure_topics

        found = [*ensure_topics(self._settings), *self._unwatched]
        if self._plan.local_dagster:
            stopped = probes.stopped_sensors(self._settings.dagster_url)
            found += [f"the Dagster sensor {name} is switched off: turn it on under Automation in the UI" for name in stopped]
        return found

    def _simulator(self, *needed: Future[None]) -> None:
        _all(needed)
        self._run(applications.simulator(self._settings), lambda: None, "publishing (SIMULATOR=0 to go without)")

    def _run(self, program: Program, check: Callable[[], None], done: str, shown: str = "") -> None:
        with self._report.step(shown or program.name, done) as note:
            self._supervisor.apply(program)
            await_ready(program.name, check, self._supervisor, note, abort=self._abort)


def down(settings: Settings, note: Note) -> bool:
    """Stop everything and return when no process is left; data stays. False when nothing ran."""
    supervisor = Supervisor(settings.local_dir)
    ran = supervisor.alive()
    for wave in _WAVES:
        note(f"stopping {', '.join(wave)}")
        supervisor.stop(*wave)
    supervisor.shutdown()
    return leftovers.end(settings.local_dir) > 0 or ran


def _submit(pool: ThreadPoolExecutor, work: Callable[..., None], *arguments: Any) -> Future[None]:
    return pool.submit(work, *arguments)


def _all(needed: tuple[Future[None], ...]) -> None:
    for task in needed:
        task.result()


@contextmanager
def _only_one(settings: Settings) -> Iterator[None]:
    folder = settings.local_dir / "run"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "up.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LocalStackError("another `iot up` with this IOT_LOCAL_DIR is running: wait for it") from error
        yield
