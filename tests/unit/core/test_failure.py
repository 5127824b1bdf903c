import dataclasses
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fed.core.failure import (
    MAX_CAUSES,
    MAX_HOPS,
    MAX_KNOWN,
    Exposure,
    Failure,
    FailureBook,
    Fault,
    ForgedFailure,
    Kind,
    first_root,
)
from fed.text import plain


def failure(sequence: int = 3, party: str = "alice", number: int = 1, **fields: object) -> Failure:
    fault = Fault(Kind.TASK, "ValueError", ("KeyError",), message="secret message", traceback="secret trace")
    made = Failure.of_fault(fault, error_id=f"{party}/x/{number}", party=party, task="#3 train", sequence=sequence)
    return dataclasses.replace(made, **fields)  # type: ignore[arg-type]


def encoded_bytes(one: Failure) -> int:
    texts = [one.error_id, one.src_party, one.type_name, one.task, one.message, one.traceback]
    return sum(len(text.encode()) for text in (*texts, *one.cause_types, *one.hops))


def test_a_fault_becomes_a_record_with_everything_it_knows() -> None:
    one = failure()
    assert (one.kind, one.src_party, one.type_name, one.task, one.sequence) == (
        Kind.TASK,
        "alice",
        "ValueError",
        "#3 train",
        3,
    )
    assert one.cause_types == ("KeyError",)
    assert not one.truncated


@given(
    st.text(),
    st.lists(st.text(), max_size=20),
    st.text(max_size=5000),
    st.text(max_size=5000),
    st.text(),
)
def test_e25_a_record_is_bounded_and_valid_whatever_the_exception_held(
    name: str, causes: list[str], message: str, trace: str, task: str
) -> None:
    fault = Fault(Kind.TASK, name, tuple(causes), message=message, traceback=trace)
    one = Failure.of_fault(fault, error_id="a/b/1", party="alice", task=task, sequence=0)
    assert encoded_bytes(one) <= 4096
    assert len(one.cause_types) <= MAX_CAUSES
    whole = (one.type_name, one.cause_types, one.message, one.traceback, one.task)
    shown = (plain(name), tuple(map(plain, causes)), plain(message, lines=True), plain(trace, lines=True), plain(task))
    assert one.truncated or whole == shown


def test_e25_lone_surrogates_do_not_break_the_record() -> None:
    one = Failure.of_fault(Fault(Kind.TASK, "E", message="\ud800"), error_id="a", party="p", task="", sequence=0)
    assert one.message == "\\ud800"


def test_a_long_traceback_keeps_its_end() -> None:
    fault = Fault(Kind.TASK, "E", traceback="begin" + "x" * 5000 + "end")
    one = Failure.of_fault(fault, error_id="a", party="p", task="", sequence=0)
    assert one.traceback.endswith("end")
    assert one.truncated


def test_e02_redaction_removes_exactly_what_is_not_exposed() -> None:
    one = failure()
    assert one.redacted(Exposure.TYPE) == failure(message="", traceback="")
    assert one.redacted(Exposure.MESSAGE) == failure(traceback="")
    assert one.redacted(Exposure.TRACE) == one


def test_hops_name_the_parties_on_the_way_in_order_and_not_the_source() -> None:
    one = failure().relayed("alice").relayed("bob").relayed("bob").relayed("carol")
    assert one.hops == ("bob", "carol")
    assert one.error_id == failure().error_id


PARTIES = ("alice", "bob", "carol")


def test_a_record_is_believed_from_the_party_that_made_it() -> None:
    assert failure().told_by("alice", PARTIES) == failure()
    # It had it from itself, whatever it says.
    assert failure(hops=("bob",)).told_by("alice", PARTIES) == failure()


def test_of_another_partys_record_it_is_said_who_reported_it() -> None:
    told = failure().told_by("bob", PARTIES)
    assert (told.hops, told.reporter) == (("bob",), "bob")
    assert "at party 'alice' (reported by bob)" in str(told)
    again = told.told_by("carol", PARTIES)
    assert (again.hops, again.reporter) == (("bob", "carol"), "carol")
    assert "at party 'alice' (reported by carol via bob)" in str(again)
    # Nor does it hide who told it by filling the list.
    assert failure(hops=("bob", "carol") * 8).told_by("bob", PARTIES).reporter == "bob"


def test_that_a_peer_is_gone_is_the_word_of_the_party_that_says_so() -> None:
    lost = failure(kind=Kind.PARTY_LOST, src_party="carol")
    assert lost.told_by("alice", PARTIES).reporter == "alice"
    assert lost.told_by("carol", PARTIES).reporter == "carol"
    assert failure().reporter == ""


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind not in (Kind.PARTY_LOST, Kind.PARTY_LEFT)])
def test_nobody_speaks_for_another_party(kind: Kind) -> None:
    with pytest.raises(ForgedFailure, match="speaks for party 'bob'"):
        failure(kind=kind, src_party="bob").told_by("alice", PARTIES)


@pytest.mark.parametrize(
    "forged", [{"error_id": "dave/x/1"}, {"error_id": ""}, {"src_party": "dave"}, {"hops": ("x",)}]
)
def test_a_record_names_parties_of_the_job_only(forged: dict[str, object]) -> None:
    with pytest.raises(ForgedFailure, match="not a party of the job"):
        failure(**forged).told_by("alice", PARTIES)  # type: ignore[arg-type]


