"""Streams to lines: nothing is lost, and progress bars do not flood."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fed.cli.line_reader import MAX_LINE_CHARS, UPDATE_INTERVAL_S, LineReader


def whole(data: bytes, size: int = 1 << 20) -> list[str]:
    reader = LineReader()
    lines = [line for start in range(0, len(data), size) for line in reader.feed(data[start : start + size], 0.0)]
    return lines + reader.end()


def test_lines_come_as_soon_as_they_are_complete() -> None:
    reader = LineReader()
    assert reader.feed(b"one\ntw", 0.0) == ["one"]
    assert reader.feed(b"o\n\nthree", 0.0) == ["two", ""]
    assert reader.end() == ["three"]
    assert reader.end() == []


@given(st.text(st.characters(exclude_characters="\r\x1b", exclude_categories=["Cs"])), st.integers(1, 7))
def test_nothing_is_lost_however_the_bytes_are_cut(text: str, size: int) -> None:
    *lines, rest = text.split("\n")
    assert whole(text.encode(), size) == lines + ([rest] if rest else [])


@given(st.binary(), st.integers(1, 5))
def test_any_bytes_are_fine(data: bytes, size: int) -> None:
    assert all("\n" not in line and "\r" not in line for line in whole(data, size))


def test_broken_characters_are_replaced() -> None:
    assert whole(b"a\xffb\n\xe2\x82") == ["a\ufffdb", "\ufffd"]


@pytest.mark.parametrize("size", [1, 2, 1000])
def test_windows_line_ends_are_line_ends(size: int) -> None:
    assert whole(b"one\r\n\r\ntwo\r\n", size)[-1:] == ["two"]
    assert whole(b"one\r\n\r\ntwo\r\n") == ["one", "", "two"]


def test_of_a_progress_bar_the_first_the_newest_at_times_and_the_last_state_are_shown() -> None:
    reader = LineReader()
    assert reader.feed(b"\r 0%", 100.0) == [" 0%"]
    assert reader.feed(b"\r10%\r20%", 101.0) == []
    assert reader.feed(b"\r30%", 99.9 + UPDATE_INTERVAL_S) == []
    assert reader.feed(b"\r40%", 100.0 + UPDATE_INTERVAL_S) == ["40%"]
    assert reader.feed(b"\r50%\r100%", 101.0 + UPDATE_INTERVAL_S) == []
    assert reader.feed(b"\ndone\n", 101.0 + UPDATE_INTERVAL_S) == ["100%", "done"]


def test_updates_that_end_in_a_carriage_return_are_treated_alike() -> None:
    reader = LineReader()
    assert reader.feed(b"10%\r", 0.0) == ["10%"]
    assert reader.feed(b"20%\r30%\r", 1.0) == []
    assert reader.end() == ["30%"]


def test_a_state_that_was_shown_is_not_shown_again() -> None:
    reader = LineReader()
    assert reader.feed(b"\r100%", 0.0) == ["100%"]
    assert reader.feed(b"", 100.0) == []
    assert reader.feed(b"\n\n", 100.0) == [""]


def test_a_bar_of_any_length_costs_no_memory() -> None:
    reader = LineReader()
    for percent in range(1000):
        reader.feed(b"\r%d" % percent + b"#" * 1000, 0.0)
    assert len(reader._pending) < 2000


def test_a_line_without_end_is_cut() -> None:
    assert whole(b"x" * (2 * MAX_LINE_CHARS + 1)) == ["x" * MAX_LINE_CHARS] * 2 + ["x"]


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m"),
        (b"\x1b[31mred", "\x1b[31mred\x1b[0m"),
        (b"\x1b[2K\x1b[1Aup", "up"),
        (b"\x1b]0;title\x07text", "text"),
        (b"\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        (b"\x1b[?25lhidden\x1b[?25h", "hidden"),
        (b"\x1bcreset", "reset"),
    ],
)
def test_colours_pass_and_the_cursor_stays(data: bytes, line: str) -> None:
    assert whole(data + b"\n") == [line]
