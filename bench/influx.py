"""The sink's way from rows to InfluxDB, against plain urllib3 with ready-made lines, alternated on the same server in one run,
each first in every other round.

    python -m bench.influx --url http://127.0.0.1:8086 --points 200000 --rounds 3

Makes databases of its own there and drops them. The sink's figure has the making of the lines in it; reading the rows from
PostgreSQL and judging them is not in it.
"""

import argparse
import itertools
import random
import statistics
import time
from contextlib import closing

import urllib3

from iot_platform.influx.client import InfluxClient, identifier
from iot_platform.influx.delivery import Delivered
from iot_platform.influx.lines import Key, Row, line, requests, series_key
from iot_platform.influx.sender import Parcel, Sender
from iot_platform.influx.target import Target

DEVICES, BATCH = 500, 20_000


def rows(count: int) -> list[Row]:
    """One number of each device every second, the last of them an hour ago."""
    rng = random.Random(19)
    begin = time.time_ns() // 1000 - (count // DEVICES + 3600) * 1_000_000
    return [
        Row(number % DEVICES, begin + number // DEVICES * 1_000_000, round(rng.uniform(-40, 90), 2), None, None) for number in range(count)
    ]


def prefixes() -> dict[int, str]:
    keys: dict[int, Key] = {
        each: (f"sensor-{each:05d}", "temp", f"1968193691042586{each % 9:03d}", "1968193631353446400") for each in range(DEVICES)
    }
    return {number: series_key("iot", key) for number, key in keys.items()}


def plain(url: str, bodies: list[bytes]) -> None:
    pool = urllib3.PoolManager(retries=False, maxsize=1)
    for body in bodies:
        assert pool.request("POST", url, body=body).status == 204


def ours(target: Target, points: list[Row], known: dict[int, str]) -> None:
    with InfluxClient(target) as client, closing(Sender(client)) as sender:
        for start in range(0, len(points), BATCH):
            sender.put(Parcel([line(known[row.series_id], row) for row in points[start : start + BATCH]], taken))
        sender.flush()


def taken(found: Delivered) -> None:
    assert not found.refused


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8086")
    parser.add_argument("--points", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    points, known, numbers = rows(options.points), prefixes(), itertools.count(1)
    lines = [line(known[row.series_id], row) for row in points]
    bodies = ["\n".join(lines[part]).encode() for part in requests(lines)]
    ratios = []
    for number in range(options.rounds):
        rates = {}
        for work in ("plain", "sink") if number % 2 else ("sink", "plain"):
            target = Target("bench", options.url, f"bench_{next(numbers)}")
            with InfluxClient(target) as client:
                client.query(f"CREATE DATABASE {identifier(target.database)}")
                began = time.perf_counter()
                if work == "plain":
                    plain(f"{options.url}/write?db={target.database}&precision=ns", bodies)
                else:
                    ours(target, points, known)
                rates[work] = len(points) / (time.perf_counter() - began)
                client.query(f"DROP DATABASE {identifier(target.database)}")
        ratios.append(rates["sink"] / rates["plain"])
        print(f"plain {rates['plain']:,.0f}/s   sink {rates['sink']:,.0f}/s   ratio {ratios[-1]:.2f}")
    print(f"median ratio {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
