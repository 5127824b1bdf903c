"""Hospitals train a diagnosis model together, and no patient's record leaves its hospital.

The data are the 569 biopsies of the Wisconsin breast-cancer set that scikit-learn ships, split by hospital without
overlap. The hospitals see different patients: small tumours go to the first one, large ones to the last. Each trains a
logistic regression that is good on what it sees; federated averaging (McMahan et al., "Communication-efficient learning
of deep networks from decentralized data", 2017) makes one that is good on all.

    fed run examples/fedavg_hospitals.py --simulate north,south,west

What leaves a hospital: counts, sums and sums of squares of its features, and in each round its model's coefficients.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from sklearn.datasets import load_breast_cancer

import fed

Floats = npt.NDArray[np.float64]

LOCAL_STEPS = 5
"""Gradient steps that a hospital makes in a round, on all of its training data."""
LEARNING_RATE = 0.5
PENALTY = 1e-3
TRAIN_SHARE = 0.7
OVERLAP = 0.1
"""How far the hospitals' ranges of tumour sizes run into one another; the standard deviation of the noise on a rank
between 0 and 1."""


@dataclasses.dataclass(frozen=True)
class Moments:
    """All that standardising the features takes.

    Attributes:
        count: Samples.
        sums: Sum of each feature.
        squares: Sum of each feature's squares.
    """

    count: int
    sums: Floats
    squares: Floats


@dataclasses.dataclass(frozen=True)
class Model:
    """A logistic regression on standardised features.

    Attributes:
        coefficients: One per feature, then the intercept.
        mean: What to subtract from each feature.
        scale: What to divide it by then.
    """

    coefficients: Floats
    mean: Floats
    scale: Floats

    def probabilities(self, features: Floats) -> Floats:
        """How likely each sample is benign.

        Args:
            features: Samples by features.
        """
        logits = _standardised(self, features) @ self.coefficients
        return np.asarray(1.0 / (1.0 + np.exp(-logits)))


@dataclasses.dataclass(frozen=True)
class Records:
    """Patients: samples by features, and 1.0 for each that is benign. Never declared to fed, so it cannot cross."""

    features: Floats
    benign: Floats


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What the program found, equal in every party.

    Attributes:
        federated: Accuracy of the model trained together, on the held-out patients of all hospitals.
        alone: That of the model which each hospital trained alone, on the same patients.
        pooled: That of a model trained on all records in one place.
    """

    federated: float
    alone: Mapping[str, float]
    pooled: float


def moments_of(features: Floats) -> Moments:
    """Sums over samples."""
    return Moments(len(features), features.sum(axis=0), np.square(features).sum(axis=0))


def untrained(parts: Sequence[Moments]) -> Model:
    """A model that knows the scale of the features and nothing else."""
    count = sum(part.count for part in parts)
    mean = np.sum([part.sums for part in parts], axis=0) / count
    variance = np.sum([part.squares for part in parts], axis=0) / count - np.square(mean)
    return Model(np.zeros(len(mean) + 1), mean, np.sqrt(np.maximum(variance, 1e-12)))


def trained(model: Model, records: Records, steps: int) -> Model:
    """The model after some steps of gradient descent."""
    inputs = _standardised(model, records.features)
    coefficients = model.coefficients
    for _ in range(steps):
        errors = 1.0 / (1.0 + np.exp(-(inputs @ coefficients))) - records.benign
        shrinkage = PENALTY * np.append(coefficients[:-1], 0.0)
        coefficients = coefficients - LEARNING_RATE * (inputs.T @ errors / len(errors) + shrinkage)
    return dataclasses.replace(model, coefficients=coefficients)


def loss_of(model: Model, records: Records) -> float:
    """Mean cross-entropy."""
    likely = np.clip(model.probabilities(records.features), 1e-9, 1 - 1e-9)
    return float(-np.mean(records.benign * np.log(likely) + (1 - records.benign) * np.log(1 - likely)))


