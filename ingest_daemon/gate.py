"""Between sink and producer: whether messages may go to Kafka now, and what is in the way."""

from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaError

from ingest_daemon.credentials import Credentials
from ingest_daemon.dead_letter import Refused
from ingest_daemon.failures import Failures
from ingest_daemon.kafka import Channel
from ingest_daemon.replacement import Replacement
from ingest_daemon.settings import Settings
from ingest_daemon.sink_state import FOLLOWING, SinkState
from ingest_daemon.spool import Spool


class Gate:
    """Holds the sink's state, and changes it as Kafka, the producer and time demand. Nothing blocks."""

    def __init__(
        self, settings: Settings, channel: Channel, refused: Refused, spool: Spool, *, credentials: Credentials, clock: Callable[[], float]
    ) -> None:
        self._channel = channel
        self._refused = refused
        self._spool = spool
        self._failures = Failures(settings, clock)
        self._replacement = Replacement(channel, refused, credentials, clock)
        self._after_seconds = settings.ingest_spool_after_seconds
        self._unconfirmed = f"Kafka: no confirmation for {self._after_seconds:g} s"
        self.reason: str | None = None
        """What was in the way when the state last changed. Changed by `become` only, as the state is."""
        self.state = SinkState.DIRECT if spool.at_end else SinkState.UNPROVEN

    @property
    def problem(self) -> str | None:
        """What is in the way to Kafka, with the setting to look at; None while messages flow."""
        problem = self.reason or (None if self.state is SinkState.DIRECT or self.in_time() else self._unconfirmed)
        if problem == self._unconfirmed:
            problem += f": {self._channel.cause or self._channel.refusal or 'IOT_KAFKA_BOOTSTRAP_SERVERS'}"
        return problem

    def in_time(self) -> bool:
        """Whether Kafka has reported on all entries of the spool that are not quite new."""
        return self._spool.outstanding_seconds() < self._after_seconds

    @property
    def failed(self) -> bool:
        """Whether messages go nowhere until it is time to try again."""
        return self.state is SinkState.FAILED

    @property
    def idle(self) -> bool:
        """Whether there is nothing that could prove Kafka well, and it is worth a try."""
        if self.state is not SinkState.UNPROVEN:
            return False
        anything = len(self._channel) or self._spool.outstanding or next(self._spool.in_memory(), None)
        return not anything and self._failures.quiet

    # -- what happens ------------------------------------------------------------------------------------------
    def become(self, state: SinkState, reason: str | None) -> None:
        """Change the state; `reason` is what is in the way from now on."""
        if state not in FOLLOWING[self.state]:
            raise AssertionError(f"{state.name} may not follow {self.state.name}")  # a fault of this program
        self.state, self.reason = state, reason

    def unconfirmed(self) -> None:
        """The oldest message waits for too long: what is out will tell."""
        self.become(SinkState.PROBING, self._unconfirmed)

    def full(self, problem: str) -> None:
        """There is no room for messages on their way, which says nothing against Kafka: what is out will tell."""
        self.become(SinkState.PROBING, problem)

    def produced(self) -> None:
        """Something that can tell whether Kafka is well has been handed to librdkafka."""
        if self.state is SinkState.UNPROVEN:
            self.become(SinkState.PROBING, self.reason)

    def fail(self, error: Any) -> bool:
        """Kafka, or the producer, does not take messages now; whether that ends DIRECT."""
        if error.fatal() or error.code() == KafkaError._FATAL:
            self._channel.suspect(error)
        if self._channel.fatal is not None:
            error = self._channel.fatal  # the others follow from it
        was_direct = self.state is SinkState.DIRECT
        self.become(SinkState.FAILED, self._failures.note(error, self.reason, again=self.failed))
        return was_direct

    def retry_now(self) -> None:
        """What made the last attempt fail has been put right."""
        self._failures.retry_now()

    def new_fatal_error(self) -> Any:
        """The error that has ended the producer, once; else None."""
        return self._replacement.new_fatal_error()

    def take_over_credentials(self) -> bool:
        """Use new ones; whether that ends DIRECT. Certificates need another producer, and what is out until then tells nothing of it."""
        if not self._replacement.take_over_credentials():
            return False
        if self.state is SinkState.DIRECT:
            self.become(SinkState.UNPROVEN, None)
            return True
        if self.state is SinkState.PROBING:
            self.become(SinkState.UNPROVEN, self.reason)
        return False

    # -- whether messages may pass -----------------------------------------------------------------------------
    def may_produce(self) -> bool:
        """Whether entries of the spool may be handed to librdkafka now; goes on to the next state where its time has come.

        Raises:
            KafkaStuckError: only a new process helps.
        """
        if self._refused.full:
            return False
        if self.failed and not self._try_again():
            return False
        if self._replacement.handing_over and not self._hand_over():
            return False
        if self.state is not SinkState.FORWARDING:
            if len(self._channel):
                return False
            if self.state is SinkState.PROBING:
                self.become(SinkState.FORWARDING, None)
        return self.in_time()

    def _try_again(self) -> bool:
        """Whether the failure is over."""
        if len(self._channel) or self._refused.alone or not self._failures.due:
            return False
        if self._replacement.needed and not self._replace():
            return False
        self.become(SinkState.UNPROVEN, self.reason)
        self._spool.rewind()
        return True

    def _hand_over(self) -> bool:
        """Whether a producer with the new certificates has taken the place of one that had finished."""
        return not self._replacement.finishing and self._replace() and not self.failed

    def _replace(self) -> bool:
        if self._replacement.replace():
            return True
        self._failures.retry_late()
        self.become(SinkState.FAILED, f"Kafka: {self._channel.refusal}")
        return False
