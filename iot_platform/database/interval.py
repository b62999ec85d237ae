"""Times as parameters: µs since the epoch, exactly, as `'epoch'::timestamptz + %s::interval` takes them."""


def interval(microseconds: int) -> str:
    """So many µs (numpy's integers, too) as a text that PostgreSQL reads as an interval."""
    return f"{int(microseconds)} microseconds"
