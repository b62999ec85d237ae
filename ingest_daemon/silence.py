"""Connected, and no message: how long that may last, learnt from the pauses of the past week or set by IOT_INGEST_SILENT_SECONDS."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from ingest_daemon.errors import SettingsError
from ingest_daemon.state_dir import read, write

LEAST_SECONDS = 600.0  # what is learnt never asks for more
FACTOR = 2.0
HOUR_SECONDS = 3600
REMEMBERED_HOURS = 8 * 24
NEARBY_HOURS = (0, 1, 23)
SMALLEST_PAUSE_SECONDS = LEAST_SECONDS / FACTOR / 10

log = structlog.get_logger("ingest.mqtt")


class Silence:
    """Since when nothing has come through a subscription that stands, and from when on that is worth saying.

    Learnt: twice the longest pause of the last eight days that began at about the same time of day (an hour more or less), at least ten
    minutes: a plant that rests at night rests longer at night. Only pauses within one connection count: one that a reconnect ended
    was none of the devices'. The loop calls `heard` and `deaf`; any thread may ask.
    """

    def __init__(
        self, seconds: float | None, file: Path, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time
    ) -> None:
        """`seconds`: IOT_INGEST_SILENT_SECONDS. `file` keeps what was learnt over restarts; a damaged one is learnt anew."""
        self._seconds = seconds
        self._file = file
        self._clock, self._wall = clock, wall
        self._since = clock()
        self._longest: dict[int, float] = {}  # hour since the epoch in which it began → longest pause in seconds
        self._kept: dict[int, float] = {}
        self._load()

    def _load(self) -> None:
        try:
            found = json.loads(read(self._file) or "{}")
            self._longest = {int(hour): float(seconds) for hour, seconds in found.items()}
        except (OSError, ValueError, AttributeError, TypeError):
            log.warning("rhythm_unreadable", file=str(self._file), hint="the pauses of the past week are learnt anew")
        self._kept = dict(self._longest)

    # -- the loop's side ---------------------------------------------------------------------------------------
    def heard(self) -> None:
        """A message has come."""
        now = self._clock()
        pause, self._since = now - self._since, now
        if pause > SMALLEST_PAUSE_SECONDS:
            hour = self._hour(pause)
            self._longest = {**self._longest, hour: max(pause, self._longest.get(hour, 0.0))}

    def deaf(self) -> None:
        """Nothing can come now: there is no subscription."""
        self._since = self._clock()

    # -- any thread --------------------------------------------------------------------------------------------
    def _hour(self, pause: float) -> int:
        return int((self._wall() - pause) // HOUR_SECONDS)

    @property
    def seconds(self) -> float:
        """How long nothing has come; about 0 while there is no subscription."""
        return max(0.0, self._clock() - self._since)

    @property
    def after_seconds(self) -> float:
        """From when on the present pause is worth saying."""
        if self._seconds is not None:
            return self._seconds
        begun = self._hour(self.seconds)
        known = [
            seconds
            for hour, seconds in self._longest.items()
            if begun - REMEMBERED_HOURS <= hour <= begun and (begun - hour) % 24 in NEARBY_HOURS
        ]
        return max(LEAST_SECONDS, FACTOR * max(known, default=0.0))

    @property
    def problem(self) -> str | None:
        """What is the matter, if a pause beyond what the user has set is the present one: the daemon is not ready then."""
        return self._said() if self._seconds is not None else None

    @property
    def notice(self) -> str | None:
        """The same for a learnt one: worth saying, and no reason not to be ready, because devices may rest."""
        return self._said() if self._seconds is None else None

    def _said(self) -> str | None:
        seconds, after = self.seconds, self.after_seconds
        if seconds <= after:
            return None
        rule = "IOT_INGEST_SILENT_SECONDS" if self._seconds is not None else "learnt from the past week"
        return (
            f"MQTT: connected and subscribed, but no message for {_spoken(seconds)} (at most {_spoken(after)}: {rule}); "
            "`iot doctor` sends a probe. The user's right to read the topics, the broker's window and the shared group are what to look at"
        )

    # -- the file ----------------------------------------------------------------------------------------------
    def keep(self) -> None:
        """Write what was learnt, if it is new; blocks as long as the disk does. A disk that won't is tried again next time."""
        longest, oldest = self._longest, self._hour(0.0) - REMEMBERED_HOURS
        if longest == self._kept:
            return
        try:
            write(self._file, json.dumps({hour: round(seconds, 1) for hour, seconds in sorted(longest.items()) if hour >= oldest}))
        except SettingsError as error:
            log.debug("rhythm_not_kept", reason=str(error))
            return
        self._kept = longest


def _spoken(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
