"""One terminal for all parties: each line under its party's name and colour, and a line for who is waited for.

Thread safety: every method may be called from any thread; a lock keeps lines whole.
"""

from __future__ import annotations

import textwrap
import threading
from collections.abc import Sequence
from typing import IO, Final, TextIO

from rich.console import Console
from rich.status import Status
from rich.text import Text

from fed.cli.summary import ROOT, Row

__all__ = ["Terminal"]

MIN_TEXT_CHARS: Final = 30

# Red is left to errors, white and black to the two kinds of background.
COLOURS: Final = ("cyan", "magenta", "green", "yellow", "blue", "bright_cyan", "bright_magenta", "bright_green")


class Terminal:
    """Where a simulation's output goes.

    What a party writes to its standard output goes to `out`, everything else to `err`. Colours are used where the
    stream is a terminal and ``NO_COLOR`` is not set; a party's own colours pass as they are.

    Args:
        parties: Their names, in the order in which colours are given out.
        out: For the parties' output.
        err: For their errors and for our own messages.
    """

    def __init__(self, parties: Sequence[str], out: TextIO, err: TextIO) -> None:
        self._lock = threading.Lock()
        self._err = _console(err)
        # On one terminal there must be one writer, or a line would land in the middle of the spinner's.
        self._out = self._err if out.isatty() and err.isatty() else _console(out)
        width = max(len(party) for party in parties)
        colours = {party: COLOURS[number % len(COLOURS)] for number, party in enumerate(parties)}
        self._colours = colours
        self._prefixes = {
            console: {party: _styled(console, Text(f"{party:<{width}} | ", style=colours[party])) for party in parties}
            for console in (self._out, self._err)
        }
        self._own_prefix = _styled(self._err, Text("fed: ", style="bold"))
        # Colours can be forced on a pipe; a spinner has no place there.
        self._can_spin = err.isatty() and not self._err.is_dumb_terminal
        self._status: Status | None = None
        self._unread = False

    def line(self, party: str, text: str, *, error: bool = False) -> None:
        """Show a line of a party, given without its end. With `error` it came from the standard error.

        Raises:
            OSError: Nobody reads our output any more.
        """
        console = self._err if error else self._out
        with self._lock:
            self._write(console, self._prefixes[console][party] + text)

    def say(self, text: str) -> None:
        """Show a message of our own."""
        with self._lock:
            self._write_own([self._own_prefix + text])

    def block(self, title: str, rows: Sequence[Row]) -> None:
        """Show rows below a title: their labels in a column, and the text beside them.

        On a terminal the text is wrapped beside its label. In a file each line stays whole, for those who search it.
        """
        if self._unread:
            # Rich would end the process.
            return
        indent = 2 + max(len(row.label) for row in rows) + 2
        width = max(self._err.width - indent, MIN_TEXT_CHARS) if self._err.is_terminal else None
        lines = [self._own_prefix + title]
        for row in rows:
            label = "  " + _styled(self._err, self._label(row))
            before = label + " " * (indent - 2 - len(row.label))
            for line in row.lines:
                # A path or a name that is broken in two can be neither copied nor found.
                parts = textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False) if width else [line]
                for part in parts:
                    lines.append(before + part)
                    before = " " * indent
        with self._lock:
            self._write_own(lines)

    def _label(self, row: Row) -> Text:
        if row.label == ROOT:
            return Text(row.label, style="bold red")
        if not row.parties:
            return Text(row.label)
        return Text(", ").join(Text(party, style=self._colours.get(party, "")) for party in row.parties)

    def wait(self, text: str) -> None:
        """Show what is being waited for: a spinner on a terminal, a line elsewhere. It replaces the one before."""
        with self._lock:
            if not self._can_spin:
                self._write_own([self._own_prefix + text])
            elif self._status is None:
                self._status = self._err.status(text)
                self._status.start()
            else:
                self._status.update(text)

    def stop_waiting(self) -> None:
        """Take the spinner away. Does nothing if there is none."""
        with self._lock:
            if self._status is not None:
                self._status.stop()
                self._status = None

    def _write_own(self, lines: Sequence[str]) -> None:
        try:
            for line in lines:
                self._write(self._err, line)
        except OSError:
            # Nobody reads it; what has to be done is done all the same.
            self._unread = True

    def _write(self, console: Console, line: str) -> None:
        if self._status is not None and console is self._err:
            console.print(Text.from_ansi(line), soft_wrap=True)
        else:
            # Past Rich, which would expand tabs and take a millisecond for what the party has formatted already.
            console.file.write(_encodable(line, console.file) + "\n")
        console.file.flush()


def _console(file: TextIO) -> Console:
    return Console(file=file, highlight=False, markup=False, emoji=False)


def _styled(console: Console, text: Text) -> str:
    with console.capture() as captured:
        console.print(text, end="", soft_wrap=True)
    return captured.get()


def _encodable(text: str, file: IO[str]) -> str:
    encoding = getattr(file, "encoding", None) or "utf-8"
    return text.encode(encoding, errors="replace").decode(encoding)
