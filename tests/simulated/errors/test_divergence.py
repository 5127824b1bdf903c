"""E43: parties that run different programs are told the first call that differs, and nobody hangs [ERRORS]."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable
from typing import Any

import pytest

import fed
from fed.core.coordination import Coordinator
from fed.core.journal import SEGMENT
from fed.core.notice import Notice, NoticeKind
from tests.support.failing import FIVE, Cell, identity, pass_through, play, run
from tests.support.wiretap import Wiretap

# A difference that no data would ever show is told within 0.8 s, and the agreement on it may take 1 s.
PROMPT_S = 6
"""On a clock that skips waiting, and begins at 1."""


@fed.remote
def other(value: Any) -> Any:
    return value


def one_extra_call(odd: bool) -> Any:
    one = identity.party("alice").remote(1)
    if odd:
        identity.party("bob").remote(2)
    return fed.get(identity.party("bob").remote(one))


def another_function(odd: bool) -> Any:
    one = (other if odd else identity).party("alice").remote(1)
    return fed.get(identity.party("bob").remote(one))


def another_party(odd: bool) -> Any:
    one = identity.party("bob" if odd else "alice").remote(1)
    return fed.get(identity.party("alice").remote(one))


def a_nested_argument(odd: bool) -> Any:
    one = identity.party("alice").remote(1)
    return fed.get(identity.party("bob").remote([one] if odd else one))


def a_keyword(odd: bool) -> Any:
    return fed.get(identity.party("bob").remote(value=1) if odd else identity.party("bob").remote(1))


def another_number_of_results(odd: bool) -> Any:
    identity.options(num_returns=2 if odd else 1).party("alice").remote([1, 2])
    return fed.get(identity.party("bob").remote(1))


def another_loop_count(odd: bool) -> Any:
    value = identity.party("alice").remote(0)
    for _ in range(4 if odd else 3):
        value = identity.party("bob").remote(identity.party("alice").remote(value))
    return fed.get(value)


def a_local_branch(odd: bool) -> Any:
    # As on a local random number: it is decided in each party for itself.
    value = identity.party("alice").remote(3)
    if odd:
        value = identity.party("bob").remote(value)
        return fed.get(identity.party("alice").remote(value))
    return fed.get(identity.party("bob").remote([value]))


def another_actor(odd: bool) -> Any:
    one, two = Cell.party("bob").remote(10), Cell.party("bob").remote(20)
    return fed.get((one if odd else two).add.remote(1))


def another_method_call(odd: bool) -> Any:
    cell = Cell.party("bob").remote(10)
    if odd:
        cell.add.remote(1)
    return fed.get(cell.add.remote(2))


def another_object(odd: bool) -> Any:
    one, two = identity.party("alice").remote(1), identity.party("alice").remote(2)
    return fed.get(one if odd else two)


def another_order(odd: bool) -> Any:
    one, two = identity.party("alice").remote(1), identity.party("bob").remote(2)
    return fed.get([one, two] if odd else [two, one])


def a_kill(odd: bool) -> Any:
    cell = Cell.party("bob").remote(10)
    value = fed.get(cell.add.remote(1))
    if odd:
        fed.kill(cell)
    return fed.get(identity.party("alice").remote(value))


def a_reset(odd: bool) -> Any:
    one = identity.party("alice").remote(1)
    fed.get(one)
    if odd:
        fed.reset()
    return fed.get(identity.party("bob").remote(2))


def one_call_at_the_very_end(odd: bool) -> Any:
    value = fed.get(identity.party("bob").remote(1))
    if odd:
        identity.party("alice").remote(value)
    return value


def one_get_at_the_very_end(odd: bool) -> Any:
    one = identity.party("bob").remote(1)
    value = fed.get(one)
    if odd:
        fed.get(one)
    return value


def a_kill_at_the_very_end(odd: bool) -> Any:
    cell = Cell.party("bob").remote(10)
    value = fed.get(cell.add.remote(1))
    if odd:
        fed.kill(cell)
    return value


def one_call_and_nothing_else(odd: bool) -> Any:
    if odd:
        identity.party("alice").remote(1)


# What differs, the number of the first call that does, and what is called there by the odd party and by the others.
PROGRAMS: list[tuple[Callable[[bool], Any], int, str, str]] = [
    (one_extra_call, 1, "identity.party('bob').remote(_)", "identity.party('bob').remote(#0)"),
    (another_function, 0, "other.party('alice').remote(_)", "identity.party('alice').remote(_)"),
    (another_party, 0, "identity.party('bob').remote(_)", "identity.party('alice').remote(_)"),
    (a_nested_argument, 1, "identity.party('bob').remote([...] with #0 inside)", "identity.party('bob').remote(#0)"),
    (a_keyword, 0, "identity.party('bob').remote(value=_)", "identity.party('bob').remote(_)"),
    (another_number_of_results, 0, "identity.party('alice').remote(_) -> 2", "identity.party('alice').remote(_)"),
    (another_loop_count, 7, "identity.party('alice').remote(#6)", "fed.get(#6)"),
    (a_local_branch, 1, "identity.party('bob').remote(#0)", "identity.party('bob').remote([...] with #0 inside)"),
    (another_actor, 2, "Cell.add.party('bob').remote(_) of actor 0#0", "Cell.add.party('bob').remote(_) of actor 0#1"),
    (another_method_call, 2, "Cell.add.party('bob').remote(_) of actor 0#0", "fed.get(#1)"),
    (another_object, 2, "fed.get(#0)", "fed.get(#1)"),
    (another_order, 2, "fed.get(#0, #1)", "fed.get(#1, #0)"),
    (a_kill, 3, "fed.kill(actor 0#0)", "identity.party('alice').remote(_)"),
    (a_reset, 2, "fed.reset()", "identity.party('bob').remote(_)"),
    (one_call_at_the_very_end, 2, "identity.party('alice').remote(_)", "fed.shutdown()"),
    (one_get_at_the_very_end, 2, "fed.get(#0)", "fed.shutdown()"),
    (a_kill_at_the_very_end, 3, "fed.kill(actor 0#0)", "fed.shutdown()"),
    (one_call_and_nothing_else, 0, "identity.party('alice').remote(_)", "fed.shutdown()"),
]  # fmt: skip


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize(("program", "call", "odd_one", "others"), PROGRAMS, ids=[one[0].__name__ for one in PROGRAMS])
def test_e43_programs_that_differ_are_told_where_in_every_party(
    program: Callable[[bool], Any], call: int, odd_one: str, others: str, count: int
) -> None:
    parties = FIVE[:count]
    for odd in (parties[0], parties[-1]):
        played = play(lambda odd=odd: program(fed.party() == odd), parties=parties, skip_waiting=True)  # type: ignore[misc]
        assert {job.shell.clock.monotonic() < PROMPT_S for job in played.jobs.values()} == {True}
        assert set(played.errors) == set(parties)
        assert len({str(error) for error in played.errors.values()}) == 1
        for error in played.errors.values():
            assert type(error) is fed.DivergenceError
            assert f" found that call #{call} differs: " in str(error)
            assert f"party {odd!r} called `{odd_one}" in str(error)
            assert re.search(f"party '(?!{odd}')[a-z]+' called `{re.escape(others)}`[,:]", str(error))


@pytest.mark.parametrize("program", [one[0] for one in PROGRAMS], ids=[one[0].__name__ for one in PROGRAMS])
@pytest.mark.parametrize("odd", [False, True])
def test_e43_programs_that_do_not_differ_are_left_alone(program: Callable[[bool], Any], odd: bool) -> None:
    outcome = run(lambda: program(odd), parties=FIVE[:3], skip_waiting=True)
    assert not outcome.errors
    assert len({repr(value) for value in outcome.results.values()}) == 1


@pytest.mark.parametrize("count", [2, 3])
def test_e43_no_party_ever_gets_the_value_of_another_object(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each makes as many calls, and each call makes an object that somebody waits for under the same number.

    Nobody says what he has called before the value is where it would be taken for another one's.
    """
    tap = Wiretap().attach(monkeypatch)

    async def hold(source: str, target: str, notice: Notice) -> None:
        if notice.kind in (NoticeKind.PROGRESS, NoticeKind.JOURNAL):
            await asyncio.to_thread(pass_through, tap.arrived["bob"])

    tap.before_tell = hold
    got: list[tuple[str, Any]] = []

    def program() -> None:
        function, value = (identity, "right") if fed.party() == "alice" else (other, "wrong")
        one = function.party("alice").remote(value)
        for _ in range(3):
            got.append((fed.party(), fed.get(one)))
            one = identity.party("bob").remote(one)

    errors = run(program, parties=FIVE[:count], skip_waiting=True).errors
    assert {type(error) for error in errors.values()} == {fed.DivergenceError}
    assert len(errors) == count
    # The owner may read its own value before it is told. Nobody else may have read anything.
    assert set(got) <= {("alice", "right")}


