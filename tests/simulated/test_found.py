"""What the soak has found, each alone."""

from __future__ import annotations

from typing import Any

import pytest

import fed
from fed.testing import simulate

PARTIES = ["alice", "bob", "carol"]


@fed.remote
def identity(value: Any) -> Any:
    return value


@pytest.mark.parametrize("longer", PARTIES)
def test_e43_a_call_more_at_the_very_end_is_noticed_by_everyone(longer: str) -> None:
    handled: list[fed.FailureReport] = []

    def program() -> None:
        with fed.job(failure_handler=handled.append):
            fed.get(identity.party("alice").remote(1))
            if fed.party() == longer:
                identity.party(longer).remote(2)

    errors = simulate(program, parties=PARTIES, check=False).errors
    assert {party: type(error) for party, error in errors.items()} == dict.fromkeys(PARTIES, fed.DivergenceError)
    assert sorted(report.party for report in handled) == PARTIES
    assert len({report.root.error_id for report in handled}) == 1


@pytest.mark.parametrize("longer", PARTIES)
def test_e43_a_call_more_before_a_reset_is_noticed_by_everyone(longer: str) -> None:
    begun: list[str] = []

    def program() -> None:
        with fed.job():
            fed.get(identity.party("alice").remote(1))
            if fed.party() == longer:
                identity.party(longer).remote(2)
            fed.reset()
            begun.append(fed.party())

    errors = simulate(program, parties=PARTIES, check=False).errors
    assert {party: type(error) for party, error in errors.items()} == dict.fromkeys(PARTIES, fed.DivergenceError)
    assert begun == []
