"""The two walks of codec ``data``: a value down to a tree that msgpack can write, and such a tree back up.

What the tree is made of:

- None, bool, int, float, str and short bytes stand for themselves; a list is an array; a dict whose keys are of
  these types is a map, in its own order.
- Everything else is an array that begins with a *mark*: an extension of one code (`Tag`) and no data. A mark
  anywhere else is malformed, so no value of a user can be taken for one.
- An int beyond 64 bits is an extension with data, and never the key of a map.
- An array longer than `MAX_ARRAY` is cut into pieces under `Tag.PIECES`. msgpack reserves memory for as many
  items as an array claims to have, so a low bound is what makes a lying length harmless.

Both walks count the same depth and visit buffers in the same order, so a buffer needs no number: the n-th mark
that wants one gets the n-th.

Rebuilding a value takes time in proportion to its bytes, whoever sent them:

- A reader has work to spend, `WORK` and one more unit for every `BYTES_PER_WORK` bytes, and a value that takes more is
  refused. A unit is about half a microsecond: what `Tag.work` says of each kind was measured.
- Only keys that `Reader.check_keys` has seen are put into a hash table. Many different keys of one hash, which anybody
  can make of numbers, would each be compared with all the others. What msgpack makes maps of cannot be such keys: at
  most some thirty floats or ints of 64 bits share a hash, and those of texts are random in each process.
- No number is of a size at which what is done with it here takes longer than reading it did.

Why a walk in Python at all, when msgpack can call back for what it does not know: msgpack writes a bytearray, a
memoryview and its own extension type without asking, the first two as bytes. A walk costs little where it counts:
one C-level pass over the types of a container's items decides that it is plain, and plain items are not visited.
"""

from __future__ import annotations

import decimal
import reprlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, NoReturn

import msgpack

from fed.serde.contract import DecodeError, EncodeError
from fed.serde.tags import Tag

__all__ = [
    "BYTES_PER_WORK",
    "KEYS",
    "MAX_ARRAY",
    "MAX_DEPTH",
    "MAX_INT_BITS",
    "PLAIN",
    "WORK",
    "BigInt",
    "Mark",
    "ReadRule",
    "Reader",
    "Refused",
    "WriteRule",
    "Writer",
    "head",
    "malformed",
    "place_of_attribute",
    "place_of_key",
    "read_pieces",
    "told",
]

MAX_DEPTH: Final = 128
"""How deep containers may nest. Each level costs two Python frames here and, for a dataclass, three levels of C
recursion when the value is pickled into an object store: measured, ``repr`` and pickling of a value begin to fail
between 300 and 400 levels with the interpreter's default limit, so 128 leaves the larger part to the caller."""

MAX_ARRAY: Final = 1 << 14
"""Most items in one array of the tree. With the unpacker's 1,024 levels it bounds what a header that lies about
its lengths can reserve to 128 MiB, however long the header; and two levels of pieces still give 2**28 items."""

PLAIN: Final = frozenset({type(None), bool, int, float, str})
"""Types whose values stand for themselves wherever they are."""

KEYS: Final = PLAIN | {bytes}
"""Types that can be the key of a map. Short bytes stand for themselves too, but have to be looked at one by one."""

_WELL_HASHED: Final = frozenset({type(None), bool, float, str, bytes})
"""Of these at most some thirty have one hash."""

MAX_INT_BITS: Final = 1 << 19
"""Of an int. More is data, which is what bytes are for."""

WORK: Final = 1 << 23
"""What may be spent on a value, however small: some five seconds. Half a million dates are honest, and take one."""

BYTES_PER_WORK: Final = 32
"""For so many bytes of a value there is one unit more, which makes a second for 64 MiB."""

MAP_WORK: Final = 3
"""What a map of msgpack takes: by its memory, of 232 bytes for the first key."""

MAX_TEXT: Final = 1 << 12
"""Characters that are kept of the text of somebody else's exception."""

MAX_STEPS: Final = 12
"""Steps of a path that an error shows from either end."""


WriteRule = Callable[["Writer", Any, int], Any]
"""``rule(writer, value, room)``: the tree of a value whose exact type the rule is for."""

