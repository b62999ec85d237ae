"""Drills: alerts on what the ingest daemon meets while it runs: certificates, clock, refused messages, silence, its broker and session."""

import os
import signal
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from iot_platform.drills import clocks
from iot_platform.drills.alerts import LATE, SLOW, UNAVAILABLE
from iot_platform.drills.broker import BROKER, session_file
from iot_platform.drills.rig.alert_watch import AlertWatch, watching
from iot_platform.drills.rig.alert_watch import obstacle as watch_obstacle
from iot_platform.drills.rig.drill_run import DrillRun
from iot_platform.drills.rig.drill_stack import INGEST
from iot_platform.drills.rig.publishers import Publisher
from iot_platform.drills.rig.registry import drill
from iot_platform.kafka.topics import Change, apply_changes, check_topics

SILENT_SECONDS: Final = 30
LARGEST_BYTES: Final = 20_000
CLOCK_SECONDS: Final = 10.0
"""Ahead, so that no message seems late."""


def obstacle() -> str:
    """Why it cannot be made here; "" where it can."""
    return watch_obstacle() or clocks.obstacle()


@drill(
    "alert_daemon_troubled",
    "a certificate ends, the clock is off, messages are refused, none come, the broker stands still and loses its sessions",
    group="alerts",
    obstacle=obstacle,
)
def alert_daemon_troubled(run: DrillRun) -> None:
    """What a daemon that runs on meets is told by name, one after the other, and ends with its cause."""
    clock = clocks.clock_of_daemon(run)
    certificate = run.stack.folder / "certificate.pem"
    _write_certificate(certificate, timedelta(days=365))
    key = {"IOT_KAFKA_SSL_CERT_FILE": str(certificate), "IOT_KAFKA_SSL_KEY_FILE": str(certificate)}
    run.stack.ingest_environment.update(key, IOT_INGEST_SILENT_SECONDS=str(SILENT_SECONDS))
    run.stack.restart(INGEST)
    with watching(run) as watch:
        run.fleet.start(rate=SLOW, seconds=10, **clocks.TIMELESS)
        run.await_stored(50)
        _certificates(watch, certificate)
        with watch.fault(f"the daemon's clock {CLOCK_SECONDS:.0f} s ahead", "IngestClockOff") as off:
            clock.set(CLOCK_SECONDS)
            watch.await_told(off)
            clock.set(0.0)
        with watch.fault("Kafka refuses a message that is too large", "IngestDeadLetters") as dead:
            _send_too_large(run)
            watch.await_told(dead)
        watch.await_ended()
        run.fleet.finish()
        with watch.fault("no message comes", "IngestSilent") as silent:
            watch.await_told(silent)
            run.fleet.start(rate=SLOW, seconds=10, **clocks.TIMELESS)
        watch.await_ended(silent)
        run.fleet.finish()
        _broker(run, watch)
        run.fleet.start(rate=SLOW, seconds=10, **clocks.TIMELESS)
        watch.await_ended()
        run.fleet.finish()


def _broker(run: DrillRun, watch: AlertWatch) -> None:
    """It stands still, then loses its sessions, while nobody publishes."""
    silent = {"IngestSilent": "nobody publishes while the broker stands still"}
    with watch.fault("the MQTT broker stands still", "IngestDisconnected", excused=UNAVAILABLE | LATE | silent) as still:
        pid = run.stack.pid(BROKER)
        os.kill(pid, signal.SIGSTOP)
        try:
            watch.await_told(still)
        finally:
            os.kill(pid, signal.SIGCONT)
    with watch.fault("the MQTT broker loses its sessions", "IngestSessionLost", excused=silent) as lost:
        run.stack.stop(BROKER)
        session_file(run).unlink()
        run.stack.start(BROKER)
        watch.await_told(lost)


def _certificates(watch: AlertWatch, file: Path) -> None:
    with watch.fault("the client certificate towards Kafka ends in 10 days", "IngestCertificateEnds") as soon:
        _write_certificate(file, timedelta(days=10))
        watch.await_told(soon)
        with watch.fault("the client certificate towards Kafka has ended", "IngestCertificateEnded") as ended:
            _write_certificate(file, -timedelta(minutes=1))
            watch.await_told(ended)
            _write_certificate(file, timedelta(days=365))


def _write_certificate(file: Path, left: timedelta) -> None:
    """Self-signed, with its key, ends so long from now; replaced in one step, as a tool that renews it does."""
    now = datetime.now(UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ingest")])
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - timedelta(days=400), now + left)
    signed = made.sign(key, hashes.SHA256())
    new = file.with_suffix(".new")
    pem = serialization.Encoding.PEM
    plain = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    new.write_bytes(signed.public_bytes(pem) + plain)
    new.rename(file)


def _send_too_large(run: DrillRun) -> None:
    """One message that Kafka's topic does not take; it is no part of the verdict, because it is not stored."""
    topic, setting = run.settings.kafka_topic, "max.message.bytes"
    before = next(str(state.number(setting)) for state in check_topics(run.settings)[0] if state.name == topic)
    apply_changes(run.settings, [Change(topic, setting, before, str(LARGEST_BYTES))])
    large = replace(run.fleet.messages(1)[0], payload=os.urandom(3 * LARGEST_BYTES))
    publisher = Publisher(run.settings, f"drill-{time.time_ns() % 1_000_000}", lambda _published: None)
    try:
        publisher.publish(large)
        counted = "iot_ingest_messages_dead_lettered_total"
        run.await_true("a dead letter", lambda: (run.stack.metrics() or {}).get(counted, 0) > 0)
    finally:
        publisher.close()
        apply_changes(run.settings, [Change(topic, setting, str(LARGEST_BYTES), before)])
