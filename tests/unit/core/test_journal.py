from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fed.core import journal as module
from fed.core.journal import Difference, Journal


def journal(*texts: str) -> Journal:
    one = Journal(["bob", "carol"])
    for text in texts:
        assert one.note(text) == []
        one.validate()
    return one


def test_the_digest_of_a_call_depends_on_every_call_before_it() -> None:
    digests = {journal(*texts).digest for texts in (["a"], ["a", "b"], ["b", "a"], ["ab"], ["b"], [])}
    assert len(digests) == 6
    assert journal("a", "b").digest == journal("a", "b").digest


def test_equal_programs_agree_and_what_all_agree_on_is_forgotten() -> None:
    one, other = journal("a", "b", "c"), journal("a", "b")
    assert not one.heard("bob", 2, other.digest)
    assert one.segment("bob") == (2, ("c",))
    assert one.segment("carol") == (0, ("a", "b", "c"))
    assert not one.heard("carol", 2, other.digest)
    one.validate()
    assert one.segment("carol") == (2, ("c",))
    assert one.calls == 3


def test_a_different_call_is_found_when_it_is_heard_of() -> None:
    one, other = journal("a", "b", "c"), journal("a", "x")
    assert one.heard("bob", 2, other.digest)
    assert one.compare(*other.segment("bob")) == Difference(1, "b", "x")


def test_a_different_call_is_found_when_this_party_comes_as_far() -> None:
    one, other = journal("a"), journal("a", "x", "y")
    assert not one.heard("bob", 3, other.digest)
    assert one.note("b") == []
    assert one.note("y") == ["bob"]
    one.validate()


def test_nothing_is_found_where_a_peer_is_only_ahead() -> None:
    one, other = journal("a"), journal("a", "b", "c")
    assert not one.heard("bob", 3, other.digest)
    assert [one.note("b"), one.note("c")] == [[], []]
    assert one.segment("bob") == (3, ())


def test_old_news_changes_nothing() -> None:
    one, other = journal("a", "b"), journal("a")
    assert not one.heard("bob", 1, other.digest)
    assert not one.heard("bob", 1, 4711)
    assert not one.heard("bob", 0, 4711)
    one.validate()


def test_who_has_left_is_waited_for_no_longer() -> None:
    one = journal("a", "b")
    assert not one.heard("bob", 2, one.digest)
    one.forget("carol")
    one.validate()
    assert one.segment("bob") == (2, ())
    assert not one.heard("carol", 1, 4711)


def test_a_text_that_is_long_is_shortened_and_still_compared_whole() -> None:
    one, other = journal("x" * 10_000 + "a"), journal("x" * 10_000 + "b")
    _, (text,) = one.segment("bob")
    assert len(text.encode()) <= module.MAX_TEXT_BYTES
    assert one.compare(*other.segment("bob")) is not None


def test_calls_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DEPTH", 10)
    one, other = Journal(["bob"]), Journal(["alice"])
    for number in range(25):
        one.note(f"call {number}")
        other.note(f"call {number}" if number != 3 else "something else")
        one.validate()
    assert one.calls == 25
    # What is forgotten is not held against anybody, and a later digest shows the early difference.
    assert not one.heard("bob", 5, 4711)
    assert one.heard("bob", 25, other.digest)
    assert one.compare(*other.segment("alice")) is None


@given(st.lists(st.sampled_from("ab")), st.lists(st.sampled_from("ab")), st.randoms())
def test_a_difference_is_found_if_and_only_if_there_is_one(mine: list[str], theirs: list[str], chance) -> None:  # type: ignore[no-untyped-def]
    one, other = Journal(["bob"]), Journal(["alice"])
    common = min(len(mine), len(theirs))
    found = False
    ours, others = list(mine), list(theirs)
    while ours or others:
        if ours and (not others or chance.random() < 0.5):
            found = bool(one.note(ours.pop(0))) or found
        else:
            other.note(others.pop(0))
        if chance.random() < 0.5:
            found = one.heard("bob", other.calls, other.digest) or found
        one.validate()
    found = one.heard("bob", other.calls, other.digest) or found
    differs = mine[:common] != theirs[:common]
    # A peer that is ahead is compared when this party gets there.
    if len(theirs) <= len(mine) or found:
        assert found == differs
    if found:
        first = next(place for place in range(common) if mine[place] != theirs[place])
        assert one.compare(*other.segment("alice")) == Difference(first, mine[first], theirs[first])