ReadRule = Callable[["Reader", list[Any], int], Any]
"""``rule(reader, args, room)``: the value of what follows a mark."""


def head(tag: Tag) -> Any:
    """The mark that begins an array, as msgpack writes it."""
    return msgpack.ExtType(tag, b"")


class Refused(Exception):
    """Something in the value cannot cross. Collects its place on the way out of the walk.

    Args:
        kind: The class that no rule covers.
        why: What is wrong and the way out; the end of a sentence that names type and place. Every party reads it, so it
            is one of the texts in this package's code, and holds nothing of the value.
        about: What of the value it is; for this party only.
    """

    def __init__(self, kind: type, why: str, about: str = "") -> None:
        super().__init__(kind, why, about)
        self._kind = kind
        self._why = why
        self._about = about
        self._steps: list[str] = []
        self._containers: list[int] = []

    def leave(self, step: str, container: object) -> None:
        """Note that the culprit sits at ``step`` of ``container``."""
        self._steps.append(step)
        self._containers.append(id(container))

    def error(self) -> EncodeError:
        """The error for the caller, with everything noted on the way."""
        # The containers of a path are alive all at once, so an address that comes twice is one container.
        steps, containers = self._steps[::-1], self._containers[::-1]
        cyclic = len(set(containers)) < len(containers)
        if cyclic and containers.count(containers[0]) > 1:
            steps = steps[: containers.index(containers[0], 1)]
        if len(steps) > 2 * MAX_STEPS:
            steps = [*steps[:MAX_STEPS], "...", *steps[-MAX_STEPS:]]
        where = "".join(steps)
        kind = self._kind
        name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
        why = "it contains itself; codec 'data' carries trees" if cyclic else self._why
        about = "" if cyclic or self._about == "" else f" ({self._about})"
        message = f"cannot encode {name} at {where or 'the top of the value'}: {why}{about}"
        return EncodeError(message, kind.__qualname__, where, why)


_repr: Final = reprlib.Repr()
_repr.maxstring = 60
_repr.maxother = 60


def _name_key(key: object) -> str:
    # Only keys of builtin types are shown: the repr of anything else is user code, and may fail or be endless.
    return f"[{_repr.repr(key)}]" if type(key) in KEYS else f"[{type(key).__qualname__}]"


def place_of_key(keys: Iterable[object]) -> Callable[[int], str]:
    """Name the n-th value of a mapping by its key."""
    return lambda index: _name_key(list(keys)[index])


def place_of_attribute(names: Sequence[str]) -> Callable[[int], str]:
    """Name the n-th field of an object."""
    return lambda index: f".{names[index]}"


def _place_of_item(index: int) -> str:
    return f"[{index}]"


class Writer:
    """One walk from a value to its tree.

    Attributes:
        buffers: Byte views that the tree refers to, in the order of the tree.
    """

    __slots__ = ("_find", "_rules", "buffers")

    def __init__(self, rules: Mapping[type, WriteRule], find: Callable[[type], WriteRule]) -> None:
        self.buffers: list[memoryview] = []
        self._rules = rules
        self._find = find

    def write(self, value: Any, room: int) -> Any:
        """The tree of one value.

        Args:
            value: Anything.
            room: How many levels of containers may still be opened.

        Raises:
            Refused: Something in it cannot cross.
        """
        kind = type(value)
        if kind in PLAIN:
            return value
        return (self._rules.get(kind) or self._find(kind))(self, value, room)

    def items(
        self, container: object, values: Iterable[Any], room: int, place: Callable[[int], str] = _place_of_item
    ) -> list[Any]:
        """The trees of a container's values.

        Args:
            container: What is being opened: named in the error where there is no room, and known by its identity
                where it contains itself.
            values: Its items, in an order that the second iteration repeats.
            room: How many levels may still be opened, with this one.
            place: Names the n-th item in an error.

        Raises:
            Refused: Something in it cannot cross, or there is no room.
        """
        if not room:
            self.deny_depth(container)
        if set(map(type, values)) <= PLAIN:
            return values if type(values) is list else list(values)
        room -= 1
        rules = self._rules
        trees: list[Any] = []
        try:
            for value in values:
                kind = type(value)
                if kind in PLAIN:
                    trees.append(value)
                else:
                    trees.append((rules.get(kind) or self._find(kind))(self, value, room))
        except Refused as refused:
            refused.leave(place(len(trees)), container)
            raise
        return trees

    def deny_depth(self, container: object) -> NoReturn:
        """Refuse to open one more level."""
        raise Refused(type(container), f"containers nest deeper than {MAX_DEPTH} levels")

    def array(self, trees: list[Any]) -> list[Any]:
        """Cut an array that is too long for one into pieces."""
        if len(trees) <= MAX_ARRAY:
            return trees
        if len(trees) > MAX_ARRAY * (MAX_ARRAY - 1):
            raise Refused(list, "it has too many items; use an array", f"{len(trees)} objects")
        return [_PIECES, *(trees[start : start + MAX_ARRAY] for start in range(0, len(trees), MAX_ARRAY))]


