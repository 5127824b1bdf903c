from __future__ import annotations

import abc
import dataclasses
import enum
import functools
from typing import Any, Generic, NamedTuple, TypeVar

import pytest

from fed.serde.contract import DecodeError, EncodeError
from fed.serde.data import DataCodec
from tests.support.sameness import assert_same
from tests.support.values import CODEC, TYPES, Access, Colour, Frozen, Level, Mode, Pair, Plain, Slotted, roundtrip

T = TypeVar("T")


@dataclasses.dataclass
class Guarded:
    """Counts what runs when one is made."""

    value: int
    derived: int = dataclasses.field(init=False)
    scale: dataclasses.InitVar[int] = 2
    made = 0

    def __post_init__(self, scale: int) -> None:
        type(self).made += 1
        self.derived = self.value * scale


@dataclasses.dataclass
class Lazy:
    value: int

    @functools.cached_property
    def double(self) -> int:
        return 2 * self.value


@dataclasses.dataclass
class Box(Generic[T]):
    item: T


@dataclasses.dataclass
class Base:
    a: int


@dataclasses.dataclass
class Derived(Base):
    b: int


class SecretSlot:
    __slots__ = ("__hidden", "open")


@dataclasses.dataclass
class OnSlots(SecretSlot):
    a: int


class Extended(Pair):
    """A namedtuple with a dict, because it declares no slots."""


def test_a_dataclass_is_rebuilt_without_running_its_code() -> None:
    codec = DataCodec([Guarded])
    value = Guarded(3, 5)
    made = Guarded.made
    assert roundtrip(value, codec).derived == 15
    assert Guarded.made == made


