"""Drills: connections broken at named points of their protocol, sessions that are fought over or lost, and messages that come twice."""

from typing import Final

from iot_platform.drills.network import PATIENCE_SECONDS, begin, finish
from iot_platform.drills.rig.drill_run import DrillRun
from iot_platform.drills.rig.drill_stack import INGEST
from iot_platform.drills.rig.registry import drill
from iot_platform.drills.rig.wire import Point

STRIKES: Final = 4
TWIN: Final = "ingest-twin"
MEMBER: Final = "ingest-member"
GROUP: Final = "drill"


# -- the database connection, at points of a batch ---------------------------------------------------------------
def _cut_database(run: DrillRun, point: Point) -> None:
    begin(run)
    with run.fault(f"database connection cut, {point.replace('_', ' ')}, {STRIKES} times"):
        for _ in range(STRIKES):
            run.stack.postgres_faults.arm(point, run.rng.randint(1, 4)).wait(PATIENCE_SECONDS)
    finish(run)


@drill("database_cut_at_begin", "database connection cut at BEGIN", group="connections")
def database_cut_at_begin(run: DrillRun) -> None:
    """A transaction that never began is begun again on a new connection."""
    _cut_database(run, "at_begin")


@drill("database_cut_in_copy", "database connection cut inside COPY", group="connections")
def database_cut_in_copy(run: DrillRun) -> None:
    """Half a batch is no batch: PostgreSQL rolls it back with its offsets, and the drain writes it again."""
    _cut_database(run, "in_copy")


@drill("database_cut_before_commit", "database connection cut before COMMIT arrives", group="connections")
def database_cut_before_commit(run: DrillRun) -> None:
    """All rows were sent, and the transaction rolled back. The ledger lacks the batch, so it is written again."""
    _cut_database(run, "before_commit")


@drill("database_answer_lost", "COMMIT arrives, its answer is lost", group="connections", fast=True)
def database_answer_lost(run: DrillRun) -> None:
    """The batch is stored, but its confirmation was lost. The ledger has the batch, so it is not written again."""
    _cut_database(run, "answer_lost")


# -- MQTT sessions ---------------------------------------------------------------------------------------------
@drill("puback_lost", "acknowledgements to the MQTT broker are lost on the wire", group="connections", fast=True)
def puback_lost(run: DrillRun) -> None:
    """Messages that are in Kafka come again, each is recognised, kept and marked: no measurement counts twice."""
    lost, proxy = run.stack.lost_pubacks, run.stack.proxy("mqtt")
    begin(run)
    first = lost.swallowed
    for _ in range(2):
        with run.fault("PUBACKs lost, then the connection cut"):
            goal, lost.on = lost.swallowed + 300, True
            run.await_true("300 PUBACKs swallowed", lambda goal=goal: lost.swallowed >= goal)  # type: ignore[misc]
            proxy.cut()
            lost.on = False
            proxy.heal()
    finish(run)
    run.await_stored(run.fleet.acknowledged, seconds=PATIENCE_SECONDS)
    swallowed, marked = lost.swallowed - first, _marked(run)
    run.note(f"{swallowed} PUBACKs were lost, {marked} messages are marked as redelivered")
    run.check(marked >= swallowed, "a message whose PUBACK was lost is not marked")


@drill("two_daemons_one_client_id", "two ingest daemons with one client id", group="connections")
def two_daemons_one_client_id(run: DrillRun) -> None:
    """They throw each other out, again and again, and say so; each message is kept once, however often the broker changed its mind."""
    begin(run)
    with run.fault("a second daemon with the client id of the first"):
        run.stack.add_ingest(TWIN, ready=False, IOT_INGEST_CLIENT_ID="iot-ingest")
        run.hold(15)
        run.stack.stop(TWIN)
    finish(run)
    said = run.stack.log(INGEST) + run.stack.log(TWIN)
    run.check("IOT_INGEST_CLIENT_ID" in said, "neither daemon names IOT_INGEST_CLIENT_ID as the reason")


@drill("shared_member_lost", "a member of a shared subscription is killed", group="connections", fresh=True)
def shared_member_lost(run: DrillRun) -> None:
    """What the broker had given to the dead member waits in its session until it is back; the other one goes on meanwhile."""
    run.stack.ingest_environment["IOT_INGEST_SHARED_GROUP"] = GROUP
    run.stack.restart(INGEST)
    run.stack.add_ingest(MEMBER)
    begin(run)
    with run.fault("kill -9 of one of two members"):
        run.stack.kill_for_good(MEMBER)
        run.hold(8)
    run.stack.start(MEMBER)
    finish(run)
    run.await_stored(run.fleet.acknowledged, seconds=PATIENCE_SECONDS)
    shares = _shares(run)
    run.check(len(shares) == 2, f"both members should have received messages: {shares}")


@drill("message_sent_twice", "a publisher sends the same message twice", group="connections", fast=True)
def message_sent_twice(run: DrillRun) -> None:
    """Equal publishes are separate messages. Both are kept, neither is marked, and their measurements count once."""
    messages = run.fleet.messages(50)
    with run.fleet.publisher() as publisher:
        for message in messages:
            publisher.publish(message)
            publisher.publish(message)
    run.await_stored(2 * len(messages), seconds=PATIENCE_SECONDS)
    marked = _marked(run)
    run.check(marked == 0, f"{marked} messages are marked as redelivered, although their publisher sent them twice")


# -- what the database says ------------------------------------------------------------------------------------
_MARKED: Final = """
SELECT (SELECT count(duplicate_of) FROM message WHERE received_at >= %(begin)s)
     + (SELECT count(duplicate_of) FROM quarantine WHERE received_at >= %(begin)s)"""
_SHARES: Final = """
SELECT c.client_id, count(*) FROM message m JOIN mqtt_connection c USING (connection_id) WHERE m.received_at >= %(begin)s GROUP BY 1"""


def _marked(run: DrillRun) -> int:
    """Messages of this drill that are marked as redelivered."""
    with run.database() as connection, connection.cursor() as cursor:
        cursor.execute(_MARKED, {"begin": run.began_at})
        return int((cursor.fetchone() or (0,))[0])


def _shares(run: DrillRun) -> dict[str, int]:
    """Messages of this drill by client id."""
    with run.database() as connection, connection.cursor() as cursor:
        cursor.execute(_SHARES, {"begin": run.began_at})
        return dict(cursor.fetchall())
