"""What Ray throws, mapped once, at this boundary.

Every exception class of `ray.exceptions` has a place in one table, by itself or by a base class; a test walks the
module of the installed Ray and fails for one that has none. The rule by which a class finds its kind:

- What a caller would tell apart keeps apart: cancelled, crashed, out of room, actor gone, value gone.
- What the user's code or options caused is `Kind.TASK`: the call failed, and every party sees it fail, so that
  catching the error and going on is sound.
- What says that Ray itself does not work is `Kind.INTERNAL`: nobody knows who saw what, and the job ends.

An exception that the user's code let out is always `Kind.TASK`, also where it is one of Ray's, as of a ``ray.get`` of
the user's own: `fed.runtime.worker` noted that it came from there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterator, Mapping
from typing import Any, Final

import ray
import ray.exceptions

from fed.core.failure import Fault, Kind
from fed.runtime import worker
from fed.runtime.contract import Outcome, UnreadableError

__all__ = ["KINDS", "fault_of", "kind_of", "outcome_of", "without_tracebacks"]

KINDS: Final[Mapping[str, Kind]] = {
    "TaskCancelledError": Kind.CANCELLED,
    "WorkerCrashedError": Kind.WORKER_CRASHED,
    # The node that ran the task, or the daemon that looks after it, is gone, and the worker with it.
    "LocalRayletDiedError": Kind.WORKER_CRASHED,
    "NodeDiedError": Kind.WORKER_CRASHED,
    "OutOfMemoryError": Kind.OUT_OF_MEMORY,
    # A result for which there is no room. Like memory: make it smaller, or run fewer at a time.
    "ObjectStoreFullError": Kind.OUT_OF_MEMORY,
    "OutOfDiskError": Kind.OUT_OF_MEMORY,
    # Died, or unavailable: the calls that were pending are lost all the same.
    "RayActorError": Kind.ACTOR_DIED,
    "AsyncioActorExit": Kind.ACTOR_DIED,
    # The actor never came to be, and never will.
    "ActorUnschedulableError": Kind.ACTOR_DIED,
    "ActorPlacementGroupRemoved": Kind.ACTOR_DIED,
    "ActorHandleNotFoundError": Kind.ACTOR_DIED,
    # With its subclasses: owner died, freed, could not be made again, nowhere to be found.
    "ObjectLostError": Kind.OBJECT_LOST,
    "PlasmaObjectNotAvailable": Kind.OBJECT_LOST,
    # The user's code raised, and Ray wrapped it, or could not bring it back from bytes.
    "RayTaskError": Kind.TASK,
    "UserCodeException": Kind.TASK,
    "UnserializableException": Kind.TASK,
    "CrossLanguageError": Kind.TASK,
    # The call asked for what there is not: an environment, a place to run, room in a queue, a free name.
    "RuntimeEnvSetupError": Kind.TASK,
    "TaskUnschedulableError": Kind.TASK,
    "TaskPlacementGroupRemoved": Kind.TASK,
    "PendingCallsLimitExceeded": Kind.TASK,
    "ActorAlreadyExistsError": Kind.TASK,
    # The user's code does with references and generators what it may not.
    "OufOfBandObjectRefSerializationException": Kind.TASK,
    "ObjectRefStreamEndOfStreamError": Kind.TASK,
    "StreamingGeneratorReplayInconsistentError": Kind.TASK,
    "GetTimeoutError": Kind.TIMEOUT,
    # With its subclasses: channels of compiled graphs and transfers between devices, which only code of the user's
    # can have started; where they come from elsewhere, Ray is at fault.
    "RaySystemError": Kind.INTERNAL,
    "RpcError": Kind.INTERNAL,
    # The cluster refuses this process; no task is at fault.
    "AuthenticationError": Kind.INTERNAL,
    # Of a class that this table does not know: one of a release later than it.
    "RayError": Kind.INTERNAL,
}
"""Kind by name of the class. By name, because not every release of Ray has all of them."""

_KIND_OF: Final[Mapping[type, Kind]] = {
    getattr(ray.exceptions, name): kind for name, kind in KINDS.items() if hasattr(ray.exceptions, name)
}


_PICKLING: Final = "/cloudpickle.py"
_OWN_CODE: Final = ("/fed/runtime/", "/fed/proxy/")
"""In a traceback: what pickles, and what runs a worker's code and the proxies."""


