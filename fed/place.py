"""The one current job, and what `fed.init` builds jobs with.

The job is kept in a context variable, so that a thread sees the job that it has begun itself and no other: fed
calls from another thread, and from inside a task, find none. It is the only global state of the library.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

from fed.errors import UsageError
from fed.job import Job

__all__ = ["JobFactory", "current_job", "find_job", "job_factory", "set_job"]

JobFactory = Callable[[Mapping[str, Any]], Job]
"""Makes a job from the arguments of `fed.init`."""

_job: ContextVar[Job | None] = ContextVar("fed_job", default=None)
job_factory: ContextVar[JobFactory | None] = ContextVar("fed_job_factory", default=None)
"""Set by the test harness for the threads of its parties; otherwise jobs run on Ray."""


def current_job() -> Job:
    """The job of this thread.

    Raises:
        UsageError: There is none.
    """
    job = _job.get()
    if job is None:
        raise UsageError(
            "no job in this thread: call fed.init() first, or use `with fed.job():`; fed calls come from the one "
            "thread that did, and not from inside tasks"
        )
    return job


def find_job() -> Job | None:
    """The job of this thread, or None."""
    return _job.get()


def set_job(job: Job | None) -> None:
    """Make this the job of the current thread."""
    _job.set(job)
