"""The page of results, from the records. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.outcome import Measurement, Outcome, Reading, Record

__all__ = ["render", "seconds"]


def render(records: Mapping[str, Record], *, plots: str) -> list[str]:
    """The lines of the page.

    Args:
        records: What was measured, by name.
        plots: The directory of the plots, as the page links it. Empty: there are none.
    """
    lines = [""]
    for name, record in records.items():
        outcome = record.outcome
        lines += [f"### {name}", "", f"{_sentence(outcome)}", ""]
        if outcome.measurements:
            lines += _measurements(outcome)
        if outcome.readings:
            lines += _readings(outcome.readings)
        lines += [_machine(record), ""]
        if plots:
            lines += [f"![{name}]({plots}/{name}.png)", ""]
    return lines


def _sentence(outcome: Outcome) -> str:
    beside = f" Beside it: {outcome.limit}." if outcome.limit else ""
    return f"{outcome.title[:1].upper()}{outcome.title[1:]}.{beside}"


def _measurements(outcome: Outcome) -> list[str]:
    rows = [
        "| | federated | limit | ratio (middle half) | pairs | others took | aim |",
        "|---|---|---|---|---|---|---|",
    ]
    return [*rows, *map(_row, outcome.measurements), ""]


def _row(one: Measurement) -> str:
    found = one.comparison
    ratio = f"**{found.ratio.median:.2f}** ({found.ratio.low:.2f} to {found.ratio.high:.2f})"
    aim = "" if one.target is None else f"{one.target:.2f}: {_met(found.ratio.median, one.target)}"
    return (
        f"| {one.key} | {seconds(found.ours.median)} | {seconds(found.limit.median)} | {ratio} | "
        f"{found.ratio.count} of {len(one.pairs)} | {one.others:.0%} | {aim} |"
    )


def _readings(readings: tuple[Reading, ...]) -> list[str]:
    rows = ["| | | from | aim |", "|---|---|---|---|"]
    for one in readings:
        aim = "" if one.target is None else f"{one.target:.4g} {one.unit}: {_met(one.value, one.target)}"
        rows.append(f"| {one.key} | {one.value:.4g} {one.unit} | {one.note} | {aim} |")
    return [*rows, ""]


def _met(value: float, target: float) -> str:
    return "met" if value <= target else "missed"


def _machine(record: Record) -> str:
    machine = record.machine
    tls = "mutual TLS" if machine.get("TLS") == "yes" else "no TLS"
    return (
        f"{machine['date']}, commit {machine['commit']}, {machine['processor']}, {machine['cores']} cores, "
        f"{machine['memory']}, {machine['versions']}, {tls}, load {machine['load before']} before; took "
        f"{record.seconds:.0f} s."
    )


def seconds(value: float) -> str:
    """A time with a unit that suits it."""
    for unit, factor in (("s", 1.0), ("ms", 1e3)):
        if value * factor >= 1:
            return f"{value * factor:.3g} {unit}"
    return f"{value * 1e6:.3g} µs"
