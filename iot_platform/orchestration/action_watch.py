"""What the sensor console_actions and its job do: carry out the writes that users of the console asked for."""

import time
from contextlib import closing
from typing import Final

import dagster as dg

from iot_platform.database import LockTimeoutError, connect
from iot_platform.orchestration.lag_watch import TICK_SECONDS
from iot_platform.settings import Settings

POLL_SECONDS: Final = 0.5
AGAIN_SECONDS: Final = 60
"""A run that died, or could not begin, is followed by another one so soon."""


def watch_actions(settings: Settings) -> dg.SensorResult:
    """One tick: up to TICK_SECONDS of doing short actions, until a replay is wanted.

    Raises:
        DatabaseError, psycopg2.Error: the database does not answer; the next tick tries again.
    """
    from iot_platform.actions.queue import carry_out_short, waiting  # the decoder, which definitions are quicker without

    deadline, done = time.monotonic() + TICK_SECONDS, 0
    with closing(connect(settings, application_name="dagster-console-actions")) as connection:
        while True:
            done += carry_out_short(settings, connection)
            if (action := waiting(connection)) is not None:
                key = f"action {action}, {int(time.time()) // AGAIN_SECONDS}"
                return dg.SensorResult(run_requests=[dg.RunRequest(run_key=key)])
            if time.monotonic() + POLL_SECONDS >= deadline:
                return dg.SensorResult(skip_reason=dg.SkipReason(f"{done} short actions done, no replay asked for"))
            time.sleep(POLL_SECONDS)


def run_actions(context: dg.OpExecutionContext, settings: Settings) -> None:
    """All replays that wait.

    Raises:
        DatabaseError, KafkaUnavailableError, TransientError: a server cannot be used; the sensor requests another run.
    """
    from iot_platform.actions.replays import carry_out_replays

    try:
        count = carry_out_replays(settings, note=context.log.info)
        context.log.info("%d replays done", count)
    except LockTimeoutError as error:
        context.log.info("another run does them: %s", error)
