"""What functions and classes say of themselves: the arguments they take, and the methods they have."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

__all__ = [
    "Method",
    "Parameters",
    "is_generator",
    "is_method",
    "method_of",
    "noted_by_ray",
    "parameters_of",
    "public_names",
]

_NOTE: Final = "__ray_"
"""What the names of the attributes begin with by which ``@ray.method`` notes options on a function."""


class Parameters:
    """What arguments a function takes.

    Args:
        signature: Of the function, as it is called.
    """

    def __init__(self, signature: inspect.Signature) -> None:
        self._signature = signature
        positional = [
            parameter
            for parameter in signature.parameters.values()
            if parameter.kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        ]
        # To bind takes longer than all else that a call does here, and for most calls it is enough to count.
        self._counts = range(0)
        if len(positional) == len(signature.parameters):
            required = sum(parameter.default is inspect.Parameter.empty for parameter in positional)
            self._counts = range(required, len(positional) + 1)

    def check(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Refuse arguments that do not fit, as Python would.

        Raises:
            TypeError: They do not.
        """
        if not kwargs and len(args) in self._counts:
            return
        try:
            self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{name}{self._signature}: {error}") from None


class Method(NamedTuple):
    """What a class says of one of its methods.

    Attributes:
        parameters: What it takes without its ``self``; None if it does not tell.
        options: What ``@ray.method`` says of it.
        is_generator: Whether it yields what it makes.
    """

    parameters: Parameters | None
    options: Mapping[str, Any]
    is_generator: bool


def parameters_of(target: Callable[..., Any]) -> Parameters | None:
    """What a function or a constructor takes; None if it does not tell, as some that are written in C do not."""
    try:
        return Parameters(inspect.signature(target))
    except ValueError:
        return None


def is_method(code: type, name: str) -> bool:
    """Whether this is something of a class that may be called by that name, and not what every class has."""
    if name.startswith("__") or inspect.getattr_static(code, name, None) is None:
        return False
    return callable(getattr(code, name, None))


def is_generator(function: object) -> bool:
    """Whether what it makes it yields, also as a coroutine."""
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


def public_names(code: type) -> list[str]:
    """What a class has that is for others."""
    return [name for name in dir(code) if not name.startswith("_")]


def method_of(code: type, name: str) -> Method:
    """What a class says of its method of a name."""
    bound = getattr(code, name)
    return Method(_method_parameters(code, name), noted_by_ray(bound), is_generator(bound))


def noted_by_ray(method: Callable[..., Any]) -> dict[str, Any]:
    """The options that ``@ray.method`` gives to a method."""
    if not inspect.isroutine(method):
        return {}
    noted: Mapping[str, Any] = getattr(inspect.unwrap(method), "__dict__", {})
    return {
        name.removeprefix(_NOTE).removesuffix("__"): value for name, value in noted.items() if name.startswith(_NOTE)
    }


def _method_parameters(code: type, name: str) -> Parameters | None:
    method = inspect.getattr_static(code, name)
    try:
        signature = inspect.signature(getattr(code, name))
    except ValueError:
        return None
    # Only what is a descriptor is bound to the instance: not a class inside the class, nor a partial.
    if isinstance(method, (staticmethod, classmethod)) or not hasattr(type(method), "__get__"):
        return Parameters(signature)
    return Parameters(signature.replace(parameters=list(signature.parameters.values())[1:]))
