"""Text of unknown origin: how much of it is kept, and how it is shown.

What a peer or a user's exception says is shown on terminals and written to logs. There a control character moves the
cursor or forges a line, and one that has no width, or that turns the direction of writing, hides what is read. So text
is made plain once, where it comes in: whatever is neither printable nor wanted is replaced by the escape that
Python's `repr` would show.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["counted", "cut", "cut_head", "in_one_line", "indented", "is_plain", "plain"]

_MAX_CACHED: Final = 4096

# Letters and marks for Unicode, and so for `str.isprintable`, but drawn as nothing: its Default_Ignorable_Code_Points,
# and the empty pattern of Braille.
_INVISIBLE: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff]"
)


def is_plain(text: str) -> bool:
    """Whether text shows what it is: every character is printable, and none is drawn as nothing."""
    return text.isprintable() and (text.isascii() or _INVISIBLE.search(text) is None)


def plain(text: str, *, lines: bool = False) -> str:
    """The text with escapes in place of what would control a terminal, or not be seen. Doing it twice changes nothing.

    Args:
        text: Any text.
        lines: Whether it may have several lines; if so, ends of lines and tabs stay.
    """
    if is_plain(text):
        return text
    return text.translate(_WITH_LINES if lines else _IN_ONE_LINE)


class _Escapes(dict[int, str]):
    """For `str.translate`: what each character becomes. Looked up once for each, as far as there are not too many."""

    def __init__(self, keep: str) -> None:
        super().__init__((ord(character), character) for character in keep)

    def __missing__(self, code: int) -> str:
        character = chr(code)
        shown = character if is_plain(character) else character.encode("unicode_escape").decode("ascii")
        if len(self) < _MAX_CACHED:
            self[code] = shown
        return shown


_IN_ONE_LINE: Final = _Escapes("")
_WITH_LINES: Final = _Escapes("\n\t")


def indented(text: str) -> str:
    """Text of several lines in which no line but the first can be taken for one of somebody else's."""
    return text.replace("\n", "\n    ")


def counted(count: int, noun: str) -> str:
    """How many of something, as text: ``1 task``, ``2 tasks``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def in_one_line(text: str, max_chars: int = 500) -> str:
    """Text of several lines in one; of a long one as many whole sentences as there is room for."""
    line = " ".join(text.split())
    if len(line) <= max_chars:
        return line
    whole, end, _ = line[:max_chars].rpartition(". ")
    return f"{whole}." if end else f"{line[: max_chars - 1]}…"


def cut(text: str, max_bytes: int) -> tuple[str, bool]:
    """As much of a text as fits, in valid UTF-8, and whether it had to be cut. Lone surrogates are replaced. Total."""
    raw = text.encode("utf-8", "replace")
    if len(raw) <= max_bytes:
        return raw.decode("utf-8"), False
    return raw[:max_bytes].decode("utf-8", "ignore"), True


def cut_head(text: str, max_bytes: int) -> tuple[str, bool]:
    """As `cut`, but keeps the end: the last lines of a traceback say the most."""
    raw = text.encode("utf-8", "replace")
    if len(raw) <= max_bytes:
        return raw.decode("utf-8"), False
    return raw[-max_bytes:].decode("utf-8", "ignore"), True
