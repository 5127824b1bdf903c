from __future__ import annotations

import pickle
import sys
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from fed.core.idset import IdSet
from fed.object import ObjectId

IDS = st.builds(ObjectId, st.just(0), st.integers(0, 300), st.integers(0, 2), st.just(7))


def set_of(ids: Iterable[ObjectId]) -> IdSet:
    one = IdSet()
    for object_id in ids:
        one.add(object_id)
    return one


@given(st.lists(st.tuples(st.booleans(), IDS), max_size=200))
def test_it_is_a_set(steps: list[tuple[bool, ObjectId]]) -> None:
    one, model = IdSet(), set[ObjectId]()
    for put, object_id in steps:
        (one.add if put else one.discard)(object_id)
        (model.add if put else model.discard)(object_id)
        assert len(one) == len(model)
        assert (object_id in one) == (object_id in model)
    travelled = pickle.loads(pickle.dumps(one))
    every = [ObjectId(0, place, slot, 7) for place in range(301) for slot in range(3)]
    assert all((object_id in travelled) == (object_id in model) for object_id in every)


@given(st.sets(IDS), st.sets(IDS))
def test_all_of_another_one_can_be_put_in(mine: set[ObjectId], others: set[ObjectId]) -> None:
    one, other = set_of(mine), set_of(others)
    one.update(other)
    assert len(one) == len(mine | others)
    assert all(object_id in one for object_id in mine | others)
    assert len(other) == len(others)


def test_a_call_costs_about_a_bit() -> None:
    one = IdSet()
    for sequence in range(100_000):
        one.add(ObjectId(0, sequence, 0))
    assert sys.getsizeof(one._bits) < 30_000


def test_each_result_of_a_call_costs_about_a_bit() -> None:
    one = set_of(ObjectId(0, sequence, slot) for sequence in range(100) for slot in range(1000))
    assert sum(map(sys.getsizeof, one._slots.values())) < 30_000
    assert len(one) == 100_000
