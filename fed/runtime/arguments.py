"""Arguments of a call: finding the fed objects in them here, and putting their values in their place there.

Objects that are arguments themselves become arguments of the runtime's task, so that the runtime resolves them.
Those inside a container travel beside it, and a `Slot` marks the place of each.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgpack
import optree

from fed.errors import UsageError
from fed.object import FedObject

__all__ = ["PLAIN", "Nested", "Packed", "Shape", "Slot", "fill", "find_objects", "pack", "unpack"]

_ATOMIC: Final = frozenset({type(None), bool, int, float, complex, str, bytes, bytearray})
"""Types that cannot hold a fed object; most arguments are one of these, and skip the search."""


class Slot(NamedTuple):
    """The place of a fed object inside a container."""

    position: int


class Nested(NamedTuple):
    """A container in which slots stand for fed objects."""

    tree: Any


class Shape(NamedTuple):
    """How the values of a call are put together again, and how many results it makes.

    Attributes:
        keywords: Names of the arguments by keyword, which come after the positional ones.
        extras: How many values at the end stand for objects found inside containers.
        returns: How many results.
        arriving: Which values are objects of peers that are passed as they came (`fed.serde.receipt.SmallValue`), to be
            decoded beside the user's code; each with the words for people that say which object it is.
    """

    keywords: tuple[str, ...] = ()
    extras: int = 0
    returns: int = 1
    arriving: tuple[tuple[int, str], ...] = ()

    def to_bytes(self) -> bytes:
        """The same as one piece, which Ray passes on as it is: anything else it pickles."""
        if self == PLAIN:
            return b""
        data: bytes = msgpack.packb(self)
        return data

    @classmethod
    def of_bytes(cls, data: bytes) -> Shape:
        """Read what `to_bytes` wrote."""
        return cls(*msgpack.unpackb(data, use_list=False)) if data else PLAIN


PLAIN: Final = Shape()
"""Positional arguments and one result, as most calls are."""


class Packed(NamedTuple):
    """Arguments with the fed objects still in them.

    Attributes:
        values: Positional arguments, then those by keyword. A `FedObject`, a `Nested`, or the user's value.
        keywords: Names of those by keyword.
        extras: The objects that the slots stand for, in order, each once.
    """

    values: tuple[Any, ...]
    keywords: tuple[str, ...]
    extras: tuple[FedObject[Any], ...]

    @property
    def objects(self) -> list[FedObject[Any]]:
        """Every fed object among the arguments, in an order that is equal in every party."""
        return [value for value in self.values if type(value) is FedObject] + list(self.extras)


def pack(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Packed:
    """Find the fed objects in arguments.

    Raises:
        UsageError: One is in a set, where its value could not take its place.
    """
    extras: dict[FedObject[Any], int] = {}

    def place(found: FedObject[Any]) -> Slot:
        return Slot(extras.setdefault(found, len(extras)))

    values = []
    for value in (*args, *kwargs.values()):
        kind = type(value)
        if kind is FedObject or kind in _ATOMIC:
            values.append(value)
        else:
            replaced, found = _replace(value, FedObject, place)
            values.append(Nested(replaced) if found else value)
    return Packed(tuple(values), tuple(kwargs), tuple(extras))


def find_objects(value: Any) -> list[FedObject[Any]]:
    """Every fed object in a value, in an order that is equal in every party."""
    found: list[FedObject[Any]] = []

    def note(handle: FedObject[Any]) -> FedObject[Any]:
        found.append(handle)
        return handle

    _replace(value, FedObject, note)
    return found


def fill(value: Any, leaf: type, replacement: Callable[[Any], Any]) -> Any:
    """The same containers with every leaf of a type replaced."""
    return _replace(value, leaf, replacement)[0]


def unpack(values: Sequence[Any], shape: Shape) -> tuple[list[Any], dict[str, Any]]:
    """Arguments as the user wrote them, from resolved values in the order of `Packed` followed by the extras."""
    end = len(values) - shape.extras
    main = list(values[:end])
    if shape.extras:
        objects = values[end:]
        for place, value in enumerate(main):
            if type(value) is Nested:
                main[place] = fill(value.tree, Slot, lambda slot: objects[slot.position])
    split = len(main) - len(shape.keywords)
    return main[:split], dict(zip(shape.keywords, main[split:], strict=True))


def _replace(value: Any, leaf: type, replacement: Callable[[Any], Any], path: tuple[int, ...] = ()) -> tuple[Any, bool]:
    """Replace leaves anywhere in containers. Returns the value itself if there is none, so that nothing is copied."""
    leaves, spec = optree.tree_flatten(
        value,
        is_leaf=lambda node: type(node) is leaf,
        none_is_leaf=True,
        namespace="fedray",
    )
    changed = False
    for place, node in enumerate(leaves):
        kind = type(node)
        if kind is leaf:
            leaves[place], changed = replacement(node), True
        elif kind in _ATOMIC:
            continue
        elif dataclasses.is_dataclass(node) and not isinstance(node, type):
            replaced, found = _replace_in_dataclass(node, leaf, replacement, path)
            leaves[place], changed = replaced, changed or found
        elif isinstance(node, (set, frozenset)) and any(type(member) is leaf for member in node):
            raise UsageError(
                "a fed object is inside a set, where its value cannot take its place (it may not be hashable): "
                "pass a list or a tuple"
            )
    return (optree.tree_unflatten(spec, leaves), True) if changed else (value, False)


def _replace_in_dataclass(
    node: Any, leaf: type, replacement: Callable[[Any], Any], path: tuple[int, ...]
) -> tuple[Any, bool]:
    # A value may refer back to itself; around the circle there is nothing that was not seen.
    if id(node) in path:
        return node, False
    replaced = None
    for field in dataclasses.fields(node):
        if not hasattr(node, field.name):
            continue
        value, found = _replace(getattr(node, field.name), leaf, replacement, (*path, id(node)))
        if found:
            replaced = copy.copy(node) if replaced is None else replaced
            # Not dataclasses.replace: that would run the user's __post_init__ on placeholders.
            object.__setattr__(replaced, field.name, value)
    return (node, False) if replaced is None else (replaced, True)
