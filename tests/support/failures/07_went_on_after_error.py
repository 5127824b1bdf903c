"""The program catches the error of a task, and goes on as if nothing had happened."""

import fed


@fed.remote
def mean(values: list[float]) -> float:
    if not values:
        raise ValueError("no values")
    return sum(values) / len(values)


if __name__ == "__main__":
    with fed.job():
        for values in ([], [1.0, 2.0]):
            try:
                print(fed.get(mean.party("alice").remote(values)))
            except fed.TaskError as error:
                print("skipped:", error)
