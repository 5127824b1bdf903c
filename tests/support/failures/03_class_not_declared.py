"""A task of alice returns an object of a class that the parties did not declare, and bob needs it."""

import dataclasses

import fed


@dataclasses.dataclass
class Model:
    weights: list[float]


@fed.remote
def train() -> Model:
    return Model([0.5, 1.5])


@fed.remote
def evaluate(model: Model) -> float:
    return sum(model.weights)


if __name__ == "__main__":
    with fed.job():
        model = train.party("alice").remote()
        print(fed.get(evaluate.party("bob").remote(model)))
