"""Why something cannot be pickled, in one sentence: which part of it, where that is, and what to do about it.

Looked for only after pickling has failed. Whatever raises it by itself fails as `pickle.PicklingError`, so that the
name that other parties are told says what happened.
"""

from __future__ import annotations

import functools
import pickle
import reprlib
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from fed.runtime.arguments import Nested
from fed.runtime.contract import Call

__all__ = ["argument_error", "code_error", "held_error", "result_error"]

Pickle = Callable[[Any], bytes]

MAX_DEPTH: Final = 20


def code_error(code: object, error: Exception, dumps: Pickle) -> pickle.PicklingError:
    """The error of a function or a class that cannot be pickled, with the variables that it refers to.

    Args:
        code: The function or class.
        error: What pickling it raised.
        dumps: What pickles it.
    """
    path, culprit, why = _culprit(code, error, dumps)
    what = f"its variable {path.removeprefix('.')}" if path else "its code"
    return _error(what, culprit, why, "make it inside the task, or in the constructor of an actor")


def argument_error(call: Call, dumps: Pickle) -> pickle.PicklingError | None:
    """The error of a call of which an argument cannot be pickled; None if all can be."""
    first = len(call.values) - len(call.shape.keywords) - call.shape.extras
    for position, value in enumerate(call.values):
        named = position - first
        what = f"argument {position + 1}" if named < 0 else f"argument {call.shape.keywords[named]!r}"
        refused = _refused(what, value, dumps)
        if refused is not None:
            return refused
    return None


def held_error(value: object, dumps: Pickle) -> pickle.PicklingError | None:
    """The error of an argument that is to be held and cannot be pickled; None if it can be."""
    return _refused("an argument", value, dumps)


def result_error(result: object, error: Exception, dumps: Pickle) -> pickle.PicklingError:
    """The error of a result that cannot be pickled.

    Args:
        result: The result.
        error: What pickling it raised.
        dumps: What pickles it.
    """
    path, culprit, why = _culprit(result, error, dumps)
    return _error(_within(path, "the result"), culprit, why, "return plain data")


def _refused(what: str, value: object, dumps: Pickle) -> pickle.PicklingError | None:
    error = _raised(value, dumps)
    if error is None:
        return None
    path, culprit, why = _culprit(value.tree if type(value) is Nested else value, error, dumps)
    return _error(_within(path, what), culprit, why, "make it inside the task")


def _within(path: str, whole: str) -> str:
    return f"{path.removeprefix('.')} of {whole}" if path else whole


def _error(what: str, culprit: object, why: Exception, instead: str) -> pickle.PicklingError:
    kind, text = type(culprit), str(why)
    if kind.__module__.partition(".")[0] == "fed":
        # Handles say themselves what to do with them.
        return pickle.PicklingError(f"{what}: {text}")
    # Python's own text names the type, as this one does.
    reason = instead if text.lower().startswith("cannot pickle") else f"{type(why).__name__}: {text}"
    return pickle.PicklingError(f"{what} ({kind.__qualname__}) cannot be pickled: {reason}")


def _raised(value: object, dumps: Pickle) -> Exception | None:
    try:
        dumps(value)
    except Exception as error:  # noqa: BLE001 - whatever the value's own code raises
        return error
    return None


def _culprit(value: object, error: Exception, dumps: Pickle) -> tuple[str, object, Exception]:
    """The innermost part that cannot be pickled: the way to it, itself, and what pickling it raised."""
    path, seen = "", {id(value)}
    for _ in range(MAX_DEPTH):
        for step, part in _parts(value):
            raised = None if id(part) in seen else _raised(part, dumps)
            if raised is not None:
                path, value, error = path + step, part, raised
                seen.add(id(part))
                break
        else:
            break
    return path, value, error


def _parts(value: object) -> Iterator[tuple[str, object]]:
    """What something is made of, with the step that leads there."""
    if isinstance(value, types.FunctionType):
        yield from _variables(value)
    elif isinstance(value, types.MethodType):
        yield from (("", value.__func__), ("", value.__self__))
    elif isinstance(value, (staticmethod, classmethod)):
        yield "", value.__func__
    elif isinstance(value, functools.partial):
        yield from _parts((value.func, *value.args))
        yield from _parts(value.keywords)
    elif isinstance(value, Mapping):
        for key, member in value.items():
            yield f"[{reprlib.repr(key)}]" if isinstance(key, (str, int)) else "[...]", member
    elif isinstance(value, (list, tuple)):
        yield from ((f"[{position}]", member) for position, member in enumerate(value))
    elif isinstance(value, (set, frozenset)):
        yield from (("[...]", member) for member in value)
    elif isinstance(value, type) or type(value).__module__.partition(".")[0] not in sys.stdlib_module_names:
        # What an object of Python's library consists of tells nobody anything.
        yield from ((f".{name}", member) for name, member in getattr(value, "__dict__", {}).items())


def _variables(function: types.FunctionType) -> Iterator[tuple[str, object]]:
    """What a function refers to: variables around it, global ones, and its defaults."""
    code = function.__code__
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f".{name}", cell.cell_contents
        except ValueError:
            # Not assigned yet.
            continue
    for name in _global_names(code):
        if name in function.__globals__:
            yield f".{name}", function.__globals__[name]
    positional = code.co_varnames[: code.co_argcount]
    defaults = function.__defaults__ or ()
    yield from (
        (f".{name}", value) for name, value in zip(positional[len(positional) - len(defaults) :], defaults, strict=True)
    )
    yield from ((f".{name}", value) for name, value in (function.__kwdefaults__ or {}).items())


def _global_names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _global_names(constant)