@pytest.mark.parametrize("first", [0, 1])
def test_what_a_party_says_of_its_failure_counts_whoever_spoke_first(first: int) -> None:
    true = failure(5)
    forged = failure(0, type_name="Forged", message="lies").told_by("bob", PARTIES)
    book = FailureBook()
    for party, one in [("alice", true), ("bob", forged)][:: 1 if first else -1]:
        book.vote(party, one)
        book.validate()
    assert book.settle() == true
    assert book.find(true.error_id) == true


def test_hops_are_bounded_and_the_cut_is_flagged() -> None:
    one = failure()
    for number in range(MAX_HOPS + 3):
        one = one.relayed(f"p{number}")
    assert len(one.hops) == MAX_HOPS
    assert one.truncated


def test_the_sentence_names_type_task_party_and_way() -> None:
    assert str(failure(message="", hops=("bob",))) == "ValueError in task #3 train at party 'alice' (reported by bob)"


def test_further_lines_of_a_message_are_indented() -> None:
    assert str(failure(message="one\nfed: joined")).endswith(": one\n    fed: joined")


def test_a_failure_survives_pickling_within_its_party() -> None:
    assert pickle.loads(pickle.dumps(failure())) == failure()


@given(st.permutations([failure(5, "alice"), failure(2, "bob"), failure(2, "carol", 7), failure(-1, "alice", 9)]))
def test_e29_the_root_does_not_depend_on_the_order_of_the_votes(order: list[Failure]) -> None:
    book = FailureBook()
    for place, one in enumerate(order):
        book.vote(f"party {place}", one)
        book.validate()
    assert book.root == book.settle() == failure(2, "bob") == first_root(order)
    assert set(book.all) == set(order)


def test_a_failure_is_news_once() -> None:
    book = FailureBook()
    assert book.record(failure())
    assert not book.record(failure().relayed("bob"))
    assert len(book.all) == 1


def test_a_party_votes_once_and_nobody_after_the_root_is_settled_changes_it() -> None:
    book = FailureBook()
    book.vote("alice", failure(5))
    book.vote("alice", failure(1, number=2))
    assert book.root == book.settle() == failure(5)
    book.vote("bob", failure(0, number=3))
    assert book.root == book.settle() == failure(5)
    assert len(book.all) == 3
    book.validate()


def test_a_failure_that_nobody_voted_for_is_known_and_never_the_root() -> None:
    book = FailureBook()
    assert book.record(failure(1))
    book.validate()
    assert (book.root, book.settled, len(book.all)) == (None, False, 1)


def test_there_is_nothing_to_settle_on_without_a_vote() -> None:
    with pytest.raises(ValueError, match="nobody has voted"):
        FailureBook().settle()


def test_the_failures_that_are_kept_are_bounded_and_those_voted_for_stay() -> None:
    book = FailureBook()
    book.vote("alice", failure(0, number=0))
    for number in range(1, MAX_KNOWN + 10):
        book.record(failure(number, number=number))
    book.validate()
    assert (len(book.all), book.forgotten) == (MAX_KNOWN, {"alice": 10})
    assert book.root == failure(0, number=0)
    assert book.all[-1].sequence == MAX_KNOWN + 9


def test_a_party_that_tells_many_failures_has_only_its_own_forgotten() -> None:
    book = FailureBook()
    theirs = [failure(number, party="bob", number=number) for number in range(50)]
    for one in theirs:
        book.record(one)
    for number in range(MAX_KNOWN):
        book.record(failure(number, party=("carol", "alice", "bob")[number % 3], number=1000 + number).relayed("carol"))
    # What another one tells itself is no longer carol's.
    last = next(one for one in reversed(book.all) if one.origin == "bob")
    book.record(dataclasses.replace(last, hops=()))
    book.record(failure(0, party="carol", number=1))
    book.validate()
    assert [book.find(one.error_id) for one in theirs] == theirs
    assert book.find(last.error_id) == dataclasses.replace(last, hops=())
    assert book.forgotten == {"carol": 51}


def test_what_was_voted_for_stays_also_of_the_one_that_told_most() -> None:
    book = FailureBook()
    mine = [failure(number, number=number) for number in range(3)]
    for number, one in enumerate(mine):
        book.vote(f"party{number}", one)
    for number in range(MAX_KNOWN - 2):
        book.record(failure(number, party=f"other{number // 2}", number=number))
    book.validate()
    assert [book.find(one.error_id) for one in mine] == mine
    assert book.forgotten == {"other0": 1}


def test_symmetric_kinds_are_those_that_every_party_sees_alike() -> None:
    assert {kind.name for kind in Kind if kind.symmetric} == {
        "TASK",
        "CANCELLED",
        "WORKER_CRASHED",
        "OUT_OF_MEMORY",
        "ACTOR_DIED",
        "OBJECT_LOST",
        "UNSERIALIZABLE",
    }


TRACE = """Traceback (most recent call last):
  File "worker.py", line 1, in load
    import fed.runtime
ModuleNotFoundError: No module named 'fed.runtime'
"""


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault(Kind.INTERNAL, "E", message="it is\n  late"), "it is late"),
        (Fault(Kind.ACTOR_DIED, "E", traceback=TRACE), "ModuleNotFoundError: No module named 'fed.runtime'"),
        (Fault(Kind.TASK, "E", message=f"Not set up:\n{TRACE}"), "ModuleNotFoundError: No module named 'fed.runtime'"),
        (Fault(Kind.INTERNAL, "E"), "E"),
    ],
)
def test_a_fault_has_a_reason_in_one_line(fault: Fault, reason: str) -> None:
    assert fault.reason == reason
