"""The error every `iot` command raises for what the user can put right."""


class CliError(Exception):
    """A failure the user can act on: the message names the cause and the remedy. Exit code 1."""
