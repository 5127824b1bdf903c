"""What runs around the user's code, in the worker: arguments put in place, results split, exceptions made to travel.

Laws of what leaves a worker:

1. Whatever the user's code raises, its class's name, those of its causes, its text and its traceback arrive. They
   travel beside the exception, as an `Origin`, since an exception can drop what is put on it, or refuse to travel.
2. An exception leaves the worker as itself, also one that cannot be pickled, because Ray looks at it there before
   it is pickled: it is what the option ``retry_exceptions`` is compared with. Only one that Ray's worker or Ray's
   driver would come to harm by, and what is no `Exception`, is replaced, by a `LostError`.
3. Nothing that an exception defines (``__getattr__``, ``__setattr__``, ``__str__``, ``__reduce__``, a ``__class__``
   of its own) can keep 1 from holding.
"""

from __future__ import annotations

import asyncio
import builtins
import pickle
import re
import sys
import threading
import traceback
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import cloudpickle

from fed.core.failure import MAX_CAUSES, Fault, Kind
from fed.runtime.arguments import Shape, unpack
from fed.serde.contract import DecodeError
from fed.serde.receipt import SmallCodec, SmallValue

__all__ = [
    "LostError",
    "Origin",
    "UndecodableError",
    "arriving",
    "departing",
    "fault_of_user_error",
    "name_of",
    "origin_of",
    "run",
    "run_async",
    "text_of",
    "unwrapped",
    "without_colours",
]

NO_RECEIPTS: Final = SmallCodec()

MAX_TEXT: Final = 1 << 16
"""Characters of a message or a traceback that travel. A failure keeps far fewer; a debugger may want more."""

_HOOK: Final = "__reduce_ex__"

_VARIABLES: Any = BaseException.__dict__["__dict__"]
_TRACEBACK: Any = BaseException.__dict__["__traceback__"]
_CAUSE: Any = BaseException.__dict__["__cause__"]
_CONTEXT: Any = BaseException.__dict__["__context__"]
_SUPPRESS: Any = BaseException.__dict__["__suppress_context__"]
"""These read an exception past whatever it defines itself, ``__getattribute__`` included."""

_GROUP: Any = getattr(builtins, "BaseExceptionGroup", None)
"""None on Python 3.10."""

_STREAMS: Final[Mapping[type, str]] = {
    types.GeneratorType: "return a list",
    types.AsyncGeneratorType: "return a list",
    types.CoroutineType: "await it in a coroutine method",
}
"""What runs only where it was made, and what to do in place of returning it."""

_COLOURS: Final = re.compile(r"\x1b\[[0-9;]*m")


class UndecodableError(Exception):
    """Raised in place of the user's code when an argument that a peer sent cannot be decoded; the code does not run.

    Attributes:
        origin: Which argument.
        type_name: Name of the class of what the codec raised.
        text: Its text.
    """

    def __init__(self, origin: str, type_name: str, text: str) -> None:
        super().__init__(origin, type_name, text)
        self.origin = origin
        self.type_name = type_name
        self.text = text


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
    """Stands for a user's exception that cannot be pickled, or cannot be let out of the worker.

    Attributes:
        origin: What is known of it.
    """

    def __init__(self, origin: Origin) -> None:
        super().__init__(origin)
        self.origin = origin

    def __str__(self) -> str:
        return f"{self.origin.type_name}: {self.origin.message} (the original exception could not leave its worker)"


class _ExceptionEnvelope(NamedTuple):
    """Pickled in place of the exception that it is attached to.

    Attached as the instance's ``__reduce_ex__``, which pickle asks before it asks the class, it holds at every step
    of the way: an exception that is passed on to the tasks that depend on it is pickled again at each.

    Attributes:
        origin: What the worker knows of the exception.
        data: The exception itself, pickled; None if it cannot be.
    """

    origin: Origin
    data: bytes | None

    def __call__(self, protocol: object) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _arrive, (self.origin, self.data)


