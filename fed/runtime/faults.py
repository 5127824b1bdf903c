"""What Ray throws, mapped once, at this boundary."""

from __future__ import annotations

from typing import Any, Final

import ray
import ray.exceptions

from fed.core.failure import Fault, Kind
from fed.runtime import body as worker
from fed.runtime.contract import Outcome

__all__ = ["fault_of", "outcome_of"]


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

    Total, and the only place where Ray's exceptions are told apart.
    """
    exceptions = ray.exceptions
    name = type(error).__name__
    if isinstance(error, exceptions.RayTaskError):
        cause = error.cause
        if isinstance(cause, exceptions.TaskCancelledError):
            return Fault(Kind.CANCELLED, "TaskCancelledError", message=str(cause)), cause
        if isinstance(cause, exceptions.RayError):
            return fault_of(cause)
        if isinstance(cause, BaseException):
            return worker.fault_of_user_error(cause), cause
        return Fault(Kind.TASK, name, message=str(error)), error
    for classes, kind in _KINDS:
        if isinstance(error, classes):
            return Fault(kind, name, message=str(error)), error
    if isinstance(error, exceptions.RayError):
        return Fault(Kind.INTERNAL, name, message=str(error)), error
    return worker.fault_of_user_error(error), error


_KINDS: Final[tuple[tuple[Any, Kind], ...]] = (
    (ray.exceptions.TaskCancelledError, Kind.CANCELLED),
    (ray.exceptions.OutOfMemoryError, Kind.OUT_OF_MEMORY),
    ((ray.exceptions.WorkerCrashedError, ray.exceptions.LocalRayletDiedError), Kind.WORKER_CRASHED),
    (ray.exceptions.RayActorError, Kind.ACTOR_DIED),
    ((ray.exceptions.ObjectLostError, ray.exceptions.ObjectFetchTimedOutError), Kind.OBJECT_LOST),
)
