"""The error every `iot` command raises for what the user can put right."""


class CliError(Exception):
    """A failure the user can act on: the message names the cause and the remedy."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code
