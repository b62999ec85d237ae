"""Errors of actions."""


class ActionError(Exception):
    """What is asked for cannot be done; the message says why, for the one who asked; `field` is the argument, if it is one. Never retry."""

    def __init__(self, words: str, field: str = "") -> None:
        super().__init__(words)
        self.field = field
