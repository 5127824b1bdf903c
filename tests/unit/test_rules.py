"""The table of rules in docs/errors.md names the tests of each; ``python -m tests.unit.test_rules`` writes it."""

from __future__ import annotations

import functools
import re
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "errors.md"
BEGIN: Final = "## Rules, and the tests that hold them\n"

RULES: Final = {
    "E01": "A consumer of a result that failed is told, and does not wait",
    "E02": "Peers learn type, task and party, and what is exposed to them, and no byte more",
    "E03": "An error does not queue behind data",
    "E04": "A slow task does not hide the failure of a later one",
    "E05": "Everyone is told, also who waits for nothing",
    "E06": "The failure handler runs exactly once in each party",
    "E07": "A signal never deadlocks: in its context no lock is taken",
    "E08": "A queue cannot stop itself",
    "E09": "There is one shutdown, intended or not",
    "E10": "A driver that is outside fed is woken; one that dies or leaves early tells the others",
    "E11": "A failure that comes before its reader is kept for it",
    "E12": "An object has one final state, a value or a failure",
    "E13": "Nobody is woken to a value of an object that failed, nor to garbage",
    "E14": "A failure spoils what depends on it, and nothing else",
    "E15": "A consumer that was queued before the failure never runs",
    "E16": "Every read of a failure tells the same",
    "E17": "Reading a failure does not clear it for anybody else",
    "E18": "The library's own threads survive what is raised on them, and report it",
    "E19": "A failure is raised at the next fed call, and at the end if there is none",
    "E20": "First the failure itself, then refusals that name it and the way on",
    "E21": "Nothing runs on a latched job",
    "E22": "One job's failure is not another job's",
    "E23": "After `fed.reset()` the same processes run a clean job; frames of the old epoch are dropped and counted",
    "E24": "Every kind of failure can be injected, by one plan",
    "E25": "The record of a failure is small, and making it calls no code of the exception's",
    "E26": "A refused call takes no number",
    "E27": "What is in flight ends before the failed job is left",
    "E28": "Every step of the cleanup runs, whatever an earlier one raised",
    "E29": "Failures at the same time have one root, the same everywhere; the others are kept",
    "E30": "No failure outlives its epoch or its job",
    "E31": "Kills, cancellations and refused greetings carry a cause",
    "E32": "Causes and the parties on the way are named",
    "E33": "A party that fails to start is heard at once",
    "E34": "`fed.init` waits for every party, and says for whom",
    "E35": "Times are elapsed time on one clock",
    "E36": "Waiting is no failure; a line says what a wait is about",
    "E37": "Where nothing can ever move again, that is an error everywhere",
    "E38": "Times that contradict one another are refused",
    "E39": "No skew and no slowness is taken for a failure",
    "E40": "Silence is noticed",
    "E41": "The dead stay dead",
    "E42": "An error is told until it has arrived",
    "E43": "Programs that differ are told where, in every party",
    "E44": "Hostile frames are refused, counted and harmless",
    "E45": "A failure handler may misbehave",
}
"""What each rule promises, in a line."""


@functools.cache
def rule_tests() -> dict[str, dict[str, list[str]]]:
    """For each rule its tests: those in one process, and those on real Ray."""
    found: dict[str, dict[str, list[str]]] = {rule: {"process": [], "ray": []} for rule in RULES}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        source = path.read_text(encoding="utf-8")
        kind = "ray" if "integration" in path.relative_to(ROOT).parts else "process"
        for name in re.findall(r"^def (test_e\d\d_\w+)\(", source, re.MULTILINE):
            for number in re.findall(r"(?<=_)e(\d\d)(?=_)", name):
                if f"E{number}" in found and name not in found[f"E{number}"][kind]:
                    found[f"E{number}"][kind].append(name)
    return found


def table() -> str:
    """The section of the page."""
    lines = [
        BEGIN,
        "Each rule is held by tests that bear its number. `R` marks those on real Ray and gRPC processes, the others",
        "run in one process, where every interleaving can be held open.",
        "",
        "| rule | what it says | tests |",
        "|---|---|---|",
    ]
    for rule, tests in rule_tests().items():
        names = [f"`{name}`" for name in tests["process"]] + [f"R `{name}`" for name in tests["ray"]]
        if names:
            lines.append(f"| {rule} | {RULES[rule]} | {'<br>'.join(names)} |")
    return "\n".join(lines) + "\n"


def test_the_table_of_rules_is_up_to_date() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text[text.index(BEGIN) :] == table(), "run python -m tests.unit.test_rules"


@pytest.mark.parametrize("rule", [f"E{number:02}" for number in range(1, 46)])
def test_every_rule_has_a_test_in_one_process(rule: str) -> None:
    assert rule_tests()[rule]["process"]


@pytest.mark.parametrize(
    "rule", [f"E{number:02}" for number in (*range(1, 8), 10, 11, 15, 17, *range(19, 24), 27, 29, 33, 40, 41)]
)
def test_these_rules_have_a_test_on_real_ray(rule: str) -> None:
    assert rule_tests()[rule]["ray"]


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(page[: page.index(BEGIN)] + table(), encoding="utf-8")
    sys.stdout.write(f"{PAGE.relative_to(ROOT)} is up to date\n")
