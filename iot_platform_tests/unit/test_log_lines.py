"""Every program's log lines are understood, with their level, run, batch, partition and offsets; repeated errors are sampled."""

import io
import itertools
import json
import logging
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import structlog
from typer.testing import CliRunner

from ingest_daemon.log_sampling import BURST, KINDS, WINDOW_SECONDS, Sampler
from iot_platform.cli.errors import CliError
from iot_platform.cli.main import app
from iot_platform.diagnostics.log_files import follow, last_records, records
from iot_platform.diagnostics.log_lines import LEVELS, Record, Wanted, begins, parse
from iot_platform_tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
RUN = "0f3d8a52-9a41-4c6e-8f5e-2f1e5f0c7a11"
JSON = json.dumps(
    {
        "event": "batch committed", "level": "debug", "timestamp": "2026-11-29T22:00:01.250000Z", "logger": "lane",
        "run": RUN, "batch": 812, "partition": 3, "first_offset": 100, "last_offset": 199,
    }
)  # fmt: skip
RETRY = json.dumps({"event": "drain retries", "level": "warning", "run": RUN, "partitions": [0, 2], "offsets": {"2": [5, 9]}})


@pytest.mark.parametrize(
    ("line", "level", "text"),
    [
        (JSON, "debug", "batch committed"),
        ("2026-11-29T22:00:01.250000Z [warning  ] drain retries  [lane] error=no", "warning", "[warning  ] drain retries  [lane] error=no"),
        ("2026-11-29 22:00:01.250 UTC [123] ERROR:  relation does not exist", "error", "[123] ERROR:  relation does not exist"),
        ("2026-11-29 22:00:01.250 UTC [123] iot_writer@iot FATAL:  no", "critical", "[123] iot_writer@iot FATAL:  no"),
        ("2026-11-29 22:00:01 +0000 - dagster.daemon - WARNING - slow", "warning", "- dagster.daemon - WARNING - slow"),
        ("[2026-11-29 22:00:01,250] WARN away (org.apache.kafka)", "warning", "WARN away (org.apache.kafka)"),
        ("1796000401: Error: address in use", "error", "Error: address in use"),
        ("1796000401: mosquitto version 2.0.11 running", "info", "mosquitto version 2.0.11 running"),
        ("{no json", "info", "{no json"),
    ],
)  # fmt: skip
def test_each_form_has_its_level(line: str, level: str, text: str) -> None:
    record = parse("program", line)
    assert (record.level, record.text) == (level, text)
    assert begins(line)
    assert (record.at is not None) == (line != "{no json")


def test_dagsters_colours_are_no_part_of_its_lines() -> None:
    line = "\x1b[32m2026-11-30 00:01:07 +0000\x1b[0m - dagster.daemon - \x1b[33mWARNING\x1b[0m - slow"
    found = list(records("dagster-daemon", [line, line]))
    assert [(record.level, record.text, record.at is not None) for record in found] == [
        ("warning", "- dagster.daemon - WARNING - slow", True)
    ] * 2


def test_what_belongs_to_a_line_stays_with_it() -> None:
    lines = [
        "2026-11-29 22:00:01.250 UTC [123] ERROR:  duplicate key",
        "2026-11-29 22:00:01.250 UTC [123] DETAIL:  Key (a)=(1) exists",
        "2026-11-29 22:00:02.250 UTC [123] LOG:  next",
        "Traceback (most recent call last):",
        "  File …",
    ]
    assert [record.raw for record in records("postgresql", lines)] == ["\n".join(lines[:2]), "\n".join(lines[2:])]


@pytest.mark.parametrize(
    ("wanted", "takes"),
    [
        (Wanted(), True), (Wanted(level="info"), False), (Wanted(run=RUN), True), (Wanted(run=RUN[:8]), True), (Wanted(run="1" * 8), False),
        (Wanted(batch=812), True), (Wanted(batch=81), False), (Wanted(partition=3), True), (Wanted(partition=2), False),
        (Wanted(partition=3, offset=150), True), (Wanted(partition=3, offset=200), False), (Wanted(partition=2, offset=150), False),
        (Wanted(offset=199), True),
    ],
)  # fmt: skip
def test_records_are_chosen_by_level_run_batch_partition_and_offset(wanted: Wanted, takes: bool) -> None:
    assert wanted.takes(parse("dagster-code", JSON)) == takes


