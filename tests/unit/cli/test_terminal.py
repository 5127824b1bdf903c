"""One terminal for all parties: prefixes, colours, and the line for who is waited for."""

from __future__ import annotations

import io
import os
import re

import pytest

from fed.cli.summary import ROOT, Row
from fed.cli.terminal import COLOURS, Terminal


class Tty(io.StringIO):
    """Claims to be a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def test_each_stream_keeps_its_own_and_names_are_padded() -> None:
    out, err = io.StringIO(), io.StringIO()
    terminal = Terminal(("al", "carol"), out, err)
    terminal.line("al", "a\t[bold] line :smile:")
    terminal.line("carol", "oops", error=True)
    terminal.say("over")
    assert out.getvalue() == "al    | a\t[bold] line :smile:\n"
    assert err.getvalue() == "carol | oops\nfed: over\n"


@pytest.mark.parametrize("variable", ["NO_COLOR", ""])
def test_colours_can_be_turned_off(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if variable:
        monkeypatch.setenv(variable, "1")
    err = Tty()
    terminal = Terminal(("alice", "bob"), Tty(), err)
    terminal.line("alice", "x")
    terminal.line("bob", "x")
    alice, bob = err.getvalue().splitlines()
    if variable:
        assert "\x1b[3" not in err.getvalue()
    else:
        assert alice.startswith("\x1b[36m")
        assert bob.startswith("\x1b[35m")


def test_a_pipe_gets_no_colours_and_a_file_is_not_mixed_with_a_terminal() -> None:
    out, err = io.StringIO(), Tty()
    terminal = Terminal(("alice",), out, err)
    terminal.line("alice", "x")
    terminal.line("alice", "y", error=True)
    assert out.getvalue() == "alice | x\n"
    assert "\x1b[36m" in err.getvalue()


def test_waiting_is_a_line_in_a_file_and_a_spinner_on_a_terminal() -> None:
    file = io.StringIO()
    terminal = Terminal(("alice",), file, file)
    terminal.wait("waiting for bob")
    terminal.stop_waiting()
    assert file.getvalue() == "fed: waiting for bob\n"

    tty = Tty()
    terminal = Terminal(("alice",), tty, tty)
    terminal.wait("waiting for bob, carol")
    terminal.wait("waiting for carol")
    terminal.line("alice", "in \x1b[31mbetween\x1b[0m")
    terminal.stop_waiting()
    terminal.stop_waiting()
    terminal.line("alice", "after")
    shown = tty.getvalue()
    assert "waiting for carol" in shown
    assert "in \x1b[31mbetween" in shown
    assert shown.rstrip().endswith("after")


def test_forced_colours_do_not_put_a_spinner_into_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    file = io.StringIO()
    terminal = Terminal(("alice",), file, file)
    terminal.wait("waiting for bob")
    terminal.stop_waiting()
    assert file.getvalue().count("waiting for bob") == 1
    assert file.getvalue().endswith("waiting for bob\n")


def test_what_the_streams_encoding_lacks_is_replaced() -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    Terminal(("alice",), out, io.StringIO()).line("alice", "5 \u20ac")
    assert raw.getvalue() == b"alice | 5 ?\n"


def test_there_are_more_parties_than_colours() -> None:
    parties = tuple(f"party{number}" for number in range(len(COLOURS) + 1))
    err = Tty()
    terminal = Terminal(parties, Tty(), err)
    for party in parties:
        terminal.line(party, "x")
    lines = err.getvalue().splitlines()
    assert lines[0][:5] == lines[-1][:5]
    assert len({line.split("party")[0] for line in lines}) == len(COLOURS)


def test_where_nobody_reads_only_a_line_of_a_party_says_so() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    err = os.fdopen(writing, "w")
    terminal = Terminal(("alice",), io.StringIO(), err)
    terminal.wait("waiting for bob")
    terminal.say("over")
    terminal.block("1 of 1 parties failed", [Row("alice", ("alice",), ("failed here",))])
    with pytest.raises(BrokenPipeError):
        terminal.line("alice", "x", error=True)
    with pytest.raises(BrokenPipeError):
        err.close()


PATH = "/home/somebody/.local/state/fedray/a-rather-long-name-of-a-script/alice-at-the-hospital.log"
ROWS = [
    Row(ROOT, (), ("the worker of task #1 train at party 'alice' died: it crashed, was killed, or ran out of memory",)),
    Row("alice", ("alice",), ("failed here (exit 1)", f"log: {PATH}")),
    Row("bob, carol", ("bob", "carol"), ("followed (exit 1): told by alice",)),
    Row("4 parties", (), ("ended well",)),
]


def test_a_block_in_a_file_keeps_its_lines_whole() -> None:
    err = io.StringIO()
    Terminal(("alice", "bob", "carol"), io.StringIO(), err).block("3 of 7 parties failed", ROWS)
    assert err.getvalue().splitlines() == [
        "fed: 3 of 7 parties failed",
        f"  root cause  {ROWS[0].lines[0]}",
        "  alice       failed here (exit 1)",
        f"              log: {PATH}",
        "  bob, carol  followed (exit 1): told by alice",
        "  4 parties   ended well",
    ]


@pytest.mark.parametrize("variable", ["NO_COLOR", ""])
def test_a_block_on_a_terminal_is_wrapped_beside_its_labels(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    if variable:
        monkeypatch.setenv(variable, "1")
    tty = Tty()
    Terminal(("alice", "bob", "carol"), tty, tty).block("3 of 7 parties failed", ROWS)
    shown = tty.getvalue()
    assert ("\x1b[36malice\x1b[0m       failed" in shown) is (not variable)
    assert ("\x1b[35mbob\x1b[0m, \x1b[32mcarol\x1b[0m  followed" in shown) is (not variable)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()
    assert lines == [
        "fed: 3 of 7 parties failed",
        "  root cause  the worker of task #1 train at party 'alice' died: it crashed, was",
        "              killed, or ran out of memory",
        "  alice       failed here (exit 1)",
        "              log:",
        # Longer than the line, and whole all the same.
        f"              {PATH}",
        "  bob, carol  followed (exit 1): told by alice",
        "  4 parties   ended well",
    ]


def test_a_narrow_terminal_leaves_room_for_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    tty = Tty()
    Terminal(("alice",), tty, tty).block("failed", [Row("alice", (), ("three words more",))])
    assert tty.getvalue().splitlines()[1] == "  alice  three words more"
