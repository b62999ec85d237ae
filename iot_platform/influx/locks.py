"""Who may write to a sink."""


def lock_name(sink: str) -> str:
    """The advisory lock of whoever writes to a sink: one at a time, so that the last value read is the last one written."""
    return f"sink-{sink}"
