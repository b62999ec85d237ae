"""Which subscriptions the broker holds for us, and how they become those that are wanted: first the new ones, then without the old ones."""

from collections.abc import Iterable, Sequence

from paho.mqtt.reasoncodes import ReasonCode

from ingest_daemon.settings import Settings
from ingest_daemon.state_dir import StateDir


class Subscriptions:
    """The session's book of them, one step (SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK) at a time.

    The state directory names all that the broker may hold: written before one more is asked for, and after one is gone. So whatever dies
    in between, the next start knows what to give up. Nothing is given up before all that is wanted is granted.
    """

    def __init__(self, settings: Settings, state: StateDir) -> None:
        self._settings = settings
        self._state = state
        self._held: tuple[str, ...] = ()  # by the session at the broker, wanted or not
        self._seen: tuple[str, ...] | None = None  # the filters that were asked for last
        self._denied: dict[str, ReasonCode] = {}
        self.granted: tuple[str, ...] = ()
        """What the broker has granted on this connection."""
        self.asked: tuple[str, ...] = ()
        """What a SUBSCRIBE without its answer asks for."""
        self._leaving: tuple[str, ...] = ()

    def connected(self, *, session_present: bool) -> None:
        """A connection begins: all that is wanted has to be asked for once more."""
        self._held = (self._state.subscriptions or ()) if session_present else ()
        self._seen = None
        self.granted = self.asked = self._leaving = ()
        self._denied = {}

    @property
    def waiting(self) -> bool:
        """Whether an answer of the broker is due."""
        return bool(self.asked or self._leaving)

    def differ(self, filters: tuple[str, ...]) -> bool:
        """Whether these filters have not been asked for."""
        return filters is not self._seen and filters != self._seen

    def ask(self, filters: tuple[str, ...]) -> tuple[str, ...]:
        """What to subscribe to now, of these filters. Raises SettingsError when the state directory can't be written: ask for nothing."""
        wanted = self._wanted(filters)
        self._remember((*self._held, *wanted))
        self._seen = filters
        self._denied = {}
        self.asked = tuple(one for one in wanted if one not in self.granted)
        return self.asked

    def answered(self, reasons: Sequence[ReasonCode]) -> dict[str, ReasonCode]:
        """SUBACK; what it refuses."""
        for one, reason in zip(self.asked, reasons, strict=False):
            if reason.is_failure:
                self._denied[one] = reason
            else:
                self.granted += (one,)
        self.asked = ()
        return self._denied

    def give_up(self, filters: tuple[str, ...]) -> tuple[str, ...]:
        """What to unsubscribe from now."""
        if self.waiting or self._denied:
            return ()
        wanted = self._wanted(filters)
        self._leaving = tuple(one for one in self._held if one not in wanted)
        return self._leaving

    def given_up(self, reasons: Sequence[ReasonCode]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """UNSUBACK; what is gone, and what the broker keeps. Raises SettingsError when the state directory can't be written."""
        answers = list(reasons) + [None] * (len(self._leaving) - len(reasons))  # MQTT 3.1.1 has no reasons
        kept = tuple(one for one, reason in zip(self._leaving, answers, strict=False) if reason is not None and reason.is_failure)
        gone = tuple(one for one in self._leaving if one not in kept)
        self._leaving = ()
        self.granted = tuple(one for one in self.granted if one not in gone)
        self._remember(one for one in self._held if one not in gone)
        return gone, kept

    def _wanted(self, filters: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(self._settings.subscription, filters))

    def _remember(self, held: Iterable[str]) -> None:
        found = tuple(dict.fromkeys(held))
        self._state.remember_subscriptions(found)
        self._held = found
