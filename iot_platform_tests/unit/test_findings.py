"""What to fix first stands first, and the exit code says how bad it is."""

import io
import time

from rich.console import Console

from iot_platform.cli import findings_screen
from iot_platform.diagnostics.finding import EXIT_CODES, URGENCY, Finding, by_urgency, verdict, worst
from iot_platform.diagnostics.parallel import in_parallel
from iot_platform.diagnostics.status import Component, Status

FOUND = [
    Finding("Python", "ok", "3.11"),
    Finding("broker", "risk", "its queue is short", "max_queued_messages 1000000"),
    Finding("database", "bad", "no PostgreSQL", "IOT_DATABASE_URL"),
    Finding("Kafka", "bad", "no Kafka", "IOT_KAFKA_BOOTSTRAP_SERVERS"),
    Finding("root", "note", "no"),
    Finding("drain", "lost", "partition 3: 12 messages gone", "iot offsets accept"),
]


def test_what_is_lost_stands_before_what_does_not_work_and_equals_keep_the_way_of_the_data() -> None:
    assert [finding.what for finding in by_urgency(FOUND)] == ["drain", "database", "Kafka", "broker", "root", "Python"]


def test_one_cause_that_several_questions_have_found_is_told_once() -> None:
    again = Finding("drain", "bad", "no PostgreSQL", "iot offsets show")
    assert [finding.what for finding in by_urgency([*FOUND, again])] == [finding.what for finding in by_urgency(FOUND)]


def test_the_worst_makes_the_exit_code() -> None:
    assert [EXIT_CODES[worst(FOUND[:count])] for count in range(7)] == [0, 0, 1, 3, 3, 3, 4]
    codes = [EXIT_CODES[state] for state in URGENCY]
    assert codes == sorted(codes, reverse=True)
    assert 2 not in codes, "that is the code of settings and arguments that are refused"


def test_the_verdict_is_one_line() -> None:
    assert verdict(FOUND) == "1 messages missing or wrong; 2 not working; 1 in danger at the next fault"
    assert verdict([FOUND[0], FOUND[4]]) == "nothing to fix"


def test_the_page_has_each_problem_with_its_remedy_and_only_names_what_is_well() -> None:
    def page(*, everything: bool) -> list[str]:
        console = Console(file=io.StringIO(), width=200)
        console.print(findings_screen.page(by_urgency(FOUND), everything=everything))
        return console.file.getvalue().splitlines()  # type: ignore[attr-defined, no-any-return]

    lines = page(everything=False)
    assert lines[1] == "✗✗ drain  partition 3: 12 messages gone  → iot offsets accept"
    assert lines[-1] == "✓ 1 are well: Python (--all shows them)"
    assert page(everything=True)[-1] == "✓ Python  3.11"


def test_what_hangs_costs_its_own_answer_only() -> None:
    heard: list[str] = []
    found = in_parallel({"good": lambda: None, "hangs": lambda: time.sleep(60), "bad": lambda: 1 / 0}, 0.3, heard.append)
    assert found == {"hangs": "no answer within 0 s", "bad": "division by zero"}
    assert heard[-1] == "hangs"


def test_status_puts_missing_messages_before_servers_that_are_down() -> None:
    status = Status(
        components=[
            Component("kafka", "ok", "of 6 partitions 6 lack a copy"),
            Component("ingest", "down", "no answer (IOT_INGEST_HTTP_URL)"),
        ],
        audit_differences={"offsets": 0, "sequences": 3},
        notices=["silent for 3 h"],
        freshness_p95_seconds=70.0,
        quarantine_24h={"not_json": 2},
    )
    assert [(item.what, item.state) for item in status.problems] == [
        ("audit", "lost"), ("ingest", "bad"), ("freshness", "bad"), ("kafka", "risk"), ("ingest", "risk"), ("quarantine", "note"),
    ]  # fmt: skip
    assert all(item.remedy for item in status.problems)
    assert status.exit_code == 4
    document = status.as_json()
    assert (document["state"], document["problems"][0]["what"]) == ("lost", "audit")
    assert Status(components=[Component("mqtt", "ok")], audit_differences={"offsets": 0}).exit_code == 0


def test_a_partition_that_waits_for_a_decision_is_lost_not_late() -> None:
    status = Status(components=[Component("drain", "down", "partition 3: 12 messages gone")])
    assert status.exit_code == 3
    status.waits_for_person = True
    assert status.exit_code == 4
