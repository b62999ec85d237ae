"""The platform's topics on a real Kafka: created safe, dangerous ones refused, accepted by name, mended by `iot topics apply`."""

import itertools
import json
from collections.abc import Callable

import dagster as dg
import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType
from typer.testing import CliRunner, Result

from iot_platform.cli.errors import CliError
from iot_platform.cli.main import app
from iot_platform.diagnostics.doctor_kafka import topic_findings
from iot_platform.kafka import topic_state
from iot_platform.kafka.topic_state import TopicState
from iot_platform.kafka.topics import TopicError, check_topics, ensure_topics
from iot_platform.orchestration.partition_checks import evaluate_topics
from iot_platform.settings import Settings
from iot_platform_tests.support.servers.stack import Servers

_numbers = itertools.count(1)
SAFE = {"message.timestamp.type": "LogAppendTime", "max.message.bytes": "20971520", "flush.messages": "1"}
Cli = Callable[..., Result]


@pytest.fixture
def mine(servers: Servers) -> Settings:
    """Settings of topics that do not exist yet."""
    number = next(_numbers)
    names = {"kafka_topic": f"topics-{number}", "kafka_dead_letter_topic": f"topics-dead-{number}"}
    return Settings(kafka_bootstrap_servers=servers.kafka_bootstrap_servers, kafka_partitions=2, **names)


@pytest.fixture
def cli(mine: Settings, monkeypatch: pytest.MonkeyPatch) -> Cli:
    def run(*arguments: str, **fields: object) -> Result:
        monkeypatch.setattr("iot_platform.settings.get_settings", lambda: mine.model_copy(update=fields))
        return CliRunner().invoke(app, ["topics", *arguments], terminal_width=400)

    return run


def make(settings: Settings, **config: str) -> None:
    """Somebody else's topics: the message topic with Kafka's defaults but for these settings."""
    with AdminClient(settings.kafka_config()) as admin:
        topics = [
            NewTopic(settings.kafka_topic, 2, 1, config={key.replace("_", "."): value for key, value in config.items()}),
            NewTopic(settings.kafka_dead_letter_topic, 1, 1, config={**SAFE, "retention.ms": "-1"}),
        ]
        for future in admin.create_topics(topics, operation_timeout=15).values():
            future.result(20)


def alter(settings: Settings, name: str, value: str) -> None:
    with AdminClient(settings.kafka_config()) as admin:
        resource = ConfigResource(ResourceType.TOPIC, settings.kafka_topic)
        resource.add_incremental_config(ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET))
        admin.incremental_alter_configs([resource])[resource].result(20)


def state(settings: Settings) -> TopicState:
    return next(item for item in check_topics(settings)[0] if item.name == settings.kafka_topic)


def test_what_we_create_syncs_before_it_confirms(mine: Settings) -> None:
    assert ensure_topics(mine) == []
    for found in check_topics(mine)[0]:
        assert (found.config["flush.messages"].value, found.config["flush.messages"].source) == ("1", "topic")
    assert check_topics(mine)[1] == []
    assert [finding.state for finding in topic_findings(mine)] == ["ok"]


def test_without_flush_only_when_the_user_says_so(mine: Settings) -> None:
    without = mine.model_copy(update={"kafka_flush": False})
    assert all("(accepted)" in text for text in ensure_topics(without))
    assert state(mine).config["flush.messages"].source != "topic"
    with pytest.raises(TopicError, match="a power cut loses it"):
        ensure_topics(mine)


