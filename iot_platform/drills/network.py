"""Drills: the network between our programs and each server cut, half-open, slow."""

import json
from typing import Final

from iot_platform.drills.rig.drill_run import DrillRun
from iot_platform.drills.rig.drill_stack import INGEST, Link
from iot_platform.drills.rig.registry import drill

RATE: Final = 400
SECONDS: Final = 20.0
PATIENCE_SECONDS: Final = 300.0
WHERE: Final[dict[Link, str]] = {"mqtt": "the MQTT broker", "kafka": "Kafka", "postgresql": "PostgreSQL", "storage": "Dagster's storage"}
HALF_OPEN_SECONDS: Final = 8.0
CUT_SECONDS: Final = 8.0
SLOW_SECONDS: Final = 15.0
GIVEN_UP: Final = "Keep alive timeout"


def begin(run: DrillRun) -> None:
    """The fleet publishes, and the first messages have come all the way."""
    run.fleet.start(rate=RATE, seconds=SECONDS)
    run.await_stored(run.rng.randrange(300, 1000), seconds=PATIENCE_SECONDS)


def finish(run: DrillRun) -> None:
    """A few more messages after the fault, then everything must be acknowledged."""
    run.fleet.await_acknowledged(run.fleet.acknowledged + 2 * RATE)
    run.fleet.finish()


def _cut(run: DrillRun, link: Link) -> None:
    """Every connection reset, and every new one, for a while; twice, since a link that comes back may go again at once."""
    begin(run)
    with run.fault(f"network to {WHERE[link]} cut"):
        run.stack.proxy(link).cut()
        run.hold(CUT_SECONDS)
        run.stack.proxy(link).heal()
        run.hold(run.rng.uniform(0.2, 2.0))
        run.stack.proxy(link).reset()
    finish(run)


def _half_open(run: DrillRun, link: Link, bound_seconds: float, *, answers_only: bool = False) -> None:
    """Connections stay up and carry nothing any more, also after the network is well again: each client must end them by its own timeout,
    within the bound."""
    begin(run)
    with run.fault(f"link to {WHERE[link]} half-open"):
        run.stack.proxy(link).deaf(up=not answers_only)
        run.hold(HALF_OPEN_SECONDS)
        run.stack.proxy(link).heal()
    sent = run.fleet.acknowledged
    run.await_stored(sent, seconds=bound_seconds)
    finish(run)


def _slow(run: DrillRun, link: Link, bytes_per_second: float, latency_seconds: float) -> None:
    """Too slow for what is published meanwhile, then well again."""
    begin(run)
    with run.fault(f"link to {WHERE[link]} slow ({bytes_per_second / 1000:g} kB/s, {latency_seconds * 1000:g} ms)"):
        run.stack.proxy(link).slow(bytes_per_second=bytes_per_second, latency_seconds=latency_seconds)
        run.hold(SLOW_SECONDS)
        run.stack.proxy(link).heal()
    finish(run)


def _impatient(run: DrillRun, **variables: object) -> None:
    """The ingest daemon with shorter limits than its defaults, so that the drill is short too."""
    run.stack.ingest_environment.update({f"IOT_{name.upper()}": json.dumps(value) for name, value in variables.items()})
    run.stack.restart(INGEST)


@drill("mqtt_cut", "network to the MQTT broker cut", group="network")
def mqtt_cut(run: DrillRun) -> None:
    """Messages whose acknowledgement did not arrive come again, are recognised and marked; nothing else is doubled, nothing lost."""
    _cut(run, "mqtt")


@drill("mqtt_half_open", "link to the MQTT broker half-open", group="network")
def mqtt_half_open(run: DrillRun) -> None:
    """Keepalive gives up the dead connection (here 5 s, by default 30 s: twice that at most), and the session goes on with a new one."""
    _impatient(run, ingest_keepalive_seconds=5)
    _half_open(run, "mqtt", 60)


@drill("mqtt_answers_lost", "nothing comes from the MQTT broker any more, but what we send arrives", group="network")
def mqtt_answers_lost(run: DrillRun) -> None:
    """One direction is as dead as both: the daemon notices, and what the broker sent into the dead link comes again."""
    _impatient(run, ingest_keepalive_seconds=5)
    _half_open(run, "mqtt", 60, answers_only=True)


@drill("mqtt_slow", "slow link to the MQTT broker", group="network")
def mqtt_slow(run: DrillRun) -> None:
    """Answers to our pings queue behind messages for longer than the keepalive: a link that delivers messages is no dead one."""
    _impatient(run, ingest_keepalive_seconds=5)
    before = run.stack.log(INGEST).count(GIVEN_UP)
    _slow(run, "mqtt", 20_000, 0.05)
    run.check(run.stack.log(INGEST).count(GIVEN_UP) == before, "the daemon gave up a connection that delivered messages")


@drill("kafka_cut", "network to Kafka cut", group="network", fast=True)
def kafka_cut(run: DrillRun) -> None:
    """The daemon spools and the drain waits; both go on by themselves, and a batch that Kafka got twice is in the topic once."""
    _cut(run, "kafka")


@drill("kafka_half_open", "link to Kafka half-open", group="network")
def kafka_half_open(run: DrillRun) -> None:
    """Requests without an answer are given up after 60 s (daemon) and 30 s (drain), and sent again; idempotence keeps them single."""
    _half_open(run, "kafka", 150)


@drill("kafka_answers_lost", "Kafka gets what we send, but its answers are lost", group="network")
def kafka_answers_lost(run: DrillRun) -> None:
    """Every batch is in Kafka, but its confirmation was lost. The daemon sends it again, and Kafka recognises it."""
    _half_open(run, "kafka", 150, answers_only=True)


@drill("kafka_slow", "slow link to Kafka", group="network")
def kafka_slow(run: DrillRun) -> None:
    """What Kafka does not take in time waits, in the spool if need be, and nothing overtakes it."""
    _slow(run, "kafka", 30_000, 0.05)


@drill("postgresql_cut", "network to PostgreSQL cut", group="network")
def postgresql_cut(run: DrillRun) -> None:
    """The drain repeats what was not committed, asks the ledger about what is in doubt, and no storm of failed runs follows."""
    _cut(run, "postgresql")


@drill("postgresql_half_open", "link to PostgreSQL half-open", group="network")
def postgresql_half_open(run: DrillRun) -> None:
    """The drain gives up calls without an answer after 75 s, the server the transactions and locks of clients it hears nothing of after
    60 s: then a new shift takes over."""
    _half_open(run, "postgresql", 180)


@drill("postgresql_slow", "slow link to PostgreSQL", group="network")
def postgresql_slow(run: DrillRun) -> None:
    """Batches take longer and get larger, but none is given up."""
    _slow(run, "postgresql", 60_000, 0.02)


@drill("storage_cut", "network to Dagster's storage cut", group="network")
def storage_cut(run: DrillRun) -> None:
    """Dagster can neither start runs nor write events: the shift at work goes on regardless, and afterwards shifts follow again."""
    _cut(run, "storage")


@drill("storage_half_open", "link to Dagster's storage half-open", group="network")
def storage_half_open(run: DrillRun) -> None:
    """Dagster hangs until TCP gives up, here because the network's other end comes back without its connections; the data flow goes on."""
    begin(run)
    with run.fault(f"link to {WHERE['storage']} half-open"):
        run.stack.proxy("storage").deaf()
        run.hold(HALF_OPEN_SECONDS)
        run.stack.proxy("storage").heal()
        run.stack.proxy("storage").reset()
    finish(run)
