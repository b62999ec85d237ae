"""What the MQTT broker does when it sends a message again, learnt from what it sent: whether it sets DUP, whether it keeps packet ids."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Final, Protocol

import structlog

from ingest_daemon.transport import DUP, RETAIN, Message
from ingest_daemon.unacknowledged import Candidate, digest_of

EVIDENCE: Final = 64
"""So many different messages that all do the same show a habit; fewer may be devices that repeat their state."""
MUCH_EVIDENCE: Final = 256
"""The same without DUP and with packet ids that were not seen before, as new messages of devices that all repeat their state have them."""
DOUBTS: Final = 3
"""So many different messages that were never acknowledged, and so have to come again, do as well; all of them where there are fewer. One
of hundreds may be an equal message that is new: the others then went to somebody else with our client id."""
TAIL: Final = 30_000
"""Packet ids of so many messages of the last connection are compared: fewer than MQTT has, or a broker that counts on would repeat them."""
SETS_DUP, OMITS_DUP, RENUMBERS = "sets-dup", "omits-dup", "renumbers"

log = structlog.get_logger("ingest.redelivery")


class HabitStore(Protocol):
    """Keeps what was learnt."""

    habit: str | None

    def remember_habit(self, habit: str | None) -> None:
        """Durable on return."""


class BrokerHabit:
    """Which candidates a message may repeat, on this broker.

    - With DUP: those with its packet id; on a connection that begins with packet id 1 as a broker that renumbers begins each, only those
      that were never acknowledged, or are alone with their topic and bytes. If the broker is known to renumber what it sends again: those
      that were never acknowledged, and of those acknowledged in the last moments the ones that are alone with their topic and bytes. The
      flag alone proves nothing: all brokers flag what we had not read yet, too, some also what they never sent.
    - Without DUP, from a broker that is known to set it: none. From one that is known to leave it out: those that were never acknowledged,
      and of those acknowledged in the last moments the ones that are alone with their topic and bytes (packet ids prove nothing: rumqttd
      begins at 1 on each connection). From one that is not known: those that were never acknowledged and are alone with their topic and
      bytes.

    A broker sends again before it sends what is new. So where nothing is known of it, what comes without DUP behind a new message is new.

    So in doubt a message is new: a wrong guess costs a second row, not a reading.
    """

    def __init__(self, store: HabitStore) -> None:
        self._store = store
        words = (store.habit or "").split()
        self._sets_dup = SETS_DUP in words if words else None
        self._renumbers = RENUMBERS in words
        self._begin({})

    def _begin(self, tail: Mapping[int, int]) -> None:
        self._tail = tail
        self._first_id = 0  # of this connection; 0 until there is one
        self._over = False  # a message has shown that without DUP none comes again (any more) on this connection
        self._with_dup: set[int] = set()
        self._without_dup: set[int] = set()
        self._same_id: set[int] = set()
        self._other_id: set[int] = set()

    def opened(self, ids: Iterable[tuple[int, int]], *, resumed: bool) -> None:
        """At CONNACK. `ids`: packet id and digest of the messages of the connection before, in order."""
        self._begin(dict(ids))
        if not resumed:  # another broker, perhaps
            self._learn(sets_dup=None, renumbers=False)

    def begins(self, messages: Iterable[Message]) -> None:
        """With the first messages of a connection, before any of them is judged."""
        if not self._first_id:
            self._first_id = next((packet_id for _, _, packet_id, _ in messages if packet_id), 0)

    @property
    def known(self) -> bool:
        """Whether the first messages of a connection need no closer look: nothing that they show would change what is made of them."""
        return self._sets_dup is False and self._renumbers

    def shown(self, held: Sequence[Message], candidates: Mapping[int, list[Candidate]]) -> bool:
        """Learn from the first messages of a resumed connection before any of them is judged: a broker sends again first. False while more
        of them may tell."""
        alike: tuple[set[int], set[int]] = set(), set()
        owed: tuple[set[int], set[int]] = set(), set()
        ids_seen = 0
        for first, topic, packet_id, payload in held:
            digest = digest_of(first, topic, payload)
            several = candidates.get(digest)
            flagged = first & DUP > 0
            if not packet_id or (first & RETAIN and not flagged):
                continue
            if flagged and self._is_renumbered(packet_id, digest):
                self._learn(sets_dup=True, renumbers=True)
            same = flagged and any(one.packet_id == packet_id for one in several or ())
            if not several or same or (self._renumbers and flagged):
                self._over = True
                if same:
                    self._learn(sets_dup=True)
                return True
            if several[0].repeated:
                continue  # beyond this it is the only one
            if several[0].owed or several[0].recent:
                alike[flagged].add(digest)
                seen = flagged or several[0].packet_id == packet_id or self._is_renumbered(packet_id, digest)
                ids_seen += seen
            if several[0].owed:
                owed[flagged].add(digest)
            evidence = EVIDENCE if flagged or ids_seen >= EVIDENCE else MUCH_EVIDENCE
            came = len(owed[flagged])
            all_came = came > 0 and not flagged and self._sets_dup is None and came == _owed_alone(candidates)
            if came >= DOUBTS or all_came or len(alike[flagged]) >= evidence:
                self._learn(sets_dup=flagged, renumbers=self._renumbers or flagged)
                return True
        return False

    def allows(self, one: Candidate, first: int, packet_id: int) -> bool:
        """Whether a message of the same digest may be this candidate, sent again."""
        if first & RETAIN and not first & DUP:
            return False  # a state that MQTT 3.1.1 brings with each subscription
        same, alone = one.packet_id == packet_id, not one.repeated
        if first & DUP:
            if self._is_renumbered(packet_id, one.digest):
                self._learn(sets_dup=True, renumbers=True)
            if self._renumbers:
                return one.owed or (one.recent and alone)
            if not same and one.owed and alone:
                self._doubt(self._other_id, one.digest, sets_dup=self._sets_dup, renumbers=True)
            return same and (one.owed or alone or self._first_id != 1)
        if self._sets_dup:
            if one.owed and alone and not self._over:
                self._doubt(self._without_dup, one.digest, sets_dup=False, renumbers=self._renumbers)
            return False
        if self._sets_dup is None:
            return one.owed and alone and not self._over
        return one.owed or (one.recent and alone)

    def matched(self, one: Candidate, first: int, packet_id: int) -> None:
        """This candidate came again so."""
        (self._with_dup if first & DUP else self._without_dup).add(one.digest)
        (self._same_id if one.packet_id == packet_id else self._other_id).add(one.digest)
        sets_dup, renumbers = self._sets_dup, self._renumbers
        if self._without_dup:
            sets_dup = False
        elif sets_dup is None or len(self._with_dup) >= EVIDENCE:
            sets_dup = True
        if not self._other_id and len(self._same_id) >= EVIDENCE:
            renumbers = False
        self._learn(sets_dup=sets_dup, renumbers=renumbers)

    def _is_renumbered(self, packet_id: int, digest: int) -> bool:
        """Whether a message that was sent again has the packet id that another one had."""
        return self._tail.get(packet_id, digest) != digest

    def _doubt(self, seen: set[int], digest: int, *, sets_dup: bool | None, renumbers: bool) -> None:
        seen.add(digest)
        if len(seen) >= DOUBTS:
            self._learn(sets_dup=sets_dup, renumbers=renumbers)

    def _learn(self, *, sets_dup: bool | None, renumbers: bool | None = None) -> None:
        renumbers = self._renumbers if renumbers is None else renumbers
        if (sets_dup, renumbers) == (self._sets_dup, self._renumbers):
            return
        self._sets_dup, self._renumbers = sets_dup, renumbers
        words = [] if sets_dup is None else [SETS_DUP if sets_dup else OMITS_DUP]
        habit = " ".join([*words, *([RENUMBERS] if renumbers and words else [])]) or None
        log.info("broker_habit_learnt", habit=habit, hint="what this broker does when it sends a message again")
        self._store.remember_habit(habit)


def _owed_alone(candidates: Mapping[int, list[Candidate]]) -> int:
    """Of the candidates, those that were never acknowledged and are alone with their topic and bytes; no more than DOUBTS are counted."""
    return len(list(islice((several for several in candidates.values() if several[0].owed and not several[0].repeated), DOUBTS)))
