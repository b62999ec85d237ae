"""Kafka topics of the platform: creates them as the guarantees need them, and refuses ones that would lose messages."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)
from tenacity import retry, retry_if_exception, stop_after_delay, wait_fixed

from iot_platform.kafka import leaders
from iot_platform.kafka.causes import ConnectionCauses
from iot_platform.kafka.rights import Right, connection_options
from iot_platform.kafka.topic_rules import Finding, dead_letter_config, judge, message_config
from iot_platform.kafka.topic_state import TIMEOUT_SECONDS, TopicState, read_topics
from iot_platform.settings import Settings

_REFUSED_CONFIG: Final = frozenset({KafkaError.POLICY_VIOLATION, KafkaError.INVALID_CONFIG, KafkaError.INVALID_REQUEST})


class TopicError(Exception):
    """A Kafka topic can't be created, or is configured so that messages would be lost. Retry after following the message."""


@dataclass(frozen=True)
class Change:
    """One setting of a topic that is to be another; `new` None takes the topic's own value away."""

    topic: str
    setting: str
    old: str
    new: str | None


def ensure_topics(settings: Settings, *, own: bool = False) -> list[str]:
    """Create the message and dead-letter topics where they don't exist, check those that do, and return what is to be warned of.

    What endangers messages is put right on topics made just now, and with `own` (the local stack's Kafka) on all; on somebody else's it
    is refused. Blocks for up to about a minute. Safe when two processes do it at once.

    Raises:
        TopicError: see there.
    """
    with _Kafka(settings) as kafka:
        made = kafka.create()
        states = _once_known(kafka.read)(kafka.wanted)
        mine = set(states) if own else set(made)
        changes = [change for change in kafka.changes(states.values(), follow_flush=own) if change.topic in mine]
        if changes:
            kafka.apply(changes)
            states = kafka.read(kafka.wanted)
        said = [f"topic {change.topic}: {change.setting}={change.new or 'default'} set, was {change.old}" for change in changes if own]
        return said + require_safe(settings, states.values())


def require_safe(settings: Settings, states: Iterable[TopicState]) -> list[str]:
    """Nothing when no topic endangers messages; returns what is only to be warned of.

    Raises:
        TopicError: with every refused value, why, and what mends it.
    """
    found = [finding for state in states for finding in judge(state, settings)]
    if refused := [finding for finding in found if finding.state == "refused"]:
        raise TopicError("\n".join(f"{finding.line}. {remedy(settings, finding)}" for finding in refused))
    return [f"{finding.line}{' (accepted)' if finding.state == 'accepted' else ''}" for finding in found]


def check_topics(settings: Settings) -> tuple[list[TopicState], list[Finding]]:
    """Both topics as they are, and everything that is to be said about them; changes nothing.

    Raises:
        TopicError: one does not exist, or Kafka does not answer.
    """
    with _Kafka(settings) as kafka:
        states = kafka.read(())
        if missing := [name for name in kafka.wanted if name not in states]:
            hidden = "" if settings.kafka_security_protocol == "PLAINTEXT" else " (or our user may not DESCRIBE it, and it is hidden)"
            raise TopicError(f"Kafka has no topic {', '.join(missing)}{hidden}: `iot topics create` makes it")
        return list(states.values()), [finding for state in states.values() for finding in judge(state, settings)]


def create_topics(settings: Settings) -> list[str]:
    """Create what is missing, and nothing else; returns its names.

    Raises:
        TopicError: see there.
    """
    with _Kafka(settings) as kafka:
        return kafka.create()


def planned_changes(settings: Settings) -> list[Change]:
    """What `apply_changes` would do to refused settings, and to those that IOT_KAFKA_FLUSH=false makes needless.

    Raises:
        TopicError: a topic does not exist, or Kafka does not answer.
    """
    states, _ = check_topics(settings)
    with _Kafka(settings) as kafka:
        return kafka.changes(states, follow_flush=True)


def apply_changes(settings: Settings, changes: list[Change]) -> None:
    """Alter topics, each in one step.

    Raises:
        TopicError: Kafka does not take it.
    """
    with _Kafka(settings) as kafka:
        kafka.apply(changes)


def remedy(settings: Settings, finding: Finding) -> str:
    """What puts a refused finding right, or accepts it."""
    parts = []
    if finding.mend is not None:
        name, value = finding.mend
        value = f"[{value}]" if "," in value else value
        command = f"kafka-configs.sh {connection_options(settings)} --alter --entity-type topics --entity-name {finding.topic}"
        parts.append(f"`iot topics apply` mends it, or run: {command} --add-config {name}={value}")
    if finding.risk == "flush":
        parts.append("to go without: IOT_KAFKA_FLUSH=false")
    elif finding.risk:
        risks = ",".join(filter(None, (settings.kafka_accept_risks, finding.risk)))
        parts.append(f"to accept the risk: IOT_KAFKA_ACCEPT_RISKS={risks}")
    return "; ".join(parts)