@pytest.mark.parametrize(
    ("setting", "value", "risk", "expected"),
    [
        ("cleanup.policy", "compact", "cleanup", "all but the newest message"),
        ("retention.ms", "3600000", "retention", "deleted after 1 h, drained or not"),
        ("retention.bytes", "1000000", "retention", "holds 1000000 bytes"),
        ("unclean.leader.election.enable", "true", "unclean_election", "without the newest messages"),
        ("min.insync.replicas", "2", "insync", "nothing can ever be written"),
        ("flush.messages", "10000", "flush", "before its disk has the message"),
        ("message.timestamp.type", "CreateTime", "timestamp", "wrong clock"),
        ("max.message.bytes", "1048588", "size", "17039360 are needed"),
    ],
)
def test_somebody_elses_topic_is_refused_accepted_or_mended(
    mine: Settings, cli: Cli, *, setting: str, value: str, risk: str, expected: str
) -> None:
    make(mine, **{key.replace(".", "_"): text for key, text in (SAFE | {setting: value}).items()})
    with pytest.raises(TopicError) as refusal:
        ensure_topics(mine)
    text = str(refusal.value)
    assert f"topic {mine.kafka_topic}: {setting}={value}: " in text
    assert expected in text
    assert f"kafka-configs.sh --bootstrap-server {mine.kafka_bootstrap_servers} --alter --entity-type topics" in text
    assert state(mine).config[setting].value == value, "somebody else's topic was altered"
    assert [finding.state for finding in topic_findings(mine) if setting in finding.text] == ["risk"]

    accept: dict[str, object] = {"kafka_flush": False} if risk == "flush" else {"kafka_accept_risks": risk}
    assert any(setting in said and "(accepted)" in said for said in ensure_topics(mine.model_copy(update=accept)))
    assert cli("check", **accept).exit_code == 0

    checked = cli("check")
    assert (checked.exit_code, expected in checked.output) == (1, True)
    shown = {row["setting"]: row for row in json.loads(cli("show", "--json").output)[0]["settings"]}
    assert (shown[setting]["value"], shown[setting]["source"], shown[setting]["verdict"]) == (value, "topic", "refused")
    refusing = CliRunner().invoke(app, ["topics", "apply"], input="n\n")
    assert (refusing.exit_code, state(mine).config[setting].value) == (1, value)
    assert cli("apply", "--yes").exit_code == 0
    assert cli("check").exit_code == 0
    assert ensure_topics(mine) == []


def test_the_local_stack_mends_its_own_topics(mine: Settings) -> None:
    make(mine)  # as an earlier version left it, or worse
    said = ensure_topics(mine, own=True)
    assert {text.split(": ")[1].split(" ")[0] for text in said} >= {"flush.messages=1", "message.timestamp.type=LogAppendTime"}
    assert check_topics(mine)[1] == []
    assert state(mine).config["flush.messages"].value == "1"
    faster = mine.model_copy(update={"kafka_flush": False})
    ensure_topics(faster, own=True)
    assert state(mine).config["flush.messages"].source != "topic", "IOT_KAFKA_FLUSH=false has no effect on the local stack"


def test_a_topic_that_this_broker_did_not_know_of_yet_is_not_ours(mine: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody made it a moment ago: creating it is answered with "exists", and it may not be altered."""
    make(mine)
    listed = AdminClient.list_topics
    blind = iter([True])

    def late(admin: AdminClient, *arguments: object, **named: object) -> object:
        found = listed(admin, *arguments, **named)
        if next(blind, False):
            found.topics = {}
        return found

    monkeypatch.setattr("iot_platform.kafka.topics.AdminClient", type("Late", (AdminClient,), {"list_topics": late}))
    with pytest.raises(TopicError, match=r"flush\.messages"):
        ensure_topics(mine)
    assert state(mine).config["flush.messages"].source != "topic"


def test_the_check_in_dagster_names_what_mends_it(mine: Settings) -> None:
    make(mine, **{key.replace(".", "_"): value for key, value in SAFE.items() if key != "flush.messages"})
    found = evaluate_topics(mine)
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert "flush.messages" in (found.description or "")
    assert "iot topics apply" in (found.description or "")
    alter(mine, "flush.messages", "1")
    assert evaluate_topics(mine).passed
    away = evaluate_topics(mine.model_copy(update={"kafka_topic": f"{mine.kafka_topic}-away"}))
    assert (away.passed, away.severity) == (False, dg.AssetCheckSeverity.WARN)


def test_create_leaves_existing_topics_alone(mine: Settings, cli: Cli) -> None:
    assert cli("check").exit_code != 0
    made = cli("create")
    assert (made.exit_code, mine.kafka_topic in made.output) == (0, True)
    alter(mine, "retention.ms", "1000")
    assert "nothing was changed" in cli("create").output
    assert state(mine).config["retention.ms"].value == "1000"


def test_impossible_topics_are_refused_in_words(mine: Settings) -> None:
    with pytest.raises(TopicError, match="IOT_KAFKA_REPLICATION_FACTOR"):
        ensure_topics(mine.model_copy(update={"kafka_replication_factor": 3}))


def test_no_kafka_is_said_with_its_setting(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topic_state, "TIMEOUT_SECONDS", 2)
    result = cli("check", kafka_bootstrap_servers="127.0.0.1:1")
    assert isinstance(result.exception, CliError)
    assert result.exception.exit_code == 2
    assert "Connection refused (IOT_KAFKA_BOOTSTRAP_SERVERS)" in str(result.exception)
