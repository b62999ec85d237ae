"""What is noted of the database beside its offsets in Kafka: enough to compare a restored one with, and never in the drain's way."""

from contextlib import closing

import psycopg2
import pytest

from iot_platform.backup.heartbeat import read_heartbeat, remarks
from iot_platform.database import connect
from iot_platform.kafka.group_offsets import write_noted
from iot_platform.settings import Settings


@pytest.fixture
def own(settings: Settings) -> Settings:
    """With a group of the test's own."""
    return settings.model_copy(update={"kafka_drain_group": f"drain-{settings.kafka_topic}"})


def test_what_is_noted_is_read_again(own: Settings) -> None:
    assert read_heartbeat(own) is None  # and the process goes on, though a young Kafka has no coordinator for the group yet
    with closing(connect(own)) as connection:
        remark = remarks(connection, {0: 1000.5, 1: 999.0})
        assert write_noted(own, {0: (17, remark(0)), 1: (4, remark(1))})
        with connection.cursor() as cursor:
            cursor.execute("SELECT system_identifier::text, timeline_id FROM pg_control_system(), pg_control_checkpoint()")
            server = cursor.fetchone()
    beat = read_heartbeat(own)
    assert beat is not None
    assert (beat.offsets, beat.committed_at) == ({0: 17, 1: 4}, 1000.5)
    assert (beat.system_id, beat.timeline) == server
    assert read_heartbeat(own.model_copy(update={"kafka_drain_group": "off"})) is None


def test_server_that_keeps_its_identity_to_itself_does_not_stop_the_sensor(own: Settings) -> None:
    with closing(psycopg2.connect(own.admin_url)) as connection:
        with connection.cursor() as cursor:
            cursor.execute("CREATE SCHEMA closed")
            cursor.execute(
                "CREATE FUNCTION closed.pg_walfile_name(pg_lsn) RETURNS text LANGUAGE plpgsql AS"
                " $$BEGIN RAISE insufficient_privilege; END$$"
            )
            cursor.execute("SET search_path = closed, pg_catalog, public")
        connection.commit()
        remark = remarks(connection, {})
        assert write_noted(own, {0: (17, remark(0))})
        beat = read_heartbeat(own)
        assert beat is not None
        assert (beat.offsets, beat.system_id, beat.timeline) == ({0: 17}, "", 0)
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            assert cursor.fetchone() == (1,)
