"""Results that cannot cross: every party is told why, and an isolated job goes on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

import fed
from fed.serde.contract import Encoded
from fed.serde.data import DataCodec
from fed.testing import Simulation, simulate

PARTIES = ["alice", "bob", "carol"]
CANARY = "canary-4711"


@dataclasses.dataclass
class Undeclared:
    """A dataclass that no party declares."""

    secret: str = CANARY


class CallsItself(list):  # type: ignore[type-arg]
    """A subclass of a type that crosses."""


class Opaque:
    """An instance of some class."""


@fed.remote
def hidden() -> Any:
    return [{CANARY: Undeclared()}]


@fed.remote
def of(make: Callable[[], Any]) -> Any:
    return make()


@fed.remote
def count(value: Any) -> int:
    return len(value)


@fed.remote
def fail() -> None:
    raise ValueError


def run(program: Callable[[], Any], **arguments: Any) -> Simulation:
    def main() -> Any:
        with fed.job():
            return program()

    return simulate(main, parties=PARTIES, check=False, timeout_s=30, **arguments)


def a_cycle() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (Undeclared, "declare the class in every party with fed.init(types=[Undeclared])"),
        (CallsItself, "a subclass would arrive as a plain list; convert it with list(...) first"),
        (a_cycle, "it contains itself"),
        (Opaque, "codec 'data' carries plain data only"),
    ],
)
def test_every_party_is_told_the_same_reason(make: Callable[[], Any], reason: str) -> None:
    refused: dict[str, str] = {}

    def program() -> None:
        value = of.party("alice").remote(make)
        try:
            fed.get(count.party("bob").remote(value))
        except fed.DeliveryError as error:
            refused[fed.party()] = str(error)
        with pytest.raises(fed.JobAborted) as aborted:
            fed.get(value)
        refused[f"{fed.party()}, aborted"] = str(aborted.value)

    run(program)
    assert set(refused) == {*PARTIES, *(f"{party}, aborted" for party in PARTIES)}
    for reader, text in refused.items():
        assert reason in text, reader


def test_the_reason_says_nothing_of_the_value() -> None:
    errors = run(lambda: fed.get(hidden.party("alice").remote())).errors
    assert isinstance(errors["bob"], fed.DeliveryError)
    assert CANARY not in str(errors["bob"])
    assert errors["bob"].failure.kind is fed.Kind.UNSERIALIZABLE
    assert errors["bob"].failure.type_name == "Undeclared"


def test_whoever_may_see_messages_is_told_the_place_too() -> None:
    def program() -> Any:
        return fed.get(count.party("bob").remote(hidden.party("alice").remote()))

    errors = run(program, expose_errors={"bob": "message"}).errors
    assert CANARY in str(errors["bob"])
    assert CANARY not in str(errors["carol"])


def test_an_isolated_job_goes_on_after_a_result_that_cannot_cross() -> None:
    def program() -> Any:
        value = hidden.party("alice").remote()
        used_at_home = count.party("alice").remote(value)
        used_elsewhere = [count.party(party).remote(value) for party in ("bob", "carol")]
        ids = set()
        for failed in (value, *used_elsewhere, [used_at_home, value], value):
            with pytest.raises(fed.DeliveryError) as refused:
                fed.get(failed)
            ids.add(refused.value.failure.error_id)
        return fed.get([used_at_home, count.party("bob").remote([1, 2])]), ids

    simulation = run(program, on_error="isolate")
    assert not simulation.errors
    (found,) = {(tuple(counts), frozenset(ids)) for counts, ids in simulation.values()}
    assert found[0] == (1, 2)
    assert len(found[1]) == 1


def test_of_several_failures_in_one_get_all_parties_raise_the_first() -> None:
    def program() -> list[str]:
        value, failed = hidden.party("alice").remote(), fail.party("bob").remote()
        kinds = []
        for order in ([value, failed], [failed, value]):
            with pytest.raises((fed.TaskError, fed.DeliveryError)) as raised:
                fed.get(order)
            kinds.append(type(raised.value).__name__)
        return kinds

    simulation = run(program, on_error="isolate")
    assert not simulation.errors
    for party, kinds in simulation.items():
        assert kinds[0] == "DeliveryError", party
        assert kinds[1] in {"TaskError", "RemoteError"}, party


def test_an_owner_that_gets_it_first_tells_the_others_the_same_failure() -> None:
    def program() -> str:
        value = hidden.party("alice").remote()
        with pytest.raises(fed.DeliveryError) as refused:
            fed.get(value)
        return str(refused.value.failure.error_id)

    simulation = run(program, on_error="isolate")
    assert len(set(simulation.values())) == 1


def test_what_was_refused_is_not_encoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[Any] = []
    encode = DataCodec.encode

    def noted(self: DataCodec, value: Any) -> Encoded:
        encoded.append(value)
        return encode(self, value)

    monkeypatch.setattr(DataCodec, "encode", noted)

    def program() -> None:
        value = hidden.party("alice").remote()
        before = 0
        for party in ("bob", "carol"):
            with pytest.raises(fed.DeliveryError):
                fed.get(count.party(party).remote(value))
            assert not before or not any(type(item) is list and item for item in encoded[before:])
            # All parties are here, so that nobody counts what another one does before.
            before = fed.get([count.party(party).remote([]) for party in PARTIES]) and len(encoded)

    assert not run(program, on_error="isolate").errors


def test_a_party_that_is_alone_may_get_what_it_likes() -> None:
    def main() -> Any:
        with fed.job():
            return fed.get(hidden.party("alice").remote())

    simulation = simulate(main, parties=["alice"], on_error="isolate")
    assert simulation["alice"] == [{CANARY: Undeclared()}]


def test_what_nobody_read_is_raised_at_the_end() -> None:
    def program() -> None:
        count.party("bob").remote(hidden.party("alice").remote())

    errors = run(program, on_error="isolate").errors
    assert isinstance(errors["alice"], fed.DeliveryError)