_PIECES: Final = head(Tag.PIECES)


def _comparing(key: Any) -> int:
    """What it may take to find out whether a key equals another one of its hash."""
    kind = type(key)
    if kind is int:
        # A decimal makes a decimal of it, which takes the square of its length.
        return 1 + (int(key.bit_length()) >> 9) ** 2
    if isinstance(key, tuple):
        return 1 + sum(map(_comparing, key))
    if kind is frozenset:
        # All items may have one hash too.
        return 1 + sum(map(_comparing, key)) ** 2
    return 1 if kind in KEYS else 8 + (len(str(key)) >> 6 if kind is decimal.Decimal else 0)


class Mark(NamedTuple):
    """A mark as read: what to do with the rest of its array, and what that takes."""

    tag: Tag
    work: int
    read: ReadRule


def told(error: BaseException) -> str:
    """The class and the text of an exception, whatever its own ``__str__`` does."""
    try:
        text = str.__getitem__(str(error), slice(MAX_TEXT))
    except Exception as failed:  # noqa: BLE001 - its code may be anybody's
        text = f"<its __str__ raised {type(failed).__name__}>"
    return f"{type(error).__name__}: {text}"


def malformed(error: Exception) -> DecodeError:
    """What is said of bytes that led to an exception of somebody else's."""
    return DecodeError(f"malformed bytes: {told(error)}")


class BigInt:
    """An int beyond 64 bits as read. It is of a class of its own until msgpack has made its maps.

    Raises:
        DecodeError: It is longer than any that is written.
    """

    __slots__ = ("value",)

    def __init__(self, data: bytes) -> None:
        if len(data) > MAX_INT_BITS // 8 + 1:
            raise DecodeError(f"an int of {len(data)} bytes is longer than any that is written")
        self.value = int.from_bytes(data, "little", signed=True)


