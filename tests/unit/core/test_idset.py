from __future__ import annotations

import sys
from collections.abc import Iterable

import msgpack
from hypothesis import given
from hypothesis import strategies as st

from fed.core.idset import IdSet
from fed.object import ObjectId

# Slots beyond a word too: there is no bound to the results of a call.
SLOTS = st.integers(0, 2) | st.integers(60, 200)
IDS = st.builds(ObjectId, st.just(0), st.integers(0, 300), SLOTS, st.just(7))
EVERY = [ObjectId(0, place, slot, 7) for place in range(301) for slot in (0, 1, 2, *range(60, 201))]


def set_of(ids: Iterable[ObjectId]) -> IdSet:
    one = IdSet()
    for object_id in ids:
        one.add(object_id)
    return one


def travelled(one: IdSet) -> IdSet:
    """As it arrives in another process."""
    return IdSet.load(msgpack.unpackb(msgpack.packb(one.dump()), use_list=False, strict_map_key=True))


@given(st.lists(IDS, max_size=200))
def test_it_is_a_set(ids: list[ObjectId]) -> None:
    one, model = IdSet(), set[ObjectId]()
    for object_id in ids:
        assert (object_id in one) == (object_id in model)
        one.add(object_id)
        model.add(object_id)
        assert object_id in one
        assert len(one) == len(model)
    assert {object_id for object_id in EVERY if object_id in one} == model


@given(st.sets(IDS), st.sets(IDS))
def test_one_that_was_dumped_and_loaded_is_the_same(ids: set[ObjectId], more: set[ObjectId]) -> None:
    one = set_of(ids)
    arrived = travelled(one)
    assert len(arrived) == len(ids)
    assert {object_id for object_id in EVERY if object_id in arrived} == ids
    assert travelled(arrived).dump() == one.dump()
    # It can be added to like any other, and the one that it was made from is not touched.
    for object_id in more:
        arrived.add(object_id)
    assert len(arrived) == len(ids | more)
    assert all(object_id in arrived for object_id in ids | more)
    assert len(one) == len(ids)


def test_an_empty_one_travels_too() -> None:
    assert len(travelled(IdSet())) == 0
    assert ObjectId(0, 0, 0) not in travelled(IdSet())


@given(st.sets(IDS), st.sets(IDS))
def test_all_of_another_one_can_be_put_in(mine: set[ObjectId], others: set[ObjectId]) -> None:
    one, other = set_of(mine), set_of(others)
    one.update(other)
    assert len(one) == len(mine | others)
    assert all(object_id in one for object_id in mine | others)
    assert len(other) == len(others)


@given(st.sets(IDS), st.sets(IDS))
def test_what_has_travelled_can_be_put_in(mine: set[ObjectId], others: set[ObjectId]) -> None:
    one = set_of(mine)
    one.update(travelled(set_of(others)))
    assert len(one) == len(mine | others)
    assert {object_id for object_id in EVERY if object_id in one} == mine | others


def test_a_call_costs_about_a_bit() -> None:
    one = IdSet()
    for sequence in range(100_000):
        one.add(ObjectId(0, sequence, 0))
    assert sys.getsizeof(one._bits) < 30_000


def test_each_result_of_a_call_costs_about_a_bit() -> None:
    one = set_of(ObjectId(0, sequence, slot) for sequence in range(100) for slot in range(1000))
    assert sum(map(sys.getsizeof, one._slots.values())) < 30_000
    assert len(one) == 100_000
