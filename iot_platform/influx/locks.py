"""Who may write to a sink."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.database.errors import LockTimeoutError
from iot_platform.database.locks import advisory_lock
from iot_platform.influx.errors import InfluxBusyError


@contextmanager
def writing(connection: Connection, sink: str, timeout: float, cancelled: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Hold the sink's advisory lock for the block: one writes at a time, so that the last value read is the last one written. What the
    block has not committed is rolled back, whatever ends it.

    Raises:
        InfluxBusyError: not free within `timeout` seconds.
    """
    try:
        with advisory_lock(connection, f"sink-{sink}", timeout, cancelled=cancelled):
            yield
    except LockTimeoutError as error:
        raise InfluxBusyError(f"sink '{sink}': {error}") from error
