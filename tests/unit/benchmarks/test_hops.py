from __future__ import annotations

from pathlib import Path

from benchmarks.hops import HOPS, WARM_UP, durations, read, table

STEP_NS = 1_000_000


def passed() -> list[tuple[int, str]]:
    """Notes of three counted iterations, each point a millisecond after the one before."""
    points = list(dict.fromkeys(point for begins, ends, _ in HOPS[:-1] for point in (begins, ends)))
    names = [name for _ in range(WARM_UP + 3) for name in points]
    return [(number * STEP_NS, name) for number, name in enumerate(names)]


def test_the_hops_of_an_iteration_are_told_apart_from_those_of_the_next() -> None:
    found = durations(passed())
    assert all(len(values) == 3 for values in found.values())
    assert found["serialize what is large"] == [1.0] * 3
    assert found["all of it"] == [float(len({point for begins, ends, _ in HOPS for point in (begins, ends)}) - 1)] * 3


def test_of_a_point_that_is_passed_again_the_first_time_counts() -> None:
    notes = passed()
    last = notes[-1][0]
    again = [*notes, (last + STEP_NS, "bob receiver has it")]
    assert durations(again)["the wire"] == [1.0] * 3


def test_notes_of_all_processes_are_read_in_the_order_of_time(tmp_path: Path) -> None:
    (tmp_path / "1").write_text("30 c\n10 a\n")
    (tmp_path / "2").write_text("20 b\n")
    assert read(tmp_path) == [(10, "a"), (20, "b"), (30, "c")]


def test_the_table_has_a_row_for_each_hop() -> None:
    rows = table(durations(passed())).splitlines()
    assert rows[2:][0] == "| the call: numbered, planned, submitted to Ray | 1.00 | 1.00 to 1.00 |"
    assert len(rows) == 2 + len(HOPS)
