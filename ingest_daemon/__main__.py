"""Process of the ingest daemon: settings, signals, exit codes.

Exit codes: 0 left with nothing in flight (the spool may hold messages for the next start), 1 unexpected error, 2 settings refused,
3 the broker grants too little, 4 left with messages in flight (nothing lost: unacknowledged, so redelivered).
"""

import argparse
import gc
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from ingest_daemon import health, logs, topic_filters
from ingest_daemon.accounting import Accounting
from ingest_daemon.bridge import Bridge
from ingest_daemon.broker_access import BrokerFiles
from ingest_daemon.certificates import Certificates
from ingest_daemon.clock import ClockWatch
from ingest_daemon.credentials import Credentials
from ingest_daemon.errors import SettingsError, UnsafeBrokerError
from ingest_daemon.housekeeping import Housekeeping
from ingest_daemon.inflight import InFlight
from ingest_daemon.kafka import Channel
from ingest_daemon.leaving import leave
from ingest_daemon.metrics import Metrics
from ingest_daemon.probe import Probes
from ingest_daemon.receive_clock import ReceiveClock
from ingest_daemon.settings import Settings, load
from ingest_daemon.silence import Silence
from ingest_daemon.sink import Sink
from ingest_daemon.spool import Spool
from ingest_daemon.spool_store import SpoolStore
from ingest_daemon.spool_thread import SpoolThread
from ingest_daemon.state_dir import StateDir
from ingest_daemon.watch import KafkaWatch

log = structlog.get_logger("ingest")


class Signals:
    """Counts SIGTERM and SIGINT: the first asks to drain, the second to leave at once. SIGHUP has files looked at."""

    def __init__(self, hang_up: Callable[[], None]) -> None:
        self.count = 0
        self._hang_up = hang_up

    def stop(self) -> bool:
        """Whether to stop."""
        return self.count > 0

    def force(self) -> bool:
        """Whether to stop without draining."""
        return self.count > 1

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Handle the signals inside the block."""

        def handle(number: int, _frame: object) -> None:
            if number == signal.SIGHUP:
                self._hang_up()
            else:
                self.count += 1

        before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def check_writable(folder: Path) -> None:
    """Raises SettingsError when the state directory can't be written. No lock: a daemon may be running on it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0" * 4096)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise SettingsError(f"IOT_INGEST_STATE_DIR: can't write {folder}: {error.strerror}") from error


def check(settings: Settings) -> None:
    """Print what can be checked without a server. Raises SettingsError."""
    check_writable(settings.ingest_state_dir)
    Channel(settings)  # librdkafka checks its options, password and certificates; no answer is waited for
    user = settings.kafka_sasl_username or settings.kafka_ssl_cert_file or "nobody in particular"
    print(
        "settings are valid",
        f"the state directory {settings.ingest_state_dir} can be written",
        f"Kafka's client accepts its options: {settings.kafka_security_protocol} to {settings.kafka_bootstrap_servers} as {user}",
        "not checked: whether the servers answer and grant what is needed; the running daemon's /readyz tells",
        sep="\n",
    )


def serve(settings: Settings, files: BrokerFiles) -> int:
    """Run until a signal stops it; the exit code. Raises SettingsError and UnsafeBrokerError."""
    state = StateDir(settings.ingest_state_dir, settings.ingest_client_id)
    store = SpoolStore(state.spool_file, settings.ingest_spool_bytes)
    found = store.level
    accounting = Accounting(settings.ingest_state_dir, settings.ingest_client_id, found.entries, found.first)
    metrics = Metrics(accounting.totals)
    credentials = Credentials(settings)
    silence, probes = Silence(settings.ingest_silent_seconds, state.rhythm_file), Probes()
    watch, clock_watch = KafkaWatch(settings, credentials), ClockWatch(metrics.clock_offset.set)
    in_flight = InFlight()
    spool = Spool(SpoolThread(store), store.last_id, found, time.monotonic)
    sink = Sink(settings, in_flight, spool, clock_watch=clock_watch, credentials=credentials)
    receive_clock = ReceiveClock(settings.ingest_state_dir, settings.ingest_client_id)
    bridge = Bridge(
        settings,
        state,
        in_flight,
        sink,
        accounting,
        receive_clock,
        on_resent=metrics.resent.inc,
        files=files,
        silence=silence,
        probes=probes,
    )
    certificates = Certificates(settings, lambda: bridge.server_certificate)
    housekeeping = Housekeeping(files.look, lambda: probes.follow(files.current.topic_filters), certificates.look, silence.keep)
    probes.follow(files.current.topic_filters)
    metrics.show_certificates(lambda: certificates.ends)
    metrics.silent.set_function(lambda: silence.seconds)
    metrics.silent_after.set_function(lambda: silence.after_seconds)
    metrics.mqtt_connected.set_function(lambda: bridge.subscribed)
    metrics.kafka_up.set_function(lambda: watch.problem is None)
    metrics.spool_bytes.set_function(lambda: sink.level.used_bytes)
    metrics.spool_limit.set(settings.ingest_spool_bytes)
    metrics.spool_oldest.set_function(lambda: sink.level.oldest.received_at_us / 1e6 if sink.level.oldest else 0.0)
    metrics.spool_full.set_function(lambda: sink.spool_full)
    server, port = health.start(
        settings.ingest_http_host,
        settings.ingest_http_port,
        bridge.healthy,
        lambda: watch.explained(bridge.ready()),
        lambda: [*bridge.notices(), *files.problems],
        metrics.registry,
        {"/accounting": lambda: accounting.snapshot().to_json(), "/probe": probes.page},
    )
    log.info("started", client_id=settings.ingest_client_id, http_port=port, kafka_topic=settings.kafka_topic, spooled=found.entries)
    for one, other in topic_filters.overlapping(files.current.topic_filters):
        log.warning("topic_filters_overlap", filters=[one, other], hint="some brokers send a message that both match twice")
    watch.start()
    housekeeping.start()
    # Start-up objects live for ever: keep the collector from walking them; messages are freed by reference count.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    signals = Signals(housekeeping.wake)
    try:
        with signals.installed():
            left = bridge.run(signals.stop, signals.force)
    finally:
        watch.stop()
        housekeeping.stop()
        server.shutdown()
        accounting.close()
        receive_clock.close()
        state.close()
    log.info("stopped", left_to_redelivery=left, spooled=sink.level.entries)
    return 4 if left else 0


def main(arguments: list[str] | None = None) -> int:
    """The exit code of `iot-ingest` and `python -m ingest_daemon`."""
    parser = argparse.ArgumentParser(
        prog="iot-ingest",
        description="Carries messages from the MQTT broker into Kafka: each is acknowledged only after Kafka has it on disk. "
        "Settings come from IOT_* variables, .env and the local stack's stack.env.",
        epilog=__doc__.partition("\n\n")[2],
    )
    parser.add_argument(
        "--check", action="store_true", help="validate the settings, also that the state directory can be written, and exit"
    )
    options = parser.parse_args(arguments)
    try:
        settings = load()
        files = BrokerFiles(settings)
        if options.check:
            check(settings)
            return 0
        logs.configure(settings.ingest_log_level, settings.log_format)
        return serve(settings, files)
    except SettingsError as error:
        print(f"ingest_daemon refuses to start:\n{error}", file=sys.stderr)
        return 2
    except UnsafeBrokerError as error:
        log.critical("refused", problem=str(error))
        print(f"ingest_daemon refuses to run:\n{error}", file=sys.stderr)
        return 3
    except Exception:
        log.exception("crashed")
        return 1


if __name__ == "__main__":
    leave(main())
