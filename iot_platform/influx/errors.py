"""What can go wrong between us and InfluxDB."""


class InfluxError(Exception):
    """Base of the package's errors."""


class InfluxConfigError(InfluxError):
    """A setting, a right or something at the server has to be changed by a person; the message names it. Never retry by itself."""


class InfluxUnavailableError(InfluxError):
    """The server did not take, for now, what it was sent. Retry the same bytes, for ever."""


class InfluxRefusedError(InfluxError):
    """400, 413 or 422: something in the request will never be taken. Send it in halves; never repeat a single line."""


class InfluxBusyError(InfluxError):
    """Another run works for this sink. Retry."""
