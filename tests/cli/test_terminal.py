"""One terminal for all parties: prefixes, colours, and the line for who is waited for."""

from __future__ import annotations

import io

import pytest

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
