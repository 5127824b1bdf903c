"""What a failed simulation comes down to: the laws at the head of the module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fed.cli.reports import Report
from fed.cli.summary import ROOT, Row, Summary

PARTIES = ("alice", "bob", "carol")
NOBODY: frozenset[str] = frozenset()
TEXT = "ValueError in task #3 train at party 'alice'"


def failed(**detail: Any) -> Report:
    return Report("failed", {"root": TEXT, "src_party": "alice", "error_id": "alice/3f2a/1", **detail})


def died(**detail: Any) -> Report:
    return Report("died", {"type": "RemoteError", "text": "", "traceback": False, **detail})


def rows(summary: Summary, codes: Mapping[str, int], first: str, signalled: frozenset[str] = NOBODY) -> list[str]:
    return [f"{row.label}: {' / '.join(row.lines)}" for row in summary.rows(codes, signalled, first)]


def test_the_parties_agree_and_all_but_the_source_followed() -> None:
    summary = Summary(PARTIES)
    for party in PARTIES:
        summary.add(party, failed(root=TEXT + ": bad row" if party == "alice" else TEXT))
    summary.add("alice", Report("log", {"path": "/logs/alice.log"}))
    summary.add("bob", Report("log", {"path": "/logs/bob.log"}))
    summary.add("alice", died(type="ValueError", text="TaskError", traceback=True))
    assert summary.source == "alice"
    # bob was the first to end, and yet it merely followed.
    assert rows(summary, {"bob": 1, "alice": 1, "carol": 1}, "bob") == [
        f"{ROOT}: {TEXT}: bad row",
        "alice: failed here (exit 1): its own traceback is above / log: /logs/alice.log",
        "bob, carol: followed (exit 1): told by alice",
    ]


def test_the_title_counts_who_failed_by_itself() -> None:
    codes, told = {"bob": 1, "alice": 1, "carol": 130}, frozenset({"carol"})
    summary = Summary(PARTIES)
    assert summary.title(codes, told, "bob") == "2 of 3 parties failed, it began in bob"
    summary.add("bob", failed())
    assert summary.title(codes, told, "bob") == "2 of 3 parties failed, it began in alice"
    mutual = Summary(PARTIES)
    mutual.add("bob", failed(kind="DIVERGED"))
    assert mutual.title(codes, told, "bob") == "2 of 3 parties failed, their programs differ"


def test_what_the_job_says_for_people_is_preferred() -> None:
    summary = Summary(PARTIES)
    summary.add("bob", failed(root="SystemExit at party 'alice'", text="party 'alice' left", type="SystemExit"))
    summary.add("alice", failed(root="SystemExit at party 'alice'", text="party 'alice' left", type="SystemExit"))
    summary.add("alice", died(type="SystemExit"))
    assert rows(summary, {"alice": 3, "bob": 1, "carol": 0}, "bob") == [
        f"{ROOT}: party 'alice' left",
        "alice: left here (exit 3)",
        "bob: followed (exit 1): told by alice",
        "carol: ended well",
    ]


def test_of_a_message_the_first_line_is_shown_and_no_control_characters() -> None:
    summary = Summary(PARTIES)
    summary.add("alice", failed(root=f"\x1b[2Jbad {'x' * 999}\nsecond"))
    [row, *_] = summary.rows(dict.fromkeys(PARTIES, 1), NOBODY, "alice")
    assert row.lines[0].startswith("\\x1b[2Jbad xxx")
    assert row.lines[0].endswith("x…")
    assert len(row.lines[0]) == 300


def test_the_root_of_most_parties_counts_and_who_names_another_says_which() -> None:
    summary = Summary(PARTIES)
    summary.add("carol", failed(root="OSError at party 'carol'", src_party="carol", error_id="carol/77/1"))
    summary.add("bob", failed())
    summary.add("alice", failed())
    assert summary.source == "alice"
    assert rows(summary, dict.fromkeys(PARTIES, 1), "carol")[1:] == [
        "alice: failed here (exit 1)",
        "bob: followed (exit 1): told by alice",
        "carol: named another root (exit 1): OSError at party 'carol'",
    ]


def test_among_roots_that_equally_many_name_the_first_one_counts() -> None:
    summary = Summary(PARTIES)
    summary.add("bob", failed(src_party="bob", error_id="bob/1/1"))
    summary.add("alice", failed())
    assert summary.source == "bob"


def test_without_an_id_the_place_tells_failures_apart() -> None:
    summary = Summary(PARTIES)
    for party in ("alice", "bob"):
        summary.add(party, Report("failed", {"root": f"as {party} sees it", "src_party": "alice"}))
    assert rows(summary, dict.fromkeys(PARTIES, 1), "alice")[:3] == [
        f"{ROOT}: as alice sees it",
        "alice: failed here (exit 1)",
        "bob: followed (exit 1): told by alice",
    ]


@pytest.mark.parametrize(
    ("code", "how"),
    [
        (137, "died of signal 9 (SIGKILL), said nothing"),
        (3, "died with exit code 3, said nothing"),
        (255, "died with exit code 255, said nothing"),
    ],
)
def test_a_party_that_died_without_a_word(code: int, how: str) -> None:
    alone = Summary(PARTIES)
    assert rows(alone, {"alice": code, "bob": 0, "carol": 0}, "alice") == [
        f"{ROOT}: party 'alice' {how}",
        f"alice: {how}",
        "bob, carol: ended well",
    ]
    noticed = Summary(PARTIES)
    for party in ("bob", "carol"):
        noticed.add(party, failed(root="party 'alice' was lost"))
    assert rows(noticed, {"alice": code, "bob": 1, "carol": 1}, "alice") == [
        f"{ROOT}: party 'alice' was lost",
        f"alice: {how}",
        "bob, carol: followed (exit 1): told by alice",
    ]


@pytest.mark.parametrize(
    ("death", "cause", "how"),
    [
        (
            {"type": "ZeroDivisionError", "traceback": True},
            "ZeroDivisionError in the program of party 'bob'",
            "failed here (exit 1): its own traceback is above",
        ),
        ({"type": "ConfigError", "text": "no such option"}, "no such option", "failed here (exit 1)"),
        ({"type": "SystemExit"}, "the program of party 'bob' called sys.exit", "left here (exit 1)"),
        ({"type": "KeyboardInterrupt"}, "party 'bob' was interrupted", "was interrupted (exit 1)"),
    ],
)
def test_without_a_job_the_party_that_failed_first_is_the_root(death: dict[str, Any], cause: str, how: str) -> None:
    summary = Summary(PARTIES)
    summary.add("bob", died(**death))
    assert summary.source is None
    codes = {"bob": 1, "alice": 130, "carol": 0}
    assert rows(summary, codes, "bob", frozenset({"alice"})) == [
        f"{ROOT}: {cause}",
        f"bob: {how}",
        "alice: still running, told to end (exit 130, SIGINT)",
        "carol: ended well",
    ]


def test_who_failed_of_something_else_says_of_what() -> None:
    summary = Summary(("alice", "bob", "carol", "dave", "erin"))
    summary.add("alice", failed())
    summary.add("bob", died(type="OSError"))
    summary.add("carol", died(type="InitError", text="nobody came"))
    summary.add("dave", died(type="SystemExit"))
    summary.add("erin", died(type="KeyboardInterrupt"))
    codes = {"alice": 1, "bob": 1, "carol": 2, "dave": 4, "erin": 130}
    assert rows(summary, codes, "alice")[2:] == [
        "bob: failed as well (exit 1): its program raised OSError",
        "carol: failed as well (exit 2): nobody came",
        "dave: its program called sys.exit (exit 4)",
        "erin: was interrupted (exit 130, SIGINT)",
    ]


def test_a_program_that_says_by_its_exit_code_that_it_saw_a_failure_did_not_leave() -> None:
    summary = Summary(PARTIES)
    summary.add("alice", failed(type="ValueError"))
    summary.add("alice", died(type="SystemExit"))
    assert rows(summary, dict.fromkeys(PARTIES, 1), "alice")[1] == "alice: failed here (exit 1)"


def test_a_source_that_had_to_be_told_to_end() -> None:
    summary = Summary(PARTIES)
    summary.add("alice", failed())
    found = rows(summary, {"bob": 1, "carol": 1, "alice": 130}, "bob", frozenset({"alice"}))
    assert found[1] == "alice: failed here, and was told to end (exit 130, SIGINT)"


def test_many_parties_are_counted_and_named_beside() -> None:
    parties = tuple(f"hospital{number}" for number in range(5))
    summary = Summary(parties)
    for party in parties:
        summary.add(party, failed(src_party="hospital0", error_id="x"))
    found = summary.rows(dict.fromkeys(parties, 1), NOBODY, "hospital1")
    names = "hospital1, hospital2, hospital3, hospital4"
    assert found[-1] == Row("4 parties", (), ("followed (exit 1): told by hospital0", names))


def test_a_source_that_is_no_party_of_the_simulation_is_believed_in_the_text_only() -> None:
    summary = Summary(("alice",))
    summary.add("alice", failed(root="OSError at party 'zoe'", src_party="zoe"))
    assert summary.source is None
    assert rows(summary, {"alice": 1}, "alice") == [
        f"{ROOT}: OSError at party 'zoe'",
        "alice: followed (exit 1): told by zoe",
    ]


REPORTS = st.one_of(
    st.builds(failed, src_party=st.sampled_from([*PARTIES, "zoe", ""]), error_id=st.sampled_from(["", "1", "2"])),
    st.builds(died, type=st.sampled_from(["SystemExit", "OSError"])),
    st.builds(Report, st.sampled_from(["log", "closed", "failed", "died"]), st.just({})),
)


@given(
    told=st.lists(st.tuples(st.sampled_from(PARTIES), REPORTS), max_size=8),
    codes=st.fixed_dictionaries({party: st.sampled_from([0, 1, 130, 200]) for party in PARTIES}),
    signalled=st.frozensets(st.sampled_from(PARTIES)),
)
def test_every_party_has_one_row(
    told: list[tuple[str, Report]], codes: dict[str, int], signalled: frozenset[str]
) -> None:
    summary = Summary(PARTIES)
    for party, report in told:
        summary.add(party, report)
    root, *others = summary.rows(codes, signalled, "carol")
    assert root.label == ROOT
    assert root.lines[0]
    assert sorted(party for row in others for party in row.parties) == sorted(PARTIES)