def _arrive(origin: Origin, data: bytes | None) -> BaseException:
    """The exception, out of pickle. Total: an error in here would hide the one that is being told of."""
    if data is not None:
        try:
            error = pickle.loads(data)  # noqa: S301 - our own bytes
        # Whatever a user's __setstate__ or constructor raises, or a module that is missing here.
        except Exception:  # noqa: BLE001
            return LostError(origin)
        if issubclass(type(error), BaseException):
            _VARIABLES.__get__(error)[_HOOK] = _ExceptionEnvelope(origin, data)
            return error  # type: ignore[no-any-return]
    return LostError(origin)


def run(code: Callable[..., Any], shape: bytes, values: Sequence[Any], codec: SmallCodec = NO_RECEIPTS) -> Any:
    """Run the user's code with the values of a call, of this shape in bytes.

    Returns:
        Its results, followed by their receipt, which is what ``done`` resolves to.

    Raises:
        UndecodableError: An argument that a peer sent cannot be decoded.
        KeyboardInterrupt: In the main thread: Ray cancels the task, or the code raised it; nobody can tell.
        SystemExit: Ray ends the worker.
        Exception: What the code raised, or a `LostError` in its place.
    """
    returns, args, kwargs = _arguments(values, shape, codec)
    try:
        return _split(code(*args, **kwargs), returns, code, codec)
    except BaseException as error:
        if _interrupts(error) or _ends_worker(error):
            raise
        travelling = departing(error)
        if travelling is error:
            raise
    # Not within the handler: the original must not travel as this one's context.
    raise travelling


async def run_async(
    code: Callable[..., Any], shape: bytes, values: Sequence[Any], codec: SmallCodec = NO_RECEIPTS
) -> Any:
    """As `run`, for a coroutine function.

    Raises:
        UndecodableError: An argument that a peer sent cannot be decoded.
        asyncio.CancelledError: The call is cancelled, or the code raised it, which cannot be told apart.
        SystemExit: Ray ends the worker.
        Exception: What the code raised, or a `LostError` in its place.
    """
    returns, args, kwargs = _arguments(values, shape, codec)
    try:
        return _split(await code(*args, **kwargs), returns, code, codec)
    except (asyncio.CancelledError, GeneratorExit):
        raise
    except BaseException as error:
        if _interrupts(error) or _ends_worker(error):
            raise
        travelling = departing(error)
        if travelling is error:
            raise
    raise travelling


def departing(error: BaseException) -> Exception:
    """What leaves the worker for an exception: itself, with its origin attached, or a `LostError`. Total.

    Where Ray wrapped the exception of a task that the code called itself, the wrapper leaves, because the code raised
    it and ``retry_exceptions`` may name it, and the user's exception arrives.
    """
    if type(error) is LostError:
        return error
    inner = unwrapped(error)
    text, told = _text(inner)
    if _is_rays(inner):
        # Ray's own text quotes tracebacks; the trace has it too.
        text = ""
    trace, formatted = _trace(error)
    origin = Origin(name_of(inner), _cause_types(error), text, trace)
    try:
        # What Ray does with it before it asks for anything of ours: format it, and compare its class.
        if not (told and formatted and error.__class__ is type(error) and isinstance(error, Exception)):
            return LostError(origin)
        for travelling in (error, inner):
            _VARIABLES.__get__(travelling).pop(_HOOK, None)
        envelope = _ExceptionEnvelope(origin, _pickled(inner))
        for travelling in (error, inner):
            _VARIABLES.__get__(travelling)[_HOOK] = envelope
        arrived = pickle.loads(_pickler().dumps(error))  # noqa: S301 - our own bytes
        # A class that the user registered a serializer for is pickled past the hook: it is told of by its class.
        if origin_of(arrived) == origin or type(arrived) is type(error):
            return error if _combines(inner) else LostError(origin)
    # A class that raises when it is merely looked at.
    except BaseException as failed:
        if _interrupts(failed):
            raise
    return LostError(origin)


def fault_of_user_error(error: BaseException, kind: Kind = Kind.TASK) -> Fault:
    """What the runtime found, from a user's exception as it came out of a worker. Calls no user code."""
    if type(error) is UndecodableError:
        # The codec's own text describes the peer's bytes, so it stays a message, which only some may see.
        return Fault(Kind.DELIVERY, error.type_name, detail=f"{error.origin} cannot be decoded", message=error.text)
    origin = origin_of(error)
    if origin is not None:
        return Fault(kind, origin.type_name, origin.cause_types, message=origin.message, traceback=origin.traceback)
    return Fault(kind, name_of(error), _cause_types(error))


