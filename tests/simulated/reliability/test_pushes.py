"""Results on their way to the parties that need them."""

from __future__ import annotations

import collections
import concurrent.futures
import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest

import fed
from fed.runtime.contract import ActorKilledError, Call, Ref, TaskBody
from fed.runtime.local import LocalRuntime, _LocalProxies
from fed.serde.data import DataCodec
from fed.testing import Simulation, simulate

PARTIES = ["alice", "bob"]


@fed.remote
def identity(value: Any) -> Any:
    return value


@fed.remote
def total(values: list[int]) -> int:
    return sum(values)


def run(program: Callable[[], Any], **arguments: Any) -> Simulation:
    def main() -> Any:
        with fed.job(**arguments):
            return program()

    return simulate(main, parties=PARTIES, check=False, timeout_s=30)


def test_an_object_is_encoded_for_the_first_that_needs_it_and_once_for_all_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    four = ["alice", "bob", "carol", "dave"]
    gate = threading.Event()
    encoded: collections.Counter[DataCodec] = collections.Counter()
    encode = DataCodec.encode

    def noted(codec: DataCodec, value: Any) -> Any:
        encoded[codec] += value == "shared"
        return encode(codec, value)

    monkeypatch.setattr(DataCodec, "encode", noted)

    @fed.remote
    def held() -> str:
        gate.wait(20)
        return "shared"

    def program() -> Any:
        one = held.party("alice").remote()
        parts = [identity.party(party).remote(one) for party in four[1:]]
        if fed.party() == "alice":
            gate.set()
        return fed.get([one, *parts])

    played = simulate(lambda: _in_job(program), parties=four, timeout_s=30)
    assert dict(played) == dict.fromkeys(four, ["shared"] * 4)
    # By the worker that made it, and by those that send back what they got: nobody's sender encodes anything.
    assert sorted(encoded.values()) == [4]


def _in_job(program: Callable[[], Any]) -> Any:
    with fed.job():
        return program()


@pytest.mark.parametrize("needs_it", ["alice", "bob"])
def test_e15_what_comes_of_a_call_that_could_not_be_made_is_no_value(
    monkeypatch: pytest.MonkeyPatch, needs_it: str
) -> None:
    gate = threading.Event()
    ran: list[Any] = []
    submit = LocalRuntime.submit

    def refusing(runtime: LocalRuntime, body: TaskBody, call: Call) -> Any:
        if body.name == "refused":
            raise TypeError("cannot pickle")
        return submit(runtime, body, call)

    monkeypatch.setattr(LocalRuntime, "submit", refusing)

    @fed.remote
    def slow() -> int:
        gate.wait(20)
        return 1

    @fed.remote
    def refused(value: int) -> int:
        return value

    @fed.remote
    def use(value: Any) -> Any:
        ran.append(value)
        return value

    def program() -> Any:
        # Its argument is not known to be there when the call is refused.
        bad = refused.party("alice").remote(slow.party("alice").remote())
        used = use.party(needs_it).remote(bad)
        gate.set()
        with pytest.raises(fed.TaskError, match="TypeError"):
            fed.get(used)
        with pytest.raises(fed.TaskError, match="TypeError"):
            fed.get(bad)
        return "done"

    assert dict(run(program, on_error="isolate")) == dict.fromkeys(PARTIES, "done")
    assert ran == []


def test_e18_a_proxy_that_is_gone_for_good_ends_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said over the direct channel fails with nothing, since it waits for another life of the proxy."""
    ends: collections.defaultdict[str, concurrent.futures.Future[Any]] = collections.defaultdict(
        concurrent.futures.Future
    )

    def ended(proxies: _LocalProxies) -> Mapping[str, Ref]:
        return {"sender": ends[proxies._channel._party]}

    monkeypatch.setattr(_LocalProxies, "ended", ended)

    def program() -> Any:
        if fed.party() == "alice":
            ends["alice"].set_exception(ActorKilledError("of a node"))
        return fed.get(identity.party("bob").remote(threading.Event().wait(5)))

    errors = run(program).errors
    assert all("the sender proxy failed" in str(error) for error in errors.values()), errors
    assert set(errors) == set(PARTIES)
