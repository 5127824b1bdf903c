"""Random interleavings of whole federations: whatever happens in whatever order, the parties agree and nobody waits."""

from __future__ import annotations

import collections
import dataclasses
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fed.core.coordination import EXIT, LEAVE, MAX_EARLY, MAX_EARLY_OBJECTS, OTHERS_EVERY, STANDS_STILL, Coordinator
from fed.core.failure import Exposure, Failure, Fault, Kind
from fed.core.instructions import SendControl, Settled
from fed.core.lifecycle import State
from fed.core.notice import Notice, NoticeKind
from fed.object import ObjectId
from tests.support.cores import NAMES, Federation


def quiet(count: int = 3, *, isolate: bool = False) -> Federation:
    return Federation(count, isolate=isolate, objects=0, random=random.Random(0))


def run_dry(federation: Federation) -> None:
    while moving := [action for action in federation.enabled() if " -> " in action[0]]:
        federation.step(moving[0])


def failure(federation: Federation, name: str, sequence: int) -> Failure:
    return federation.parties[name].core.new_failure(Fault(Kind.TASK, "ValueError"), "task", sequence)


def test_e29_two_failures_at_once_have_one_root_and_both_are_kept() -> None:
    federation = quiet()
    late, early = failure(federation, "alice", 9), failure(federation, "bob", 4)
    federation.parties["alice"].learn(late)
    federation.parties["bob"].learn(early)
    run_dry(federation)
    for party in federation.parties.values():
        assert party.roots == {0: early}
        assert {one.error_id for one in party.core.book.all} == {late.error_id, early.error_id}


def test_the_root_is_not_settled_before_everyone_has_voted() -> None:
    federation = quiet()
    alice = federation.parties["alice"]
    alice.learn(failure(federation, "alice", 1))
    federation.carry("alice", "bob")
    federation.carry("bob", "alice")
    assert alice.roots == {}
    federation.carry("alice", "carol")
    federation.carry("carol", "alice")
    assert set(alice.roots) == {0}


@pytest.mark.parametrize("word", ["its own", "that of another one"])
def test_e40_a_party_that_has_ended_by_its_own_word_is_not_waited_for_whoever_has_heard_it(word: str) -> None:
    """Alice's proxies reach bob with it, and nobody else before they end."""
    names = ("alice", "bob", "carol")
    cores = {name: Coordinator(name, set(names) - {name}, "x") for name in names}
    for name, core in cores.items():
        for peer in set(names) - {name}:
            core.heard(peer, Notice(NoticeKind.READY, 0))
        core.life.joined()
    origin = cores["alice" if word == "its own" else "bob"]
    lost = dataclasses.replace(origin.new_failure(Fault(Kind.PARTY_LOST, "PartyLostError")), src_party="alice")
    if word == "its own":
        told = cores["bob"].heard("alice", Notice(NoticeKind.GOODBYE, 0, lost))
    else:
        told = cores["bob"].lost("alice", lost)
    (latched,) = [one.notice for one in told if isinstance(one, SendControl) and one.peer == "carol"]
    assert latched.failure is not None
    heard = dataclasses.replace(latched, failure=latched.failure.told_by("bob", names))
    found = cores["carol"].heard("bob", heard)
    # What bob has seen of her she may still deny to carol.
    assert any(isinstance(one, Settled) for one in found) == (word == "its own")


def test_a_root_that_was_settled_stays_whatever_comes_later() -> None:
    federation = quiet(2)
    first = failure(federation, "alice", 5)
    federation.parties["alice"].learn(first)
    run_dry(federation)
    federation.parties["bob"].learn(failure(federation, "bob", 1))
    run_dry(federation)
    assert {party.core.book.root for party in federation.parties.values()} == {first}


def test_e29_a_failure_that_was_isolated_is_known_and_never_the_root() -> None:
    federation = Federation(2, isolate=True, objects=0, random=random.Random(0))
    alice = federation.parties["alice"]
    alice.learn(failure(federation, "alice", 0))
    run_dry(federation)
    assert (alice.latched, len(alice.core.book.all)) == (set(), 1)
    driver = alice.core.new_failure(Fault(Kind.DRIVER, "OSError"))
    alice.learn(driver)
    run_dry(federation)
    assert federation.parties["bob"].core.book.root == driver