def origin_of(error: BaseException) -> Origin | None:
    """What the worker noted about an exception, if it came from one. Calls no user code."""
    if type(error) is LostError:
        return error.origin
    envelope = _VARIABLES.__get__(error).get(_HOOK)
    return envelope.origin if type(envelope) is _ExceptionEnvelope else None


def arriving(error: BaseException) -> BaseException:
    """What a departed exception is where it arrives, for a runtime that moves it within one process."""
    envelope = _VARIABLES.__get__(error).get(_HOOK)
    return LostError(envelope.origin) if type(envelope) is _ExceptionEnvelope and envelope.data is None else error


def unwrapped(error: BaseException) -> BaseException:
    """The user's exception inside what Ray raises for a task that failed; any other exception itself."""
    # Not imported: in a process without Ray there is nothing to unwrap.
    ray_exceptions = sys.modules.get("ray.exceptions")
    if ray_exceptions is None:
        return error
    inner = error
    while issubclass(type(inner), ray_exceptions.RayTaskError):
        cause = _VARIABLES.__get__(inner).get("cause")
        # What Ray could not pickle it replaced by a text, of which the wrapper tells more.
        if cause is inner or not issubclass(type(cause), BaseException) or type(cause) is ray_exceptions.RayError:
            break
        inner = cause
    return inner


def _is_rays(error: BaseException) -> bool:
    """Whether it is an exception of Ray's own, whose text no user wrote."""
    ray_exceptions = sys.modules.get("ray.exceptions")
    return ray_exceptions is not None and issubclass(type(error), ray_exceptions.RayError)


def name_of(error: BaseException) -> str:
    """Name of an exception's class, without its module. Calls no user code."""
    # Past a metaclass that has a __name__ of its own.
    return str(type.__dict__["__name__"].__get__(type(error)))


def without_colours(text: str) -> str:
    """A text without the escape sequences that Ray puts into what it formats."""
    return _COLOURS.sub("", text)


def text_of(error: BaseException) -> str:
    """The text of an exception, whatever its own ``__str__`` does."""
    text, _ = _text(error)
    return text


def _arguments(values: Sequence[Any], data: bytes, codec: SmallCodec) -> tuple[int, Sequence[Any], dict[str, Any]]:
    """How many results are wanted, and the arguments."""
    if not data:
        return 1, values, {}
    shape = Shape.of_bytes(data)
    resolved = list(values)
    for position, origin in shape.arriving:
        try:
            resolved[position] = codec.read(SmallValue.of_bytes(resolved[position]))
        except DecodeError as error:
            raise UndecodableError(origin, type(error).__name__, str(error)) from None
    args, kwargs = unpack(resolved, shape)
    return shape.returns, args, kwargs


def _split(result: Any, returns: int, code: Callable[..., Any], codec: SmallCodec) -> Any:
    if type(result) in _STREAMS:
        if type(result) is types.CoroutineType:
            result.close()
        instead = _STREAMS[type(result)]
        raise pickle.PicklingError(f"the result ({type(result).__name__}) cannot be pickled: {instead}")
    if returns == 1:
        return result, codec.write((result,))
    if returns == 0:
        return b""
    if not isinstance(result, (tuple, list)) or len(result) != returns:
        found = f"{len(result)} values" if isinstance(result, (tuple, list)) else f"one {type(result).__name__}"
        name = getattr(code, "__name__", "the task")
        raise ValueError(f"{name} was called with num_returns={returns} but returned {found}")
    return (*result, codec.write(result))


def _interrupts(error: BaseException) -> bool:
    """Whether this may be Ray cancelling the task, or Ctrl-C in a driver: both interrupt the main thread.

    In any other thread it is the user's code that raised it. There it must not pass, for it would end the event loop
    of an actor with coroutine methods, and leave its calls waiting for ever.
    """
    return issubclass(type(error), KeyboardInterrupt) and threading.current_thread() is threading.main_thread()


