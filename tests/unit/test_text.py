"""Text of unknown origin is made plain: nothing in it moves the cursor, forges a line or hides."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fed.text import cut, cut_head, in_one_line, indented, is_plain, plain

anything = st.text(st.characters())


@given(anything, st.booleans())
def test_what_is_plain_has_no_character_that_controls_or_hides(text: str, lines: bool) -> None:
    shown = plain(text, lines=lines)
    for character in shown:
        assert unicodedata.category(character)[0] not in "CZ" or character == " " or (lines and character in "\n\t")
    assert plain(shown, lines=lines) == shown
    assert is_plain(plain(text))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("\x9b2J\x85", "\\x9b2J\\x85"),
        ("a\r\nfed: every party has joined", "a\\r\\nfed: every party has joined"),
        ("user\u202egnp.exe", "user\\u202egnp.exe"),
        ("zero\u200bwidth\ufeff\u2060\u00ad", "zero\\u200bwidth\\ufeff\\u2060\\xad"),
        ("a\u2028b\u2029c", "a\\u2028b\\u2029c"),
        ("\u3164\u115f\u034f\ufe0f", "\\u3164\\u115f\\u034f\\ufe0f"),
        ("tag \U000e0041", "tag \\U000e0041"),
        ("\udc80", "\\udc80"),
        ("café, 数据, déjà vu", "café, 数据, déjà vu"),
    ],
)
def test_escapes_show_what_was_there(text: str, shown: str) -> None:
    assert plain(text) == shown


def test_ends_of_lines_stay_where_there_may_be_several() -> None:
    assert plain("one\n\ttwo\r\x0b", lines=True) == "one\n\ttwo\\r\\x0b"
    assert indented("one\ntwo\n") == "one\n    two\n    "


@given(anything, st.integers(4, 40))
def test_a_cut_text_fits_and_is_valid(text: str, most: int) -> None:
    for cutting in (cut, cut_head):
        kept, shorter = cutting(text, most)
        assert len(kept.encode()) <= most
        assert shorter or kept == text.encode("utf-8", "replace").decode()


RAYS = """Invalid Ray address: 'http://h:8265'. To fix this, either:
  1. Unset RAY_ADDRESS if you are running from a Ray node, or
  2. Set RAY_ADDRESS to the GCS address instead (e.g. <head_node_ip>:6379)."""


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", ""),
        ("\n\nlate\n", "late"),
        (
            RAYS,
            "Invalid Ray address: 'http://h:8265'. To fix this, either: 1. Unset RAY_ADDRESS if you are running from a "
            "Ray node, or 2. Set RAY_ADDRESS to the GCS address instead (e.g. <head_node_ip>:6379).",
        ),
        ("It failed. " + "why " * 200, "It failed."),
        ("x" * 501, "x" * 499 + "…"),
    ],
)
def test_text_of_several_lines_becomes_one_of_whole_sentences(text: str, line: str) -> None:
    assert in_one_line(text) == line