def kind_of(error_class: type) -> Kind | None:
    """The kind that the table has for an exception class, or for the nearest of its bases; None if it has none."""
    return next((_KIND_OF[base] for base in error_class.__mro__ if base in _KIND_OF), None)


def outcome_of(future: Any) -> Outcome:
    """How the future of a Ray reference, which is done, ended."""
    if future.cancelled():
        error = ray.exceptions.RaySystemError("the reference was dropped")
        return Outcome(None, Fault(Kind.INTERNAL, "RaySystemError"), error)
    error = future.exception()
    if error is None:
        return Outcome(future.result(), None, None)
    fault, cause = fault_of(error)
    return Outcome(None, fault, cause)


def fault_of(error: BaseException) -> tuple[Fault, BaseException]:
    """What an exception out of Ray means, and the exception to show the user as the cause.

    Total, and the only place where Ray's exceptions are told apart. Calls no user code.
    """
    cause = worker.unwrapped(error)
    kind = kind_of(type(cause))
    name = worker.name_of(cause)
    if kind is Kind.CANCELLED:
        # Also where the user's code let it out: a task that is cancelled while it waits for another.
        return Fault(kind, name, message=worker.text_of(cause)), cause
    if kind is None or worker.origin_of(cause) is not None:
        # What Ray lets out unwrapped and has no class of its own for comes from Ray's own code, not from a task.
        told = cause is not error or worker.origin_of(cause) is not None
        fault = worker.fault_of_user_error(cause, Kind.TASK if told else Kind.INTERNAL)
        if cause is not error and not fault.traceback and fault.kind is not Kind.DELIVERY:
            # What Ray's wrapper says is a text that was made in the worker.
            text = worker.without_colours(worker.text_of(error))
            if _PICKLING in text and not any(own in text for own in _OWN_CODE):
                # Raised after the user's code: while its results were pickled.
                message = f"the result cannot be pickled, return plain data: {text.strip().splitlines()[-1]}"
                fault = Fault(Kind.TASK, "PicklingError", (name,), message=message)
            fault = _with_trace(fault, text)
        return fault, cause
    reason: Any = getattr(cause, "client_exc", None)
    if isinstance(cause, ray.exceptions.RaySystemError) and issubclass(type(reason), BaseException):
        # A value whose own code raised while it was unpickled. Its text is in the last line of what Ray kept of that.
        trace = worker.without_colours(str(cause.traceback_str))
        *_, last = trace.strip().splitlines() or [""]
        unreadable = UnreadableError(worker.name_of(reason), last.partition(": ")[2])
        frames = reason.__traceback__
        while frames is not None and frames.tb_frame.f_globals.get("__name__", "").startswith("ray."):
            frames = frames.tb_next
        unreadable.__cause__ = reason.with_traceback(frames)
        return _with_trace(unreadable.as_argument, trace), unreadable
    if isinstance(cause, ray.exceptions.RayTaskError):
        # Ray kept nothing of the user's exception but a text.
        return _with_trace(Fault(kind, "RayTaskError"), worker.text_of(cause)), cause
    if isinstance(cause, ray.exceptions.ActorDiedError) and getattr(cause, "actor_init_failed", False):
        # Around the user's constructor, whose own exceptions are kept for its methods.
        detail = "its constructor could not be given its arguments"
        return _with_trace(Fault(kind, name, detail=detail), worker.text_of(cause)), cause
    if _quotes_trace(cause):
        return _with_trace(Fault(kind, name), worker.text_of(cause)), cause
    return Fault(kind, name, message=worker.without_colours(worker.text_of(cause))), cause


def _quotes_trace(error: Any) -> bool:
    """Whether the text of one of Ray's exceptions quotes a traceback, which shows more than a message may."""
    return bool(
        type(error).__name__ == "UnserializableException"
        or getattr(error, "actor_init_failed", False)
        or getattr(error, "traceback_str", None)
    )


def _with_trace(fault: Fault, text: str) -> Fault:
    return dataclasses.replace(fault, traceback=worker.without_colours(text))


@contextlib.contextmanager
def without_tracebacks() -> Iterator[None]:
    """Keep Ray from writing down the traceback of what a value raises while it is unpickled, which it raises too."""
    handlers = list(logging.getLogger("ray").handlers)
    for handler in handlers:
        handler.addFilter(_has_no_traceback)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(_has_no_traceback)


def _has_no_traceback(record: logging.LogRecord) -> bool:
    return record.exc_info is None
