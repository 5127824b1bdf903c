"""How a class that is not plain data crosses: by two functions of the user's, which every party declares."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Generic, TypeAlias, TypeVar

from fed.errors import ConfigError

__all__ = ["DeclaredType", "TypeCodec", "codec", "declared_name"]

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, eq=False)
class TypeCodec(Generic[T]):
    """What `codec` makes, for the option ``types``.

    Attributes:
        cls: The class.
        to_bytes: Makes bytes of an instance.
        from_bytes: Makes an instance of bytes.
    """

    cls: type[T]
    to_bytes: Callable[[T], bytes | bytearray | memoryview]
    from_bytes: Callable[[bytes], T]


DeclaredType: TypeAlias = type | TypeCodec[Any]
"""What the option ``types`` is a list of."""


def codec(
    cls: type[T],
    *,
    to_bytes: Callable[[T], bytes | bytearray | memoryview],
    from_bytes: Callable[[bytes], T],
) -> TypeCodec[T]:
    """Declare how the instances of a class cross: ``fed.init(types=[fed.codec(Model, to_bytes=..., from_bytes=...)])``.

    The functions run in the driver, in tasks and in the proxies, in any thread. They must not unpickle: what
    ``from_bytes`` is given was made by another party, and may be anything.

    Args:
        cls: The class. A subclass is another class.
        to_bytes: Given an instance, returns bytes. What it raises makes the value one that cannot cross.
        from_bytes: Given these bytes, returns an instance. What it raises makes the value one that cannot be decoded.

    Raises:
        ConfigError: ``cls`` is not a class, one of the functions cannot be called, or they hold what cannot be
            pickled, such as a lock: the processes of this party get a copy.
    """
    # Not where values are only decoded.
    import cloudpickle

    if not isinstance(cls, type):
        raise ConfigError(f"fed.codec: expected a class, found {type(cls).__qualname__}")
    for name, function in (("to_bytes", to_bytes), ("from_bytes", from_bytes)):
        if not callable(function):
            raise ConfigError(
                f"fed.codec({cls.__qualname__}): expected a function for {name}, found {type(function).__qualname__}"
            )
    made = TypeCodec(cls, to_bytes, from_bytes)
    try:
        cloudpickle.dumps(made)
    # What is pickled is anybody's code.
    except Exception as error:
        raise ConfigError(
            f"fed.codec({cls.__qualname__}): it cannot be sent to the processes of this party, {error}"
        ) from error
    return made


def declared_name(declared: DeclaredType) -> str:
    """What every party must have declared alike: the qualified name of a class, and that it has a codec."""
    cls = declared.cls if isinstance(declared, TypeCodec) else declared
    name = f"{cls.__module__}.{cls.__qualname__}"
    return f"fed.codec({name})" if isinstance(declared, TypeCodec) else name
