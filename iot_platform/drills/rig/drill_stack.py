"""A platform of the drills' own: real servers, ingest daemons and Dagster on free ports in a temporary folder, every link through a
proxy that can break it. The fleet and the verification go straight."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any, Final, Literal, Self
from urllib.parse import urlsplit

from ingest_daemon.home import directory
from iot_platform import ingest_pages
from iot_platform.backup.repository import Repository
from iot_platform.database import connect
from iot_platform.database.migrate import migrate
from iot_platform.drills.rig.kafka_cluster import REPLICAS, KafkaCluster, own_loopback
from iot_platform.drills.rig.memory import MemorySampler, run_workers
from iot_platform.drills.rig.proxy import LOOPBACK, Proxy
from iot_platform.drills.rig.wire import LostPubacks, PostgresFaults
from iot_platform.local import applications, leftovers, probes
from iot_platform.local.errors import LocalStackError, NotReadyError
from iot_platform.local.install import Note, install_packages
from iot_platform.local.kafka import KafkaServer
from iot_platform.local.mosquitto import MosquittoServer
from iot_platform.local.passwords import Passwords
from iot_platform.local.ports import free_ports
from iot_platform.local.postgresql import PostgresqlServer
from iot_platform.local.program import Program, base_environment
from iot_platform.local.server import Server, died, start
from iot_platform.local.supervisor import Supervisor
from iot_platform.orchestration.environment import dagster_environment
from iot_platform.settings import Settings, exports

Link = Literal["mqtt", "kafka", "postgresql", "storage"]
"""`storage` is Dagster's way to the same PostgreSQL."""
OFTEN: Final = tuple(
    f"{name}=2000" for name in ("log.flush.offset.checkpoint.interval.ms", "log.retention.check.interval.ms", "log.initial.task.delay.ms")
)
"""What Kafka does every minute or five, in a drill of minutes."""
INGEST: Final = "ingest"
PARTITIONS: Final = 4
READY_SECONDS: Final = 120.0
POLL_SECONDS: Final = 0.1


