"""The driver of bob raises between two fed calls."""

import fed


@fed.remote
def train(start: float) -> float:
    return start / 2


def save(model: float) -> None:
    if fed.party() == "bob":
        raise OSError("no space left for the model")


if __name__ == "__main__":
    with fed.job():
        model = fed.get(train.party("alice").remote(1.0))
        save(model)
        print(fed.get(train.party("bob").remote(model)))
