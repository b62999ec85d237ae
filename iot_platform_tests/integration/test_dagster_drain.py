"""The code location on real Kafka and PostgreSQL, in this process: drains by hand, shifts, the sensor, and errors that say what to do."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing

import dagster as dg
import pytest
from confluent_kafka.admin import AdminClient

from iot_platform.database import connect
from iot_platform.database.locks import advisory_lock, is_locked, shard_lock
from iot_platform.database.sessions import sessions
from iot_platform.defs.telemetry.assets import drained_tables, project, tenant
from iot_platform.defs.telemetry.checks import every_offset_is_accounted_for, every_sequence_is_contiguous, messages_are_mostly_good
from iot_platform.kafka.topics import ensure_topics
from iot_platform.orchestration import drain_run, lag_watch, shifts
from iot_platform.orchestration.audit_checks import OFFSETS, SEQUENCES, evaluate_audit, is_due
from iot_platform.orchestration.brake_check import evaluate_brake
from iot_platform.orchestration.drain_run import next_in_line_lock
from iot_platform.orchestration.dynamic_partitions import KAFKA_PARTITION, PROJECT, TENANT, ProjectKeys, forget_tenant, sync_projects
from iot_platform.orchestration.partition_checks import evaluate_partitions
from iot_platform.resources.platform import PlatformResource
from iot_platform.settings import Settings
from iot_platform_tests.support.children.drain import CLAIM, COMMAND
from iot_platform_tests.support.children.killer import Killer
from iot_platform_tests.support.feeds.drain import Feed, check_books, drain, query
from iot_platform_tests.support.feeds.lifecycle import ROOT
from iot_platform_tests.support.waiting import eventually

pytestmark = [
    pytest.mark.filterwarnings("ignore:The `__fields__` attribute is deprecated"),  # Dagster's own, with newer pydantic
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning"),
]

TENANT_ID, PROJECT_ID = "1968193631353446400", "1968193691042586624"
KEY = f"{TENANT_ID}/{PROJECT_ID}"
GOOD = b'{"deviceId":"sensor-001","temp":25.3,"ok":true}'


class Platform(PlatformResource):
    """Hands out the test's settings instead of the process's."""

    def settings(self) -> Settings:
        return _current[0]


_current: list[Settings] = []


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        made.add_dynamic_partitions(KAFKA_PARTITION, ["0", "1"])
        yield made


def materialize(
    settings: Settings, instance: dg.DagsterInstance, *, tags: dict[str, str] | None = None, key: str | None = None, what: str = "message"
) -> dg.ExecuteInProcessResult:
    """Materialize one asset (or the three tables of a shift) as Dagster does, errors as results."""
    _current[:] = [settings]
    by_range = {"dagster/asset_partition_range_start": "0", "dagster/asset_partition_range_end": "1"} if key is None else {}
    return dg.materialize(
        [drained_tables, project, tenant, every_offset_is_accounted_for, every_sequence_is_contiguous, messages_are_mostly_good],
        selection=[what] if what != "shift" else dg.AssetSelection.assets("message", "measurement", "quarantine").without_checks(),
        instance=instance,
        partition_key=key,
        tags={**by_range, **(tags or {})},
        resources={"platform": Platform()},
        raise_on_error=False,
    )


def latest(instance: dg.DagsterInstance, asset: str, partition: str) -> dict[str, object]:
    """Metadata of the newest materialization of a partition."""
    wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[partition])
    records = instance.fetch_materializations(wanted, limit=1).records
    assert records, f"{asset} {partition} was never materialized"
    materialization = records[0].asset_materialization
    assert materialization is not None
    return {name: value.value for name, value in materialization.metadata.items()}


def test_by_hand_it_drains_until_caught_up(settings: Settings, instance: dg.DagsterInstance) -> None:
    feed = Feed(settings)
    for number in range(50):
        feed.send(b'{"deviceId":"d","n":%d}' % number, partition=number % 2)
    feed.send(b"", partition=0)
    feed.flush()
    assert materialize(settings, instance).success
    check_books(settings)
    assert query(settings, "SELECT count(*) FROM message") == [(50,)]
    assert latest(instance, "message", "0")["total_messages"] == 25
    assert latest(instance, "message", "0")["next_offset"] == 26
    assert latest(instance, "quarantine", "0")["quarantined"] == 1
    figures = latest(instance, "project", KEY)
    assert (figures["messages"], figures["measurements"]) == (50, 50)
    assert figures["kafka_offsets"] == "0: 0…25, 1: 0…24"
    assert latest(instance, "tenant", TENANT_ID)["projects"] == 1
    assert list(instance.get_dynamic_partitions(PROJECT)) == [KEY]
    assert list(instance.get_dynamic_partitions(TENANT)) == [TENANT_ID]


def test_by_hand_it_makes_room_for_a_shift(settings: Settings, instance: dg.DagsterInstance) -> None:
    settings = settings.model_copy(update={"drain_batch_records": 5})
    feed = Feed(settings)
    for number in range(6000):
        feed.send(b'{"deviceId":"d","n":%d}' % number, partition=number % 2)
    feed.flush()
    results: list[dg.ExecuteInProcessResult] = []
    by_hand = threading.Thread(target=lambda: results.append(materialize(settings, instance)))
    by_hand.start()
    with closing(connect(settings)) as connection:
        eventually(lambda: is_locked(connection, "drain-shard-0"), 60, "the drain by hand never began")
        with advisory_lock(connection, next_in_line_lock(0), 5):
            with shard_lock(connection, 0, 30):
                there = query(settings, "SELECT count(*) FROM message")[0][0]
            assert there < 6000, "it did not make room"
    by_hand.join(120)
    assert results[0].success
    check_books(settings)
    assert query(settings, "SELECT count(*) FROM message") == [(6000,)]


def test_by_hand_every_shard_is_told(settings: Settings, instance: dg.DagsterInstance) -> None:
    """One run, several drains one after the other: what one of them left to tell does not break the next."""
    settings = settings.model_copy(update={"drain_shards": 2})
    feed = Feed(settings)
    for number in range(60):
        feed.send(b'{"deviceId":"d","n":%d}' % number, partition=number % 2)
    feed.flush()
    assert materialize(settings, instance).success
    assert [latest(instance, "message", key)["total_messages"] for key in ("0", "1")] == [30, 30]
    told = instance.fetch_materializations(dg.AssetRecordsFilter(asset_key=dg.AssetKey("project"), asset_partitions=[KEY]), limit=9).records
    assert [event.asset_materialization.metadata["messages"].value for event in told if event.asset_materialization] == [30, 30]


@pytest.mark.parametrize(
    ("what", "choose"), [("message", "choose Kafka partitions"), ("project", "choose projects"), ("tenant", "choose tenants")]
)
def test_a_run_without_a_partition_says_what_to_choose(settings: Settings, instance: dg.DagsterInstance, what: str, choose: str) -> None:
    _current[:] = [settings]
    result = dg.materialize(
        [drained_tables, project, tenant], selection=[what], instance=instance, resources={"platform": Platform()}, raise_on_error=False
    )
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert choose in (failure.step_failure_data.user_failure_data.description or "" if failure.step_failure_data.user_failure_data else "")


def test_a_deleted_tenant_that_returns_gets_its_key(settings: Settings, instance: dg.DagsterInstance) -> None:
    """A shift at work knows keys that the deletion takes away: the tenant comes back by a project that is new to it, or by an old one."""
    at_work = ProjectKeys(instance)
    at_work.add([("acme", "north"), ("acme", "south"), ("other", "north")])
    assert forget_tenant(instance, "acme") == 3
    feed = Feed(settings)
    feed.send(GOOD, topic=f"{ROOT}/acme/west")
    feed.flush()
    drain(settings)
    at_work.add([("acme", "west")])
    assert list(instance.get_dynamic_partitions(PROJECT)) == ["other/north", "acme/west"]
    sync_projects(instance, settings)
    assert list(instance.get_dynamic_partitions(TENANT)) == ["other", "acme"]
    feed.send(GOOD, topic=f"{ROOT}/acme/north")
    feed.flush()
    drain(settings)
    at_work.add([("acme", "north")])
    sync_projects(instance, settings)
    assert list(instance.get_dynamic_partitions(PROJECT)) == ["other/north", "acme/west", "acme/north"]


def test_nothing_waits(settings: Settings, instance: dg.DagsterInstance) -> None:
    assert materialize(settings, instance, key="0").success
    assert latest(instance, "message", "0")["next_offset"] == 0


def test_project_and_tenant_show_their_sums_by_hand(settings: Settings, instance: dg.DagsterInstance) -> None:
    feed = Feed(settings)
    for _ in range(7):
        feed.send(GOOD)
    feed.flush()
    assert materialize(settings, instance).success
    assert materialize(settings, instance, what="project", key=KEY).success
    assert latest(instance, "project", KEY)["total_messages"] == 7
    assert materialize(settings, instance, what="tenant", key=TENANT_ID).success
    assert latest(instance, "tenant", TENANT_ID)["total_messages"] == 7


def test_what_a_killed_run_left_untold_is_healed(settings: Settings, instance: dg.DagsterInstance, killer: Killer) -> None:
    """Rows are there, Dagster knows nothing of them: what drained them was killed right after its commit."""
    feed = Feed(settings)
    feed.send(GOOD)
    feed.flush()
    killer.kill(COMMAND, settings, "answer_lost", CLAIM)
    assert query(settings, "SELECT count(*) FROM message") == [(1,)]
    assert materialize(settings, instance).success
    assert latest(instance, "project", KEY)["total_messages"] == 1
    assert latest(instance, "tenant", TENANT_ID)["total_messages"] == 1


def test_a_shift_waits_for_its_predecessor_and_ends_when_idle(settings: Settings, instance: dg.DagsterInstance) -> None:
    settings = settings.model_copy(update={"drain_idle_seconds": 3.0})
    feed = Feed(settings)
    feed.send(GOOD)
    feed.flush()
    held, release = threading.Event(), threading.Event()

    def predecessor() -> None:
        connection = connect(settings)
        with shard_lock(connection, 0, 5):
            held.set()
            release.wait(30)
        connection.close()

    thread = threading.Thread(target=predecessor)
    thread.start()
    held.wait(10)
    timer = threading.Timer(3, release.set)
    timer.start()
    began = time.monotonic()
    result = materialize(settings, instance, tags={shifts.SHARD_TAG: "0"}, what="shift")
    thread.join()
    assert result.success
    assert time.monotonic() - began > 3
    assert query(settings, "SELECT count(*) FROM message") == [(1,)]
    assert latest(instance, "message", "0")["messages"] == 1
    run = instance.get_run_by_id(result.run_id)
    assert run is not None
    assert float(run.tags[shifts.ENDS_AT_TAG]) > time.time()
    for name in (OFFSETS, SEQUENCES):
        check = instance.get_latest_asset_check_evaluation_record(dg.AssetCheckKey(dg.AssetKey("message"), name))
        assert check is not None
        assert check.evaluation is not None
        assert check.evaluation.passed
    assert not is_due(instance)


def test_a_shift_has_a_session_to_its_end(settings: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sensor reports a run without one as failed; each of the audit's queries may take longer than it waits."""
    feed = Feed(settings)
    feed.send(GOOD)
    feed.flush()
    present: list[tuple[str, str]] = []

    def seen(name: str, result: dg.AssetCheckResult) -> dg.AssetCheckResult:
        with closing(connect(settings)) as connection:
            present.extend((name, session) for session in sessions(connection, "drain-"))
        return result

    monkeypatch.setattr(drain_run, "evaluate_audit", lambda *args, **kwargs: seen(args[2], evaluate_audit(*args, **kwargs)))
    monkeypatch.setattr(drain_run, "evaluate_brake", lambda *args: seen("brake", evaluate_brake(*args)))
    monkeypatch.setattr(drain_run, "evaluate_partitions", lambda *args: seen("partitions", evaluate_partitions(*args)))
    result = materialize(settings.model_copy(update={"drain_idle_seconds": 1.0}), instance, tags={shifts.SHARD_TAG: "0"}, what="shift")
    assert result.success
    assert present == [(name, shifts.session_name(result.run_id)) for name in ("brake", "partitions", OFFSETS, SEQUENCES)]