@pytest.mark.parametrize(
    ("value", "types"),
    [
        (Lazy(2), [Lazy]),
        (Box[int](2), [Box]),
        (Derived(1, 2), [Base, Derived]),
        (OnSlots(1), [OnSlots]),
        (Extended(1, 2), [Extended]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_field_and_no_loss_does_not_matter(value: Any, types: list[type]) -> None:
    if isinstance(value, Lazy):
        assert value.double == 4
    assert_same(roundtrip(value, DataCodec(types)), value)


def test_attributes_that_are_no_fields_are_refused_because_they_would_be_lost() -> None:
    plain = Plain(1)
    plain.more = 2
    with pytest.raises(EncodeError, match=r"Plain at \[0\]: an attribute of it is not a field.*'more'"):
        CODEC.encode([plain])

    slots = OnSlots(1)
    slots.open = 3
    with pytest.raises(EncodeError, match=r"is not a field.*'open'"):
        DataCodec([OnSlots]).encode(slots)

    private = OnSlots(1)
    private._SecretSlot__hidden = 3
    with pytest.raises(EncodeError, match=r"is not a field.*'_SecretSlot__hidden'"):
        DataCodec([OnSlots]).encode(private)

    pair = Extended(1)
    pair.more = 2
    with pytest.raises(EncodeError, match=r"is not a field.*'more'"):
        DataCodec([Extended]).encode(pair)


def test_a_field_that_is_not_set_is_refused() -> None:
    value = Plain(1)
    del value.a
    with pytest.raises(EncodeError, match="a field is not set") as caught:
        CODEC.encode({"k": value})
    assert caught.value.where == "['k']"


def test_a_subclass_of_a_declared_class_is_another_class() -> None:
    with pytest.raises(EncodeError, match=r"fed\.init\(types=\[Derived\]\)"):
        DataCodec([Base]).encode(Derived(1, 2))


@pytest.mark.parametrize(
    "value", [Colour.RED, Level.LOW, Access.READ, Plain(1), Frozen(), Slotted(1), Pair(1)], ids=repr
)
def test_an_undeclared_class_is_refused_by_both_ends(value: Any) -> None:
    cls = type(value)
    with pytest.raises(EncodeError) as caught:
        DataCodec().encode({"weights": [0, value]})
    assert caught.value.type_name == cls.__qualname__
    assert caught.value.where == "['weights'][1]"
    for part in (f"tests.support.values.{cls.__name__}", "['weights'][1]", f"fed.init(types=[{cls.__name__}])"):
        assert part in str(caught.value)

    encoded = CODEC.encode(value)
    others = DataCodec([other for other in TYPES if other is not cls])
    with pytest.raises(DecodeError, match=rf"tests\.support\.values\.{cls.__name__}' is not declared here"):
        others.decode(*encoded)


def test_other_fields_under_the_same_name_are_refused() -> None:
    def version(*fields: str) -> Any:
        cls = dataclasses.make_dataclass("Model", fields)
        cls.__module__ = "shared"
        return cls

    old, new = version("a", "b"), version("b", "a")
    encoded = DataCodec([old]).encode(old(1, 2))
    assert dataclasses.astuple(DataCodec([version("a", "b")]).decode(*encoded)) == (1, 2)
    with pytest.raises(DecodeError, match=r"shared\.Model has other fields"):
        DataCodec([new]).decode(*encoded)


def test_a_kind_of_class_cannot_stand_in_for_another_of_the_same_name() -> None:
    class Thing(NamedTuple):
        x: int

    impostor: Any = dataclasses.make_dataclass("Thing", ["x"])
    impostor.__module__, impostor.__qualname__ = Thing.__module__, Thing.__qualname__
    with pytest.raises(DecodeError, match="not declared"):
        DataCodec([Thing]).decode(*DataCodec([impostor]).encode(impostor(1)))


def test_enum_members_are_the_very_members() -> None:
    for member in [*Colour, *Level, *Access]:
        assert roundtrip(member) is member
    assert roundtrip(Access.READ | Access.WRITE) == Access.READ | Access.WRITE
    assert_same(roundtrip({Level.LOW: 1}), {Level.LOW: 1})
    assert type(roundtrip(Mode(8))) is Mode


def test_a_member_that_is_not_there_is_refused() -> None:
    class Paint(enum.Enum):
        RED = 1

    class Newer(enum.Enum):
        RED = 1
        BLUE = 2

    Newer.__qualname__ = Paint.__qualname__
    encoded = DataCodec([Newer]).encode([Newer.RED, Newer.BLUE])
    with pytest.raises(DecodeError, match="Paint has no such member"):
        DataCodec([Paint]).decode(*encoded)


class Abstract(abc.ABC):
    @abc.abstractmethod
    def method(self) -> None: ...


@dataclasses.dataclass
class Unfinished(Abstract):
    a: int


@dataclasses.dataclass
class ListWithFields(list):  # type: ignore[type-arg]
    a: int


@dataclasses.dataclass
class ErrorWithFields(Exception):
    a: int


@pytest.mark.parametrize("cls", [int, str, object, Abstract, tuple, dict], ids=lambda cls: cls.__name__)
def test_other_classes_cannot_be_declared(cls: type) -> None:
    with pytest.raises(TypeError, match=rf"types\[1\].*{cls.__qualname__} is not a dataclass, an Enum class"):
        DataCodec([Plain, cls])


@pytest.mark.parametrize("cls", [Unfinished, ListWithFields, ErrorWithFields], ids=lambda cls: cls.__name__)
def test_dataclasses_that_cannot_be_rebuilt_from_their_fields_cannot_be_declared(cls: type) -> None:
    with pytest.raises(TypeError, match=f"{cls.__qualname__} cannot be rebuilt from its fields"):
        DataCodec([cls])


@pytest.mark.parametrize("thing", [Plain(1), "Plain", None, Box[int]])
def test_what_is_no_class_cannot_be_declared(thing: Any) -> None:
    with pytest.raises(TypeError, match=r"types\[0\] is not a class"):
        DataCodec([thing])


def test_a_qualified_name_can_be_declared_once() -> None:
    with pytest.raises(
        ValueError, match=r"types\[1\]: another class in types is also named tests\.support\.values\.Plain"
    ):
        DataCodec([Plain, Plain])
