"""Failures as sentences: what failed, where, and the way out, in the party where it happened and in the others."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from fed.core.failure import Exposure, Failure, Kind
from fed.engine.exceptions import aborted, error_of, init_error, pointer, sentence
from fed.errors import (
    DeadlockError,
    DeliveryError,
    DivergenceError,
    EgressDenied,
    FailureError,
    InitError,
    JobAborted,
    PartyLeftError,
    PartyLostError,
    RemoteError,
    TaskError,
)

ERROR_ID = "alice/3f2a90c1d4e5b677/1"
CANARY = "canary-4711"


def failure(kind: Kind, **fields: Any) -> Failure:
    given = {"error_id": ERROR_ID, "type_name": "ValueError", "task": "#3 train", "sequence": 3, **fields}
    return Failure(kind=kind, src_party="alice", **given)


def withheld(kind: Kind, **fields: Any) -> Failure:
    """As a peer gets it that nothing is exposed to."""
    return failure(kind, message=CANARY, traceback=CANARY, **fields).redacted(Exposure.TYPE)


SENTENCES = [
    (Kind.TASK, {}, "ValueError in task #3 train at party 'alice'"),
    (Kind.TASK, {"hops": ("bob",)}, "ValueError in task #3 train at party 'alice' (reported by bob)"),
    (Kind.CANCELLED, {}, "task #3 train at party 'alice' was cancelled"),
    (Kind.CANCELLED, {"detail": "by fed.cancel"}, "task #3 train at party 'alice' was cancelled: by fed.cancel"),
    (
        Kind.WORKER_CRASHED,
        {},
        "the worker of task #3 train at party 'alice' died: it crashed, was killed, or ran out of memory",
    ),
    (
        Kind.WORKER_CRASHED,
        {"detail": "exit code 9, 4 attempts", "hops": ("bob",)},
        "the worker of task #3 train at party 'alice' (reported by bob) died: exit code 9, 4 attempts",
    ),
    (
        Kind.OUT_OF_MEMORY,
        {},
        "task #3 train at party 'alice' was killed because the machine ran out of memory: let fewer tasks run at once, "
        "or reserve more for each with .options(memory=...)",
    ),
    (
        Kind.ACTOR_DIED,
        {"task": "#4 Model.step"},
        "the actor of task #4 Model.step at party 'alice' died: it crashed, was killed, or ran out of memory",
    ),
    (
        Kind.OBJECT_LOST,
        {},
        "Ray lost a value of task #3 train at party 'alice': a node of its cluster died or did not answer",
    ),
    (
        Kind.UNSERIALIZABLE,
        {"type_name": "Patient", "detail": "a Patient may not cross: return plain data"},
        "could not deliver the result of #3 train of party 'alice': a Patient may not cross: return plain data",
    ),
    (
        Kind.DELIVERY,
        {"type_name": "DeliveryError"},
        "could not deliver the result of #3 train of party 'alice': a party refused it",
    ),
    (
        Kind.DELIVERY,
        {"type_name": "DeliveryError", "detail": "it is larger than party 'bob' accepts (9 bytes)", "task": ""},
        "could not deliver a value of party 'alice': it is larger than party 'bob' accepts (9 bytes)",
    ),
    (
        Kind.EGRESS_DENIED,
        {"detail": "rule 'no rows'"},
        "the policy of party 'alice' keeps the result of #3 train in: rule 'no rows'",
    ),
    (
        Kind.PARTY_LOST,
        {"task": "", "detail": "its driver ended without a word"},
        "party 'alice' was lost: its driver ended without a word; see how its program ended",
    ),
    (
        Kind.PARTY_LOST,
        {"task": "", "error_id": "carol/1/1"},
        "party 'alice' was lost (reported by carol): nothing was heard of it for longer than its lease; see whether "
        "its program still runs and can be reached",
    ),
    (
        Kind.PARTY_LEFT,
        {"task": ""},
        "party 'alice' left before the end: its program was over while others still waited for it; every party must "
        "run the same program",
    ),
    (
        Kind.PARTY_LEFT,
        {"task": "", "detail": "call #0 differs"},
        "party 'alice' left before the end: call #0 differs; every party must run the same program",
    ),
    (
        Kind.PARTY_LEFT,
        {"task": "", "detail": "before it delivered what this party waits for"},
        "party 'alice' left before it delivered what this party waits for; every party must run the same program",
    ),
    (
        Kind.DRIVER,
        {"task": "", "type_name": "SystemExit"},
        "party 'alice' left before the end: its program called sys.exit",
    ),
    (
        Kind.DRIVER,
        {"task": "", "type_name": "KeyboardInterrupt"},
        "party 'alice' left before the end: it was interrupted",
    ),
    (Kind.DRIVER, {"task": "", "type_name": "OSError"}, "party 'alice' left: its driver raised OSError"),
    (
        Kind.DIVERGED,
        {"detail": "call #7: party 'alice' made a, party 'bob' made b"},
        "party 'alice' found that call #7: party 'alice' made a, party 'bob' made b: every party must run the same "
        "program",
    ),
    (
        Kind.DIVERGED,
        {},
        "party 'alice' found that it made a call that the others did not make: every party must run the same program",
    ),
    (
        Kind.DEADLOCK,
        {"detail": "alice waits for bob, bob waits for alice"},
        "deadlock, every party waits and nothing runs (found by party 'alice'): alice waits for bob, bob waits for "
        "alice",
    ),
    (
        Kind.TIMEOUT,
        {"detail": "reset_timeout_s is 30 s"},
        "a time limit ran out in task #3 train at party 'alice': reset_timeout_s is 30 s",
    ),
    (
        Kind.INIT,
        {"task": "", "type_name": "ConfigError"},
        "the job could not start: the start of party 'alice' failed with ConfigError",
    ),
    (
        Kind.INTERNAL,
        {"detail": "the sender proxy did not answer"},
        "a fault of fed itself, ValueError in task #3 train at party 'alice': the sender proxy did not answer; please "
        "report it, with the logs of all parties",
    ),
]


@pytest.mark.parametrize(("kind", "fields", "text"), SENTENCES)
def test_each_kind_has_a_sentence_of_its_own(kind: Kind, fields: dict[str, Any], text: str) -> None:
    record = withheld(kind, **fields)
    assert str(error_of(record, "bob")) == text
    assert sentence(record) == text


def test_no_kind_is_without_a_sentence() -> None:
    assert {kind for kind, *_ in SENTENCES} == set(Kind)


@pytest.mark.parametrize("kind", [Kind.WORKER_CRASHED, Kind.OUT_OF_MEMORY, Kind.ACTOR_DIED, Kind.OBJECT_LOST])
def test_what_ray_says_at_length_is_left_to_the_log(kind: Kind) -> None:
    assert CANARY not in sentence(failure(kind, message=CANARY), "alice")


@pytest.mark.parametrize("kind", [Kind.TASK, Kind.DELIVERY, Kind.DRIVER, Kind.INIT, Kind.INTERNAL])
def test_a_message_that_is_known_is_told(kind: Kind) -> None:
    assert CANARY in str(error_of(failure(kind, message=CANARY), "alice"))


def test_the_reason_is_told_also_where_the_place_in_the_value_is_too_long_for_it() -> None:
    cut = failure(Kind.UNSERIALIZABLE, detail="send a list", message="cannot encode a Patient at ['k", truncated=True)
    whole = failure(Kind.UNSERIALIZABLE, detail="send a list", message="cannot encode a Patient at ['k']: send a list")
    start = "could not deliver the result of #3 train: cannot encode a Patient at ['k"
    assert sentence(cut, "alice") == f"{start}: send a list"
    assert sentence(whole, "alice") == f"{start}']: send a list"


def test_an_own_value_that_cannot_cross_is_not_said_to_be_of_a_party() -> None:
    assert sentence(failure(Kind.DELIVERY, message="no"), "alice") == "could not deliver the result of #3 train: no"
    assert sentence(failure(Kind.EGRESS_DENIED), "alice") == "the policy of this party keeps the result of #3 train in"


@pytest.mark.parametrize(
    ("kind", "fields", "start"),
    [
        (Kind.TASK, {}, "the message and traceback are"),
        (Kind.TASK, {"message": "m"}, "the traceback is"),
        (Kind.TASK, {"message": "m", "traceback": "t"}, ""),
        (Kind.TASK, {"message": "m", "traceback": "t", "truncated": True}, "the whole of it is"),
        (Kind.WORKER_CRASHED, {}, "what Ray reported is"),
        (Kind.DELIVERY, {}, "the reason is"),
        (Kind.DELIVERY, {"detail": "too large"}, ""),
        (Kind.UNSERIALIZABLE, {"detail": "send a list"}, "the place in the value is"),
        (Kind.UNSERIALIZABLE, {"detail": "send a list", "message": "m"}, ""),
        (Kind.DRIVER, {"type_name": "OSError"}, "the message and traceback are"),
        (Kind.DRIVER, {"type_name": "SystemExit"}, ""),
        (Kind.INTERNAL, {}, "the rest is"),
        (Kind.DIVERGED, {"detail": "d"}, ""),
        (Kind.PARTY_LOST, {}, ""),
    ],
)
def test_a_peer_is_told_where_the_rest_is(kind: Kind, fields: dict[str, Any], start: str) -> None:
    expected = f"{start} in the log of party 'alice' under {ERROR_ID}" if start else ""
    assert pointer(failure(kind, **fields), "bob") == expected
    assert pointer(failure(kind, **fields), "alice") == ""


@pytest.mark.parametrize(
    ("kind", "error_class"),
    [
        (Kind.TASK, RemoteError),
        (Kind.ACTOR_DIED, RemoteError),
        (Kind.DELIVERY, DeliveryError),
        (Kind.UNSERIALIZABLE, DeliveryError),
        (Kind.EGRESS_DENIED, EgressDenied),
        (Kind.PARTY_LOST, PartyLostError),
        (Kind.PARTY_LEFT, PartyLeftError),
        (Kind.DRIVER, PartyLeftError),
        (Kind.DIVERGED, DivergenceError),
        (Kind.DEADLOCK, DeadlockError),
        (Kind.TIMEOUT, FailureError),
        (Kind.INTERNAL, FailureError),
    ],
)
def test_each_kind_is_raised_as_its_class(kind: Kind, error_class: type[FailureError]) -> None:
    assert type(error_of(failure(kind), "bob")) is error_class


def test_where_it_happened_the_cause_is_the_users_own_exception() -> None:
    cause = ValueError("mine")
    error = error_of(failure(Kind.TASK), "alice", cause)
    assert type(error) is TaskError
    assert error.__cause__ is cause


def test_a_declared_class_is_an_ancestor_in_every_party() -> None:
    error = error_of(failure(Kind.TASK), "bob", exceptions=[KeyError, ValueError])
    assert isinstance(error, RemoteError)
    assert isinstance(error, ValueError)


def test_a_latched_job_says_why_and_how_to_go_on() -> None:
    error = aborted(failure(Kind.TASK, message="of\nmany\nlines", detail="known to all"))
    assert type(error) is JobAborted
    assert str(error) == (
        "the job was aborted: ValueError in task #3 train at party 'alice': known to all; nothing new runs: "
        "call fed.reset() to go on, or call fed.shutdown() to leave the job"
    )
    assert error.root.message == "of\nmany\nlines"


def test_a_job_that_could_not_start_names_the_parties() -> None:
    error = init_error({"carol": "party 'carol' refused", "bob": "no answer"}, 3.0)
    assert type(error) is InitError
    assert str(error) == (
        "the job could not start within 3 s (init_timeout_s): party 'bob': no answer; party 'carol' refused"
    )


def test_a_sentence_needs_no_field_but_the_kind() -> None:
    for kind in Kind:
        bare = dataclasses.replace(failure(kind), type_name="", task="", sequence=-1)
        assert "alice" in sentence(bare) or kind is Kind.DEADLOCK
