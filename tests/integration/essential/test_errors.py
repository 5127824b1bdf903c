"""The error model on driver processes, Ray and gRPC: what one job of four parties can show."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.support.failing import CANARY
from tests.support.hosting import FOUR, Gate, Host, agree_on, handled_once, results

pytestmark = pytest.mark.timeout(300)


def test_e01_the_consumer_is_told_instead_of_waiting(four: Host) -> None:
    errors = results(four.play("consumer_is_told"))
    agree_on(errors, "ValueError", "alice")
    assert errors["bob"]["text"] == "ValueError in task #0 fail at party 'alice'"
    # The party itself sees its own exception.
    assert errors["alice"]["cause"] == f"ValueError({CANARY!r})"


def test_e05_e10_e19_e20_everyone_is_told_who_waits_for_nothing(four: Host, gate: Callable[..., Gate]) -> None:
    failing = gate()
    playing = four.begin("nobody_waits", failing.path)
    playing.wait_for("called")
    failing.open()
    answers = playing.answers()
    handled_once(answers)
    for party, (outside, first, second) in results(answers).items():
        if party == "dave":
            # Nothing interrupts it: it learns at its next fed call.
            assert outside["value"] is None
        else:
            assert outside["error"] == "JobInterrupted"
            assert outside["error_id"] == first["error_id"]
        assert first["error"] == ("TaskError" if party == "alice" else "RemoteError")
        assert second["error"] == "JobAborted"
        assert "ValueError in task #0 fail at party 'alice'" in second["text"]
        assert "call fed.reset() to go on" in second["text"]


def test_e06_the_handler_runs_once_in_every_party_however_many_tasks_fail(four: Host) -> None:
    for party, answer in four.play("many_failures").items():
        assert [report["here"] for report in answer["handled"]] == [party]
        assert answer["handled"][0]["error_id"] == answer["result"]["error_id"]
        assert answer["result"]["type"] == "ValueError"


def test_e15_consumers_that_were_queued_before_the_failure_never_run(
    four: Host, gate: Callable[..., Gate], tmp_path: Path
) -> None:
    failing = gate()
    folder = tmp_path / "ran"
    folder.mkdir()
    playing = four.begin("queued_consumers", failing.path, str(folder))
    playing.wait_for("queued")
    failing.open()
    for first, *later, drained in results(playing.answers()).values():
        assert first["type"] == "ValueError"
        assert {error["error"] for error in later} == {"JobAborted"}
        # Nothing is left that could run yet.
        assert drained
    assert list(folder.iterdir()) == []


def test_e20_e21_e26_nothing_runs_on_a_latched_job_and_every_call_says_why(four: Host, tmp_path: Path) -> None:
    folder = tmp_path / "ran"
    folder.mkdir()
    for party, (first, *later, numbered) in results(four.play("nothing_runs", str(folder))).items():
        assert first["error"] == ("TaskError" if party == "alice" else "RemoteError")
        assert [error["error"] for error in later] == ["JobAborted"] * 4
        assert {error["error_id"] for error in later} == {first["error_id"]}
        assert numbered == 0
    # A task that was submitted before the reset would have run before this.
    assert results(four.play("sum_of_all")) == dict.fromkeys(FOUR, 4)
    assert list(folder.iterdir()) == []


def test_e23_what_is_left_of_an_epoch_disturbs_no_later_one(four: Host, gate: Callable[..., Gate]) -> None:
    slow, failing = gate("slow"), gate("failing")
    playing = four.begin("what_a_reset_leaves", slow.path, failing.path)
    playing.wait_for("reset")
    slow.open()
    failing.open()
    playing.tell_all()
    answers = playing.answers()
    agree_on({party: result["first"] for party, result in results(answers).items()}, "ValueError", "alice")
    for party, result in results(answers).items():
        assert answers[party]["handled"] == []
        assert result["clean"] == {"errors": 0, "calls": 0}
        assert result["values"] == [step + 1 for step in range(20)]
        # Live actors go on.
        assert result["counts"] == [1, 2]
        assert ["earlier job or epoch" in text for text in result["dead"]] == [True, True]
        assert result["errors"] == 0


@pytest.mark.parametrize(("first", "second"), [("alice", "carol"), ("carol", "alice"), ("dave", "bob")])
def test_e29_of_two_failures_at_once_every_party_names_the_same_root(
    four: Host, gate: Callable[..., Gate], first: str, second: str
) -> None:
    gates = {party: gate(party) for party in (first, second)}
    playing = four.begin("two_fail", {party: one.path for party, one in gates.items()})
    for one in gates.values():
        one.reach()
    for one in gates.values():
        one.close()
    answers = playing.answers()
    handled_once(answers)
    errors = {party: result[0] for party, result in results(answers).items()}
    agree_on(errors, "ValueError", errors["alice"]["party"])
    assert {party: result[1]["error_id"] for party, result in results(answers).items()} == {
        party: error["error_id"] for party, error in errors.items()
    }


@pytest.mark.parametrize(
    ("what", "calls"),
    [
        ("function", {"carol": "total.party('bob').remote(#0)", "others": "identity.party('bob').remote(#0)"}),
        ("argument", {"dave": "identity.party('bob').remote(#1)", "others": "identity.party('bob').remote(#0)"}),
        ("less", {"bob": "identity.party('carol').remote(#1)", "others": "identity.party('bob').remote(#0)"}),
    ],
)
def test_e43_programs_that_differ_are_told_where(four: Host, what: str, calls: Mapping[str, str]) -> None:
    answers = four.play("differing", what)
    handled_once(answers)
    source = next(iter(calls))
    said = re.compile(
        rf"party '\w+' found that call #2 differs: (?=.*party '{source}' called `{re.escape(calls[source])})"
        rf"(?=.*party '(?!{source})\w+' called `{re.escape(calls['others'])}).*: every party must run the same program"
    )
    for answer in answers.values():
        # Raised once as itself, in a fed call; before that a driver outside may have been interrupted.
        raised = [one for one in answer["result"] if one["error"] == "DivergenceError"]
        assert len(raised) == 1
        assert said.fullmatch(raised[0]["text"])
        assert raised[0]["error_id"] == answer["handled"][0]["error_id"]
