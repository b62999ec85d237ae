"""What births define: names and datatypes by alias, for each edge node and its devices, from one NBIRTH until the next."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

NEVER: Final = 1 << 62
"""As a place: beyond all."""
MAX_METRICS: Final = 500_000
"""Definitions in memory; beyond, those of edge nodes that were not heard of for longest are read from the database again."""
SETTLED_BATCHES: Final = 4
"""A drain decodes at most two batches ahead of the one that it commits: what older ones defined is in the database."""
SEQUENCES: Final = 256


class Definition(NamedTuple):
    """What a birth says of a metric."""

    name: str
    datatype: int
    alias: int | None


class Place(NamedTuple):
    """Where a record is: Kafka partition, place within it (see records.place_of) and receive time (µs)."""

    partition: int
    place: int
    received_at: int


class Owner(NamedTuple):
    """Whose an edge node is."""

    tenant: str
    project: str


@dataclass(frozen=True, slots=True)
class Birth:
    """One NBIRTH (device "") or DBIRTH, as sparkplug_birth keeps it."""

    node: str
    device: str
    owner: Owner
    at: Place
    sha256: bytes
    bd_seq: int | None
    definitions: tuple[Definition, ...]


class History(NamedTuple):
    """What the database knows of an edge node at a place: its births from the last NBIRTH on, in order; the place of the next birth
    after it; and the sequence number that came last before it."""

    births: Sequence[Birth] = ()
    until: int = NEVER
    seq: int | None = None


Load = Callable[[str, Place], History]
"""Looks an edge node up. May block; raises what the database raises."""


@dataclass(slots=True)
class Metrics:
    """The definitions of one NBIRTH or DBIRTH."""

    sha256: bytes
    by_alias: dict[int, Definition]
    by_name: dict[str, Definition]

    @classmethod
    def of(cls, birth: Birth) -> "Metrics":
        """Of an alias that is there twice, the last one counts."""
        aliases = {each.alias: each for each in birth.definitions if each.alias is not None}
        return cls(birth.sha256, aliases, {each.name: each for each in birth.definitions})


@dataclass(slots=True)
class NodeCounts:
    """What a batch adds to a row of sparkplug_node. A gap is a jump of the sequence number, `missing` how many numbers it left out."""

    owner: Owner
    last: Place
    seq: int | None = None
    messages: int = 0
    seq_gaps: int = 0
    seq_missing: int = 0
    gap_at: int | None = None  # µs
    births: int = 0
    deaths: int = 0
    born_at: int | None = None
    died_at: int | None = None
    bd_seq: int | None = None


@dataclass(slots=True)
class Session:
    """An edge node from one NBIRTH to the next, as seen in one Kafka partition, where its messages have an order."""

    start: int
    until: int
    owners: dict[str, Metrics] = field(default_factory=dict)  # "": the edge node itself
    seq: int | None = None
    bd_seq: int | None = None
    used_in: int = 0  # batch

    @property
    def size(self) -> int:
        """Definitions that it holds."""
        return sum(len(metrics.by_name) for metrics in self.owners.values())

    def take(self, birth: Birth) -> bool:
        """Whether the birth is new: one that was delivered again, byte by byte, is the one that we have."""
        known = self.owners.get(birth.device)
        if known is not None and known.sha256 == birth.sha256:
            return False
        if not birth.device:
            self.owners.clear()
            self.bd_seq = birth.bd_seq
        self.owners[birth.device] = Metrics.of(birth)
        return True

    def find(self, device: str, alias: int | None, name: str | None) -> Definition | None:
        """By the own birth, which must be there; an alias that is not in it may be that of the edge node or of one other device."""
        own = self.owners.get(device)
        if own is None:
            return None
        if name is not None or alias is None:
            return own.by_name.get(name or "")
        if alias in own.by_alias:
            return own.by_alias[alias]
        found = {metrics.by_alias[alias] for metrics in self.owners.values() if alias in metrics.by_alias}
        return found.pop() if len(found) == 1 else None


class BatchBirths(NamedTuple):
    """What a batch adds to sparkplug_birth, and (by node and Kafka partition) to sparkplug_node."""

    born: list[Birth]
    counts: dict[tuple[str, int], NodeCounts]


class Births:
    """The sessions of all edge nodes that a decoder meets, and what its batch adds to them. One thread uses it.

    `load` looks into the database. `replays`: records come in another order than they had, and births may be between them that do not
    come: then nothing of a batch is taken for the whole, and sequences are not counted.
    """

    def __init__(self, load: Load = lambda *_: History(), *, replays: bool = False) -> None:
        self._load = load
        self._replays = replays
        self._sessions: dict[tuple[str, int], Session] = {}
        self._seen: dict[tuple[str, int], list[Birth]] = {}  # by a replay, which may not have written them yet
        self._batch = 0
        self._found = BatchBirths([], {})

    def taken(self) -> "BatchBirths":
        """What came by since the last call: the decoder asks after each batch. Makes room."""
        found, self._found = self._found, BatchBirths([], {})
        if not self._sessions:
            return found
        self._batch += 1
        self._make_room()
        return found

    def _make_room(self) -> None:
        total = sum(session.size for session in self._sessions.values()) if self._batch % SETTLED_BATCHES == 0 else 0
        if total <= MAX_METRICS:
            return
        for key, session in sorted(self._sessions.items(), key=lambda item: item[1].used_in):
            if session.used_in > self._batch - SETTLED_BATCHES or total <= MAX_METRICS // 2:
                break
            total -= session.size
            del self._sessions[key]

    def session(self, node: str, at: Place) -> Session:
        """The session that a record of an edge node belongs to, by the births before it."""
        key = (node, at.partition)
        session = self._sessions.get(key)
        if session is None or not session.start <= at.place < session.until:
            session = self._sessions[key] = self._loaded(node, at)
        session.used_in = self._batch
        return session

    def _loaded(self, node: str, at: Place) -> Session:
        history = self._load(node, at)
        births, until = list(history.births), history.until
        if seen := self._seen.get((node, at.partition)):
            known = {birth.at for birth in births}
            births = sorted([*births, *(birth for birth in seen if birth.at not in known and birth.at.place <= at.place)], key=_place)
            until = min([until, *(birth.at.place for birth in seen if birth.at.place > at.place)])
        last = births[-1].at if births else at
        session = Session(last.place if last.partition == at.partition else at.place, until, seq=history.seq)
        for birth in births:
            session.take(birth)
        return session

    def take(self, birth: Birth) -> bool:
        """A birth that comes by; whether it is new (see Session.take)."""
        key = (birth.node, birth.at.partition)
        if self._replays:  # one that was met before was so in a batch that was rolled back, unless the database has it
            self._seen[key] = [other for other in self._seen.get(key, ()) if other.at != birth.at]
            self._sessions.pop(key, None)
        session = self.session(birth.node, birth.at)
        if not session.take(birth):
            return False
        self._found.born.append(birth)
        if self._replays:
            self._seen[key].append(birth)
            del self._sessions[key]
        else:
            session.start, session.until = birth.at.place, NEVER
        return True

    def count(self, node: str, owner: Owner, at: Place, seq: int | None, *, is_nbirth: bool, bd_seq: int | None) -> None:
        """Follow the sequence numbers of a message that carries one. A number that was there before is a redelivery; of a number far
        ahead (half of all), nobody knows, and it counts as one."""
        if self._replays:
            return
        session, counts = self.session(node, at), self._counts(node, owner, at)
        counts.messages += 1
        if is_nbirth:
            counts.births, counts.born_at, counts.bd_seq, counts.died_at = counts.births + 1, at.received_at, bd_seq, None
        if seq is None or not 0 <= seq < SEQUENCES:
            return
        ahead = (seq - session.seq) % SEQUENCES if session.seq is not None and not is_nbirth else 1
        if 1 < ahead <= SEQUENCES // 2:
            counts.seq_gaps, counts.seq_missing, counts.gap_at = counts.seq_gaps + 1, counts.seq_missing + ahead - 1, at.received_at
        if 0 < ahead <= SEQUENCES // 2:
            session.seq = counts.seq = seq

    def died(self, node: str, owner: Owner, at: Place, bd_seq: int | None) -> None:
        """An NDEATH. It ends the session with its bdSeq, or with the one before (what a clean disconnect sends); another one belongs to a
        session that is over: a will may come after the next birth."""
        if self._replays:
            return
        session, counts = self.session(node, at), self._counts(node, owner, at)
        counts.messages += 1
        if session.bd_seq is None or bd_seq is None or (bd_seq - session.bd_seq) % SEQUENCES in (0, 1):
            counts.deaths, counts.died_at = counts.deaths + 1, at.received_at

    def _counts(self, node: str, owner: Owner, at: Place) -> NodeCounts:
        counts = self._found.counts.get((node, at.partition))
        if counts is None:
            counts = self._found.counts[node, at.partition] = NodeCounts(owner, at, self.session(node, at).seq)
        counts.owner, counts.last = owner, at
        return counts


def _place(birth: Birth) -> int:
    return birth.at.place
