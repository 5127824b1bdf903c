"""Waiting that lasts: when lines are due, and that nothing is called a deadlock that is none."""

from __future__ import annotations

import dataclasses
import math
import random

import pytest

from fed.core.stall import (
    MAX_INTERVAL_S,
    MAX_SHOWN,
    Due,
    PartyStatus,
    StallDetector,
    Wait,
    describe_wait,
    graph,
    listed,
    mermaid,
)

STALL_S = 10.0
STUCK = PartyStatus(moves=3, idle=True, waiting=1, waits=(Wait("fed.get", "#1 make", "bob"),))
FREE = PartyStatus(moves=9, idle=True)
OWN = PartyStatus(moves=7, idle=True, waiting=1, waits=(Wait("#2 total", "#1 make", "bob"),))


def test_e36_a_wait_is_asked_about_first_and_reported_then_at_ever_longer_intervals() -> None:
    stall = StallDetector("alice", STALL_S)
    due = []
    for second in range(2000):
        found = stall.look(float(second), 1)
        if found is not None:
            due.append((second, found))
    assert [second for second, what in due if what is Due.REPORT][:4] == [10, 20, 40, 80]
    last = [second for second, what in due if what is Due.REPORT][-2:]
    assert last[1] - last[0] == MAX_INTERVAL_S


def test_e36_what_a_line_says_of_the_others_was_asked_shortly_before() -> None:
    stall = StallDetector("alice", STALL_S)
    asked = -math.inf
    for second in range(2000):
        found = stall.look(float(second), 1)
        if found is Due.REPORT:
            assert second - asked == STALL_S / 2
        elif found is Due.ASK:
            asked = second


def test_e36_whatever_moves_ends_the_wait() -> None:
    stall = StallDetector("alice", STALL_S)
    assert stall.look(0, 1) is None
    assert stall.look(5, 1) is Due.ASK
    assert stall.look(9, 2) is None
    assert stall.waited_s(12) == 3
    assert stall.look(10, 2) is None
    assert stall.look(14, 2) is Due.ASK


def proven(first: dict[str, PartyStatus], second: dict[str, PartyStatus], own: PartyStatus = OWN) -> bool:
    """Whether two rounds with these answers prove a deadlock, for a party that stands still itself."""
    stall = StallDetector("alice", STALL_S)
    for answers in (first, second):
        number = stall.ask(["bob", "carol"], own)
        for peer, standing in answers.items():
            assert stall.deadlock(own) is None
            stall.answered(peer, number, standing)
    found = stall.deadlock(own)
    return found is not None and found == {"alice": own, **second}


def test_e37_two_rounds_in_which_nobody_moves_prove_a_deadlock() -> None:
    assert proven({"bob": STUCK, "carol": FREE}, {"bob": STUCK, "carol": FREE})


@pytest.mark.parametrize(
    "change",
    [{"running": 1}, {"in_flight": 1}, {"idle": False}],
    ids=["a task runs", "something is on its way", "a driver computes"],
)
@pytest.mark.parametrize("where", ["alice", "bob", "carol"])
def test_e37_anything_that_may_still_move_keeps_it_from_being_one(change: dict[str, int], where: str) -> None:
    standings = {"alice": OWN, "bob": STUCK, "carol": FREE}
    standings[where] = dataclasses.replace(standings[where], **change)  # type: ignore[arg-type]
    own = standings.pop("alice")
    assert not proven(standings, standings, own)


def test_e37_what_moved_between_the_rounds_keeps_it_from_being_one() -> None:
    moved = dataclasses.replace(STUCK, moves=4)
    assert not proven({"bob": STUCK, "carol": FREE}, {"bob": moved, "carol": FREE})


def test_e37_where_nobody_waits_there_is_no_deadlock() -> None:
    assert not proven({"bob": FREE, "carol": FREE}, {"bob": FREE, "carol": FREE}, FREE)


def test_that_another_party_waits_is_no_proof_for_one_that_does_not() -> None:
    assert not proven({"bob": STUCK, "carol": STUCK}, {"bob": STUCK, "carol": STUCK}, FREE)
    assert proven({"bob": FREE, "carol": FREE}, {"bob": FREE, "carol": FREE}, OWN)