def test_records_of_several_partitions_and_of_other_programs_are_found_too() -> None:
    retry = parse("dagster-code", RETRY)
    assert Wanted(partition=0).takes(retry)
    assert Wanted(partition=2, offset=9).takes(retry)
    assert not Wanted(partition=0, offset=9).takes(retry)
    text = parse("dagster-code", f"2026-11-29 22:00:01 +0000 - dagster - ERROR - {RUN} - partition 4: 12 messages gone at offset 77")
    assert Wanted(run=RUN[:6], partition=4, offset=77, level="error").takes(text)


@pytest.mark.parametrize("offsets", [{"earliest": 5}, {"0": 5}, {"0": [5]}, {"0": ["a", "b"]}, [1, 2], "all"], ids=str)
def test_a_field_of_our_name_in_another_programs_line_is_passed_over(offsets: object) -> None:
    record = parse("exporter", json.dumps({"event": "lag", "offsets": offsets}))
    assert not Wanted(partition=0).takes(record)
    assert not Wanted(partition=0, offset=5).takes(record)
    assert Wanted().takes(record)


def test_the_ends_of_files_are_merged_in_order_of_time(tmp_path: Path) -> None:
    one, other = tmp_path / "one.log", tmp_path / "other.log"
    one.write_text("".join(f"2026-11-29T22:00:0{second}Z [info ] a{second}\n  more\n" for second in (1, 3, 5)))
    other.write_text("no time\n" + "".join(f"2026-11-29T22:00:0{second}Z [error ] b{second}\n" for second in (2, 4)))
    (tmp_path / "other.log.1").write_text("2026-11-29T22:00:00Z [info ] rotated\n")

    def shown(count: int, wanted: Wanted = Wanted()) -> list[str]:  # noqa: B008  frozen
        return [record.raw.split("] ")[-1].split("\n")[0] for record in last_records([one, other], count, wanted.takes)]

    assert shown(9) == ["rotated", "no time", "a1", "b2", "a3", "b4", "a5"]
    assert shown(1) == ["b4", "a5"]
    assert shown(9, Wanted(level="error")) == ["b2", "b4"]


def test_following_sees_what_is_added_rotated_and_new(tmp_path: Path) -> None:
    one, later = tmp_path / "one.log", tmp_path / "later.log"
    one.write_text('{"event":"before"}\n')
    seen: list[Record] = []
    ended, ready = threading.Event(), threading.Event()

    looks = itertools.count()

    def names() -> list[Path]:
        if next(looks):  # the first look, which notes where the files end, is over
            ready.set()
        return sorted(tmp_path.glob("*.log"))

    def watch() -> None:
        for record in follow(names, ended.is_set):
            seen.append(record)  # noqa: PERF402  seen while it grows

    watching = threading.Thread(target=watch)
    watching.start()
    assert ready.wait(10)
    with one.open("a") as file:
        file.write('{"event":"added"}\n{"event":"ha')
    eventually(lambda: [record.text for record in seen] == ["added"])
    with one.open("a") as file:
        file.write('lf"}\n')
    eventually(lambda: [record.text for record in seen][-1] == "half")
    one.rename(tmp_path / "one.log.1")
    one.write_text('{"event":"anew"}\n')
    later.write_text('{"event":"later"}\n')
    eventually(lambda: {record.text for record in seen} == {"added", "half", "anew", "later"})
    ended.set()
    watching.join(10)
    assert {record.program for record in seen} == {"one", "later"}


def test_following_takes_what_was_written_just_before_a_rotation(tmp_path: Path) -> None:
    one, seen = tmp_path / "one.log", list[str]()
    one.write_text('{"event":"before"}\n')
    steps = iter(range(9))

    def step() -> bool:
        match next(steps):
            case 1:  # all of it between two looks
                with one.open("a") as file:
                    file.write('{"event":"first"}\n{"event":"la')
            case 2:
                with one.open("a") as file:
                    file.write('st"}\n')
                one.rename(tmp_path / "one.log.1")
                one.write_text('{"event":"anew"}\n')
            case 8:
                return True
        return False

    seen += [record.text for record in follow(lambda: [one], step)]
    assert seen[:2] == ["first", "last"]
    assert set(seen) <= {"first", "last", "anew"}


