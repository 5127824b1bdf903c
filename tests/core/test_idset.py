from __future__ import annotations

import pickle
import sys

from hypothesis import given
from hypothesis import strategies as st

from fed.core.idset import IdSet
from fed.object import ObjectId

IDS = st.builds(ObjectId, st.just(0), st.integers(0, 300), st.integers(0, 2), st.just(7))


@given(st.lists(st.tuples(st.booleans(), IDS), max_size=200))
def test_it_is_a_set(steps: list[tuple[bool, ObjectId]]) -> None:
    one, model = IdSet(), set[ObjectId]()
    for put, object_id in steps:
        (one.add if put else one.discard)(object_id)
        (model.add if put else model.discard)(object_id)
        assert len(one) == len(model)
        assert (object_id in one) == (object_id in model)
    travelled = pickle.loads(pickle.dumps(one))
    assert all((ObjectId(0, place, slot) in travelled) == (ObjectId(0, place, slot, 7) in model) for place in range(301) for slot in range(3))


def test_a_call_costs_about_a_bit() -> None:
    one = IdSet()
    for sequence in range(100_000):
        one.add(ObjectId(0, sequence, 0))
    assert sys.getsizeof(one._bits) < 30_000
