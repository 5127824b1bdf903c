"""The parties' mean of numbers that none of them shows to another.

Run it on one machine, with as many parties as you like: fed run examples/quickstart.py --simulate alice,bob,carol
"""

import random

import fed


@fed.remote  # From now on, sums(...) is called by sums.party(...).remote(...), and runs in that party only.
def sums(party: str) -> tuple[float, int]:
    """Sum and count of the party's own numbers. They would come from its database; here they are made up."""
    own = random.Random(party)
    numbers = [own.gauss(mu=50, sigma=10) for _ in range(own.randint(100, 1000))]
    return sum(numbers), len(numbers)


@fed.remote
def mean(*parts: tuple[float, int]) -> float:
    """The mean over all parties. Each part was sent here by the party that made it."""
    return sum(total for total, _ in parts) / sum(count for _, count in parts)


def main() -> float:
    """The program. Every party runs all of it, and every party runs only the tasks that are bound to it."""
    with fed.job():
        parties = fed.parties()
        parts = [sums.party(party).remote(party) for party in parties]  # Handles, not values: nothing has moved yet.
        result = mean.party(parties[0]).remote(*parts)  # The parts go to the first party, and to nobody else.
        value: float = fed.get(result)  # The mean goes to everyone: get is the one way to see a value.
        print(f"the mean over {len(parties)} parties is {value:.3f}")
        return value


if __name__ == "__main__":
    main()
