"""Fetches the ingest daemons' reports (GET /accounting) and stores them, only ever forward."""

from dataclasses import dataclass
from typing import Any, Final

from psycopg2.extensions import connection as Connection  # noqa: N812
from psycopg2.extras import execute_values

from iot_platform import ingest_pages

_COUNTERS: Final = ("received", "delivered", "dead_lettered", "spooled", "in_flight", "given_up", "missing", "sessions_lost")

_DAEMON: Final = """
INSERT INTO ingest_report AS r (client_id, reported_at, fetched_at, received, delivered, dead_lettered, spooled, in_flight, given_up,
    missing, sessions_lost) VALUES %s
ON CONFLICT (client_id) DO UPDATE SET reported_at = excluded.reported_at, fetched_at = excluded.fetched_at, received = excluded.received,
    delivered = excluded.delivered, dead_lettered = excluded.dead_lettered, spooled = excluded.spooled, in_flight = excluded.in_flight,
    given_up = excluded.given_up, missing = excluded.missing, sessions_lost = excluded.sessions_lost
WHERE r.fetched_at < excluded.fetched_at"""
_CONNECTION: Final = """
INSERT INTO mqtt_connection_report AS r (client_id, connection_number, in_kafka, settled, received, open, opened_at, reported_at) VALUES %s
ON CONFLICT (client_id, connection_number) DO UPDATE SET in_kafka = greatest(r.in_kafka, excluded.in_kafka),
    settled = greatest(r.settled, excluded.settled), received = greatest(r.received, excluded.received),
    open = r.open AND excluded.open, reported_at = excluded.reported_at,
    moved_at = CASE WHEN excluded.in_kafka > r.in_kafka THEN now() ELSE r.moved_at END
WHERE r.open OR excluded.in_kafka > r.in_kafka OR excluded.settled > r.settled OR excluded.received > r.received"""


@dataclass(frozen=True)
class Report:
    """What one daemon said: rows for ingest_report and mqtt_connection_report."""

    client_id: str
    reported_at: str
    counters: tuple[int, ...]
    connections: list[tuple[str, int, int, int, int, bool, str, str]]


def fetch(url: str) -> Report:
    """Ask one daemon. Blocks at most about 5 s.

    Raises:
        IngestPageError: it does not answer, or not with an accounting.
    """
    document = ingest_pages.accounting(url)
    try:
        return parse(document)
    except (ValueError, KeyError, TypeError) as error:
        text = f"the ingest daemon at {url}/accounting (IOT_INGEST_HTTP_URL) gives no accounting: {error}"
        raise ingest_pages.IngestPageError(text) from error


def parse(document: dict[str, Any]) -> Report:
    """A report from its JSON.

    Raises:
        KeyError, TypeError, ValueError: it is none.
    """
    client = document["client_id"].replace("\0", "\\x00")
    connections = []
    for item in document["connections"]:
        in_kafka, settled, received = (int(item[name]) for name in ("in_kafka", "settled", "received"))
        if not 0 <= in_kafka <= settled <= received:
            raise ValueError(f"connection {item['number']}: in_kafka {in_kafka} <= settled {settled} <= received {received} does not hold")
        edges = (bool(item["open"]), str(item["opened_at"]), str(document["reported_at"]))
        connections.append((client, int(item["number"]), in_kafka, settled, received, *edges))
    return Report(client, str(document["reported_at"]), tuple(int(document[name]) for name in _COUNTERS), connections)


def store(connection: Connection, reports: list[Report], fetched_at: object) -> None:
    """Write them and commit. `fetched_at`: the database's clock before the first was fetched."""
    with connection.cursor() as cursor:
        for report in sorted(reports, key=lambda item: item.client_id):
            if report.connections:
                execute_values(cursor, _CONNECTION, sorted(report.connections), page_size=1000)
            execute_values(cursor, _DAEMON, [(report.client_id, report.reported_at, fetched_at, *report.counters)])
    connection.commit()
