"""What a check of the acceptance is, and what comes of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from iot_platform.settings import Settings, SettingsError

State = Literal["passed", "failed", "not checked"]
PASSED: Final = "passed"


class FailedError(Exception):
    """The installation is not as it must be: what was seen, and what to do."""

    def __init__(self, text: str, remedy: str) -> None:
        super().__init__(text)
        self.text, self.remedy = text, remedy


class NotCheckedError(Exception):
    """Nobody can tell from here: what is missing, and what to set. Never taken for passed."""

    def __init__(self, text: str, remedy: str = "") -> None:
        super().__init__(text)
        self.text, self.remedy = text, remedy


@dataclass(frozen=True)
class Verdict:
    """What came of a check."""

    state: State
    text: str
    remedy: str = ""


class Check(NamedTuple):
    """One question to the installation. `look` returns what it saw where all is well; it blocks for a minute at most."""

    name: str
    title: str
    look: Callable[[Settings], str]

    def run(self, settings: Settings) -> Verdict:
        """Ask it."""
        try:
            return Verdict(PASSED, self.look(settings))
        except FailedError as error:
            return Verdict("failed", error.text, error.remedy)
        except NotCheckedError as error:
            return Verdict("not checked", error.text, error.remedy)
        except SettingsError as error:
            return Verdict("failed", str(error), "correct the setting")
        except Exception as error:  # a server that answers in a way of its own ends this check, not the ones after it
            text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            return Verdict(
                "failed", f"an answer that nobody expected ({text})", "does another program, or a proxy's login page, answer there?"
            )


class Week(NamedTuple):
    """A week of the plan: its checks, and the milestone that it reaches."""

    name: str
    title: str
    milestone: str
    checks: tuple[Check, ...]
