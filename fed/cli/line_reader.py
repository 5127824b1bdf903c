"""Bytes of a pipe to lines of text that several programs can share one terminal with.

Laws:

1. Every byte is shown, except for carriage-return updates that a later update of the same line overwrote.
2. Of a line that is being updated (a progress bar), the newest state is shown at most every `UPDATE_INTERVAL_S`
   seconds, each time as a line of its own, and the last state always. A bar cannot be redrawn in place: the lines
   of the other parties have moved it away. So each party's bars are treated alike, as a log of their progress.
3. Sequences that move the cursor or erase are dropped, since they would hit other parties' lines; colours stay.
4. A line longer than `MAX_LINE_CHARS` is cut into several, so that memory is bounded.
"""

from __future__ import annotations

import codecs
import re
from typing import Final

__all__ = ["LineReader"]

UPDATE_INTERVAL_S: Final = 5.0
MAX_LINE_CHARS: Final = 64 * 1024

_COLOUR: Final = re.compile(r"\x1b\[[0-9;:]*m")
_ESCAPE: Final = re.compile(
    r"""\x1b(?:
        \[ [0-?]* [ -/]* [@-~]              # CSI: cursor, erase, colours, modes
      | [\]PX^_] [^\x07\x1b]* (?:\x07|\x1b\\)?  # strings: window title, links
      | [ -/]* [0-~]                        # everything shorter
    )""",
    re.VERBOSE,
)
_COLOUR_OFF: Final = "\x1b[0m"


class LineReader:
    """Splits one stream into lines, and thins out the updates of progress bars."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._pending = ""
        self._reported: str | None = None
        self._next_update = 0.0

    def feed(self, data: bytes, now: float) -> list[str]:
        """Take what arrived.

        Args:
            data: The bytes; they may end anywhere, within a character too.
            now: Monotonic time in seconds.

        Returns:
            The lines to show now, without their ends.
        """
        *complete, self._pending = (self._pending + self._decoder.decode(data)).split("\n")
        lines = [line for text in complete for line in self._finished(text)]
        if "\r" in self._pending:
            lines += self._updated(now)
        while len(self._pending) > MAX_LINE_CHARS:
            lines.append(_shown(self._pending[:MAX_LINE_CHARS]))
            self._pending = self._pending[MAX_LINE_CHARS:]
        return lines

    def end(self) -> list[str]:
        """The stream has ended.

        Returns:
            The last line, if it had no end.
        """
        rest, self._pending = self._pending + self._decoder.decode(b"", final=True), ""
        return self._finished(rest) if rest else []

    def _finished(self, text: str) -> list[str]:
        reported, self._reported = self._reported, None
        line = _shown(text)
        return [] if line == reported else [line]

    def _updated(self, now: float) -> list[str]:
        state, _, rest = self._pending.rpartition("\r")
        state = rest or state.rpartition("\r")[2]
        # What was overwritten is forgotten; the mark stays, to tell that this line is one that is being updated.
        self._pending = f"\r{rest}" if rest else f"\r{state}\r"
        if now < self._next_update or not state or _shown(state) == self._reported:
            return []
        self._reported = _shown(state)
        self._next_update = now + UPDATE_INTERVAL_S
        return [self._reported]


def _shown(line: str) -> str:
    """What a terminal would show of it in the end, but for the place."""
    newest = line.rstrip("\r").rpartition("\r")[2]
    if "\x1b" not in newest:
        return newest
    plain = _ESCAPE.sub(lambda match: match[0] if _COLOUR.fullmatch(match[0]) else "", newest)
    # A colour that the line leaves on would tint whatever another party prints next.
    return plain + _COLOUR_OFF if "\x1b[" in plain and not plain.endswith(_COLOUR_OFF) else plain
