"""Tells which messages the MQTT broker sends again, by what the daemon remembers of its last connections: brokers' flags confirm, no more.

What this costs where it is wrong, and what it cannot see, is in docs/guarantees.md.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

import structlog

from ingest_daemon.accounting import AWAIT_SECONDS
from ingest_daemon.broker_habit import TAIL, BrokerHabit, HabitStore
from ingest_daemon.transport import DUP, Message
from ingest_daemon.unacknowledged import (
    EARLIER_RECEIPTS,
    NO_ORIGIN,
    REPEATS_SAME,
    SLOTS,
    Candidate,
    Left,
    Receipt,
    Unacknowledged,
)

RECENT_SECONDS: Final = 10.0
"""A PUBACK that the broker answered a PINGREQ behind counts as arrived for certain so long after."""
HOLD_SECONDS, HOLD_MESSAGES = 1.0, 300
"""How long, and how many, messages wait at the beginning of a connection to a broker whose habit is not known yet."""

log = structlog.get_logger("ingest.redelivery")


class Redelivery:
    """Recognises messages of earlier connections, each once, and repetitions on the same connection. One thread.

    A message came before if topic, bytes and RETAIN are those of a candidate, and the broker's habit allows it: see BrokerHabit.
    """

    def __init__(self, store: HabitStore, kept: Unacknowledged, window: int, clock: Callable[[], float]) -> None:
        self._habit = BrokerHabit(store)
        self._kept = kept
        self._window = window
        self._clock = clock
        self._held: list[Message] = []
        self._hold_until: float | None = None
        self._holding = False
        self._newer = False
        self._claimed_at = 0.0
        self._certain: list[tuple[float, int]] = []
        self._same: dict[int, tuple[int, tuple[Receipt, ...]]] = {}  # packet id → sequence and earlier arrivals of its last message
        self.settled = 0
        self.ids: list[int] = []
        """By packet id: sequence of its last message on this connection, 0 for none; in flight if behind `settled`."""
        self.known = 0
        """About this connection of ours and earlier ones we have said all; 0: nothing is known of the last one."""
        self.candidates: dict[int, list[Candidate]] = {}
        """By digest, those never acknowledged before the others; the first one is unused. Empty when nothing more is expected."""
        self._with_id: dict[tuple[int, int], list[Candidate]] = {}  # unused, by digest and packet id, where several have the digest

    # -- a connection's course ---------------------------------------------------------------------------------
    def opened(self, number: int, *, resumed: bool, books: Mapping[int, tuple[int, int]]) -> None:
        """At CONNACK. `resumed`: the broker has the session. `books`: what an earlier process left, see Accounting.recovered."""
        left = self._kept.look()
        self.known = left.number if left is not None else 0
        self._habit.opened(_ids(left), resumed=resumed)
        carried = self._kept.opened(number, self._gather(left, books) if resumed and left is not None else [])
        self._expect(carried)
        self._holding = bool(carried) and not self._habit.known
        self._hold_until = None
        self._held, self._newer, self._claimed_at = [], False, self._clock()
        self._certain, self._same = [], {}
        self.settled = 0
        self.ids = [0] * SLOTS
        if carried:
            log.info("redelivery_possible", messages=len(carried), unacknowledged=sum(one.owed for one in carried))

    def _expect(self, carried: Iterable[Candidate]) -> None:
        self.candidates, self._with_id = {}, {}
        for candidate in carried:
            self.candidates.setdefault(candidate.digest, []).append(candidate)
        for digest, several in self.candidates.items():
            if len(several) > 1:
                for one in several:
                    self._with_id.setdefault((digest, one.packet_id), []).append(one)
                several.sort(key=lambda one: not one.owed)

    def _gather(self, left: Left, books: Mapping[int, tuple[int, int]]) -> list[Candidate]:
        """What the broker may send again, oldest first."""
        found = [one for one in left.carried if not one.used]
        received = left.slots[-1][0] if left.slots else 0
        for sequence, digest, packet_id, origin, received_at_us in left.slots:
            if not packet_id or origin == REPEATS_SAME or (sequence <= left.certain and sequence <= received - self._window):
                continue
            receipt = Receipt(left.number, sequence, received_at_us)
            earlier = left.carried[origin].receipts if origin < len(left.carried) else ()
            found.append(
                Candidate(
                    digest,
                    packet_id,
                    (receipt,) if sequence <= left.settled else _chain(earlier, receipt),
                    owed=sequence > left.settled,
                    recent=left.certain < sequence <= left.settled,
                )
            )
        for one in found:
            settled_before, received_before = books.get(one.receipts[-1].number, (0, 0))
            one.awaited = one.awaited or settled_before < one.receipts[-1].sequence <= received_before
        seen = Counter(digest for _, digest, _, origin, _ in left.slots if origin == NO_ORIGIN)
        seen.update(one.digest for one in left.carried)
        for one in found:
            one.repeated = one.repeated or seen[one.digest] > 1
        return found

    def closed(self) -> None:
        """The connection is gone: what was held comes again."""
        self._held = []

    def passed(self, settled: int, proven: int) -> None:
        """Before PUBACKs up to `settled` are sent; the broker has read those up to `proven`."""
        if settled > self.settled:
            self.settled = settled
            self._kept.settled(settled)
        now = self._clock()
        if not self._certain or (proven > self._certain[-1][1] and now - self._certain[-1][0] >= 1.0):
            self._certain.append((now, proven))
        while len(self._certain) > 1 and self._certain[1][0] <= now - RECENT_SECONDS:
            del self._certain[0]
            self._kept.certain(self._certain[0][1])

    def expire(self, *, newer: bool, idle: bool) -> None:
        """Forget the candidates when nothing more will come. `newer`: new messages have come; `idle`: none is in flight."""
        self._newer = self._newer or newer
        if self._clock() - self._claimed_at > AWAIT_SECONDS and (self._newer or idle):
            self._kept.forget()
            self._expect(())

    # -- messages ----------------------------------------------------------------------------------------------
    @property
    def held(self) -> int:
        """Messages that wait for the broker's habit to show."""
        return len(self._held)

    def admit(self, messages: list[Message]) -> list[Message]:
        """Those that may be taken now, in order. At the beginning of a connection they may have to wait for a moment."""
        self._habit.begins(messages)
        if not self._holding:
            return messages
        held = self._held
        held += messages
        if held and self._hold_until is None:
            self._hold_until = self._clock() + HOLD_SECONDS
        if not held or not (
            self._habit.shown(held, self.candidates) or len(held) >= HOLD_MESSAGES or self._clock() >= (self._hold_until or 0)
        ):
            return []
        self._held, self._holding = [], False
        return held

    def candidate(self, first: int, packet_id: int, digest: int) -> Candidate | None:
        """The candidate that this message repeats, used up by it; None for a new message. Persistent on return."""
        several = self.candidates.get(digest) if packet_id else None
        if several is None:
            return None
        # Of several none is alone with its topic and bytes, so it is the first one with another packet id that may have come, or none.
        for one in [*self._with_id.get((digest, packet_id), []), several[0]]:
            if self._habit.allows(one, first, packet_id):
                self._take(one, several)
                self._habit.matched(one, first, packet_id)
                return one
        return None

    def _take(self, one: Candidate, several: list[Candidate]) -> None:
        self._kept.use(one)
        self._claimed_at, self._newer = self._clock(), False
        if same := self._with_id.get((one.digest, one.packet_id)):
            same.remove(one)
        while several and several[0].used:
            del several[0]
        if not several:
            del self.candidates[one.digest]

    def repeated(self, first: int, packet_id: int, digest: int, received: int) -> tuple[Receipt, ...]:
        """The earlier arrivals of a message that came on this connection before, with the same packet id: the broker may use it again only
        when it has our PUBACK. `received`: sequence of the newest message before it. Empty for a new one."""
        earlier = self.ids[packet_id]
        if not packet_id or not earlier or (earlier <= self.settled and not first & DUP):
            return ()
        if self._kept.digest_of(earlier, received) != digest:
            return ()
        sequence, receipts = self._same.get(packet_id, (0, ()))
        return _chain(receipts if sequence == earlier else (), self._kept.receipt_of(earlier))

    def note(self, packet_id: int, sequence: int, receipts: tuple[Receipt, ...]) -> None:
        """This message of the connection has these earlier arrivals."""
        self._same[packet_id] = sequence, receipts


def _ids(left: Left | None) -> Iterator[tuple[int, int]]:
    """Packet ids and digests of the newest messages that a connection left, and of the candidates that it had."""
    if left is not None:
        yield from ((one.packet_id, one.digest) for one in left.carried)
        yield from ((packet_id, digest) for _, digest, packet_id, _, _ in left.slots[-TAIL:] if packet_id)


def _chain(earlier: tuple[Receipt, ...], receipt: Receipt) -> tuple[Receipt, ...]:
    """Any of them may be the one that reached Kafka; of too many, those in the middle are forgotten."""
    half = EARLIER_RECEIPTS // 2
    chain = (*earlier, receipt)
    return chain if len(chain) <= EARLIER_RECEIPTS else (*chain[:half], *chain[-half:])
