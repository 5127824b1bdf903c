"""What is said where no node can run the proxies, or a task."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest

from fed.runtime.placement import held_by_actors, needs, why_no_room, why_nowhere

EMPTY: Mapping[str, float] = MappingProxyType({})


def node(address: str, resources: Mapping[str, float] = EMPTY, *, alive: bool = True) -> Mapping[str, Any]:
    common = {"CPU": 4.0, "memory": 1e10, "object_store_memory": 1e9, f"node:{address}": 1.0}
    return {"NodeManagerAddress": address, "Alive": alive, "Resources": {**common, **resources}}


NODES = (node("10.0.0.5", {"fed": 2.0, "gate": 1.0, "node:__internal_head__": 1.0}), node("10.0.0.6", {"big": 1.0}))


@pytest.mark.parametrize(
    "wanted",
    [{"fed": 1}, {"fed": 0.001}, {"fed": 1, "gate": 0.5}, {"node:10.0.0.6": 0.001}, {"node:__internal_head__": 0.5}],
)
def test_a_node_that_has_enough_for_both_proxies_is_room(wanted: Mapping[str, float]) -> None:
    assert why_no_room(NODES, wanted) is None


@pytest.mark.parametrize(
    ("wanted", "asked", "start"),
    [
        ({"fde": 0.001}, "fde=0.001", '{"fde": 1}'),
        # One of the two would find room.
        ({"fed": 2}, "fed=2", '{"fed": 4}'),
        ({"fed": 1.2}, "fed=1.2", '{"fed": 3}'),
        # Each is somewhere, but not both.
        ({"fed": 0.5, "big": 0.5}, "big=0.5, fed=0.5", '{"big": 1, "fed": 1}'),
    ],
)
def test_where_there_is_no_room_it_is_said_what_there_is_and_what_to_do(
    wanted: Mapping[str, float], asked: str, start: str
) -> None:
    assert why_no_room(NODES, wanted) == (
        f"no node of the Ray cluster has room for both proxies, each of which takes {asked} (option "
        "ray_proxy_resources): 10.0.0.5 has fed=2, gate=1, node:10.0.0.5=1; 10.0.0.6 has big=1, node:10.0.0.6=1. "
        f"Start the node that has this party's address with ray start --resources='{start}', or ask for something "
        "that it has"
    )


def test_a_node_that_is_gone_is_no_room() -> None:
    problem = why_no_room((node("10.0.0.5", {"fed": 2.0}, alive=False), node("10.0.0.6")), {"fed": 1})
    assert problem is not None
    assert "10.0.0.5" not in problem


def test_of_many_nodes_a_few_are_named() -> None:
    problem = why_no_room([node(f"10.0.0.{number}") for number in range(1, 10)], {"fed": 1})
    assert problem is not None
    assert "10.0.0.5 has node:10.0.0.5=1; 4 more nodes. Start" in problem
    assert "10.0.0.6" not in problem


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, {"CPU": 1}),
        ({"num_cpus": 0}, {}),
        ({"num_cpus": None, "num_gpus": 0.5}, {"CPU": 1, "GPU": 0.5}),
        ({"num_cpus": 2, "memory": 10, "resources": {"fed": 1}}, {"CPU": 2, "memory": 10, "fed": 1}),
        ({"num_cpus": 0, "accelerator_type": "T4"}, {"accelerator_type:T4": 0.001}),
    ],
)
def test_what_a_task_takes(options: Mapping[str, Any], wanted: Mapping[str, float]) -> None:
    assert needs(options) == wanted


def test_a_task_has_a_place_where_one_node_has_all_that_it_takes() -> None:
    assert why_nowhere(NODES, {"CPU": 4, "fed": 2}) is None
    assert why_nowhere(NODES, {}) is None
    assert why_nowhere(NODES, {"fed": 1, "big": 1}) == (
        "it takes big=1, fed=1, and no node of the Ray cluster has that (big=0, fed=2; big=1, fed=0): start a node "
        "that has it, or ask for less with .options(...)"
    )
    assert why_nowhere(NODES, {"CPU": 5}) == (
        "it takes CPU=5, and no node of the Ray cluster has that (CPU=4): start a node that has it, or ask for less "
        "with .options(...)"
    )
    assert why_nowhere([node("10.0.0.5", {"GPU": 1}, alive=False), *NODES], {"GPU": 1}) is not None


def test_a_cluster_that_may_grow_has_a_place_for_all() -> None:
    growing = {**NODES[0], "Labels": {"ray.io/node-group": "small"}}
    assert why_nowhere([growing], {"GPU": 1}) is None
    assert why_nowhere([{**growing, "Alive": False}, NODES[1]], {"GPU": 1}) is not None
    many = [node(f"10.0.0.{number}", {"GPU": number}) for number in range(9)]
    assert "GPU=4; 4 others): start" in str(why_nowhere(many, {"GPU": 9}))


@pytest.mark.parametrize(
    ("wanted", "actors", "available", "text"),
    [
        (
            {"CPU": 1},
            [("Model", {"CPU": 2}), ("Log", {"CPU": 1}), ("Log", {"CPU": 1})],
            0,
            "CPU=1 of which actors hold 4 of 4 [2 Log and 1 Model]",
        ),
        ({"CPU": 2}, [("Model", {"CPU": 3})], 1, "CPU=2 of which actors hold 3 of 4 [1 Model]"),
        # They may be about to let go of it, or other tasks have it.
        ({"CPU": 1}, [("Model", {"CPU": 4})], 1, ""),
        ({"CPU": 1}, [("Model", {"CPU": 3})], 0, ""),
        ({"CPU": 1}, [("Light", {})], 0, ""),
        # One that waits itself keeps nothing.
        ({"CPU": 1}, [("Model", {"CPU": 3}), ("Large", {"CPU": 2})], 0, ""),
        ({"CPU": 2}, [("Model", {"CPU": 3}), ("Large", {"CPU": 2})], 1, "CPU=2 of which actors hold 3 of 4 [1 Model]"),
        ({}, [("Model", {"CPU": 4})], 0, ""),
    ],
)
def test_what_actors_keep_from_a_task_is_told_where_that_is_certain(
    wanted: Mapping[str, float], actors: list[tuple[str, Mapping[str, float]]], available: float, text: str
) -> None:
    told = held_by_actors(wanted, actors, {"CPU": 4}, {"CPU": available} if available else {})
    assert text in told if text else told == ""
