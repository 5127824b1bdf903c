"""A result that is there and cannot be had: it is that result that fails, and not the proxy that was to send it."""

from __future__ import annotations

import concurrent.futures
from typing import Any

import pytest

import fed
from fed.proxy.receiver import NotHere
from fed.runtime import local
from fed.testing import simulate
from tests.support.failing import identity

PARTIES = ["alice", "bob"]
LARGE = bytes(100_000)


class Model:
    def __init__(self) -> None:
        self.weight = 1

    def __setstate__(self, state: object) -> None:
        raise RuntimeError("no such type here")


@fed.remote
def large() -> Any:
    return LARGE


@fed.remote
def model() -> Any:
    return Model()


@fed.remote
def use(value: Any) -> int:
    return len(value)


@pytest.mark.parametrize("asked_for", ["at home", "by a task of another party"])
def test_what_cannot_be_unpickled_is_not_delivered_and_the_proxies_go_on(asked_for: str) -> None:
    def ask() -> Any:
        good, bad = large.party("alice").remote(), model.party("alice").remote()
        used = [use.party("bob").remote(value) for value in (good, bad, good)]
        return fed.get(bad if asked_for == "at home" else used[1])

    def main() -> tuple[str, Any]:
        with fed.job():
            # Any of its calls may be the first that hears of it.
            with pytest.raises(fed.DeliveryError) as caught:
                ask()
            assert caught.value.failure.type_name == "RuntimeError"
            fed.reset()
            return str(caught.value), fed.get(use.party("bob").remote(large.party("alice").remote()))

    results = simulate(main, parties=PARTIES)
    sentence = "could not deliver the result of #1 model{}: it cannot be unpickled in another process (RuntimeError){}"
    assert dict(results) == {
        "alice": (sentence.format("", ": no such type here"), len(LARGE)),
        "bob": (sentence.format(" of party 'alice'", ""), len(LARGE)),
    }


def test_an_isolated_job_goes_on_without_what_cannot_be_unpickled() -> None:
    def main() -> tuple[set[str], Any]:
        with fed.job():
            bad = model.party("alice").remote()
            ids = set()
            for failed in (bad, use.party("bob").remote(bad), bad):
                with pytest.raises(fed.DeliveryError) as caught:
                    fed.get(failed)
                ids.add(caught.value.failure.error_id)
            return ids, fed.get(use.party("bob").remote(large.party("alice").remote()))

    results = simulate(main, parties=PARTIES, on_error="isolate")
    assert results["alice"] == results["bob"]
    ids, size = results["alice"]
    assert (len(ids), size) == (1, len(LARGE))


def test_a_task_that_is_given_what_cannot_be_unpickled_fails_and_an_isolated_job_goes_on() -> None:
    def main() -> tuple[str, Any]:
        with fed.job():
            spoilt = identity.party("alice").remote(model.party("alice").remote())
            with pytest.raises(fed.TaskError) as caught:
                fed.get(spoilt)
            return str(caught.value), fed.get(use.party("bob").remote(large.party("alice").remote()))

    results = simulate(main, parties=PARTIES, on_error="isolate")
    sentence = "UnpicklingError in task #1 identity at party 'alice'"
    text = ": an argument cannot be unpickled in another process (RuntimeError): no such type here"
    assert dict(results) == {"alice": (f"{sentence}{text}", len(LARGE)), "bob": (sentence, len(LARGE))}


def test_a_lost_result_is_told_as_lost_and_what_was_to_go_with_it_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    push = local._LocalProxies.push

    def losing(proxies: Any, deliveries: Any, refs: Any) -> Any:
        if all(delivery.id.sequence != 1 for delivery in deliveries):
            return push(proxies, deliveries, refs)
        lost: concurrent.futures.Future[Any] = concurrent.futures.Future()
        lost.set_exception(NotHere("gone"))
        return lost

    monkeypatch.setattr(local._LocalProxies, "push", losing)

    def main() -> Any:
        with fed.job():
            objects = [large.party("alice").remote() for _ in range(3)]
            used = [use.party("bob").remote(value) for value in objects]
            with pytest.raises(fed.TaskError) as caught:
                fed.get(used[1])
            assert caught.value.kind is fed.Kind.OBJECT_LOST
            return str(caught.value), fed.get([used[0], used[2]])

    results = simulate(main, parties=PARTIES, on_error="isolate")
    text = "Ray lost a value of task #1 large at party 'alice': a node of its cluster died or did not answer"
    assert dict(results) == dict.fromkeys(PARTIES, (text, [len(LARGE)] * 2))