def test_e23_every_party_begins_the_next_epoch_when_all_have_asked() -> None:
    federation = quiet()
    federation.parties["bob"].learn(failure(federation, "bob", 0))
    run_dry(federation)
    for name in ("alice", "bob"):
        federation.reset(federation.parties[name])
    run_dry(federation)
    assert [party.core.epoch for party in federation.parties.values()] == [0, 0, 0]
    federation.reset(federation.parties["carol"])
    run_dry(federation)
    for party in federation.parties.values():
        assert (party.core.epoch, party.core.life.state, party.core.book.all) == (1, State.RUNNING, ())


def test_e23_e29_whoever_asked_before_it_heard_of_a_failure_asks_again_and_all_know_all_votes() -> None:
    federation = quiet()
    alice, bob, carol = federation.parties.values()
    federation.reset(carol)
    bob.learn(failure(federation, "bob", 7))
    alice.learn(failure(federation, "alice", 3))
    for party in (alice, bob):
        federation.carry(party.name, "carol")
        federation.reset(party)
    # All that carol has said before its vote.
    federation.carry("carol", "alice")
    federation.carry("carol", "bob")
    federation.carry("alice", "bob")
    federation.carry("alice", "bob")
    federation.carry("bob", "alice")
    federation.carry("bob", "alice")
    assert [party.core.epoch for party in (alice, bob, carol)] == [0, 0, 0]
    run_dry(federation)
    assert carol.core.life.latched
    federation.reset(carol)
    run_dry(federation)
    for party in (alice, bob, carol):
        assert (party.core.epoch, party.roots[0].sequence, party.handled) == (1, 3, {0: 1})


def test_e23_what_fails_of_a_party_that_has_asked_for_the_next_epoch_ends_nothing() -> None:
    federation = quiet(2)
    alice, bob = federation.parties.values()
    federation.reset(alice)
    late = failure(federation, "alice", 0)
    alice.learn(late)
    assert (alice.core.life.latched, alice.core.book.all) == (False, (late,))
    federation.reset(bob)
    run_dry(federation)
    for party in (alice, bob):
        assert (party.core.epoch, party.handled, party.core.book.all) == (1, {}, ())


def test_e23_an_ask_that_was_given_up_is_the_same_call_when_it_is_made_again() -> None:
    federation = quiet(2)
    alice, bob = federation.parties.values()
    federation.reset(alice)
    alice.core.not_reset()
    federation.reset(alice)
    federation.reset(bob)
    run_dry(federation)
    assert [(party.core.epoch, party.core.life.latched) for party in (alice, bob)] == [(1, False), (1, False)]


def test_e23_a_frame_of_the_old_epoch_is_dropped_and_counted() -> None:
    federation = quiet(2)
    alice, bob = federation.parties.values()
    for party in (alice, bob):
        federation.reset(party)
    late = failure(federation, "bob", 0)
    run_dry(federation)
    alice.hear("bob", Notice(NoticeKind.LATCHED, 0, late))
    assert (alice.core.life.latched, alice.core.book.all, alice.core.stale_notices) == (False, (), 1)


def test_e23_a_failure_of_the_next_epoch_waits_for_it() -> None:
    federation = quiet(2)
    alice, bob = federation.parties.values()
    alice.hear("bob", Notice(NoticeKind.LATCHED, 1, failure(federation, "bob", 0)))
    assert not alice.core.life.latched
    for party in (alice, bob):
        federation.reset(party)
    run_dry(federation)
    assert (alice.core.epoch, alice.core.life.latched) == (1, True)


def test_e44_notices_for_a_later_epoch_are_kept_up_to_a_limit() -> None:
    alice = quiet(2).parties["alice"]
    failure = Failure("bob/x/1", Kind.TASK, "bob", "ValueError")
    for number in range(MAX_EARLY + 100):
        alice.hear("bob", Notice(NoticeKind.PROGRESS, 7, calls=number))
    # The last one says all.
    assert alice.core._early["bob"] == [Notice(NoticeKind.PROGRESS, 7, calls=MAX_EARLY + 99)]
    for _ in range(MAX_EARLY + 100):
        alice.hear("bob", Notice(NoticeKind.FAILURE, 7, failure, (ObjectId(7, 0, 0),)))
    assert len(alice.core._early["bob"]) == MAX_EARLY


def test_failures_of_the_next_epoch_that_are_not_kept_end_it_since_nobody_tells_them_again() -> None:
    federation = quiet(2, isolate=True)
    alice, bob = federation.parties["alice"], federation.parties["bob"]
    told = Failure("bob/x/1", Kind.TASK, "bob", "ValueError")
    for number in range(MAX_EARLY + 1):
        alice.hear("bob", Notice(NoticeKind.FAILURE, 1, told, (ObjectId(1, number, 0),)))
    assert not alice.core.life.latched
    for party in (alice, bob):
        federation.reset(party)
    run_dry(federation)
    root = alice.core.book.settle()
    assert (alice.core.epoch, root.kind) == (1, Kind.DIVERGED)
    assert root.detail == f"party 'bob' told of more failures of the next epoch than are kept for it ({MAX_EARLY})"