def test_the_command_chooses_programs_and_says_which_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IOT_LOCAL_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def shown(*arguments: str) -> list[str]:
        return CliRunner().invoke(app, ["logs", *arguments]).stdout.splitlines()

    with pytest.raises(CliError, match="iot logs -"):
        CliRunner().invoke(app, ["logs"], catch_exceptions=False)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "dagster-code.log").write_text(f"{RETRY}\n{JSON}\n")
    (tmp_path / "logs" / "kafka.log").write_text("[2026-11-29 22:00:00,000] ERROR away (org.apache.kafka)\n")
    with pytest.raises(CliError, match=r"no log of kafka2 .*dagster-code, kafka"):
        CliRunner().invoke(app, ["logs", "kafka2"], catch_exceptions=False)
    assert shown("kafka", "--level", "error") == ["2026-11-29 22:00:00.000 error ERROR away (org.apache.kafka)"]
    assert [line.split()[2] for line in shown("--level", "debug") if line.startswith("2026")] == ["kafka", "dagster-code"]
    assert [json.loads(line)["batch"] for line in shown("--batch", "812", "--json")] == [812]


# -- sampling ----------------------------------------------------------------------------------------------------
class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def passes(sampler: Sampler, event: str, level: str = "warning", **fields: object) -> dict[str, object] | None:
    try:
        return dict(sampler(None, level, {"event": event, "level": level, **fields}))
    except structlog.DropEvent:
        return None


def test_the_first_of_a_kind_pass_and_the_rest_are_counted_and_told() -> None:
    clock = Clock()
    sampler = Sampler(clock)
    told = [passes(sampler, "drain retries", error=f"no answer after {number} s", partition=number) for number in range(BURST + 30)]
    assert sum(line is not None for line in told) == BURST
    other = passes(sampler, "something else", "info")
    assert other is not None
    assert other["left_out"] == {"drain retries": 30}
    assert "left_out" not in (passes(sampler, "something else", "info") or {})
    clock.now += WINDOW_SECONDS
    assert passes(sampler, "drain retries", error="no answer after 3 s") is not None


def test_other_words_are_another_kind_and_quiet_levels_are_never_left_out() -> None:
    sampler = Sampler(Clock())
    for number in range(3 * BURST):
        assert passes(sampler, "drain retries", error="xy" * number) is not None
        assert passes(sampler, "batch committed", "info") is not None
    many = [passes(sampler, "x", error=chr(0x4E00 + number)) for number in range(2 * KINDS)]
    assert None not in many
    assert len(sampler._kinds) <= KINDS + 1


def write(code: str, *, form: str, level: str = "info") -> list[str]:
    environment = {"IOT_LOG_FORMAT": form, "IOT_LOG_LEVEL": level, "PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60, env=environment, cwd=ROOT)
    assert done.stdout == ""
    return done.stderr.splitlines()


@pytest.mark.parametrize("form", ["auto", "json", "text"])
def test_the_platforms_lines_are_json_or_text_as_wanted_and_read_again(form: str) -> None:
    code = (
        "import structlog\nfrom iot_platform.logs import get_logger\nfrom iot_platform.settings import get_settings\n"
        "get_settings()\nlog = get_logger('drain')\n"
        "structlog.contextvars.bind_contextvars(run='r-1')\nlog.debug('unseen')\nlog.warning('odd', partition=3)\n"
    )
    (line,) = write(code, form=form)
    record = parse("dagster-code", line)
    assert (record.level, record.at is not None) == ("warning", True)
    assert line.startswith("{") == (form != "text")
    if form != "text":
        assert (record.text, record.fields) == ("odd", {"run": "r-1", "partition": 3, "logger": "drain"})
        assert len(write(code, form=form, level="debug")) == 2
    assert LEVELS.index(record.level) == 2


def test_a_storm_of_one_error_is_a_few_lines_and_a_count() -> None:
    code = (
        "from iot_platform.logs import get_logger\nlog = get_logger('drain')\n"
        "for number in range(500): log.error('drain retries', error=f'no answer after {number} s')\nlog.info('over')\n"
    )
    lines = [json.loads(line) for line in write(code, form="json")]
    assert [line["event"] for line in lines] == ["drain retries"] * BURST + ["over"]
    assert lines[-1]["left_out"] == {"drain retries": 500 - BURST}


def test_the_daemons_lines_are_json_unless_text_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    from ingest_daemon import logs

    root, shown = logging.getLogger(), io.StringIO()
    before = root.handlers, root.level
    monkeypatch.setattr(sys, "stderr", shown)
    try:
        for form in ("json", "text"):
            logs.configure("info", form)
            structlog.get_logger("ingest").bind().warning("spooling", entries=3)
    finally:
        root.handlers, root.level = before[0], before[1]
        structlog.reset_defaults()
    first, second = shown.getvalue().splitlines()
    assert json.loads(first)["event"] == "spooling"
    assert parse("ingest", second).level == "warning"
