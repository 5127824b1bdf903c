"""What is too much to cross: one sentence, in every party, that says what to do instead."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

import fed
from fed.testing import simulate

PARTIES = ["alice", "bob"]
both_transports = pytest.mark.parametrize("transport", ["memory", "grpc"])


@fed.remote
def arrays(count: int) -> Any:
    return [np.zeros(1) for _ in range(count)]


@fed.remote
def size(value: Any) -> int:
    return len(value)


def test_more_types_than_fit_into_a_greeting_are_a_mistake_of_the_program() -> None:
    types = [dataclasses.make_dataclass(f"T{'x' * 200}{number}", ["a"]) for number in range(400)]

    def program() -> None:
        with fed.job(types=types):
            pass

    errors = simulate(program, parties=PARTIES, check=False).errors
    for party in PARTIES:
        assert isinstance(errors[party], fed.ConfigError)
        assert "declare fewer (options types and exceptions)" in str(errors[party])


@both_transports
def test_as_many_arrays_as_may_be_arrive_and_more_are_refused(transport: Any) -> None:
    def program() -> list[int]:
        with fed.job():
            return [fed.get(size.party("bob").remote(arrays.party("alice").remote(n))) for n in (5_000, 65_536)]

    assert simulate(program, parties=PARTIES, transport=transport)["bob"] == [5_000, 65_536]

    def too_many() -> None:
        with fed.job():
            fed.get(size.party("bob").remote(arrays.party("alice").remote(65_537)))

    errors = simulate(too_many, parties=PARTIES, transport=transport, check=False).errors
    for party in PARTIES:
        assert isinstance(errors[party], fed.DeliveryError)
        assert "has 65537 buffers (arrays, large bytes), and at most 65536 may be: put some" in str(errors[party])