def _ends_worker(error: BaseException) -> bool:
    """Whether Ray raised this to end the worker: for ``exit_actor``, or because it was told to terminate.

    Ray marks its own. An exit of the user's own is a failed task like any other: it must not take the worker with
    it, and the name of what was raised; in an actor with coroutine methods it would also leave every call waiting.
    """
    return type(error) is SystemExit and any("ray_terminate" in name for name in _VARIABLES.__get__(error))


def _pickled(error: BaseException) -> bytes | None:
    """The exception, pickled, if it comes out of pickle as what it was."""
    try:
        data: bytes = _pickler().dumps(error)
        return data if type(pickle.loads(data)) is type(error) else None  # noqa: S301 - our own bytes
    # Whatever a user's __reduce__, __getstate__ or __setstate__ may raise: the exception itself cannot travel.
    except BaseException as failed:
        if _interrupts(failed):
            raise
        return None


def _combines(error: BaseException) -> bool:
    """Whether Ray can make of it what it raises in the driver: an instance of a class derived from its own and this.

    Where that fails in a way that Ray does not expect, the driver would wait for the task for ever, or see nothing of
    the exception.
    """
    ray_exceptions = sys.modules.get("ray.exceptions")
    if ray_exceptions is None:
        return True
    wrapper = ray_exceptions.RayTaskError("task", "traceback", error, "process", 1, "address")
    return unwrapped(wrapper.as_instanceof_cause()) is error


def _pickler() -> Any:
    # Ray's own copy of cloudpickle, in Ray's workers: it finds the classes of the driver's main module again, and
    # knows the serializers that the user registered.
    return sys.modules.get("ray.cloudpickle", cloudpickle)


def _text(error: BaseException) -> tuple[str, bool]:
    """The text of an exception, and whether it has one."""
    try:
        # A slice, because __str__ may return an instance of a subclass, with methods of its own.
        return str.__getitem__(str(error), slice(MAX_TEXT)), True
    except BaseException as failed:
        if _interrupts(failed):
            raise
        return f"<its __str__ raised {name_of(failed)}>", False


def _trace(error: BaseException) -> tuple[str, bool]:
    """The traceback, and whether it could be formatted, which calls the user's code."""
    frames = _TRACEBACK.__get__(error)
    # The first frame is the call in this file.
    frames = frames.tb_next if frames is not None and frames.tb_next is not None else frames
    try:
        lines = "".join(traceback.format_exception(type(error), error, frames))
        return without_colours(lines)[-MAX_TEXT:], True
    except BaseException as failed:
        if _interrupts(failed):
            raise
        lines = "".join(traceback.format_tb(frames))[-MAX_TEXT:]
        return f"{lines}{name_of(error)}: <could not be formatted: {name_of(failed)}>\n", False


def _cause_types(error: BaseException) -> tuple[str, ...]:
    """Names of the classes that an exception was raised from, nearest first, after those of the members of a group."""
    names: list[str] = []
    seen: set[int] = set()
    # An exception that Ray wrapped brings its own causes; then come those that the wrapper was raised from.
    pending = [error]
    while pending and len(names) < MAX_CAUSES:
        link = pending.pop()
        if id(link) in seen:
            continue
        inner = unwrapped(link)
        if seen:
            names.append(name_of(inner))
        seen |= {id(link), id(inner)}
        names += _members(inner)
        causes = [_cause(link)] if inner is link else [_cause(link), _cause(inner)]
        pending += [cause for cause in causes if cause is not None]
    return tuple(names[:MAX_CAUSES])


def _cause(error: BaseException) -> BaseException | None:
    cause: BaseException | None = _CAUSE.__get__(error)
    if cause is None and not _SUPPRESS.__get__(error):
        cause = _CONTEXT.__get__(error)
    return cause


def _members(error: BaseException) -> list[str]:
    """Names of the classes in an exception group, however deep, each once."""
    names: list[str] = []
    for leaf in _leaves(error):
        name = name_of(leaf)
        if name not in names:
            names.append(name)
        if len(names) == MAX_CAUSES:
            break
    return names


def _leaves(group: BaseException) -> Iterator[BaseException]:
    pending = [group]
    while pending:
        error = pending.pop()
        if _GROUP is not None and issubclass(type(error), _GROUP):
            pending += reversed(_GROUP.exceptions.__get__(error))
        elif error is not group:
            yield error
