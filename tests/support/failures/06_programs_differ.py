"""Only alice makes the second call."""

import fed


@fed.remote
def train(start: float) -> float:
    return start / 2


@fed.remote
def evaluate(model: float) -> float:
    return abs(model)


if __name__ == "__main__":
    with fed.job():
        model = train.party("alice").remote(1.0)
        if fed.party() == "alice":
            evaluate.party("alice").remote(model)
        model = train.party("bob").remote(model)
        print(fed.get(train.party("alice").remote(model)))