def test_e43_also_where_nobody_waits_for_anything() -> None:
    """A party that computes after its call is told before it makes the next one."""
    told = threading.Event()

    def program() -> None:
        identity.party("alice" if fed.party() == "carol" else "bob").remote(1)
        pass_through(told)
        fed.get([])

    errors = play(program, parties=FIVE[:3], failure_handler=lambda report: told.set()).errors
    assert {type(error) for error in errors.values()} == {fed.DivergenceError}


def test_e43_a_difference_in_an_isolated_job_ends_it_too() -> None:
    errors = run(
        lambda: another_object(fed.party() == "bob"), parties=FIVE[:3], on_error="isolate", skip_waiting=True
    ).errors
    assert {type(error) for error in errors.values()} == {fed.DivergenceError}


def test_e43_a_difference_after_a_reset_is_named_by_its_number_in_that_epoch() -> None:
    def program() -> Any:
        fed.get(identity.party("alice").remote(1))
        fed.reset()
        return another_object(fed.party() == "bob")

    errors = run(program, parties=FIVE[:3], skip_waiting=True).errors
    assert {type(error) for error in errors.values()} == {fed.DivergenceError}
    assert all(" found that call #2 differs: " in str(error) for error in errors.values())


def test_e43_a_late_difference_between_programs_of_thousands_of_calls_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The calls that are told when a difference is found do not reach as far as the difference."""
    calls = 2 * SEGMENT + 100
    # Nobody tells how far he is before the end, so that nothing is agreed on meanwhile.
    monkeypatch.setattr(Coordinator, "progress", lambda self: [])

    def program() -> Any:
        for _ in range(calls):
            fed.get([])
        (other if fed.party() == "bob" else identity).party("alice").remote(1)
        return fed.get([])

    errors = run(program, parties=FIVE[:3], timeout_s=60, skip_waiting=True).errors
    assert set(errors) == set(FIVE[:3])
    for error in errors.values():
        assert type(error) is fed.DivergenceError
        assert f" found that call #{calls} differs: party " in str(error)
        assert "party 'bob' called `other.party('alice').remote(_)`" in str(error)
