"""The release before on a database that this one migrated, as during a rolling update and after a way back."""

import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from iot_platform.audit import run_audit
from iot_platform.database import MigrationError, connect, migrate, pending
from iot_platform.database.migrate import require_migrated
from iot_platform.files import SQL
from iot_platform.settings import Settings
from iot_platform_tests.support.feeds.drain import Feed, check_books, drain, query
from iot_platform_tests.support.servers.previous_release import PreviousRelease

DUTIES = """
from contextlib import closing
from iot_platform.audit import run_audit
from iot_platform.compression.compress import compress
from iot_platform.database import connect
from iot_platform.database.capabilities import read_capabilities
from iot_platform.quality.evaluate import evaluate
from iot_platform.retention import set_policy
from iot_platform.retention.remove import run_retention
from iot_platform.rollups import roll_up
from iot_platform.settings import get_settings
from iot_platform.telemetry.drain.drain import Drain, Shift
settings = get_settings()
Drain(settings, Shift((0, 1), "previous", until_caught_up=True)).run()
assert roll_up(settings).complete
evaluate(settings)
with closing(connect(settings)) as connection:
    read_capabilities(connection)
    set_policy(connection, "measurement", "60d", tenant="1968193631353446400")
run_retention(settings)
compress(settings)
found = run_audit(settings, wait_seconds=0)
print("DIFFERENCES", [item for item in found.differences if item.kind in ("offsets", "accounting")])
"""

STATE = """
import json, sys
from pathlib import Path
from ingest_daemon.accounting import Accounting
from ingest_daemon.envelope import pack, with_receipts
from ingest_daemon.figures import Turn
from ingest_daemon.spool_store import SpoolStore
from ingest_daemon.state_dir import StateDir
folder, number = Path(sys.argv[1]), int(sys.argv[2])
state = StateDir(folder, "client")
store = SpoolStore(folder / "spool.sqlite", 1 << 30)
books = Accounting(folder, "client", store.level.entries, store.level.first, keep_seconds=0)
print(json.dumps({"spool": [[row[0], row[5].decode()] for row in store.read(0, 100, 1 << 20)], "books": books.totals().received,
    "connections": sorted(books.recovered), "connection": state.next_connection()}))
books.opened(number, session_lost=False)
header = with_receipts(pack(0x32, 1, 1_800_000_000_000_000, number, 1, b"client"), 0, [])
first = store.last_id + 1
rows = [(first + n, number, n + 1, b"topic", header, b"%d-%d" % (number, n)) for n in range(3)]
store.write(rows, [(first - 2, first - 1)] if first > 1 else [])
books.record(Turn(3, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 1_800_000_000_000_000), (number, 3), {number: 3}, store.level.first)
books.close(), store.close(), state.close()
"""
"""A daemon's life with its state: it reads what it finds, is sent three messages and spools them; of older ones two went to Kafka."""
HEADERS = """
from ingest_daemon.envelope import pack, with_receipts
first = pack(0x3B, 9, 1_800_000_000_000_000, 7, 3, "ключ".encode())
print(first.hex(), with_receipts(first, 5, [(4, 8, 1_700_000_000_000_000)]).hex())
"""
UNPACK = """
import sys
from iot_platform.telemetry.envelope import unpack
found = unpack([bytes.fromhex(item) for item in sys.argv[1:]], lambda row: 0)
print(found.readable.tolist(), found.received_at.tolist(), found.flags.tolist(), found.sequence.tolist(), found.connections, found.receipts)
"""


def this(*arguments: str) -> str:
    """Python with the code of this release."""
    return subprocess.run([sys.executable, *arguments], check=True, capture_output=True, text=True).stdout


def test_either_daemon_goes_on_from_the_others_state(tmp_path: Path, previous_release: PreviousRelease) -> None:
    """Spool, books and connection numbers, to this release and back."""
    lives = [
        json.loads(next(line for line in said.splitlines() if line.startswith("{")))  # beside its log
        for said in (
            previous_release.python("-c", STATE, str(tmp_path), "1").stdout,
            this("-c", STATE, str(tmp_path), "2"),
            previous_release.python("-c", STATE, str(tmp_path), "3").stdout,
            this("-c", STATE, str(tmp_path), "4"),
        )
    ]
    assert [life["spool"] for life in lives] == [
        [],
        [[1, "1-0"], [2, "1-1"], [3, "1-2"]],
        [[1, "1-0"], [4, "2-0"], [5, "2-1"], [6, "2-2"]],
        [[1, "1-0"], [4, "2-0"], [7, "3-0"], [8, "3-1"], [9, "3-2"]],
    ]
    assert [life["books"] for life in lives] == [0, 3, 6, 9]
    assert [life["connections"][-1:] for life in lives] == [[], [1], [2], [3]]
    numbers = [life["connection"] for life in lives]
    assert numbers == sorted(set(numbers))


