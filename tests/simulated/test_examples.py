"""The examples do what they say, in every party."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fed
from fed.testing import Simulation, simulate

EXAMPLES = Path(__file__).parents[2] / "examples"
pytest.importorskip("sklearn")


def main_of(name: str) -> Callable[..., Any]:
    """The program of an example, loaded as ``fed run`` loads it but for its name."""
    main: Callable[..., Any] = runpy.run_path(str(EXAMPLES / name))["main"]
    return main


def fedavg(*arguments: str, parties: list[str]) -> Simulation:
    main = main_of("fedavg_hospitals.py")
    return simulate(lambda: main(arguments), parties=parties)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_quickstart_gives_everyone_the_mean_over_all(count: int) -> None:
    parties = ["alice", "bob", "carol", "dave", "erin"][:count]
    module = runpy.run_path(str(EXAMPLES / "quickstart.py"))
    results = simulate(module["main"], parties=parties)
    # A federated function refuses to be called, so what it returns is taken from a job of one party each.
    parts = [simulate(lambda: _alone(module["sums"]), parties=[party])[party] for party in parties]
    expected = sum(total for total, _ in parts) / sum(number for _, number in parts)
    assert dict(results) == dict.fromkeys(parties, pytest.approx(expected))


def _alone(function: Any) -> Any:
    with fed.job():
        return fed.get(function.party(fed.party()).remote(fed.party()))


@pytest.fixture(scope="module")
def trained() -> Simulation:
    return fedavg(parties=["north", "south", "west"])


def test_the_federated_model_is_accurate_and_the_same_to_all(trained: Simulation) -> None:
    outcomes = list(trained.values())
    assert len(outcomes) == 3
    assert outcomes[0].federated >= 0.95
    assert all(outcome == outcomes[0] for outcome in outcomes)


def test_training_together_is_worth_it(trained: Simulation) -> None:
    outcome = trained["north"]
    assert set(outcome.alone) == {"north", "south", "west"}
    assert min(outcome.alone.values()) < outcome.federated - 0.02
    assert outcome.federated == pytest.approx(outcome.pooled, abs=0.02)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_lucky_split(seed: int) -> None:
    outcome = fedavg("--seed", str(seed), parties=["north", "south", "west"])["north"]
    assert outcome.federated >= 0.94
    assert min(outcome.alone.values()) < outcome.federated
    assert outcome.federated == pytest.approx(outcome.pooled, abs=0.02)


def test_no_patient_is_in_two_places() -> None:
    records_of = runpy.run_path(str(EXAMPLES / "fedavg_hospitals.py"))["records_of"]
    seen = [row.tobytes() for site in range(3) for part in records_of(site, 3, 0) for row in part.features]
    assert len(seen) == len(set(seen)) == 569


def test_what_left_is_shown_by_the_first_party_only(capsys: pytest.CaptureFixture[str]) -> None:
    fedavg("--rounds", "2", parties=["ada", "bea"])
    output = capsys.readouterr().out
    assert output.count("held-out accuracy, federated: ") == 2
    assert output.count("What left each party") == 1
    table = output[output.index("What left each party") :]
    assert "ada" in table
    assert "bea" in table


@pytest.mark.parametrize(("arguments", "message"), [(["--rounds", "0"], "--rounds"), (["--seed", "-1"], "--seed")])
def test_wrong_arguments_are_refused_before_anything_starts(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        main_of("fedavg_hospitals.py")(arguments)
    assert refused.value.code == 2
    assert message in capsys.readouterr().err