def records_of(site: int, sites: int, seed: int) -> tuple[Records, Records]:
    """The patients of one hospital, for training and held out.

    In production this would read the hospital's own database. The public set is one file, so here each hospital
    reads the file and keeps its own part.

    Args:
        site: Which hospital, from 0.
        sites: How many there are.
        seed: Of the split, equal in all.
    """
    features, benign = load_breast_cancer(return_X_y=True)
    chance = np.random.default_rng(seed)
    size_rank = np.argsort(np.argsort(features[:, 0])) / len(features)
    by_size = np.argsort(size_rank + chance.normal(0.0, OVERLAP, len(features)))
    own = chance.permutation(np.array_split(by_size, sites)[site])
    split = int(len(own) * TRAIN_SHARE)
    train, held_out = (
        Records(features[part].astype(np.float64), benign[part].astype(np.float64)) for part in np.split(own, [split])
    )
    return train, held_out


class Hospital:
    """One hospital: its records stay inside this actor.

    Args:
        site: Which hospital, from 0.
        sites: How many there are.
        seed: Of the split.
    """

    def __init__(self, site: int, sites: int, seed: int) -> None:
        self._train, self._held_out = records_of(site, sites, seed)

    def moments(self) -> Moments:
        """What the others need to know of the features."""
        return moments_of(self._train.features)

    def train(self, model: Model) -> tuple[Model, int, float]:
        """One round: the model after this hospital's steps, how many patients it saw, and its loss before."""
        return trained(model, self._train, LOCAL_STEPS), len(self._train.benign), loss_of(model, self._train)

    def train_alone(self, steps: int) -> Model:
        """What this hospital gets without the others, for as many steps."""
        return trained(untrained([self.moments()]), self._train, steps)

    def evaluate(self, model: Model) -> tuple[int, int]:
        """How many held-out patients the model gets right, and how many there are."""
        right = (model.probabilities(self._held_out.features) > 0.5) == (self._held_out.benign == 1.0)
        return int(right.sum()), len(right)


# A call, where @fed.remote above the class would do the same: type checkers do not follow decorators of classes.
RemoteHospital = fed.remote(Hospital)


@fed.remote
def start(*parts: Moments) -> Model:
    """The model of round 0."""
    return untrained(parts)


@fed.remote(num_returns=2)
def average(*updates: tuple[Model, int, float]) -> tuple[Model, float]:
    """The mean of the hospitals' models and losses, weighted by their patients."""
    models, counts, losses = zip(*updates, strict=True)
    coefficients = np.average([model.coefficients for model in models], axis=0, weights=counts)
    return dataclasses.replace(models[0], coefficients=coefficients), float(np.average(losses, weights=counts))


@fed.remote
def accuracy(*counts: tuple[int, int]) -> float:
    """Share of right answers over all hospitals."""
    return sum(right for right, _ in counts) / sum(total for _, total in counts)


@fed.remote
def train_pooled(sites: int, seed: int, steps: int) -> Model:
    """The reference that a federation is measured by: all training records in one place.

    This is the one exception to the rule of this program, and possible because the data are public: the party that
    runs it reads every hospital's part from the file. Nothing is taken from the hospitals.
    """
    parts = [records_of(site, sites, seed)[0] for site in range(sites)]
    together = Records(np.concatenate([one.features for one in parts]), np.concatenate([one.benign for one in parts]))
    return trained(untrained([moments_of(together.features)]), together, steps)


@fed.remote
def traffic(sent_bytes: int, sent_objects: int, seconds: float) -> tuple[int, int, float]:
    """What a driver knows of its own party, made into something that the others can get."""
    return sent_bytes, sent_objects, seconds


