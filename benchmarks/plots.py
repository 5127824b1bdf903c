"""A picture per workload."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

from benchmarks.outcome import Measurement, Outcome, Reading
from benchmarks.statistics import Spread

__all__ = ["plot"]

OURS: Final = "#1f6f8b"
COLOURS: Final = (OURS, "#d98e04", "#6a4c93", "#4f772d")
LIMIT: Final = "#b0b7bf"
AIM: Final = "#c0392b"
DPI: Final = 90


def plot(outcome: Outcome, path: Path) -> None:
    """Draw what a workload came to: times on the left, ratios on the right, and below the figures that have an aim.

    Other figures are on the page; they are drawn where there is nothing else, those of a unit beside one another.
    """
    # Nothing is shown, and there may be no screen.
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    measured = list(outcome.measurements)
    aimed = [one for one in outcome.readings if one.target is not None]
    plain = {} if measured or aimed else _by_unit(outcome.readings)
    heights = [3.4] if measured else []
    heights += [0.8 + 0.26 * len(readings) for readings in ([aimed] if aimed else plain.values())]
    figure = plt.figure(figsize=(9.5, sum(heights) + 0.9), layout="constrained")
    beside = f"\nlimit: {outcome.limit}" if outcome.limit else ""
    figure.suptitle(f"{outcome.workload}: {outcome.title}{beside}", fontsize=9)
    grid = figure.add_gridspec(len(heights), 2, height_ratios=heights)
    if measured:
        times, ratios = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[0, 1])
        if outcome.x_label and len(measured) > 1:
            _curves(outcome, measured, times, ratios)
        else:
            _strips(measured, times, ratios)
    if aimed:
        _parts_of_aims(aimed, figure.add_subplot(grid[-1, :]))
    for row, (unit, readings) in enumerate(plain.items()):
        _figures(unit, readings, figure.add_subplot(grid[row, :]))
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
    plt.close(figure)


def _curves(outcome: Outcome, measured: list[Measurement], times: Any, ratios: Any) -> None:
    xs = [one.x or 0.0 for one in measured]
    series = list(dict.fromkeys(one.series for one in measured))
    for name, colour in zip(series, COLOURS, strict=False):
        found = [(one.x, one.comparison) for one in measured if one.series == name]
        # The colours are told beside the ratios.
        first = name == series[0]
        _curve(
            times,
            [(x, one.limit) for x, one in found],
            "s--",
            LIMIT if len(series) == 1 else colour,
            "limit" if first else None,
        )
        _curve(times, [(x, one.ours) for x, one in found], "o-", colour, "federated" if first else None)
        _curve(ratios, [(x, one.ratio) for x, one in found], "o-", colour, name or None)
    aims = [(one.x, one.target) for one in measured if one.target is not None]
    if aims:
        ratios.plot(*zip(*aims, strict=True), "_", color=AIM, markersize=16, markeredgewidth=2, label="aim")
    wide = max(xs) / min(xs) > 20
    times.set(xlabel=outcome.x_label, ylabel="seconds", yscale="log")
    ratios.set(xlabel=outcome.x_label, ylabel="ratio to the limit", ylim=(0, 1.08 * ratios.get_ylim()[1]))
    for axes in (times, ratios):
        axes.set_xscale("log" if wide else "linear")
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=7)


def _curve(axes: Any, points: list[tuple[float | None, Spread]], style: str, colour: str, label: str | None) -> None:
    xs = [x for x, _ in points]
    axes.plot(xs, [one.median for _, one in points], style, color=colour, label=label, markersize=4)
    axes.fill_between(xs, [one.low for _, one in points], [one.high for _, one in points], color=colour, alpha=0.2)


def _strips(measured: list[Measurement], times: Any, ratios: Any) -> None:
    keys = [one.key for one in measured]
    for place, one in enumerate(measured):
        for shift, name, colour in ((-0.12, "ours", OURS), (0.12, "limit", LIMIT)):
            values = [getattr(pair, name) for pair in one.pairs]
            label = ("federated" if name == "ours" else "limit") if place == 0 else None
            times.plot([place + shift] * len(values), values, "o", color=colour, alpha=0.5, markersize=4, label=label)
        ratios.plot(
            [place] * len(one.pairs), [pair.ratio for pair in one.pairs], "o", color=OURS, alpha=0.4, markersize=4
        )
        ratios.plot([place], [one.comparison.ratio.median], "_", color=OURS, markersize=28, markeredgewidth=2)
        if one.target is not None:
            ratios.plot([place], [one.target], "_", color=AIM, markersize=28, markeredgewidth=2)
    times.set(ylabel="seconds", yscale="log")
    ratios.set(ylabel="ratio to the limit (red: aim)", ylim=(0, None))
    for axes in (times, ratios):
        axes.set_xticks(range(len(keys)), keys, fontsize=7, rotation=20 if len(keys) > 3 else 0)
        axes.set_xlim(-0.6, len(keys) - 0.4)
        axes.grid(alpha=0.3, axis="y")
    times.legend(fontsize=7)


def _parts_of_aims(readings: list[Reading], axes: Any) -> None:
    for place, one in enumerate(reversed(readings)):
        if one.target is not None:
            share = one.value / one.target
            axes.barh(place, min(share, 2.0), color=OURS if share <= 1 else AIM, alpha=0.7)
        axes.text(0.01, place, f" {one.key}: {one.value:.4g} {one.unit}", va="center", fontsize=7)
    axes.axvline(1.0, color=AIM, linewidth=1)
    axes.set_yticks([])
    axes.set(xlim=(0, 2.0), ylim=(-0.6, len(readings) - 0.4))
    axes.set_xlabel("part of the aim", fontsize=7)
    axes.tick_params(axis="x", labelsize=7)


def _figures(unit: str, readings: list[Reading], axes: Any) -> None:
    shown = readings[::-1]
    bars = axes.barh([one.key for one in shown], [one.value for one in shown], color=OURS, alpha=0.7)
    axes.bar_label(bars, [f"{one.value:.4g}" for one in shown], padding=3, fontsize=7)
    axes.set_xlim(0, 1.1 * max(one.value for one in shown))
    axes.set_xlabel(unit, fontsize=7)
    axes.tick_params(labelsize=7)


def _by_unit(readings: Iterable[Reading]) -> dict[str, list[Reading]]:
    found: dict[str, list[Reading]] = {}
    for one in readings:
        found.setdefault(one.unit, []).append(one)
    return found
