"""False incidents of the quality rules on a day of the simulator's normal traffic: late, repeated, malformed and skewed messages included.

    python -m bench.quality_false_positives --devices 300 --hours 24 --every-seconds 60

Makes a database of its own on the server of IOT_DATABASE_ADMIN_URL (a role that may create databases) and removes it. The simulator's
messages, with the receive times that its plan gives them, go through the real decoder and writer; all rules are evaluated every 5 simulated
minutes. Prints every incident, and incidents per 1,000 device-days.
"""

import argparse
import time
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime, timedelta

import psycopg2

from bench.drain import database
from iot_platform.quality import evaluate
from iot_platform.settings import get_settings
from iot_platform.simulator.fleet import FleetOptions
from iot_platform.simulator.generator import Generator
from iot_platform_tests.support.feeds.direct import DirectFeed, microseconds

STEP = timedelta(minutes=5)
PROJECTS, TENANTS = 4, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=300)
    parser.add_argument("--hours", type=float, default=24)
    parser.add_argument("--every-seconds", type=float, default=60, help="mean interval of a device's messages")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    devices = max(1, options.devices // (TENANTS * PROJECTS)) * TENANTS * PROJECTS
    begin = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=options.hours)
    fleet = FleetOptions(tenants=TENANTS, projects=PROJECTS, devices=devices // (TENANTS * PROJECTS), seed=options.seed)
    with database(get_settings(), "quality_false_positives") as settings:
        plan = Generator(fleet, settings.topic_pattern, microseconds(begin), devices / options.every_seconds).messages()
        with closing(DirectFeed(settings)) as feed, closing(psycopg2.connect(settings.admin_url)) as admin:
            admin.autocommit = True
            cursor = admin.cursor()
            message, sent, evaluations, seconds, slowest = next(plan), 0, 0, 0.0, 0.0
            while evaluations * STEP < timedelta(hours=options.hours):
                now = begin + (evaluations + 1) * STEP
                while begin + timedelta(microseconds=message.offset_us) < now:
                    feed.send(begin + timedelta(microseconds=message.offset_us), message.payload, message.topic)
                    message, sent = next(plan), sent + 1
                feed.flush()
                started = time.monotonic()
                result = evaluate(settings, at=now)
                took = time.monotonic() - started
                evaluations, seconds, slowest = evaluations + 1, seconds + took, max(slowest, took)
                assert not result.errors, result.errors
                if evaluations % 12 == 0:
                    cursor.execute("SELECT count(*) FROM quality_incident")
                    print(
                        f"hour {evaluations // 12}: {sent:,} messages, {cursor.fetchone()[0]} incidents, {seconds / evaluations:.2f} s",
                        flush=True,
                    )
            cursor.execute(
                "SELECT rule, opened_at, tenant_id, project_id, device_id, metric, message, flaps FROM quality_incident ORDER BY 2"
            )
            incidents = cursor.fetchall()
            cursor.execute("SELECT rule, seconds FROM quality_watermark WHERE seconds IS NOT NULL ORDER BY 2 DESC")
            costs = cursor.fetchall()
    for rule, opened, _, project, device, metric, text, flaps in incidents:
        print(f"{rule}  {opened - begin}  {project}/{device} {metric}: {text} ({flaps} flaps)")
    days = devices * options.hours / 24
    print(
        f"\n{devices} devices, {options.hours:g} h, {sent:,} messages"
        f", {evaluations} evaluations of {seconds / evaluations:.2f} s (slowest {slowest:.2f} s)"
    )
    print("last evaluation: " + ", ".join(f"{rule} {cost * 1000:.0f} ms" for rule, cost in costs))
    print(f"incidents: {len(incidents)} {dict(Counter(row[0] for row in incidents))}")
    print(f"{1000 * len(incidents) / days:.2f} incidents per 1,000 device-days")


if __name__ == "__main__":
    main()
