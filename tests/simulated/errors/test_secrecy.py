"""E02: an error tells its type and the party it comes from, and more only to those who may know."""

from __future__ import annotations

import itertools
import logging
import sys
from collections.abc import Callable
from typing import Any

import pytest

import fed
from tests.support.failing import CANARY, PARTIES, chain, identity, run
from tests.support.wiretap import Wiretap


@pytest.fixture
def tap(monkeypatch: pytest.MonkeyPatch) -> Wiretap:
    return Wiretap().attach(monkeypatch)


def test_e02_peers_learn_type_and_party_only() -> None:
    errors = run(chain).errors
    for party in ("bob", "carol", "dave"):
        error = errors[party]
        assert isinstance(error, fed.RemoteError)
        assert CANARY not in f"{error} {error!r} {error.failure!r} {error.__cause__!r}"
        assert str(error).startswith("ValueError in task #0 fail at party 'alice'")
    assert CANARY in str(errors["alice"])


@pytest.mark.parametrize(
    ("exposed", "message", "trace"),
    [("type", False, False), ("message", True, False), ("trace", True, True)],
)
def test_e02_what_is_exposed_is_seen_and_no_more(exposed: str, message: bool, trace: bool) -> None:
    error = run(chain, expose_errors=exposed).errors["bob"]
    assert isinstance(error, fed.RemoteError)
    assert (error.failure.message == CANARY) is message
    assert ("raise ValueError" in error.failure.traceback) is trace


def test_e02_exposing_to_one_party_does_not_expose_to_another() -> None:
    errors = run(chain, expose_errors={"bob": "trace"}).errors
    seen = {party: CANARY in repr(error) for party, error in errors.items()}
    assert seen == {"alice": True, "bob": True, "carol": False, "dave": False}


class Telling(Exception):
    """Tells its secret wherever an exception can."""

    def __init__(self, secret: str) -> None:
        super().__init__(secret, {"argument": secret})
        self.attribute = secret

    def __str__(self) -> str:
        return f"str of {self.attribute}"

    def __repr__(self) -> str:
        return f"repr of {self.attribute}"


@fed.remote
def tell_everything(*_: Any) -> None:
    local = CANARY + " in a local variable"
    try:
        raise KeyError(CANARY)
    except KeyError as cause:
        raise Telling(CANARY + local) from cause  # canary-4711 in the traceback's line


@fed.remote
class TellingActor:
    def __init__(self, when: str = "") -> None:
        if when == "made":
            raise Telling(CANARY)

    def method(self) -> None:
        raise Telling(CANARY)


@fed.remote
def make_telling_object() -> Any:
    class Private:
        def __repr__(self) -> str:
            return CANARY

    return {CANARY: Private()}


def in_a_task() -> Any:
    return fed.get(tell_everything.party("alice").remote())


def through_a_relay() -> Any:
    relayed = identity.party("bob").remote(tell_everything.party("alice").remote())
    return fed.get(identity.party("carol").remote([relayed]))


def in_a_method() -> Any:
    return fed.get(TellingActor.party("alice").remote().method.remote())


def in_a_constructor() -> Any:
    return fed.get(TellingActor.party("alice").remote("made").method.remote())


def in_what_cannot_cross() -> Any:
    return fed.get(make_telling_object.party("alice").remote())


def in_the_driver() -> Any:
    one = identity.party("alice").remote(1)
    if fed.party() == "alice":
        raise Telling(CANARY)
    return fed.get([one, identity.party("bob").remote(one), identity.party("alice").remote(2)])


def in_an_exit() -> Any:
    if fed.party() == "alice":
        sys.exit(CANARY)
    return fed.get(identity.party("alice").remote(2))


WHERE = [in_a_task, through_a_relay, in_a_method, in_a_constructor, in_what_cannot_cross, in_the_driver, in_an_exit]


def check_secrets(tap: Wiretap, log: list[logging.LogRecord], errors: dict[str, str], knowing: set[str]) -> None:
    """Nobody but alice, and those she lets know, has ever had the canary."""
    for (source, target), data in tap.sent.items():
        if not ({source, target} <= knowing | {"alice"} and source == "alice"):
            assert CANARY.encode() not in data, f"{source} told {target}"
    for record in log:
        party = (record.threadName or "").removeprefix("fed-").partition("-")[0]
        if party not in knowing | {"alice"}:
            assert CANARY not in logging.Formatter().format(record), record.threadName
    for party, text in errors.items():
        assert CANARY not in text or party in knowing | {"alice"}


@pytest.mark.parametrize("transport", ["memory", "grpc"])
@pytest.mark.parametrize("on_error", ["abort", "isolate"])
@pytest.mark.parametrize("program", WHERE)
def test_e02_no_byte_and_no_log_of_a_peer_has_what_is_not_exposed(
    program: Callable[[], Any], on_error: str, transport: str, tap: Wiretap, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    errors = run(program, parties=PARTIES[:3], transport=transport, on_error=on_error).errors
    assert set(errors) == set(PARTIES[:3])
    told = {party: f"{error} {error!r} {error.__dict__} {error.__cause__!r}" for party, error in errors.items()}
    check_secrets(tap, caplog.records, told, set())
    # The source itself is told everything, where nobody stands between it and the reader.
    assert CANARY in told["alice"] or (program is through_a_relay and on_error == "isolate")
    # A tap that took nothing down would find nothing.
    assert all(b"alice" in tap.sent[way] for way in itertools.permutations(PARTIES[:3], 2))


@pytest.mark.parametrize("on_error", ["abort", "isolate"])
@pytest.mark.parametrize("program", WHERE)
def test_e02_what_is_exposed_to_bob_reaches_him_from_its_source_and_goes_no_further(
    program: Callable[[], Any], on_error: str, tap: Wiretap, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    exposed = {"bob": "trace"}
    errors = run(program, parties=PARTIES[:3], on_error=on_error, expose_errors=exposed).errors
    told = {party: f"{error} {error!r} {error.__dict__} {error.__cause__!r}" for party, error in errors.items()}
    check_secrets(tap, caplog.records, told, {"bob"})
    assert CANARY.encode() in tap.sent["alice", "bob"]


def test_e02_a_relay_strips_also_what_it_would_expose_of_its_own(tap: Wiretap) -> None:
    """Alice shows bob everything, and bob shows carol everything: what is his own, and not what is hers."""
    own = {"alice": {"expose_errors": {"bob": "trace"}}, "bob": {"expose_errors": {"carol": "trace"}}}

    def program() -> Any:
        relayed = identity.party("bob").remote(tell_everything.party("alice").remote())
        with pytest.raises(fed.TaskError) as caught:
            fed.get(relayed)
        with pytest.raises(fed.TaskError):
            fed.get(identity.party("carol").remote([relayed]))
        return caught.value.failure

    failures = run(program, parties=PARTIES[:3], own=own, on_error="isolate")
    assert CANARY in repr(failures["bob"])
    assert failures["carol"].hops == ("bob",)
    assert CANARY not in repr(failures["carol"])
    assert CANARY.encode() not in tap.sent["bob", "carol"]
    assert CANARY.encode() in tap.sent["alice", "bob"]