def test_e37_one_round_and_incomplete_rounds_prove_nothing() -> None:
    both = {"bob": STUCK, "carol": FREE}
    assert not proven({"bob": STUCK}, both)
    assert not proven(both, {"bob": STUCK})
    stall = StallDetector("alice", STALL_S)
    number = stall.ask(["bob"], OWN)
    stall.answered("bob", number, STUCK)
    assert stall.deadlock(OWN) is None


def test_e37_answers_of_another_round_or_of_one_who_was_not_asked_count_for_nothing() -> None:
    stall = StallDetector("alice", STALL_S)
    stall.answered("bob", stall.ask(["bob"], OWN), STUCK)
    old = stall.round
    stall.ask(["bob"], OWN)
    stall.answered("bob", old, STUCK)
    stall.answered("mallory", stall.round, STUCK)
    assert stall.answers == {}
    assert stall.deadlock(OWN) is None


def test_e37_what_this_party_did_between_the_rounds_counts_too() -> None:
    stall = StallDetector("alice", STALL_S)
    stall.answered("bob", stall.ask(["bob"], OWN), STUCK)
    stall.answered("bob", stall.ask(["bob"], OWN), STUCK)
    assert stall.deadlock(dataclasses.replace(OWN, moves=10)) is None
    assert stall.deadlock(OWN) is not None


