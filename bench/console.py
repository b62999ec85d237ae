"""What the live page costs and how late it is: a running `make up`, probes with PUBACK, viewers of the live feed.

SIMULATOR=0 make up
.venv/bin/iot console key add T bench > key
.venv/bin/python -m bench.console --tenant T --key-file key --rate 500 --viewers 0 --viewers 50 --viewers 100

For each number of viewers: time from PUBACK to the event that shows the value (one viewer that always looks), CPU and memory of the
console's process, and freshness (receipt to commit), of which that with 100 viewers must be at most 1.2 times that without.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import re
import statistics
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from paho.mqtt.client import Client, MQTTMessageInfo
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from rich.console import Console
from rich.table import Table

from bench.end_to_end import FRESHNESS, one_value
from bench.processes import Process, read
from iot_platform.settings import get_settings

PROJECT = "bench-console"
DEVICES = 100
OPEN_SECONDS = 60.0
WARM_UP_SECONDS = 10.0
"""Of messages before the measurement: a drain at rest begins a shift."""
MOST_BYTES = 1 << 22
"""Of an event: it has 2,000 rows at most, in one line."""


def listener(port: int) -> int:
    """Process id of who listens on a port of this machine."""
    wanted = {line.split()[9] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
              if line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A"}  # fmt: skip
    for entry in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if entry.readlink().name.removeprefix("socket:[").rstrip("]") in wanted:
                return int(entry.parts[2])
        except OSError:
            continue
    raise SystemExit(f"nobody listens on port {port}: does `make up` run the console?")


def cost(pid: int) -> Process:
    """Exits if the console's process is gone."""
    found = read(pid)
    if found is None:
        raise SystemExit(f"the console's process {pid} has ended")
    return found


async def events(url: str, tenant: str, key: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """An open stream, behind its headers; asked for again while the key asks too often. Plain sockets: a client library would cost more
    than the server. The writer is to be kept: without it the connection closes."""
    parts = urlsplit(url)
    path = f"/api/v1/tenants/{tenant}/live?project={PROJECT}"
    while True:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 80, limit=MOST_BYTES)
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {key}\r\nAccept: text/event-stream\r\n\r\n".encode()
        )
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        status = head.split(" ", 2)[1]
        if status == "200":
            return reader, writer
        if status != "429":
            raise SystemExit(head + (await reader.read(2000)).decode())
        writer.close()
        await asyncio.sleep(float(re.search(r"(?i)retry-after: (\d+)", head)[1]))  # type: ignore[index]