def test_either_drain_reads_the_others_headers(previous_release: PreviousRelease) -> None:
    old, new = previous_release.python("-c", HEADERS).stdout, this("-c", HEADERS)
    assert old == new
    assert previous_release.python("-c", UNPACK, *new.split()).stdout == this("-c", UNPACK, *new.split())
    assert this("-c", UNPACK, *new.split()).startswith("[True, True]")


def test_the_previous_release_names_a_setting_that_it_does_not_know(
    previous_release: PreviousRelease, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So settings go back with the programs."""
    monkeypatch.setenv("IOT_SETTING_OF_A_LATER_RELEASE", "on")
    said = previous_release.python("-m", "ingest_daemon", "--check")
    assert said.returncode == 2
    assert "IOT_SETTING_OF_A_LATER_RELEASE" in said.stdout


def test_both_releases_drain_one_database(settings: Settings, previous_release: PreviousRelease) -> None:
    """Each goes on from the offset that the other committed; so do rollups, rules, policies."""
    feed, sent = Feed(settings), list[bytes]()
    for turn in range(4):
        for number in range(turn * 150, turn * 150 + 150):
            payload = b'{"deviceId":"d%d","number":%d}' % (number % 7, number) if number % 30 else b"broken %d" % number
            first = feed.send(payload, partition=number % 2, packet=number + 1)
            sent.append(payload)
            if number % 25 == 1:  # a redelivery, as the daemon names it in the header's version 2
                feed.send(payload, partition=number % 2, packet=number + 1, connection=2, dup=True, earlier=[first], known=1)
        feed.flush()
        if turn % 2:
            assert "DIFFERENCES []" in previous_release.run(settings, "-c", DUTIES)
        else:
            drain(settings)
    rows = query(settings, "SELECT payload FROM message WHERE duplicate_of IS NULL UNION ALL SELECT payload FROM quarantine")
    assert sorted(payload for (payload,) in rows) == sorted(sent)
    assert query(settings, "SELECT count(*) FROM message WHERE duplicate_of IS NOT NULL") == [(24,)]
    assert query(settings, "SELECT run_id = 'previous', count(*) FROM ledger GROUP BY 1 ORDER BY 1") != []
    check_books(settings)
    found = run_audit(settings, since=datetime.fromtimestamp(0, UTC), wait_seconds=0)
    assert [item for item in found.differences if item.kind in ("offsets", "accounting")] == []
    assert query(settings, "SELECT sum(value_count) FROM measurement_1h") == query(settings, "SELECT count(*) FROM measurement")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A later release's sql/."""
    made = Path(shutil.copytree(SQL, tmp_path / "sql"))
    (made / "migrations" / "9001_pre_create_later.sql").write_text("CREATE TABLE later (a integer);")
    views = made / "repeatable" / "views.sql"
    views.write_text(views.read_text("utf-8") + "\n-- later\n", "utf-8")
    return made


def test_the_way_back_leaves_a_newer_schema_alone(settings: Settings, folder: Path) -> None:
    """`iot migrate` of the release that comes back succeeds, puts none of its functions over the newer ones, and drains."""
    migrate(settings, sql_dir=folder)
    before = query(settings, "SELECT * FROM schema_migration ORDER BY 1")
    said = list[str]()
    assert (migrate(settings, said.append), pending(settings)) == ([], [])
    assert said == [
        "a newer release migrated the database (it has migrations/9001_pre_create_later.sql), which this one works with: left as it is"
    ]
    assert query(settings, "SELECT * FROM schema_migration ORDER BY 1") == before
    connection = connect(settings)
    require_migrated(connection)
    connection.close()
    assert migrate(settings, sql_dir=folder) == []


def test_there_is_no_way_back_over_what_took_something_away(settings: Settings, folder: Path) -> None:
    (folder / "migrations" / "9002_post_drop_former.sql").write_text("SELECT 1;")
    migrate(settings, sql_dir=folder)
    with pytest.raises(MigrationError, match=r"9002_post_drop_former\.sql.* took away what older ones may need; upgrade this one, or"):
        migrate(settings)
