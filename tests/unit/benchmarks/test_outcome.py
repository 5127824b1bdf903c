from __future__ import annotations

import json

from benchmarks.outcome import Case, Measurement, Outcome, Reading
from benchmarks.statistics import Pair


def test_what_is_written_can_be_read_again() -> None:
    outcome = Outcome(
        "W9",
        "growth",
        "raw Ray",
        (Measurement("W9 10", (Pair(2.0, 1.0), Pair(3.0, 1.5, 0.25)), 1.3, x=10.0),),
        (Reading("W9 memory", 12.0, "MB", 20.0, "3 blocks"),),
        "objects",
    )
    assert Outcome.from_json(json.loads(json.dumps(outcome.as_json()))) == outcome


def test_the_turns_alternate_and_the_first_pair_is_thrown_away() -> None:
    turns: list[str] = []

    def block(name: str) -> float:
        turns.append(name)
        return float(len(turns))

    case = Case("W1", lambda: block("ours"), lambda: block("limit"), pairs=2)
    assert [pair[:2] for pair in case.measure()] == [(3.0, 4.0), (5.0, 6.0)]
    assert turns == ["ours", "limit"] * 3
    assert len(case.measure(7)) == 7
