"""The producer's life: when another one has to take its place, and with which credentials."""

from collections.abc import Callable
from typing import Any

import structlog

from ingest_daemon.credentials import Credentials
from ingest_daemon.dead_letter import Refused
from ingest_daemon.kafka import Channel

HANDOVER_SECONDS = 10.0  # how long a producer with outdated certificates may take to finish, while brokers accept them
REFUSED_SECONDS = 5.0  # between attempts to use certificates that librdkafka refuses

log = structlog.get_logger("ingest.kafka")


class Replacement:
    """Says when the channel's producer is to be replaced, and replaces it.

    One that ended with a fatal error, such as a missing right, or that makes too large batches, is of no use: it is replaced before the
    next attempt. One whose certificates have changed first finishes what it has; `HANDOVER_SECONDS` later, or when brokers do not
    accept it any more, what it has left fails. Certificates that librdkafka refuses leave it at work, and are tried again.
    """

    def __init__(self, channel: Channel, refused: Refused, credentials: Credentials, clock: Callable[[], float]) -> None:
        """`credentials`: the producers use what they found last. The owner calls `look` periodically."""
        self._channel = channel
        self._refused = refused
        self._credentials = credentials
        self._clock = clock
        self._in_use = credentials.current  # in use, or about to be
        self._take_over_at = 0.0  # not before
        self._hand_over_by = 0.0  # at the latest; 0: no hand-over
        self._fatal: Any = None  # the producer's fatal error that was seen last

    def new_fatal_error(self) -> Any:
        """The error that has ended the producer, once; else None."""
        seen, self._fatal = self._fatal, self._channel.fatal
        return None if self._fatal is seen else self._fatal

    def take_over_credentials(self) -> bool:
        """Use what the files hold now: a password at once, certificates by a hand-over; whether one begins here."""
        found, before = self._credentials.current, self._in_use
        if found is before or self._clock() < self._take_over_at:
            return False
        if found.password is not None and found.password != before.password:
            self._channel.set_password(found.password)
            self._refused.set_password(found.password)
        files_changed = found.files != before.files
        if files_changed:
            if not self._channel.prepare():
                log.warning("producer_not_replaced", reason=self._channel.refusal, hint="the present one stays; tried again soon")
                self._take_over_at = self._clock() + REFUSED_SECONDS
                return False
            self._refused.renew()
            self._hand_over_by = self._clock() + HANDOVER_SECONDS
        self._in_use = found
        return files_changed

    @property
    def handing_over(self) -> bool:
        """Whether the producer is one with outdated certificates."""
        return self._hand_over_by > 0

    @property
    def finishing(self) -> bool:
        """Whether such a producer is still to be waited for."""
        return len(self._channel) > 0 and self._clock() < self._hand_over_by and not self._channel.cause

    @property
    def needed(self) -> bool:
        """Whether the producer is of no use."""
        return self._fatal is not None or self._channel.outdated

    def replace(self) -> bool:
        """Use a new producer; what the old one has not finished fails. False: there is none, see `Channel.refusal`.

        Raises:
            KafkaStuckError: only a new process helps.
        """
        if not self._channel.renew():
            return False
        self._hand_over_by = 0.0
        self._fatal = None
        log.debug("producer_replaced")
        return True
