from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.full import BEGIN, END, PAGE, read, write
from benchmarks.outcome import Measurement, Outcome, Reading, Record
from benchmarks.report import render, seconds
from benchmarks.statistics import Pair

MACHINE = {
    "date": "2026-11-21 12:00 UTC",
    "commit": "abc1234",
    "processor": "a processor",
    "cores": "2",
    "memory": "24 GB",
    "versions": "Python 3.11",
    "load before": "0.1",
    "TLS": "no",
}


def record(workload: str, *measurements: Measurement, readings: tuple[Reading, ...] = ()) -> Record:
    return Record(MACHINE, 1.0, Outcome(workload, "what is done", "what limits it", measurements, readings, "MB"))


LOOP = record("W1", Measurement("W1", (Pair(0.010, 0.002), Pair(0.012, 0.002, 0.5), Pair(0.014, 0.002)), 2.7))
SIZES = record(
    "W3",
    *[Measurement(f"W3 {size} MB", (Pair(size / 100, size / 200),), 3.0, x=size) for size in (1, 16, 100)],
    readings=(Reading("W3 memory", 1.5, "objects", 2.0, "3 blocks"), Reading("W3 rate", 1.1, "GB/s")),
)
FIGURES = record("limits", readings=(Reading("copy", 12.0, "GB/s"),))


def test_a_row_has_times_ratio_spread_and_verdict() -> None:
    page = "\n".join(render({"W1": LOOP, "W3": SIZES}, plots=""))
    assert "| W1 | 12 ms | 2 ms | **6.00** (5.50 to 6.50) | 3 of 3 | 0% | 2.70: missed |" in page
    assert "| W3 1 MB | 10 ms | 5 ms | **2.00** (2.00 to 2.00) | 1 of 1 | 0% | 3.00: met |" in page
    assert "| W3 memory | 1.5 objects | 3 blocks | 2 objects: met |" in page
    assert "commit abc1234" in page
    assert ".png" not in page


@pytest.mark.parametrize(("value", "shown"), [(2.5, "2.5 s"), (0.0123, "12.3 ms"), (0.00000456, "4.56 µs")])
def test_times_have_a_unit_that_suits_them(value: float, shown: str) -> None:
    assert seconds(value) == shown


def test_what_is_not_measured_again_stays_on_the_page(tmp_path: Path) -> None:
    page = tmp_path / PAGE
    page.write_text(f"# Head\n{BEGIN}old\n{END}# History\n", encoding="utf-8")
    write(tmp_path, {"W3": SIZES}, ("W3",))
    write(tmp_path, {**read(tmp_path), "W1": LOOP, "limits": FIGURES}, ("W1", "limits"))
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# Head\n")
    assert text.endswith("# History\n")
    assert "old" not in text
    assert text.index("### limits") < text.index("### W1") < text.index("### W3")
    assert read(tmp_path) == {"W1": LOOP, "W3": SIZES, "limits": FIGURES}
    for name in ("W1", "W3", "limits"):
        assert f"![{name}](plots/{name}.png)" in text
        assert (tmp_path / "plots" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