def streams(url: str) -> int:
    """Live streams that the console has open."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:  # noqa: S310 - our own argument
        return int(float(re.search(r"^iot_console_streams (\S+)$", answer.read().decode(), re.MULTILINE)[1]))  # type: ignore[index]


def view(url: str, tenant: str, key: str, count: int) -> None:
    """A process of viewers that read and forget; a stream that ends is opened again."""

    async def one() -> None:
        while True:
            reader, writer = await events(url, tenant, key)
            while await reader.read(1 << 16):
                pass
            writer.close()

    async def several() -> None:
        await asyncio.gather(*(one() for _ in range(count)))

    asyncio.run(several())


async def probe(reader: asyncio.StreamReader, acked: dict[int, float], late: list[float], ends_at: float) -> None:
    """Note how long after its PUBACK each value came. Of values of one device within a look only the newest comes."""
    while time.monotonic() < ends_at:
        line = await asyncio.wait_for(reader.readline(), 30)
        if line.startswith(b"data: {") and b'"columns"' in line:
            now, columns = time.monotonic(), json.loads(line[6:])["columns"]
            for metric, value in zip(columns["metric"], columns["value"], strict=True):
                if metric == "n" and (at := acked.get(int(value))) is not None:
                    late.append(now - at)


def publish(tenant: str, rate: int, seconds: float, acked: "multiprocessing.Queue[tuple[int, float]]") -> None:
    """Numbered values of DEVICES devices, at a steady rate; the moment of each PUBACK goes into the queue."""
    settings = get_settings()
    parts = urlsplit(settings.mqtt_url.get_secret_value())
    client = Client(CallbackAPIVersion.VERSION2, f"bench-console-{os.getpid()}", protocol=MQTTProtocolVersion.MQTTv5)
    if parts.username:
        client.username_pw_set(parts.username, parts.password)
    client.max_inflight_messages_set(0)
    numbers: dict[int, int] = {}

    def on_publish(_client: Client, _data: object, mid: int, *_: object) -> None:
        at = time.monotonic()
        while mid not in numbers:  # the PUBACK overtakes the return of publish()
            time.sleep(0.0001)
        acked.put((numbers.pop(mid), at))

    client.on_publish = on_publish
    client.connect(parts.hostname or "127.0.0.1", parts.port or 1883)
    client.loop_start()
    begun = time.monotonic()
    for number in range(int(rate * seconds)):
        time.sleep(max(0.0, begun + number / rate - time.monotonic()))
        payload = json.dumps({"deviceId": f"d{number % DEVICES}", "n": number, "temp": 20 + number % 7})
        info: MQTTMessageInfo = client.publish(f"mtic/msg/client/realtime/{tenant}/{PROJECT}", payload, qos=1)
        numbers[info.mid] = number
    time.sleep(2)
    client.loop_stop()


def drained(queue: "multiprocessing.Queue[tuple[int, float]]") -> Iterator[tuple[int, float]]:
    while not queue.empty():
        yield queue.get()


async def measure(arguments: argparse.Namespace, viewers: int) -> list[str]:
    settings, key = get_settings(), arguments.key_file.read_text().strip()
    context = multiprocessing.get_context("spawn")
    acked_queue = context.Queue()
    pid = listener(urlsplit(arguments.url).port or 80)
    processes = [
        context.Process(
            target=publish, args=(arguments.tenant, arguments.rate, arguments.duration + WARM_UP_SECONDS, acked_queue), daemon=True
        )
    ]
    if viewers:
        processes.insert(0, context.Process(target=view, args=(arguments.url, arguments.tenant, key, viewers), daemon=True))
        processes[0].start()
        give_up = time.monotonic() + OPEN_SECONDS
        while streams(arguments.url) < viewers:
            if time.monotonic() > give_up:
                raise SystemExit(f"{streams(arguments.url)} of {viewers} viewers came in {OPEN_SECONDS:.0f} s")
            await asyncio.sleep(0.2)
    processes[-1].start()
    await asyncio.sleep(WARM_UP_SECONDS)
    stream = await events(arguments.url, arguments.tenant, key) if viewers else None
    acked: dict[int, float] = {}
    late: list[float] = []
    since, begun_at, before = datetime.now(UTC), time.monotonic(), cost(pid).cpu_seconds
    ends_at = begun_at + arguments.duration

    async def take() -> None:
        while time.monotonic() < ends_at:
            acked.update(drained(acked_queue))
            await asyncio.sleep(0.005)

    watching = [probe(stream[0], acked, late, ends_at)] if stream else []
    await asyncio.gather(take(), *watching)
    after = cost(pid)
    seconds = time.monotonic() - begun_at
    for process in processes:
        process.terminate()
        process.join()
    fresh = one_value(settings, FRESHNESS, since=since)
    shown = [f"{q:.2f}" for q in (statistics.median(late), sorted(late)[int(len(late) * 0.95)])] if late else ["–", "–"]
    return [
        str(viewers),
        *shown,
        f"{100 * (after.cpu_seconds - before) / seconds:.1f}",
        f"{after.pss_bytes / 1e6:.0f}",
        f"{fresh[0]:.2f}",
        f"{fresh[1]:.2f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="the console")
    parser.add_argument("--tenant", required=True, help="a tenant that the console may show")
    parser.add_argument("--key-file", type=Path, required=True, help="file with an API key of the tenant")
    parser.add_argument("--rate", type=int, default=500, help="messages per second (default 500)")
    parser.add_argument("--duration", type=int, default=60, help="seconds for each number of viewers (default 60)")
    parser.add_argument("--viewers", type=int, action="append", help="may be given several times (default 0, 50 and 100)")
    arguments = parser.parse_args()
    table = Table("viewers", "PUBACK to event p50, s", "p95, s", "console CPU, % of a core", "PSS, MB", "freshness p50, s", "p95, s")
    for viewers in arguments.viewers or (0, 50, 100):
        table.add_row(*asyncio.run(measure(arguments, viewers)))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