class Model:
    """Parties that work, send and wait, and whose answers are late. What is sent is counted until it is delivered."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.parties = [f"p{number}" for number in range(self.random.randint(2, 4))]
        self.running = {party: self.random.randint(0, 2) for party in self.parties}
        self.in_flight = dict.fromkeys(self.parties, 0)
        self.moves = dict.fromkeys(self.parties, 0)
        self.sent: list[tuple[str, str]] = []
        # Questions and answers on their way: from whom, to whom, the round, and in an answer the standing.
        self.asked: list[tuple[str, str, int]] = []
        self.answers: list[tuple[str, str, int, PartyStatus]] = []
        self.stalls = {party: StallDetector(party, STALL_S) for party in self.parties}
        self.work = self.random.randint(0, 6)
        self.proofs = 0

    def standing(self, party: str) -> PartyStatus:
        return PartyStatus(self.moves[party], True, self.running[party], self.in_flight[party], 1)

    @property
    def dead(self) -> bool:
        return not self.sent and not any(self.running.values())

    def step(self) -> None:
        party = self.random.choice(self.parties)
        act = self.random.choice(["end", "deliver", "ask", "hear", "answer", "answer"])
        if act == "end" and self.running[party]:
            self.running[party] -= 1
            self.moves[party] += 1
            if self.work and self.random.random() < 0.8:
                self.work -= 1
                self.in_flight[party] += 1
                self.sent.append((party, self.random.choice(self.parties)))
        elif act == "deliver" and self.sent:
            source, target = self.sent.pop(self.random.randrange(len(self.sent)))
            # First there, then counted off where it came from: as a confirmation does.
            self.running[target] += 1
            self.moves[target] += 1
            self.in_flight[source] -= 1
            self.moves[source] += 1
        elif act == "ask":
            peers = [peer for peer in self.parties if peer != party]
            number = self.stalls[party].ask(peers, self.standing(party))
            self.asked += [(party, peer, number) for peer in peers]
        elif act == "hear" and self.asked:
            asker, peer, number = self.asked.pop(self.random.randrange(len(self.asked)))
            self.answers.append((peer, asker, number, self.standing(peer)))
        elif act == "answer" and self.answers:
            peer, asker, number, standing = self.answers.pop(self.random.randrange(len(self.answers)))
            self.stalls[asker].answered(peer, number, standing)
            if self.stalls[asker].deadlock(self.standing(asker)) is not None:
                if not self.dead:
                    raise AssertionError("a deadlock was proven where something could still move")
                self.proofs += 1


def test_e37_in_whatever_order_things_happen_only_what_is_dead_is_called_so() -> None:
    proofs = 0
    for seed in range(1500):
        model = Model(seed)
        for _ in range(200):
            model.step()
        proofs += model.proofs
    # Else the test shows nothing.
    assert proofs > 200


STANDINGS = {
    "alice": PartyStatus(3, True, waiting=1, waits=(Wait("fed.get", "#2 total", "bob"),)),
    "bob": PartyStatus(4, True, waiting=2, waits=(Wait("#2 total", "#1 make", "carol"),)),
    "carol": PartyStatus(5, True),
}


def test_e37_the_graph_as_a_line_and_as_a_diagram() -> None:
    assert graph(STANDINGS) == (
        "alice: fed.get waits for #2 total of bob; bob: #2 total waits for #1 make of carol and 1 more; "
        "carol has nothing to do"
    )
    assert mermaid(STANDINGS).splitlines() == [
        "graph LR",
        '    n0["alice: fed.get"] --> n1["bob: #2 total"]',
        '    n1 --> n2["carol: #1 make"]',
    ]


def test_e36_a_line_says_who_waits_for_what_and_what_the_others_last_said() -> None:
    answers = {
        "bob": PartyStatus(4, False, running=9, in_flight=2, tasks=("#2 total",)),
        "carol": STANDINGS["bob"],
        "erin": FREE,
    }
    assert describe_wait(STANDINGS["alice"], ["bob", "carol", "dave", "erin"], answers) == (
        "fed.get waits for #2 total of party 'bob'; bob runs #2 total and 8 more and has 2 messages on the way and "
        "does not wait in a fed call; carol waits for #1 make of carol; dave has not answered; erin has nothing to do"
    )


def test_e36_a_party_says_of_its_own_tasks_that_run_what_it_says_to_others() -> None:
    own = PartyStatus(1, True, running=2, waiting=1, tasks=("#0 train as soon as it gets CPU=1",), waits=())
    text = "this party runs #0 train as soon as it gets CPU=1 and 1 more"
    assert text in describe_wait(own, ["bob"], {})
    assert describe_wait(STANDINGS["alice"], ["bob"], {"bob": own}).endswith(text.replace("this party", "bob"))


@pytest.mark.parametrize(
    ("own", "also", "said"),
    [
        (PartyStatus(1, True, running=1, tasks=("#3 slow",)), [], "this party runs #3 slow"),
        (
            PartyStatus(1, True, running=1, in_flight=1, tasks=("#3 slow",)),
            ["before it leaves, this party waits for bob to finish"],
            "this party runs #3 slow and has 1 message on the way; before it leaves, this party waits for bob to "
            "finish",
        ),
        (
            PartyStatus(
                1, True, running=1, waiting=1, tasks=("#3 slow",), waits=(Wait("fed.get", "#3 slow", "alice"),)
            ),
            [],
            "fed.get waits for #3 slow of party 'alice'; this party runs #3 slow",
        ),
        (PartyStatus(1, True), [], "this party has nothing to do"),
    ],
    ids=["a task", "a task and more", "a task that it waits for", "nothing"],
)
def test_e36_a_line_says_what_this_party_is_at_itself(own: PartyStatus, also: list[str], said: str) -> None:
    assert describe_wait(own, ["bob"], {"bob": FREE}, also) == f"{said}; bob has nothing to do"
    # It may be the only party.
    assert describe_wait(own, [], {}, also) == said


def test_e36_of_many_parties_a_line_names_those_that_have_something_to_do() -> None:
    asked = [f"p{number:02}" for number in range(20)]
    answers = {peer: PartyStatus(1, True) for peer in asked}
    answers["p15"] = PartyStatus(1, True, running=1, tasks=("#3 slow",))
    text = describe_wait(PartyStatus(1, True), asked, answers)
    shown = [*asked[: MAX_SHOWN - 1], "p15"]
    said = [f"{peer} {'runs #3 slow' if peer == 'p15' else 'has nothing to do'}" for peer in shown]
    assert text == "; ".join(["this party has nothing to do", *said, "and 12 others"])


def test_of_many_things_the_first_are_named() -> None:
    assert listed(["a", "b"]) == "a, b"
    assert listed([str(number) for number in range(10)]) == "0, 1, 2, 3, 4, 5, 6, 7 and 2 more"
    assert listed(["a"], 5) == "a and 4 more"