def test_a_shift_whose_connection_breaks_ends_early_and_well(settings: Settings, instance: dg.DagsterInstance) -> None:
    settings = settings.model_copy(update={"drain_idle_seconds": 60.0})
    feed = Feed(settings)
    feed.send(GOOD)
    feed.flush()
    broken: list[bool] = []

    def terminate() -> None:
        give_up = time.monotonic() + 30
        while query(settings, "SELECT count(*) FROM message") != [(1,)] and time.monotonic() < give_up:
            time.sleep(0.1)
        with closing(connect(settings)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'drain-%'")
            broken.extend(row[0] for row in cursor.fetchall())

    thread = threading.Thread(target=terminate)
    thread.start()
    result = materialize(settings, instance, tags={shifts.SHARD_TAG: "0"}, what="shift")
    thread.join()
    assert broken == [True]
    assert result.success
    assert latest(instance, "project", KEY)["messages"] == 1
    check_books(settings)


def test_the_sensor_requests_a_shift_at_the_first_message(
    settings: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lag_watch, "TICK_SECONDS", 0.5)
    assert isinstance(lag_watch.watch(settings, instance), dg.SkipReason)
    monkeypatch.setattr(lag_watch, "TICK_SECONDS", 20.0)
    feed = Feed(settings)

    def publish() -> None:
        feed.send(GOOD)
        feed.flush()

    timer = threading.Timer(1.5, publish)
    timer.start()
    began = time.monotonic()
    result = lag_watch.watch(settings, instance)
    assert isinstance(result, dg.SensorResult)
    assert result.run_requests is not None
    assert time.monotonic() - began < 10
    (request,) = result.run_requests
    assert request.tags[shifts.SHARD_TAG] == "0"
    assert request.tags["dagster/asset_partition_range_start"] == "0"
    assert request.tags["dagster/asset_partition_range_end"] == "1"
    assert int(request.tags["dagster/max_runtime"]) > settings.drain_shift_seconds
    assert request.run_key


def test_several_shards_have_a_shift_each(settings: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lag_watch, "TICK_SECONDS", 5.0)
    feed = Feed(settings)
    feed.send(GOOD, partition=0)
    feed.send(GOOD, partition=1)
    feed.flush()
    result = lag_watch.watch(settings.model_copy(update={"drain_shards": 2}), instance)
    assert isinstance(result, dg.SensorResult)
    ranges = [request.tags["dagster/asset_partition_range_start"] for request in result.run_requests or []]
    assert ranges == ["0", "1"]
    seen = "SELECT kafka_partition, lag FROM partition_progress WHERE lag_seen_at > now() - interval '1 minute' ORDER BY 1"
    assert query(settings, seen) == [(0, 1), (1, 1)]


def test_a_recreated_topic_fails_and_says_what_to_run(settings: Settings, instance: dg.DagsterInstance) -> None:
    feed = Feed(settings)
    feed.send(GOOD)
    feed.flush()
    assert materialize(settings, instance).success
    with AdminClient(settings.kafka_config()) as admin:
        admin.delete_topics([settings.kafka_topic])[settings.kafka_topic].result()
    _await_recreated(settings)
    result = materialize(settings, instance, key="0")
    assert not result.success
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert "iot offsets accept" in str(failure.step_failure_data.user_failure_data.description)  # type: ignore[union-attr]
    run = instance.get_run_by_id(result.run_id)
    assert run is not None
    assert run.tags[shifts.FAILURE_TAG] == shifts.NEEDS_PERSON
    assert query(settings, "SELECT count(*) FROM message") == [(1,)]


def _await_recreated(settings: Settings) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            ensure_topics(settings)
        except Exception:  # the deletion is not through yet
            time.sleep(0.2)
            continue
        with AdminClient(settings.kafka_config()) as admin:
            if settings.kafka_topic in admin.list_topics(timeout=5).topics:
                return
    raise AssertionError("the topic did not come back")


def test_the_poison_brake_fails_while_bad_messages_flow(settings: Settings, instance: dg.DagsterInstance) -> None:
    feed = Feed(settings)
    for number in range(1200):
        feed.send(b"not json" if number >= 100 else GOOD)
    feed.flush()
    assert materialize(settings, instance, what="quarantine").success
    result = evaluate_brake(settings)
    assert not result.passed
    metadata = {name: value.value for name, value in result.metadata.items()}
    assert (metadata["records"], metadata["quarantined"], metadata["longest_series_of_bad"]) == (1200, 1100, 1100)
    assert evaluate_audit(settings, instance, OFFSETS).passed


def test_the_audit_fails_the_run_until_what_is_lost_is_back(settings: Settings, instance: dg.DagsterInstance) -> None:
    feed = Feed(settings)
    for _ in range(3):
        feed.send(GOOD)
        feed.flush()
        assert materialize(settings, instance, key="0").success
    query(settings, "CREATE TABLE kept AS SELECT * FROM message WHERE kafka_offset = 1")
    query(settings, "DELETE FROM message WHERE kafka_offset = 1")
    result = materialize(settings, instance, key="0")
    assert not result.success
    failed = {evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations() if not evaluation.passed}
    assert set(failed) == {OFFSETS}
    differences = failed[OFFSETS].metadata["first_differences"].value
    assert "partition 0 offset 1 is in no table" in [row.data["difference"] for row in differences.records]
    query(settings, "INSERT INTO message SELECT * FROM kept")
    assert materialize(settings, instance, key="0").success


def test_an_unreachable_database_is_one_clear_failure(settings: Settings, instance: dg.DagsterInstance) -> None:
    broken = settings.model_copy(update={"database_url": type(settings.database_url)("postgresql://nobody@127.0.0.1:1/none")})
    result = materialize(broken, instance, key="0")
    assert not result.success
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert "IOT_DATABASE_URL" in str(failure.step_failure_data.user_failure_data.description)  # type: ignore[union-attr]
    with pytest.raises(Exception, match="IOT_DATABASE_URL"):
        lag_watch.watch(broken, instance)
