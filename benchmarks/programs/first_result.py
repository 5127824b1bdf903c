"""The shortest federated program with a result: see benchmarks/workloads/start.py."""

from __future__ import annotations

from typing import Any

import fed


@fed.remote
def part(number: int) -> int:
    """A part of the result."""
    return 14 * number


@fed.remote
def add(*parts: int) -> int:
    """The result."""
    return sum(parts)


with fed.job():
    parts: list[Any] = [part.party(party).remote(1) for party in fed.parties()]
    print(f"the total is {fed.get(add.party('alice').remote(*parts))}", flush=True)