class DrillStack:
    """Program names: mosquitto, kafka (of several brokers: kafka-1 …), postgresql, dagster-code, dagster-daemon, ingest, and further
    daemons by `add_ingest`.

    `settings` lead straight to the servers, `program_settings` through the proxies: our own programs have those (but lead straight to
    several brokers). The supervisor restarts whatever dies by itself, as `make up` does. What a drill leaves changed, `restore` puts
    right, data and topics aside.
    """

    def __init__(self, note: Note = lambda _: None, *, cache_dir: Path | None = None, brokers: int = 1, backups: bool = False) -> None:
        """`brokers`: how many Kafka nodes, 1 or 3. `backups`: whether the WAL is archived and pgBackRest set up."""
        self.brokers, self.backups = brokers, backups
        self.folder = Path(tempfile.mkdtemp(prefix="iot-drills-"))
        self.note = note
        self.ingest_environment: dict[str, str] = {}
        """Further variables of the ingest daemons; they apply from the next `start` or `restart`."""
        self.ingest_wrapper: tuple[str, ...] = ()
        """A command that runs the ingest daemons' commands; likewise."""
        self.supervisor = Supervisor(self.folder, die_with_parent=True)
        mqtt, behind, postgresql, *kafka = free_ports(3 + brokers)
        cache = cache_dir or Settings().cache_dir
        ports: dict[Link, int] = {"mqtt": mqtt, "postgresql": postgresql, "storage": postgresql}
        if brokers == 1:
            ports["kafka"] = behind
        self._proxies = {link: Proxy(LOOPBACK, port) for link, port in ports.items()}
        self.lost_pubacks, self.postgres_faults = LostPubacks(), PostgresFaults()
        self.mosquitto = MosquittoServer(self.folder, mqtt)
        self._passwords = Passwords.load(self.folder / "data" / "passwords.json")
        self.repository = self.folder / "repository"
        """Of backups, where there are any."""
        kept = Repository(str(self.repository), None, 14, "", "", None) if backups else None
        self.postgresql = PostgresqlServer(self.folder, cache, postgresql, self._passwords, repository=kept)
        host = LOOPBACK if brokers == 1 else own_loopback()
        self.settings = self._settings([f"{host}:{port}" for port in kafka])
        self.cluster = None if brokers == 1 else KafkaCluster(self.folder, cache, self.settings, host, kafka)
        self._kafkas: tuple[KafkaServer, ...] = (
            self.cluster.servers
            if self.cluster
            else (
                KafkaServer(
                    self.folder, cache, kafka[0], self.settings, proxied=((behind, self._proxies["kafka"].port),), properties=OFTEN
                ),
            )
        )
        self.program_settings = self._through_proxies()
        self.memory = MemorySampler(self.folder, self.pids)
        self._ingests: dict[str, dict[str, str]] = {}
        self._others: list[str] = []
        self._ports: dict[str, int] = {}
        self._programs: dict[str, Callable[[], Program]] = {}
        self._checks: dict[str, Callable[[], None]] = {}

    # -- life --------------------------------------------------------------------------------------------------
    def open(self) -> Self:
        """Install what is missing, start everything, and wait until it is ready. What did start is ended if that fails.

        Raises:
            LocalStackError: with the cause and the remedy.
        """
        try:
            self._begin()
        except BaseException:
            self.close()
            raise
        return self

    def close(self, *, keep: bool = False) -> None:
        """End every process and remove the folder (or keep it)."""
        self.memory.close()
        self.supervisor.shutdown()
        leftovers.end(self.folder)
        for proxy in self._proxies.values():
            proxy.close()
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)

    def heal(self) -> None:
        """All links are good, and whatever a drill has stopped runs again; waits until it is ready."""
        for proxy in self._proxies.values():
            proxy.heal()
        self.lost_pubacks.on = False
        for name in self._others.copy():
            self.remove_program(name)
        self._start_brokers()
        for name in self._programs:
            if name not in self._ingests or not self.pid(name):
                self.start(name)

    def restore(self) -> None:
        """As it was before the drill: healed, further daemons gone, no further variables."""
        self.heal()
        self.ingest_environment.clear()
        self.ingest_wrapper = ()
        for name in [name for name in self._ingests if name != INGEST]:
            self.remove_ingest(name)
        for name in self._programs:
            self.start(name)

    def versions(self) -> dict[str, str]:
        """Of the servers."""
        with closing(connect(self.settings, "admin")) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT current_setting('server_version'), (SELECT extversion FROM pg_extension WHERE extname = 'timescaledb')")
            postgresql, timescaledb = cursor.fetchone() or ("", "")
        shown = subprocess.run(["mosquitto", "-h"], check=False, capture_output=True, text=True).stdout
        jars = [path.name for path in self._kafkas[0].libraries().glob("kafka_2*.jar")]
        kafka = re.search(r"kafka_[\d.]+-([\d.]+)\.jar", " ".join(jars))
        return {
            "PostgreSQL": postgresql,
            "TimescaleDB": timescaledb,
            "Mosquitto": shown.split("\n")[0].removeprefix("mosquitto version "),
            "Kafka": kafka[1] if kafka else "",
        }

    def _begin(self) -> None:
        several: tuple[Server, ...] = (self.mosquitto, *self._kafkas, self.postgresql)
        packages = {name: why for server in several for name, why in server.missing_packages().items()}
        if packages:
            install_packages(packages, self.folder / "logs" / "install.log", self.note)
        for proxy in self._proxies.values():
            proxy.start()
        self._proxies["mqtt"].watch(self.lost_pubacks)
        self._proxies["postgresql"].watch(self.postgres_faults)
        self.supervisor.ensure_running()
        self.note("starting Mosquitto, Kafka and PostgreSQL")
        for server in several:
            self._programs[server.name], self._checks[server.name] = server.program, server.check
        with ThreadPoolExecutor(len(several)) as pool:
            jobs = [pool.submit(start, server, self.supervisor, self.note, abort=Event()) for server in several]
        for job in jobs:
            job.result()
        if self.cluster:
            self.cluster.provision(self.note)
        migrate(self.settings)
        self.note("starting the ingest daemon and Dagster")
        with ThreadPoolExecutor(2) as pool:
            jobs = [pool.submit(self.add_ingest), pool.submit(self._begin_dagster)]
        for job in jobs:
            job.result()
        self.memory.start()

    def _begin_dagster(self) -> None:
        settings = self.program_settings
        applications.write_dagster_home(settings)
        clean = {name: value for name, value in os.environ.items() if not name.startswith("IOT_")}
        environment = clean | exports(settings) | dagster_environment(settings)
        subprocess.run([sys.executable, "-m", "dagster", "instance", "migrate"], check=True, capture_output=True, env=environment)
        self._programs["dagster-code"] = lambda: self._own(applications.dagster_code(settings), dagster_environment(settings))
        self._checks["dagster-code"] = partial(probes.code_server, str(applications.code_socket(settings)))
        self._programs["dagster-daemon"] = lambda: self._own(applications.dagster_daemon(settings), dagster_environment(settings))
        self.start("dagster-code")
        self.start("dagster-daemon")

    def dagster(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command of Dagster's, as a person runs it on this platform.

        Raises:
            LocalStackError: it fails; the message has what it printed.
        """
        settings = self.program_settings
        clean = {name: value for name, value in os.environ.items() if not name.startswith("IOT_")}
        command = [sys.executable, "-m", "dagster", *arguments, "-m", "iot_platform.definitions"]
        environment = clean | exports(settings) | dagster_environment(settings)
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, cwd=directory())
        if done.returncode:
            raise LocalStackError(f"dagster {' '.join(arguments)}: {done.stdout[-500:]}{done.stderr[-1500:]}")
        return done

    # -- programs ----------------------------------------------------------------------------------------------
    def start(self, name: str, *, ready: bool = True) -> None:
        """Run a program (again), with what its settings are now, and wait until it is ready; nothing happens if it runs just so."""
        self.supervisor.apply(self._programs[name]())
        if ready:
            self.await_ready(name)

    def _start_brokers(self) -> None:
        """Of a cluster none is ready alone."""
        for server in self._kafkas:
            self.start(server.name, ready=False)

    def use_kafka(self, number: int, version: str) -> KafkaServer:
        """Another release of Kafka for a broker of several, from its next start on; downloads it. "" is the stack's own."""
        if self.cluster is None:
            raise LocalStackError("this stack has one broker")
        server = replace(self.cluster.servers[number - 1], version=version)
        server.fetch(self.note)
        self._kafkas = self.cluster.servers = tuple(server if other.name == server.name else other for other in self.cluster.servers)
        self._programs[server.name], self._checks[server.name] = server.program, server.check
        return server

    def recover_kafka(self) -> None:
        """What `iot up` does before it starts Kafka on a machine that went down."""
        for server in self._kafkas:
            server.recover_whole_logs()

    def stop(self, *names: str) -> None:
        """Politely (SIGTERM), together, and wait for their end. They stay down until `start`."""
        self.supervisor.stop(*names)

    def restart(self, name: str) -> None:
        """Stop and start."""
        self.stop(name)
        self.start(name)

    def kill(self, name: str) -> int:
        """kill -9; returns the process id that was. The supervisor starts the program again at once."""
        pid = self.pid(name)
        if not pid:
            raise LocalStackError(f"{name} does not run, so it cannot be killed")
        os.kill(pid, signal.SIGKILL)
        while self.pid(name) == pid:
            time.sleep(0.02)
        return pid

    def kill_for_good(self, name: str) -> None:
        """kill -9, and it stays down until `start`."""
        pid = self.pid(name)
        if pid:
            os.kill(pid, signal.SIGKILL)
        self.stop(name)

    def kill_all(self, *spared: str) -> None:
        """kill -9 of every process but the supervisor and these programs, orphans too; on return none is left, and they stay down until
        `start`."""
        kept = {self.supervisor.pid, *(self.pid(name) for name in spared)}

        def kill() -> bool:
            pids = [pid for pid in leftovers.find(self.folder) if pid not in kept]
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return bool(pids)

        kill()
        with ThreadPoolExecutor(1) as pool:
            stopped = pool.submit(self.stop, *(name for name in self._programs if name not in spared))
            while kill() or not stopped.done():  # the supervisor may have started one again just before
                time.sleep(0.02)
            stopped.result()

    def kill_drain(self) -> list[int]:
        """kill -9 Dagster's run workers; returns their process ids."""
        killed = self.drain_pids()
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        return killed

    def pid(self, name: str) -> int:
        """Process id, 0 when it does not run."""
        return self.supervisor.state(name).pid

    def pids(self) -> Mapping[str, int]:
        """Process id of every program, 0 when it does not run."""
        return {name: state.pid for name, state in self.supervisor.states().items()}

    def drain_pids(self) -> list[int]:
        """Process ids of Dagster's run workers."""
        return run_workers(self.folder)

    def await_ready(self, name: str, seconds: float = READY_SECONDS) -> None:
        """Wait until it runs and serves (again), however often it dies meanwhile.

        Raises:
            LocalStackError: not in time; the message has the end of its log.
        """
        deadline = time.monotonic() + seconds
        why = "it does not run"
        while True:
            if self.supervisor.state(name).name in ("RUNNING", "STARTING"):
                try:
                    self._checks.get(name, lambda: None)()
                    return
                except NotReadyError as error:
                    why = str(error)
            if time.monotonic() > deadline:
                raise LocalStackError(died(name, self.supervisor, f"is not ready after {seconds:.0f} s: {why}"))
            time.sleep(POLL_SECONDS)

    def log(self, name: str) -> str:
        """Everything it printed."""
        return self.supervisor.log_file(name).read_text("utf-8", "replace")

    def proxy(self, link: Link) -> Proxy:
        """What stands between our programs and a server."""
        return self._proxies[link]

    def add_program(self, name: str, *arguments: str, **variables: str) -> None:
        """Run Python with these arguments, as one of the platform's programs: its settings lead through the proxies, unless variables
        (IOT_…) say otherwise."""
        environment = base_environment(self.folder)
        program = Program(name, (sys.executable, *arguments), directory(), environment, restart=False)
        self._programs[name] = lambda: self._own(program, variables)
        self._others.append(name)
        self.start(name)

    def remove_program(self, name: str) -> None:
        """Stop it, and forget it."""
        self.supervisor.remove(name)
        self._programs.pop(name, None)
        self._others.remove(name)

    # -- ingest daemons ----------------------------------------------------------------------------------------
    def add_ingest(self, name: str = INGEST, *, ready: bool = True, **environment: str) -> None:
        """One more ingest daemon, with a client id, a state folder and a port of its own unless variables (IOT_…) say otherwise."""
        self._ports[name] = self.settings.ingest_http_port if name == INGEST else free_ports(1)[0]
        self._ingests[name] = environment
        self._programs[name] = partial(self._ingest, name)
        self._checks[name] = partial(probes.http, f"{self.ingest_url(name)}/readyz")
        self.start(name, ready=ready)

    def remove_ingest(self, name: str) -> None:
        """End a daemon; its session at the broker stays."""
        self.supervisor.remove(name)
        for several in (self._ingests, self._ports, self._programs, self._checks):
            several.pop(name, None)

    def ingest_url(self, name: str = INGEST) -> str:
        """Where its health and metrics are."""
        return f"http://{LOOPBACK}:{self._ports[name]}"

    @property
    def ingests(self) -> list[str]:
        """Names of the daemons there are."""
        return list(self._ingests)

    def metrics(self, name: str = INGEST) -> dict[str, float] | None:
        """A daemon's metrics, those with labels summed; None when it does not answer."""
        try:
            return ingest_pages.counters((self.ingest_url(name),))
        except ingest_pages.IngestPageError:
            return None

    def accounting(self, name: str = INGEST) -> dict[str, Any]:
        """A daemon's /accounting. Raises IngestPageError when it does not answer."""
        return ingest_pages.accounting(self.ingest_url(name))

    def problems(self, name: str = INGEST) -> list[str] | None:
        """What a daemon's /readyz complains of, empty when all is well; None when it does not answer."""
        try:
            return ingest_pages.problems(self.ingest_url(name))
        except ingest_pages.IngestPageError:
            return None

    def _ingest(self, name: str) -> Program:
        own = {
            "IOT_INGEST_CLIENT_ID": "iot-ingest" if name == INGEST else f"iot-{name}",
            "IOT_INGEST_HTTP_PORT": str(self._ports[name]),
            "IOT_INGEST_STATE_DIR": str(self.folder / name),
        }
        program = applications.ingest(self.program_settings)
        program = replace(program, name=name, command=(*self.ingest_wrapper, *program.command))
        return self._own(program, {**own, **self.ingest_environment, **self._ingests[name]})

    # -- settings ----------------------------------------------------------------------------------------------
    def _own(self, program: Program, environment: Mapping[str, str]) -> Program:
        """The program with the stack's settings, and none of the IOT_ variables that the user has set; nothing but those restarts it."""
        passed = {name: value for name, value in program.environment.items() if not name.startswith("IOT_") or name == "IOT_LOCAL_STACK"}
        return replace(program, fingerprint="", environment={**passed, **exports(self.program_settings), **environment})

    def _settings(self, kafka: Sequence[str]) -> Settings:
        """Defaults, whatever the user has set; servers of our own."""
        defaults: dict[str, Any] = {name: field.get_default(call_default_factory=True) for name, field in Settings.model_fields.items()}
        http, dagster = free_ports(2)
        url = self.postgresql.url
        own = {
            "mqtt_url": self.mosquitto.url,
            "kafka_bootstrap_servers": ",".join(kafka),
            "kafka_replication_factor": 1 if len(kafka) == 1 else REPLICAS,
            "kafka_partitions": PARTITIONS,
            "database_url": url("iot_writer"),
            "database_admin_url": url("iot_migrator"),
            "database_reader_url": url("iot_reader"),
            "ingest_http_port": http,
            "ingest_http_url": f"http://{LOOPBACK}:{http}",
            "dagster_port": dagster,
            "dagster_url": f"http://{LOOPBACK}:{dagster}",
            "local_dir": self.folder,
            **self.postgresql.backup_notes(),
        }
        return Settings(**{**defaults, **own})

    def _through_proxies(self) -> Settings:
        direct = self.settings

        def moved(url: str, link: Link) -> str:
            port = urlsplit(url).port
            return url.replace(f":{port}", f":{self._proxies[link].port}")

        values = {
            "mqtt_url": moved(direct.mqtt_url.get_secret_value(), "mqtt"),
            "kafka_bootstrap_servers": f"{LOOPBACK}:{self._proxies['kafka'].port}" if self.brokers == 1 else direct.kafka_bootstrap_servers,
            "database_url": moved(direct.writer_url, "postgresql"),
            "database_admin_url": moved(direct.admin_url, "postgresql"),
            "database_reader_url": moved((direct.database_reader_url or direct.database_url).get_secret_value(), "postgresql"),
            "dagster_storage_url": moved(direct.dagster_database_url, "storage"),
        }
        plain = {name: getattr(direct, name) for name in Settings.model_fields}
        return Settings(**{**plain, **values})
