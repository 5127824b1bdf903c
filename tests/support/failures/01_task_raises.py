"""A task of alice raises."""

import fed


@fed.remote
def mean(values: list[float]) -> float:
    if not values:
        raise ValueError("no values")
    return sum(values) / len(values)


if __name__ == "__main__":
    with fed.job():
        print(fed.get(mean.party("alice").remote([])))
