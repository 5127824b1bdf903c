"""What runs around the user's code, in the worker: arguments put in place, results split, exceptions made to travel."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import cloudpickle

from fed.core.failure import Failure, Fault, Kind, Poison
from fed.runtime.arguments import PLAIN, Shape, unpack

__all__ = ["LostError", "Origin", "PoisonedError", "fault_of_user_error", "run", "run_async", "text_of"]

_ORIGIN: Final = "__fed_origin__"


class PoisonedError(Exception):
    """Raised in place of the user's code when an argument failed; the code does not run.

    Attributes:
        failure: The failure of the argument.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)
        self.failure = failure


class Origin(NamedTuple):
    """What only the worker can tell of the user's exception, because it does not survive the way to the driver.

    Attributes:
        type_name: Name of its class.
        cause_types: Names of the classes it was raised from, nearest first.
        message: Its text.
        traceback: Its traceback, formatted, without the frames of this library.
    """

    type_name: str
    cause_types: tuple[str, ...]
    message: str
    traceback: str


class LostError(Exception):
    """Stands for a user's exception that cannot be pickled.

    Attributes:
        origin: What is known of it.
    """

    def __init__(self, origin: Origin) -> None:
        super().__init__(origin)
        self.origin = origin

    def __str__(self) -> str:
        return f"{self.origin.type_name}: {self.origin.message} (the original exception cannot be pickled)"


def run(code: Callable[..., Any], shape: Shape | None, values: Sequence[Any]) -> Any:
    """Run the user's code. Without a shape the call is `PLAIN`.

    Returns:
        Its results, followed by None, which is what ``done`` resolves to.

    Raises:
        PoisonedError: An argument failed.
        Exception: What the code raised, or a `LostError` in its place.
    """
    shape = shape or PLAIN
    args, kwargs = _arguments(values, shape)
    try:
        return _split(code(*args, **kwargs), shape.returns, code)
    except Exception as error:
        travelling = _travelling(error)
        if travelling is error:
            raise
        raise travelling from None


async def run_async(code: Callable[..., Any], shape: Shape | None, values: Sequence[Any]) -> Any:
    """As `run`, for a coroutine function."""
    shape = shape or PLAIN
    args, kwargs = _arguments(values, shape)
    try:
        return _split(await code(*args, **kwargs), shape.returns, code)
    except Exception as error:
        travelling = _travelling(error)
        if travelling is error:
            raise
        raise travelling from None


def fault_of_user_error(error: BaseException, kind: Kind = Kind.TASK) -> Fault:
    """What the runtime found, from a user's exception as it came out of a worker. Calls no user code."""
    if isinstance(error, PoisonedError):
        return Fault(kind, error.failure.type_name, inherited=error.failure)
    origin = error.origin if isinstance(error, LostError) else getattr(error, _ORIGIN, None)
    if isinstance(origin, Origin):
        return Fault(kind, origin.type_name, origin.cause_types, message=origin.message, traceback=origin.traceback)
    return Fault(kind, type(error).__name__, _cause_types(error))


def origin_of(error: BaseException) -> Origin | None:
    """What the worker noted about an exception, if it came from one."""
    origin = error.origin if isinstance(error, LostError) else getattr(error, _ORIGIN, None)
    return origin if isinstance(origin, Origin) else None


def _arguments(values: Sequence[Any], shape: Shape) -> tuple[list[Any], dict[str, Any]]:
    for value in values:
        if type(value) is Poison:
            raise PoisonedError(value.failure)
    return unpack(values, shape)


def _split(result: Any, returns: int, code: Callable[..., Any]) -> Any:
    if returns == 1:
        return result, None
    if returns == 0:
        return None
    if not isinstance(result, (tuple, list)) or len(result) != returns:
        found = f"{len(result)} values" if isinstance(result, (tuple, list)) else f"one {type(result).__name__}"
        name = getattr(code, "__name__", "the task")
        raise ValueError(f"{name} was called with num_returns={returns} but returned {found}")
    return (*result, None)


def _travelling(error: Exception) -> Exception:
    """The exception itself where it survives pickling, else a record of it; with its origin noted on it."""
    origin = Origin(type(error).__name__, _cause_types(error), text_of(error), _trace(error))
    try:
        setattr(error, _ORIGIN, origin)
        survives = type(pickle.loads(cloudpickle.dumps(error))) is type(error)  # noqa: S301 - our own bytes
    # Whatever a user's __reduce__, __getstate__ or __setattr__ may raise: its class cannot travel.
    except Exception:  # noqa: BLE001
        survives = False
    return error if survives else LostError(origin)


def text_of(error: BaseException) -> str:
    """The text of an exception, whatever its own ``__str__`` does."""
    try:
        return str(error)
    except Exception as failed:  # noqa: BLE001 - a user's __str__ may raise anything
        return f"<its __str__ raised {type(failed).__name__}>"


def _trace(error: Exception) -> str:
    frames = error.__traceback__
    # The first frame is the call in this file.
    frames = frames.tb_next if frames is not None and frames.tb_next is not None else frames
    try:
        return "".join(traceback.format_exception(type(error), error, frames))
    except Exception as failed:  # noqa: BLE001 - formatting calls the user's __str__
        return f"<its traceback could not be formatted: {type(failed).__name__}>"


def _cause_types(error: BaseException) -> tuple[str, ...]:
    names: list[str] = []
    seen = {id(error)}
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        names.append(type(cause).__name__)
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return tuple(names)
