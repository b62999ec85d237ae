"""Errors of the local stack: what the user can put right, and what is only a matter of waiting."""


class LocalStackError(Exception):
    """The local stack cannot go on; the message names the cause and the remedy. Retry after following it."""


class GivenUpError(LocalStackError):
    """A step stopped waiting because another one failed, or the user pressed Ctrl-C. The other error is the one to show."""


class NotReadyError(Exception):
    """A server does not answer as it should yet; the message says what was seen. Retry soon."""