def test_e44_a_peer_that_says_too_much_of_a_later_epoch_does_not_keep_another_from_being_heard() -> None:
    core = Coordinator("alice", ["bob", "carol"], "x")
    failure = Failure("bob/x/1", Kind.TASK, "bob", "ValueError")
    for _ in range(MAX_EARLY + 1):
        core.heard("bob", Notice(NoticeKind.LATCHED, 1, failure))
    reset = Notice(NoticeKind.RESET, 1)
    core.heard("carol", reset)
    assert core._early["carol"] == [reset]


def test_e44_what_notices_for_a_later_epoch_name_is_kept_up_to_a_limit() -> None:
    alice = quiet(2).parties["alice"]
    failure = Failure("bob/x/1", Kind.TASK, "bob", "ValueError")
    objects = tuple(ObjectId(7, number, 0) for number in range(1000))
    for _ in range(100):
        alice.hear("bob", Notice(NoticeKind.JOURNAL, 7, texts=("f",)))
        alice.hear("bob", Notice(NoticeKind.FAILURE, 7, failure, objects))
    kept = alice.core._early["bob"]
    assert {notice.kind for notice in kept} == {NoticeKind.FAILURE}
    assert sum(len(notice.objects) for notice in kept) == MAX_EARLY_OBJECTS // 1000 * 1000


def test_a_driver_that_is_started_anew_before_the_job_begins_is_awaited_again_and_told_again() -> None:
    core = Coordinator("alice", ["bob", "carol"], "x")
    assert core.started_anew("bob") == []
    core.heard("bob", Notice(NoticeKind.READY, 0))
    core.ready()
    assert list(core.life.awaited) == ["carol"]
    assert core.started_anew("bob") == [SendControl("bob", Notice(NoticeKind.READY, 0))]
    assert list(core.life.awaited) == ["bob", "carol"]
    for peer in ("bob", "carol"):
        core.heard(peer, Notice(NoticeKind.READY, 0))
    core.life.joined()
    core.started_anew("bob")
    assert not core.life.awaited


@pytest.mark.parametrize(
    ("alice", "bob", "call", "kind"),
    [
        (["f", "g"], ["f", "h"], 1, Kind.DIVERGED),
        (["f", "g", "x"], ["g", "f", "x"], 0, Kind.DIVERGED),
        (["f", "g", LEAVE], ["f", LEAVE], 1, Kind.DIVERGED),
        (["f", "g", LEAVE], ["f", EXIT], 1, Kind.PARTY_LEFT),
    ],
)
def test_e43_the_first_call_that_differs_is_named_by_everyone(
    alice: list[str], bob: list[str], call: int, kind: Kind
) -> None:
    federation = quiet()
    for name, texts in (("alice", alice), ("bob", bob)):
        party = federation.parties[name]
        for text in texts:
            if text in (LEAVE, EXIT):
                party.carry_out(party.core.close(text)[1])
                party.carry_out(party.core.goodbye())
            else:
                party.call(text)
        party.carry_out(party.core.progress())
    run_dry(federation)
    for party in federation.parties.values():
        root = party.core.book.root
        assert root is not None
        assert (root.kind, root.sequence) == (kind, call)
        assert kind is not Kind.PARTY_LEFT or root.src_party == "bob"
        assert (
            root.detail
            == f"call #{call} differs: party 'alice' called `{alice[call]}`, party 'bob' called `{bob[call]}`"
        )


EIGHT = list(NAMES)


def test_of_its_calls_a_party_tells_its_neighbour_now_and_then_another_and_at_last_everyone() -> None:
    carol = quiet(len(EIGHT)).parties["carol"]
    told = []
    for number in range(12 * OTHERS_EVERY):
        carol.call(f"call {number}")
        told.append([one.peer for one in carol.core.progress() if isinstance(one, SendControl)])
    # The cost grows with the parties: it is the same for each, whatever their number.
    assert all(first == "dave" for first, *_ in told)
    assert [len(rest) for _, *rest in told] == [1, *[0] * (OTHERS_EVERY - 1)] * 12
    # In turn, so that each is told as often as another.
    others = collections.Counter(other for _, *rest in told for other in rest)
    assert others == dict.fromkeys(set(EIGHT) - {"carol", "dave"}, 2)
    carol.call("the last one")
    last = [[one.peer for one in carol.core.progress() if isinstance(one, SendControl)] for _ in range(3)]
    # When there are no more calls, soon all the others at once: what stands still must be found within a second.
    assert [len(peers) for peers in last] == [2, 5, 0]
    assert sorted(peer for peers in last for peer in peers) == [name for name in EIGHT if name != "carol"]
    assert len(carol.core.progress(everyone=True)) == len(EIGHT) - 1


