"""`iot simulate`: a reproducible fleet of devices that publishes to the MQTT broker, or has done so for months."""

import contextlib
import itertools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from iot_platform.cli import terminal
from iot_platform.cli.errors import CliError
from iot_platform.cli.simulate_history import LOG_EVERY_SECONDS, fill
from iot_platform.cli.times import parse_start
from iot_platform.signals import stop_on_signals

if TYPE_CHECKING:
    from iot_platform.simulator.publisher import Summary


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(simulate)


def simulate(  # noqa: PLR0917 - every parameter is an option
    tenants: Annotated[int | None, typer.Option(min=1, help="Tenants of the fleet; 3, with --history 100.")] = None,
    projects: Annotated[int | None, typer.Option(min=1, help="Projects of each tenant; 4, with --history 100.")] = None,
    devices: Annotated[int | None, typer.Option(min=1, help="Devices of each project; 50, with --history as --series needs.")] = None,
    rate: Annotated[str, typer.Option(help="Messages a second; 0 or [b]max[/b]: as fast as the broker acknowledges.")] = "200",
    duration: Annotated[float, typer.Option(min=0, help="Seconds to publish; 0: until stopped.")] = 60.0,
    count: Annotated[int, typer.Option(min=0, help="Publish exactly this many messages, whatever --duration says.")] = 0,
    seed: Annotated[int, typer.Option(help="Same seed, options and --start: same topics and payload bytes.")] = 1,
    start: Annotated[str, typer.Option(help="Time at which the devices' clocks start, ISO 8601; now unless given.")] = "",
    mix: Annotated[
        str, typer.Option(help="[b]realistic[/b] (nested, points, texts, integers …) or [b]flat[/b] (three numbers).")
    ] = "realistic",
    late: Annotated[float, typer.Option(help="Share of messages with an event time hours to weeks ago.")] = 0.02,
    duplicate: Annotated[float, typer.Option(help="Share of messages published a second time.")] = 0.01,
    malformed: Annotated[float, typer.Option(help="Share of messages that must end in quarantine, unset clocks included.")] = 0.01,
    skew: Annotated[float, typer.Option(help="Share of devices whose clock is wrong by up to 50 minutes, which is accepted.")] = 0.02,
    clockless: Annotated[float, typer.Option(help="Share of devices that write no time (flat: none, unless 1).")] = 0.2,
    conflict: Annotated[float, typer.Option(help="Share of messages that repeat a device's last time with other values.")] = 0.0,
    heartbeat: Annotated[float, typer.Option(help="Share of empty messages, {}.")] = 0.02,
    retained: Annotated[float, typer.Option(help="Share of messages published with RETAIN; the broker keeps the last of a topic.")] = 0.0,
    connections: Annotated[int, typer.Option(min=1, max=64, help="MQTT connections that the devices share.")] = 4,
    history: Annotated[
        str, typer.Option(help="Publish nothing: write this much past, such as 90d or 12h, into the database (until --start, or now).")
    ] = "",
    series: Annotated[int, typer.Option(min=0, help="With --history: series in all; 100,000 unless given.")] = 0,
    measurements: Annotated[int, typer.Option(min=0, help="With --history: measurements in all, about; 50.5 million in 90 days.")] = 0,
    record: Annotated[Path | None, typer.Option(help="Write what was published, acknowledged and must come of it (JSON lines).")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Publish a seeded fleet of devices with QoS 1, at an exact rate, and wait for every acknowledgement.

    [b]iot simulate --rate 2000 --duration 60[/b]   a load test
    [b]iot simulate --count 20000 --rate max --malformed 0.05 --record published.jsonl[/b]   for a comparison afterwards

    With --history the database is filled directly, in minutes, with the past of another fleet: no broker, no Kafka, no messages. Of the
    other options only --tenants, --projects, --devices, --seed and --start apply. Interrupted, it is simply repeated.

    [b]iot simulate --history 90d[/b]   10,000 projects, 100,000 series, 50 million measurements: about 8 GB
    [b]iot simulate --history 14d --tenants 2 --projects 3 --series 300 --seed 7[/b]
    """
    if history:
        return fill(history, start, {"seed": seed, "tenants": tenants, "projects": projects, "devices": devices,
                                     "series": series, "measurements": measurements}, quiet=quiet)  # fmt: skip
    from iot_platform.settings import get_settings
    from iot_platform.simulator.connection import Broker, BrokerError
    from iot_platform.simulator.fleet import FleetError, FleetOptions
    from iot_platform.simulator.generator import Generator
    from iot_platform.simulator.publisher import Publisher
    from iot_platform.simulator.record import Recorder

    if mix not in ("realistic", "flat"):
        raise CliError(f"--mix must be realistic or flat, not {mix!r}")
    per_second, start_us, settings = _rate(rate), parse_start(start), get_settings()
    total = count or (round(per_second * duration) if per_second and duration else 0)
    with contextlib.ExitStack() as stack:
        try:
            options = FleetOptions(
                tenants=tenants or 3, projects=projects or 4, devices=devices or 50, seed=seed,
                mix="flat" if mix == "flat" else "realistic", late=late, duplicate=duplicate, malformed=malformed, conflict=conflict,
                heartbeat=heartbeat, skew=skew, clockless=clockless, retained=retained,
            )  # fmt: skip
            generator = Generator(options, settings.topic_pattern, start_us, per_second)
            plan = {"seed": seed, "start_us": start_us, "rate": per_second, "count": total, "options": {**vars(options)}}
            recorder = stack.enter_context(Recorder(record, plan)) if record else None
            client_id = f"iot-simulator-{os.getpid()}-{time.time_ns() % 1_000_000}"
            publisher = Publisher(Broker.from_settings(settings), connections, client_id, recorder.add if recorder else None)
            stop = threading.Event()
            stack.enter_context(stop_on_signals(stop))
            tick = None if quiet else stack.enter_context(_progress(total, None if count else duration))
            messages = itertools.islice(generator.messages(), total or None)
            until = duration if duration and not total else None
            summary = publisher.run(messages, stop, until_seconds=until, tick=tick)
        except (FleetError, BrokerError) as error:
            raise CliError(str(error)) from error
        except OSError as error:
            raise CliError(f"cannot write --record {record}: {error}") from error
    return _report(summary, quiet)


def _rate(text: str) -> float:
    try:
        rate = 0.0 if text == "max" else float(text)
    except ValueError:
        rate = -1.0
    if not 0 <= rate < 1e6:
        raise CliError(f"--rate must be messages per second, 0 or max, not {text!r}")
    return rate


@contextlib.contextmanager
def _progress(total: int, duration: float | None) -> Iterator[Callable[["Summary"], None]]:
    """What is shown while it runs: a bar on a terminal, else a line now and then."""
    if sys.stdout.isatty():
        with _bar(total) as tick:
            yield tick
        return
    next_at = time.monotonic() + LOG_EVERY_SECONDS
    what = f"{total:,} messages" if total else f"{duration:g} s" if duration else "until stopped"
    terminal.echo(f"publishing: {what}")

    def log(summary: "Summary") -> None:
        nonlocal next_at
        if time.monotonic() >= next_at:
            next_at += LOG_EVERY_SECONDS
            terminal.echo(f"published {summary.published:,}, acknowledged {summary.acknowledged:,}")

    yield log


@contextlib.contextmanager
def _bar(total: int) -> Iterator[Callable[["Summary"], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("publishing"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]:>7} msg/s"), TimeElapsedColumn())
    began = time.monotonic()
    shown = 0.0
    with Progress(*columns, transient=True) as progress:
        task = progress.add_task("publishing", total=total or None, rate="–")

        def tick(summary: "Summary") -> None:
            nonlocal shown
            now = time.monotonic()
            if now - shown >= 0.2:
                shown = now
                progress.update(task, completed=summary.acknowledged, rate=f"{summary.acknowledged / max(now - began, 1e-3):.0f}")

        yield tick


def _report(summary: "Summary", quiet: bool) -> None:
    """The final figures; what was not acknowledged is an error, because it may be lost."""
    if not quiet:
        per_second = summary.published / summary.seconds if summary.seconds else 0
        terminal.echo(
            f"published {summary.published:,} in {summary.seconds:.1f} s ({per_second:,.0f}/s), acknowledged {summary.acknowledged:,}, "
            f"reconnects {summary.reconnects}, sent more than once {summary.repeated}"
        )
        kinds = sorted(summary.kinds.items(), key=lambda item: -item[1])
        terminal.echo("kinds: " + ", ".join(f"{kind} {number:,}" for kind, number in kinds))
    problems = [f"{number:,} refused by the broker: {reason}" for reason, number in summary.refused.items()]
    if summary.unacknowledged:
        first = ", ".join(f"#{item.message.number} {item.message.topic}" for item in summary.unacknowledged[:3])
        problems.append(f"{len(summary.unacknowledged):,} not acknowledged (stored or not, nobody knows): {first} …")
    if problems:
        raise CliError("; ".join(problems))