class _Kafka:
    """A connection for the length of one of the functions above; turns Kafka's errors into TopicError."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._causes = ConnectionCauses(settings)
        self.wanted = {
            settings.kafka_topic: NewTopic(
                settings.kafka_topic, settings.kafka_partitions, settings.kafka_replication_factor, config=message_config(settings)
            ),
            settings.kafka_dead_letter_topic: NewTopic(
                settings.kafka_dead_letter_topic, 1, settings.kafka_replication_factor, config=dead_letter_config(settings)
            ),
        }
        self._admin: AdminClient | None = None

    def __enter__(self) -> "_Kafka":
        try:
            self._admin = AdminClient({**self._causes.config, "log_level": 0})
        except KafkaException as error:
            raise TopicError(self._causes.explain(error)) from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        admin, self._admin = self._client, None
        with admin:
            if isinstance(error, KafkaException):
                topic = self._settings.kafka_topic
                raise TopicError(leaders.reason(admin, topic, error, self._causes, TIMEOUT_SECONDS)) from error

    @property
    def _client(self) -> AdminClient:
        if self._admin is None:
            raise RuntimeError("used outside its `with`")
        return self._admin

    def read(self, expected: Iterable[str]) -> dict[str, TopicState]:
        """The topics that exist; the expected ones have to."""
        states = read_topics(self._client, self.wanted)
        if any(name not in states for name in expected):
            raise KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))
        return states

    def create(self) -> list[str]:
        """Names of the topics that were missing and that we made."""
        existing = self._client.list_topics(timeout=TIMEOUT_SECONDS).topics
        missing = [topic for name, topic in self.wanted.items() if name not in existing]
        if not missing:
            return []
        made = []
        asked = self._client.create_topics(missing, operation_timeout=TIMEOUT_SECONDS, request_timeout=TIMEOUT_SECONDS + 5)
        for name, future in asked.items():
            try:
                future.result()
                made.append(name)
            except KafkaException as error:
                # Somebody else's, even if this broker did not know of it a moment ago: never ours to alter.
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise TopicError(self._not_created(name, error.args[0])) from error
        return made

    def _not_created(self, name: str, error: KafkaError) -> str:
        if error.code() in _REFUSED_CONFIG:
            # Managed services fix some settings: what they leave to their users has to be found out, and checked afterwards.
            wanted = ", ".join(f"{key}={value}" for key, value in (self.wanted[name].config or {}).items())
            without = " IOT_KAFKA_FLUSH=false leaves flush.messages out;" if "flush.messages" in wanted else ""
            return (
                f"Kafka refuses to create topic {name} as it should be ({wanted}): {error.str()}.{without} "
                "or create it by the service's own means, then `iot topics check` says what it lacks"
            )
        if error.code() == KafkaError.INVALID_REPLICATION_FACTOR:
            return f"topic {name} can't be created: {error.str()} (IOT_KAFKA_REPLICATION_FACTOR)"
        needs = Right(("Create", "Describe", "DescribeConfigs"), "topic", name)
        return f"topic {name} can't be created: {self._causes.explain(error, self._client.poll, needs)}"

    def changes(self, states: Iterable[TopicState], *, follow_flush: bool) -> list[Change]:
        """What mends the refused settings."""
        found: list[Change] = []
        for state in states:
            refused = [item for item in judge(state, self._settings) if item.state == "refused" and item.mend is not None]
            found += [Change(state.name, item.mend[0], item.value, item.mend[1]) for item in refused if item.mend is not None]
            flush = state.config.get("flush.messages")
            if follow_flush and not self._settings.kafka_flush and flush is not None and flush.source == "topic":
                found.append(Change(state.name, "flush.messages", flush.value, None))
        return found

    def apply(self, changes: list[Change]) -> None:
        """All changes of a topic at once, or none."""
        resources: dict[str, ConfigResource] = {}
        for change in changes:
            operation = AlterConfigOpType.DELETE if change.new is None else AlterConfigOpType.SET
            resource = resources.setdefault(change.topic, ConfigResource(ResourceType.TOPIC, change.topic))
            resource.add_incremental_config(ConfigEntry(change.setting, change.new, incremental_operation=operation))
        asked = self._client.incremental_alter_configs(list(resources.values()), request_timeout=TIMEOUT_SECONDS)
        for resource, future in asked.items():
            try:
                future.result()
            except KafkaException as error:
                wanted = ", ".join(f"{item.setting}={item.new or 'default'}" for item in changes if item.topic == resource.name)
                why = self._causes.explain(error, self._client.poll, Right(("AlterConfigs",), "topic", resource.name))
                raise TopicError(f"topic {resource.name} can't be changed ({wanted}): {why}") from error


# Creation is answered before every broker's metadata has the topic.
_once_known = retry(
    retry=retry_if_exception(lambda error: isinstance(error, KafkaException) and error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART),
    wait=wait_fixed(0.1),
    stop=stop_after_delay(TIMEOUT_SECONDS),
    reraise=True,
)
