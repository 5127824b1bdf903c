"""Every exception that fed raises, in one tree.

::

    FedError
    ├── ConfigError (ValueError)      a bad or unknown option, address or certificate
    ├── UsageError (RuntimeError)     a fed call where none is legal: before init, in another thread, in a task
    ├── InitError                     a party never became ready
    ├── TaskError                     a task failed
    │   └── RemoteError               ... in another party
    ├── JobAborted                    the job is latched by an earlier failure
    │   └── JobInterrupted (KeyboardInterrupt)  ... raised into a driver that was outside fed
    ├── PartyLostError                a peer's driver ended without a word, or it was silent past its lease
    ├── PartyLeftError                a peer said goodbye before it delivered
    ├── DeliveryError                 an object could not cross
    │   └── EgressDenied              ... because this party's own policy keeps it in
    ├── DivergenceError               two drivers ran different programs
    ├── DeadlockError                 everybody waits, nothing runs
    └── FedTimeoutError (TimeoutError)  a budget that the user set ran out

Each is named by who can act on it. The ones that stand for something that went wrong during the job carry
``failure``, the record that crossed the wire (`fed.core.failure.Failure`); it is typed as ``Any`` here because
this floor lies below the core.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "ConfigError",
    "DeadlockError",
    "DeliveryError",
    "DivergenceError",
    "EgressDenied",
    "FailureError",
    "FedError",
    "FedTimeoutError",
    "InitError",
    "JobAborted",
    "JobInterrupted",
    "PartyLeftError",
    "PartyLostError",
    "RemoteError",
    "TaskError",
    "UsageError",
]


class FedError(Exception):
    """Base of everything that fed raises on purpose."""


class ConfigError(FedError, ValueError):
    """An option, address or certificate is wrong. The message names it and says what would be right."""


class UsageError(FedError, RuntimeError):
    """A fed call was made where none is legal, or on something that does not exist."""


class InitError(FedError):
    """The job could not start: the message names the party that is not ready and the last thing heard of it."""


class FedTimeoutError(FedError, TimeoutError):
    """A wall-clock budget that the user set ran out. What was waited for goes on."""


class FailureError(FedError):
    """Base of the errors that stand for a failure of the running job.

    Attributes:
        failure: The record of what went wrong, as it crossed the wire.
    """

    def __init__(self, message: str, failure: Any = None) -> None:
        # Not super(): in a class that is also one of the user's, that would be the user's constructor.
        Exception.__init__(self, message, failure)
        self.failure = failure

    def __str__(self) -> str:
        return str(self.args[0])


class TaskError(FailureError):
    """A task failed. Raised in every party, so ``except fed.TaskError`` takes the same branch everywhere.

    In the party where the task ran, ``__cause__`` is the user's original exception.

    Attributes:
        failure: The record of what went wrong.
    """

    @property
    def party(self) -> str:
        """The party where the task ran."""
        return str(self.failure.src_party)

    @property
    def type_name(self) -> str:
        """Name of the exception's class, without its module."""
        return str(self.failure.type_name)

    @property
    def task(self) -> str:
        """Sequence number and function name of the task, for example ``#12 train``."""
        return str(self.failure.task)

    @property
    def kind(self) -> Any:
        """The `fed.core.failure.Kind`; what a caller would branch on."""
        return self.failure.kind

    @property
    def error_id(self) -> str:
        """Unique name of the failure, equal in every party."""
        return str(self.failure.error_id)


class RemoteError(TaskError):
    """A task failed in another party. Carries type and source party only, unless that party exposes more."""


class JobAborted(FailureError):
    """The job is latched by an earlier failure; nothing new runs. Call `fed.reset`, or leave with `fed.shutdown`.

    Attributes:
        failure: The root failure.
    """

    @property
    def root(self) -> Any:
        """The failure that latched the job."""
        return self.failure


class JobInterrupted(JobAborted, KeyboardInterrupt):
    """The job failed while the driver slept, computed, or waited for something that is not fed's.

    It is raised there, as Ctrl-C would be; ``__cause__`` is the root error. Also a KeyboardInterrupt, because nothing
    else gets out of Ray's own blocking calls. Off with ``fed.init(interrupt_driver=False)``.
    """


class PartyLostError(FailureError):
    """A peer's driver ended without a word, or nothing was heard of that party for longer than its lease."""


class PartyLeftError(FailureError):
    """A peer said goodbye before it delivered what this party was waiting for."""


class DeliveryError(FailureError):
    """An object could not cross: it cannot be serialized, is too large, or the peer refused it."""


class EgressDenied(DeliveryError):
    """This party's own policy keeps the object in."""


class DivergenceError(FailureError):
    """Two drivers ran different programs. Names the first call that differs."""


class DeadlockError(FailureError):
    """Everybody waits and nothing runs."""