def main(arguments: Sequence[str] | None = None) -> Outcome:
    """The program, run by every party.

    Args:
        arguments: Of the command line. Default: those that the process got.
    """
    options = _parse(arguments)
    with fed.job(types=[Moments, Model]):
        parties = fed.parties()
        coordinator = parties[0]
        hospitals = {
            party: RemoteHospital.party(party).remote(site, len(parties), options.seed)
            for site, party in enumerate(parties)
        }
        model = start.party(coordinator).remote(*[hospital.moments.remote() for hospital in hospitals.values()])
        with _progress(options.rounds, lines=fed.party() == coordinator) as advance:
            for _ in range(options.rounds):
                updates = [hospital.train.remote(model) for hospital in hospitals.values()]
                model, loss = average.party(coordinator).remote(*updates)
                advance(fed.get(loss))

        steps = options.rounds * LOCAL_STEPS
        models = {
            "federated": model,
            "pooled": train_pooled.party(coordinator).remote(len(parties), options.seed, steps),
            # For the comparison only, these models leave their hospitals too.
            **{party: hospital.train_alone.remote(steps) for party, hospital in hospitals.items()},
        }
        scores = fed.get(
            {
                name: accuracy.party(coordinator).remote(*[one.evaluate.remote(model) for one in hospitals.values()])
                for name, model in models.items()
            }
        )
        outcome = Outcome(scores["federated"], {party: scores[party] for party in parties}, scores["pooled"])
        print(f"held-out accuracy, federated: {outcome.federated:.4f}", flush=True)

        sent = fed.statistics()
        # Each driver passes what it knows, and each party's task runs on what its own driver passed.
        mine = sum(sent.bytes_sent.values()), sum(sent.objects_sent.values()), sent.seconds
        sites = fed.get({party: traffic.party(party).remote(*mine) for party in parties})
        if fed.party() == coordinator:
            _show(outcome, sites)
    return outcome


def _standardised(model: Model, features: Floats) -> Floats:
    """Standardised features, and a column of ones for the intercept."""
    return np.column_stack([(features - model.mean) / model.scale, np.ones(len(features))])


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Hospitals train a diagnosis model together.")
    parser.add_argument("--rounds", type=int, default=30, help="rounds of federated averaging (default: 30)")
    parser.add_argument("--seed", type=int, default=0, help="of the split by hospital (default: 0)")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error(f"--rounds is 1 or more, not {options.rounds}")
    if options.seed < 0:
        parser.error(f"--seed is 0 or more, not {options.seed}")
    return options


@contextlib.contextmanager
def _progress(rounds: int, *, lines: bool) -> Iterator[Callable[[float], None]]:
    """Shows the rounds: a bar on a terminal, elsewhere a line for every few.

    Args:
        rounds: How many there will be.
        lines: Whether to show anything where there is no terminal, as in a simulation, which shares one.

    Yields:
        To be called with the loss when a round is over.
    """
    console = Console(highlight=False)
    columns = (
        TextColumn("round"),
        MofNCompleteColumn(),
        BarColumn(bar_width=30),
        TextColumn("loss {task.fields[loss]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=rounds, loss="...")
        done = 0

        def advance(loss: float) -> None:
            nonlocal done
            done += 1
            bar.update(task, advance=1, loss=f"{loss:.4f}")
            if lines and not console.is_terminal and (done in (1, rounds) or done % 5 == 0):
                filled = 30 * done // rounds
                console.print(f"round {done:>3}/{rounds}  {'━' * filled:<30}  loss {loss:.4f}")

        yield advance


def _show(outcome: Outcome, sites: Mapping[str, tuple[int, int, float]]) -> None:
    models = Table("model", "held-out accuracy", title="On the held-out patients of all hospitals")
    models.add_row("federated", f"{outcome.federated:.4f}", style="bold")
    for party, score in outcome.alone.items():
        models.add_row(f"{party} alone", f"{score:.4f}")
    models.add_row("pooled, for reference", f"{outcome.pooled:.4f}")
    parties = Table("party", title="What left each party")
    for heading in ("bytes", "objects", "seconds"):
        parties.add_column(heading, justify="right")
    for party, (sent_bytes, sent_objects, seconds) in sites.items():
        parties.add_row(party, f"{sent_bytes:,}", f"{sent_objects:,}", f"{seconds:.1f}")
    console = Console(highlight=False)
    console.print(models)
    console.print(parties)


if __name__ == "__main__":
    main()