@pytest.mark.parametrize("other", EIGHT)
@pytest.mark.parametrize("calls", [1, 2, 3])
def test_e43_one_that_differs_is_found_when_each_has_told_of_its_progress_once(other: str, calls: int) -> None:
    federation = quiet(len(EIGHT))
    # The others' turns move on; the neighbour's does not.
    for _ in range(3):
        for party in federation.parties.values():
            party.call("the same")
            party.carry_out(party.core.progress())
    run_dry(federation)
    for name, party in federation.parties.items():
        for number in range(calls if name == other else 2):
            party.call("another" if name == other and number == 0 else f"call {number}")
    for party in federation.parties.values():
        party.carry_out(party.core.progress())
    run_dry(federation)
    assert {root.kind for party in federation.parties.values() if (root := party.core.book.root)} == {Kind.DIVERGED}
    assert all(party.core.life.latched for party in federation.parties.values())


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 4)), min_size=8, max_size=8))
def test_e43_any_two_that_differ_are_found_when_all_have_told_all_of_it(programs: list[tuple[bool, int]]) -> None:
    federation = quiet(len(EIGHT))
    for party, (differs, calls) in zip(federation.parties.values(), programs, strict=True):
        for number in range(calls):
            party.call(f"call {number} of {differs}")
    for _ in range(STANDS_STILL):
        for party in federation.parties.values():
            party.carry_out(party.core.progress())
    run_dry(federation)
    found = {party.core.life.latched for party in federation.parties.values()}
    assert found == {len({differs for differs, _ in programs}) == 2}


@pytest.mark.parametrize("longer", ["alice", "bob", "carol"])
def test_e43_nobody_goes_while_two_programs_have_ended_differently(longer: str) -> None:
    federation = quiet()
    for name, party in federation.parties.items():
        party.call("f")
        if name == longer:
            party.call("one more")
        federation.close(party)
        federation.leave_if_due(party)
    # Every goodbye arrives before anything else does.
    for notices in federation.notices.values():
        goodbye = next(notice for notice in notices if notice.kind is NoticeKind.GOODBYE)
        notices.remove(goodbye)
        notices.appendleft(goodbye)
    for source, target in federation.notices:
        federation.carry(source, target)
    for name, party in federation.parties.items():
        assert party.core.life.busy == tuple(
            peer for peer in federation.names if longer in (name, peer) and peer != name
        )
    run_dry(federation)
    roots = {party.core.book.root for party in federation.parties.values()}
    assert [root.kind if root is not None else None for root in roots] == [Kind.DIVERGED]


@pytest.mark.parametrize("longer", ["alice", "bob", "carol"])
def test_e43_programs_that_differ_do_not_go_on_to_the_next_epoch(longer: str) -> None:
    federation = quiet()
    federation.parties[longer].call("one more")
    for party in federation.parties.values():
        federation.reset(party)
    run_dry(federation)
    for party in federation.parties.values():
        root = party.core.book.root
        assert root is not None
        assert (party.core.epoch, root.kind, root.sequence) == (0, Kind.DIVERGED, 0)


def test_e43_who_leaves_by_sys_exit_at_the_same_place_differs_from_nobody() -> None:
    federation = quiet(2)
    for party, text in zip(federation.parties.values(), (LEAVE, EXIT), strict=True):
        party.call("f")
        party.carry_out(party.core.close(text)[1])
        party.carry_out(party.core.goodbye())
    run_dry(federation)
    assert not any(party.core.life.latched for party in federation.parties.values())


def test_the_source_of_a_failure_says_more_of_it_than_who_passes_it_on() -> None:
    federation = quiet()
    told = dataclasses.replace(failure(federation, "alice", 0), message="text")
    bob = federation.parties["bob"]
    bob.hear("carol", Notice(NoticeKind.LATCHED, 0, told.redacted(Exposure.TYPE).relayed("carol")))
    bob.hear("alice", Notice(NoticeKind.LATCHED, 0, told))
    assert bob.core.book.root == told
