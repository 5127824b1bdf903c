"""Every kind of call once, and what it is worth, told as JSON on the last line."""

import dataclasses
import enum
import json
from typing import Any

import numpy as np

import fed


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass(frozen=True)
class Update:
    weights: Any
    colour: Colour


class Model:
    def __init__(self, state: bytes) -> None:
        self.state = state


MODEL = fed.codec(Model, to_bytes=lambda model: model.state, from_bytes=lambda data: Model(data))


@fed.remote
def identity(value: Any) -> Any:
    return value


@fed.remote
def add(*values: Any) -> Any:
    return sum(values)


@fed.remote
def make_update(size: int) -> Update:
    return Update(np.arange(size, dtype=np.float32), Colour.RED)


@fed.remote
def make_model(size: int) -> Model:
    return Model(bytes(size))


@fed.remote
def size_of(model: Model) -> int:
    return len(model.state)


@fed.remote
def describe(nested: dict[str, Any]) -> str:
    update: Update = nested["updates"][0]
    return f"{type(update).__name__} {update.weights.dtype} {update.weights.sum():.0f} {update.colour}"


@fed.remote
class Counter:
    def __init__(self, start: int) -> None:
        self.count = start

    def add(self, step: int) -> int:
        self.count += step
        return self.count


def main() -> None:
    with fed.job(types=[Update, Colour, MODEL]):
        parties = fed.parties()
        first, second, last = parties[0], parties[1], parties[-1]
        numbers = [identity.party(party).remote(place) for place, party in enumerate(parties)]
        total = add.party(first).remote(*numbers)
        counter = Counter.party(second).remote(total)
        counts = [counter.add.remote(identity.party(last).remote(1)) for _ in range(5)]
        low, high = identity.options(num_returns=2).party(second).remote((1, 2))
        big = identity.party(first).remote(np.ones(3_000_000, dtype=np.uint8))
        text = describe.party(last).remote({"updates": [make_update.party(first).remote(5_000)]})
        got = fed.get({"total": total, "counts": counts, "pair": (low, high), "text": text, "numbers": numbers})
        big_sums = [add.party(party).remote(identity.party(party).remote(big)) for party in parties]
        got["big"] = [int(array.sum()) for array in fed.get(big_sums)]
        models = [make_model.party(first).remote(size) for size in (5, 500_000)]
        sizes = fed.get([size_of.party(last).remote(model) for model in models])
        got["models"] = [*sizes, *(len(model.state) for model in fed.get(models))]
        got["again"] = fed.get(total)
        got["empty"] = fed.get([])
        print(json.dumps(got), flush=True)
        sent = fed.statistics()
        print("sent", sum(sent.objects_sent.values()), sum(sent.bytes_sent.values()), flush=True)


if __name__ == "__main__":
    main()
