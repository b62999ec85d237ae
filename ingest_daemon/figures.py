"""The figures of the daemon's accounting: what a turn changes, all counters, and what other threads and /accounting see."""

import json
from dataclasses import dataclass
from typing import NamedTuple

from ingest_daemon.connections import ConnectionReport, utc


class Turn(NamedTuple):
    """What one turn of the loop did since the last one."""

    received: int  # PUBLISH packets taken
    redelivered: int  # those among them that came before
    resumed: int  # those among these that an earlier process had in flight
    delivered: int  # settled directly: Kafka's delivery report
    dead_lettered: int  # settled directly: dead-letter topic
    spooled: int  # settled by the spool's fsync
    unspooled: int  # left the spool into Kafka: delivery report + committed deletion
    unspooled_dead_lettered: int  # left the spool into the dead-letter topic
    in_flight: int  # now: received, not settled
    in_flight_bytes: int
    in_doubt: int  # now: in_flight + entries of the spool whose deletion is under way or may be committed before the next record()
    last_received_us: int  # receive time of the newest message, 0 if none yet

    @property
    def quiet(self) -> bool:
        """Whether nothing moved."""
        moved = self.received or self.delivered or self.dead_lettered or self.spooled
        return not (moved or self.unspooled or self.unspooled_dead_lettered)


@dataclass(slots=True)
class Totals:
    """All counters, since the file was made. The order is the file's format."""

    received: int = 0
    redelivered: int = 0
    delivered: int = 0
    dead_lettered: int = 0
    spooled: int = 0
    in_flight: int = 0  # in this process
    in_flight_bytes: int = 0
    awaiting: int = 0  # unacknowledged when an earlier process died; the MQTT broker sends them again
    given_up: int = 0
    missing: int = 0
    sessions_lost: int = 0
    connections: int = 0
    in_doubt: int = 0
    last_received_us: int = 0
    boot: int = 0  # of the host, while a daemon runs: `state_dir.boot`
    entries: int = 0  # unfinished connections that follow

    @property
    def unsettled(self) -> int:
        """Neither in Kafka nor in the spool: in this process, or with the MQTT broker since an earlier one died."""
        return self.in_flight + self.awaiting

    def difference(self) -> int:
        """Messages received that no other counter knows. Not 0 means a bug."""
        elsewhere = self.delivered + self.dead_lettered + self.spooled + self.unsettled + self.given_up + self.missing
        return self.received - elsewhere


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything at one moment; connections oldest first."""

    client_id: str
    reported_at_us: int
    totals: Totals
    connections: tuple[ConnectionReport, ...]

    def to_json(self) -> bytes:
        """The body of /accounting."""
        t = self.totals
        document = {
            "client_id": self.client_id,
            "reported_at": utc(self.reported_at_us),
            "received": t.received,
            "delivered": t.delivered,
            "dead_lettered": t.dead_lettered,
            "spooled": t.spooled,
            "in_flight": t.unsettled,
            "awaiting_redelivery": t.awaiting,
            "given_up": t.given_up,
            "missing": t.missing,
            "sessions_lost": t.sessions_lost,
            "connections": [connection.to_dict() for connection in self.connections],
        }
        return json.dumps(document, ensure_ascii=False).encode() + b"\n"
