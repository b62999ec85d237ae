"""What is tried again, for how long, and whether a COMMIT that was not answered took place: the same for drains and replays."""

import threading
from collections.abc import Callable, Sequence
from typing import Final, NoReturn

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812
from tenacity import RetryCallState, Retrying, retry_if_exception, sleep_using_event, stop_after_delay, stop_when_event_set
from tenacity.wait import wait_exponential_jitter

from iot_platform.database.errors import DatabaseUnreachableError, is_transient
from iot_platform.kafka.errors import KafkaUnavailableError, TopicMissingError
from iot_platform.telemetry.errors import TransientError

PATIENCE_SECONDS: Final = 300.0
"""Without any progress for this long, an error that is retried becomes the error of the whole work."""

LedgerKey = tuple[int, int, int, int]
"""What names a row of a run's ledger: log_generation, kafka_partition, from_offset, to_offset."""


def is_retried(error: BaseException) -> bool:
    """Whether the servers may answer otherwise later. Everything else needs a person, or is a bug."""
    retried = isinstance(error, TransientError | KafkaUnavailableError | DatabaseUnreachableError)
    return retried and not isinstance(error, TopicMissingError)


def raise_explained(error: psycopg2.Error, connection: Connection | None) -> NoReturn:
    """Raise PostgreSQL's error again: as a TransientError, if the same transaction may succeed on a new connection. `connection`: as it is
    after the error; None where it was closed."""
    if is_transient(error, connection):
        raise TransientError(f"PostgreSQL: {' '.join(str(error).split()) or type(error).__name__}") from error
    raise error


def persist(
    work: Callable[[], None], *, progressed: Callable[[], bool], stop: threading.Event, on_retry: Callable[[BaseException], None]
) -> None:
    """Do the work, and after an error that is retried again, with growing pauses, until it is done, `stop` is set, or PATIENCE_SECONDS have
    passed. An error after progress ends the call instead, without being raised: the caller begins anew, with fresh patience.

    Raises:
        Whatever the work raised last.
    """

    def attempt() -> None:
        try:
            work()
        except Exception as error:
            if not (is_retried(error) and progressed()):
                raise
            on_retry(error)

    def before_sleep(state: RetryCallState) -> None:
        if state.outcome is not None and (error := state.outcome.exception()) is not None:
            on_retry(error)

    Retrying(
        retry=retry_if_exception(is_retried),
        wait=wait_exponential_jitter(multiplier=0.1, max=10, jitter=0.5),
        stop=stop_when_event_set(stop) | stop_after_delay(PATIENCE_SECONDS),
        sleep=sleep_using_event(stop),
        before_sleep=before_sleep,
        reraise=True,
    )(attempt)


def is_committed(connection: Connection, run_id: str, kind: str, keys: Sequence[LedgerKey]) -> bool:
    """Whether the ledger has all these rows of the run: the transaction whose COMMIT was not answered took place. Commits."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM ledger WHERE run_id = %s AND kind = %s AND committed_at > now() - interval '1 day'"
            " AND (log_generation, kafka_partition, from_offset, to_offset) IN %s",
            (run_id, kind, tuple(keys)),
        )
        row = cursor.fetchone()
    connection.commit()
    return row is not None and row[0] == len(keys)