class Reader:
    """One walk from a tree to its value. Every malformation is a `DecodeError`, or an exception that becomes one.

    Args:
        buffers: What the tree refers to.
        declared: How to read what follows the mark of a declared type, by tag and qualified name.
        work: What may be spent.
    """

    __slots__ = ("_buffers", "_taken", "_work", "declared")

    def __init__(self, buffers: Sequence[memoryview], declared: Mapping[tuple[Tag, str], ReadRule], work: int) -> None:
        self.declared = declared
        self._buffers = buffers
        self._taken = 0
        self._work = work

    def spend(self, work: int) -> None:
        """Note that something is about to take so much work.

        Raises:
            DecodeError: So much is not left.
        """
        self._work -= work
        if self._work < 0:
            raise DecodeError("the value is of too many small objects for its size: send arrays instead")

    def count(self, container: Any) -> Any:
        """Spend what one more container of the tree takes; a hook for msgpack.

        Raises:
            DecodeError: So much is not left.
        """
        self.spend(MAP_WORK if type(container) is dict else 1)
        return container

    def check_keys(self, keys: Collection[Any]) -> None:
        """Look at what is about to be put into a hash table.

        Raises:
            DecodeError: Too many have one hash.
            TypeError: One has none.
        """
        if len(keys) < 2 or set(map(type, keys)) <= _WELL_HASHED:
            return
        hashes = list(map(hash, keys))
        if len(set(hashes)) == len(hashes):
            return
        groups: dict[int, list[Any]] = {}
        for value, key in zip(hashes, keys, strict=True):
            groups.setdefault(value, []).append(key)
        for group in groups.values():
            if len(group) > 1:
                self.spend(len(group) * (len(group) - 1) // 2 * max(map(_comparing, group)))

    def read(self, tree: Any, room: int) -> Any:
        """The value of one tree.

        Raises:
            DecodeError: It is malformed.
        """
        kind = type(tree)
        if kind in KEYS:
            return tree
        return _READ.get(kind, _read_other)(self, tree, room)

    def items(self, trees: list[Any], room: int) -> list[Any]:
        """The values of a container's trees, in the same list.

        Raises:
            DecodeError: One is malformed, or they nest too deeply.
        """
        if not room:
            self._deny_depth()
        if not set(map(type, trees)) <= KEYS:
            room -= 1
            for index, tree in enumerate(trees):
                kind = type(tree)
                if kind not in KEYS:
                    trees[index] = _READ.get(kind, _read_other)(self, tree, room)
        return trees

    def _read_list(self, trees: list[Any], room: int) -> Any:
        if not trees or type(trees[0]) is not Mark:
            return self.items(trees, room)
        mark = trees[0]
        self.spend(mark.work)
        try:
            return mark.read(self, trees[1:], room)
        except DecodeError:
            raise
        except Exception as error:
            # The bytes choose what is called with what, so anything that the calls raise is about the bytes.
            raise malformed(error) from error

    def _read_map(self, trees: dict[Any, Any], room: int) -> dict[Any, Any]:
        if not room:
            self._deny_depth()
        if not set(map(type, trees)) <= KEYS:
            raise DecodeError("a map has a key of a type that cannot be one")
        if not set(map(type, trees.values())) <= KEYS:
            room -= 1
            for key, tree in trees.items():
                kind = type(tree)
                if kind not in KEYS:
                    trees[key] = _READ.get(kind, _read_other)(self, tree, room)
        return trees

    def buffer(self) -> memoryview:
        """The next buffer.

        Raises:
            DecodeError: There are fewer than the tree refers to.
        """
        taken = self._taken
        if taken >= len(self._buffers):
            raise DecodeError(f"the tree refers to more than the {len(self._buffers)} buffers that came with it")
        self._taken = taken + 1
        buffer = self._buffers[taken]
        if type(buffer) is not memoryview or buffer.format != "B" or buffer.ndim != 1 or not buffer.c_contiguous:
            raise DecodeError(f"buffer {taken} is not a one-dimensional contiguous view of bytes")
        return buffer

    def finish(self) -> None:
        """Check that nothing is left over.

        Raises:
            DecodeError: The tree does not refer to every buffer.
        """
        if self._taken != len(self._buffers):
            raise DecodeError(f"the tree refers to {self._taken} of the {len(self._buffers)} buffers that came with it")

    def _deny_depth(self) -> NoReturn:
        raise DecodeError(f"containers nest deeper than {MAX_DEPTH} levels")


def _read_other(reader: Reader, tree: object, room: int) -> int:
    if type(tree) is BigInt:
        return tree.value
    raise DecodeError(f"a {'mark' if type(tree) is Mark else type(tree).__name__} stands where a value should")


_READ: Final[dict[type, Callable[[Reader, Any, int], Any]]] = {list: Reader._read_list, dict: Reader._read_map}
"""How to read a tree that does not stand for itself."""


def read_pieces(reader: Reader, args: list[Any], room: int) -> Any:
    """Undo `Writer.array`.

    Raises:
        DecodeError: What follows the mark is malformed.
    """
    whole: list[Any] = []
    for piece in args:
        if type(piece) is not list:
            raise DecodeError("a piece of a long array is not an array")
        whole += piece
    if whole and type(whole[0]) is Mark and whole[0].tag is Tag.PIECES:
        raise DecodeError("pieces of a long array are themselves in pieces")
    return reader.read(whole, room)
