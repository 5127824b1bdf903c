"""Whether a cluster has a node for the proxies, or for a task. Ray waits in silence for one that may never come."""

from __future__ import annotations

import collections
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from fed.config import COMMON_RESOURCES

__all__ = ["amounts", "held_by_actors", "needs", "why_no_room", "why_nowhere"]

PROXIES: Final = 2
MAX_NODES_TOLD: Final = 5
MAX_OWNERS_TOLD: Final = 3
HEAD: Final = "node:__internal_head__"
"""Where Ray's own services run, which says nothing about addresses."""


NODE_GROUP: Final = "ray.io/node-group"
"""The label that Ray's autoscaler gives to the nodes that it starts, and may start more of."""


def amounts(resources: Mapping[str, float]) -> str:
    """Resources as they are written in the environment."""
    return ", ".join(f"{name}={resources[name]:g}" for name in sorted(resources))


def why_no_room(nodes: Sequence[Mapping[str, Any]], wanted: Mapping[str, float]) -> str | None:
    """Compare what the proxies ask for with what the nodes have, in use or not.

    Args:
        nodes: Those of the cluster, as `ray.nodes` tells them.
        wanted: What each of the two proxies takes.

    Returns:
        None if some node has enough for both, else the sentences that say what is asked for, what there is, and what
        can be done.
    """
    alive = [node for node in nodes if node["Alive"]]
    for node in alive:
        if all(node["Resources"].get(name, 0) >= PROXIES * amount for name, amount in wanted.items()):
            return None
    found = sorted(f"{node['NodeManagerAddress']} has {_special(node['Resources'])}" for node in alive)
    if len(found) > MAX_NODES_TOLD:
        found[MAX_NODES_TOLD:] = [f"{len(found) - MAX_NODES_TOLD} more nodes"]
    needed = json.dumps({name: math.ceil(PROXIES * amount) for name, amount in sorted(wanted.items())})
    return (
        f"no node of the Ray cluster has room for both proxies, each of which takes {amounts(wanted)} (option "
        f"ray_proxy_resources): {'; '.join(found)}. Start the node that has this party's address with "
        f"ray start --resources='{needed}', or ask for something that it has"
    )


def needs(options: Mapping[str, Any]) -> dict[str, float]:
    """What a task or an actor with these options takes of a node, by the names that nodes have for it."""
    cpus = options.get("num_cpus")
    given = {
        "CPU": 1 if cpus is None else cpus,
        "GPU": options.get("num_gpus"),
        "memory": options.get("memory"),
        **(options.get("resources") or {}),
    }
    accelerator = options.get("accelerator_type")
    if accelerator is not None:
        given[f"accelerator_type:{accelerator}"] = 0.001
    return {name: amount for name, amount in given.items() if amount}


def why_nowhere(nodes: Sequence[Mapping[str, Any]], wanted: Mapping[str, float]) -> str | None:
    """Compare what a task or an actor takes with what the nodes have, in use or not.

    Args:
        nodes: Those of the cluster, as `ray.nodes` tells them.
        wanted: As from `needs`.

    Returns:
        None if some node has enough, or if the cluster may start another one; else what is asked for, what there is,
        and what can be done.
    """
    alive = [node for node in nodes if node["Alive"]]
    for node in alive:
        has = node["Resources"]
        if NODE_GROUP in node.get("Labels", {}) or all(has.get(name, 0) >= wanted[name] for name in wanted):
            return None
    found = sorted({amounts({name: node["Resources"].get(name, 0) for name in wanted}) for node in alive})
    if len(found) > MAX_NODES_TOLD:
        found[MAX_NODES_TOLD:] = [f"{len(found) - MAX_NODES_TOLD} others"]
    return (
        f"it takes {amounts(wanted)}, and no node of the Ray cluster has that ({'; '.join(found)}): start a node that "
        "has it, or ask for less with .options(...)"
    )


def held_by_actors(
    wanted: Mapping[str, float],
    actors: Sequence[tuple[str, Mapping[str, float]]],
    total: Mapping[str, float],
    available: Mapping[str, float],
) -> str:
    """What a submitted task or actor cannot get because actors have it.

    Args:
        wanted: What it takes, as from `needs`.
        actors: The other actors of this party, in the order of their creation: the class of each and what it keeps.
        total: What the nodes of the cluster have, in use or not, all together.
        available: What of that nobody uses.

    Returns:
        That in words; empty where it may have what it takes.
    """
    left = dict(total)
    owners: dict[str, list[str]] = {}
    for name, kept in actors:
        # One that finds no room itself keeps nothing.
        if all(left.get(resource, 0) >= amount for resource, amount in kept.items()):
            for resource, amount in kept.items():
                left[resource] -= amount
                owners.setdefault(resource, []).append(name)
    for resource, amount in wanted.items():
        if left.get(resource, 0) < amount and available.get(resource, 0) < amount and resource in owners:
            counts = collections.Counter(owners[resource])
            names = " and ".join(f"{count} {name}" for name, count in counts.most_common(MAX_OWNERS_TOLD))
            held = total[resource] - left[resource]
            # Without what ends a sentence: of what peers tell, nothing goes on with one of ours.
            return f"{resource}={amount:g} of which actors hold {held:g} of {total[resource]:g} [{names}]"
    return ""


def _special(has: Mapping[str, float]) -> str:
    """What tells a node from others."""
    return amounts({name: amount for name, amount in has.items() if name not in (*COMMON_RESOURCES, HEAD)}) or "none"
