"""The one current job, and what `fed.init` builds jobs with.

The job is kept for the thread that began it, and no other thread sees it: fed calls from elsewhere, and from inside a
task, find none. It is the only global state of the library.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from typing import Any

from fed.engine.job import Job
from fed.errors import UsageError

__all__ = ["JobFactory", "current_job", "find_job", "job_factory", "set_job", "set_job_factory"]

JobFactory = Callable[[Mapping[str, Any]], Job]
"""Makes a job from the arguments of `fed.init`."""


class _ThreadContext(threading.local):
    job: Job | None = None
    factory: JobFactory | None = None


_context = _ThreadContext()


def _forget() -> None:
    _context.job = None


# A process that the script forks has none of the threads that serve the job, so it is in none, and leaves none.
os.register_at_fork(after_in_child=_forget)


def current_job() -> Job:
    """The job of this thread.

    Raises:
        UsageError: There is none.
    """
    job = _context.job
    if job is None:
        raise UsageError(
            "no job in this thread: call fed.init() first, or use `with fed.job():`; fed calls come from the one "
            "thread that did, and not from inside tasks"
        )
    return job


def find_job() -> Job | None:
    """The job of this thread, or None."""
    return _context.job


def job_factory() -> JobFactory | None:
    """What makes the jobs of this thread; None for Ray."""
    return _context.factory


def set_job_factory(factory: JobFactory | None) -> None:
    """Have the jobs of the current thread made by this. For the test harness."""
    _context.factory = factory


def set_job(job: Job | None) -> None:
    """Make this the job of the current thread."""
    _context.job = job
