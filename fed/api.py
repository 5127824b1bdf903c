"""The calls of a federated program: start, get, leave.

Every party runs the same program, so every party makes the same fed calls in the same order.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeVar, overload

from fed import config as options
from fed.config import Address, TLSConfig
from fed.context import current_job, find_job, job_factory, set_job
from fed.core.failure import Failure
from fed.engine.cleanup import FailureReport
from fed.engine.job import Job, JobStatistics
from fed.engine.shell import new_incarnation
from fed.errors import FedError, JobInterrupted, UsageError
from fed.object import FedObject
from fed.proxy.greeting import hello_of
from fed.runtime.arguments import fill, find_objects

__all__ = ["errors", "get", "init", "job", "parties", "party", "reset", "shutdown", "statistics"]

logger = logging.getLogger("fed")

T = TypeVar("T")


def init(
    *,
    job: str | None = None,
    party: str | None = None,
    addresses: Mapping[str, str | Address] | None = None,
    listen: str | Address | None = None,
    tls: TLSConfig | Mapping[str, str | Path] | None = None,
    insecure: bool | None = None,
    ray_address: str | None = None,
    ray_namespace: str | None = None,
    on_error: Literal["abort", "isolate"] | None = None,
    expose_errors: str | Mapping[str, str] | None = None,
    exceptions: Sequence[type[Exception]] | None = None,
    types: Sequence[options.DeclaredType] | None = None,
    failure_handler: Callable[[FailureReport], object] | None = None,
    config: str | Path | None = None,
    **more: Any,
) -> None:
    """Join a job. Returns when every party is ready.

    What is not given here comes from the environment (``FED_*``), then from ``fed.toml``, then from the defaults
    (see `fed.config`). From now on fed calls are made by this thread and no other.

    Args:
        job: Name of the job, equal in every party.
        party: This party's name.
        addresses: Where each party's receiver is reached, as ``host:port``, this one included.
        listen: Where this party binds, if other than its address.
        tls: This party's credentials: paths ``ca``, ``cert`` and ``key``.
        insecure: Allow connections without TLS to other machines.
        ray_address: ``local`` starts a Ray cluster, anything else joins one. Default: the one that is initialised
            in this process, else ``local``.
        ray_namespace: Ray namespace of this job.
        on_error: ``abort``: the first failure ends the job in every party. ``isolate``: it poisons only what
            depends on it, and catching the error is legal.
        expose_errors: ``type``, ``message`` or ``trace``: how much of an error the others see; or one per party.
        exceptions: Exception classes that an error of that name is an instance of too, in every party.
        types: Dataclasses, enums and namedtuples that may cross, and a `fed.codec` for any other class that may.
        failure_handler: Called once, with a `fed.FailureReport`, when the job fails; once more for each `reset`.
            With ``sys.exit(n)`` it decides what the program ends with.
        config: Path of the configuration file. Default: ``FED_CONFIG``, else ``fed.toml`` here.
        **more: The other fields of `fed.config.Config`.

    Raises:
        ConfigError: An option is wrong. The message names it.
        InitError: A party refused, failed, or was not ready within ``init_timeout_s``.
        UsageError: This thread is in a job already.
        JobInterrupted: The job had begun, and failed before this returned. `reset` or `shutdown` it.
    """
    if find_job() is not None:
        raise UsageError("fed.init was called already: call fed.shutdown() first")
    given = {
        "job": job,
        "party": party,
        "addresses": addresses,
        "listen": listen,
        "tls": tls,
        "insecure": insecure,
        "ray_address": ray_address,
        "ray_namespace": ray_namespace,
        "on_error": on_error,
        "expose_errors": expose_errors,
        "exceptions": exceptions,
        "types": types,
        "failure_handler": failure_handler,
        "config": config,
        **more,
    }
    arguments = {name: value for name, value in given.items() if value is not None}
    joining = (job_factory() or _on_ray)(arguments)
    set_job(joining)
    try:
        joining.join()
    except BaseException:
        set_job(None)
        raise
    # A job of the test harness ends with its thread, not with the interpreter.
    if job_factory() is None:
        atexit.register(_leave_at_exit, joining, os.getpid())
    joining.watch()


def job(**arguments: Any) -> contextlib.AbstractContextManager[None]:
    """Join a job for the length of a ``with`` block.

    Leaving the block shuts the job down: regularly at its end, and with the reason on an exception, which the other
    parties are told.

    Args:
        **arguments: Those of `init`.

    Raises:
        FailureError: The job failed and no fed call in the block has raised it yet.
    """
    return _Joined(arguments)


class _Joined(contextlib.AbstractContextManager[None]):
    """Of a generator, an interruption between two of its steps would leave the job open. So that is no generator."""

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        self._arguments = arguments

    def __enter__(self) -> None:
        outer = find_job()
        try:
            init(**self._arguments)
        except BaseException as error:
            # Interrupted when it had joined.
            if find_job() is not outer:
                self.__exit__(type(error), error, error.__traceback__)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            _leave(error)
        except JobInterrupted as interruption:
            # It may have come before the job was closed, which is none any more otherwise. There is no second one.
            _leave(interruption)
            raise


def _leave(error: BaseException | None) -> None:
    joined = find_job()
    if joined is None:
        return
    # Out of Ray's blocking calls comes a bare KeyboardInterrupt, whoever raised what.
    interruption = joined.interruption if type(error) is KeyboardInterrupt else None
    shutdown(interruption or error)
    if interruption is not None:
        raise interruption from interruption.__cause__


def shutdown(error: BaseException | None = None) -> None:
    """Leave the job. Does nothing outside one.

    A regular shutdown waits until what the others need has been delivered, and until they have finished too, since
    whoever still runs may still fail.

    Args:
        error: What this party gives up because of. The others are told its type, and do not wait for this party.

    Raises:
        FailureError: The job failed and no fed call has raised it yet.
        SystemExit: The failure handler raised it.
    """
    leaving = find_job()
    if leaving is None:
        return
    leaving.check_thread()
    try:
        # Leaving with SystemExit(0) or SystemExit(None) is no failure.
        exiting = isinstance(error, SystemExit) and error.code in (None, 0)
        leaving.close(None if exiting else error, exiting=exiting)
    except BaseException as interruption:
        # A second Ctrl-C, say: what is left to do is done in haste. Does nothing if all had been done.
        leaving.close(interruption)
        raise
    finally:
        set_job(None)
        atexit.unregister(_leave_at_exit)


@overload
def get(objects: FedObject[T], *, timeout: float | None = None) -> T: ...
@overload
def get(objects: Any, *, timeout: float | None = None) -> Any: ...
def get(objects: Any, *, timeout: float | None = None) -> Any:
    """The values of fed objects, in every party.

    Args:
        objects: One, or a list, tuple or dict of them, nested as you like; other values in it stay as they are.
        timeout: Seconds. What is waited for goes on when they are over.

    Returns:
        The same containers with values in the place of the objects.

    Raises:
        TaskError: The task of one failed; `RemoteError` where that was in another party.
        JobAborted: The job had failed before.
        FedTimeoutError: The time is up.
        UsageError: Something in it is not from this job.
    """
    if timeout is not None and not timeout >= 0:
        raise UsageError(f"timeout is a number of seconds from 0, not {timeout!r}")
    active = current_job()
    active.check_party(active.party)
    if type(objects) is FedObject:
        return active.get([objects], timeout)[0]
    found = list(dict.fromkeys(find_objects(objects)))
    if not found and not isinstance(objects, (list, tuple, dict)):
        raise UsageError(f"fed.get takes fed objects, not {type(objects).__name__}")
    values = dict(zip(found, active.get(found, timeout), strict=True))
    return fill(objects, FedObject, values.__getitem__)


def reset() -> None:
    """Begin anew after a failure, together with all other parties, each of which calls it too.

    A new epoch begins: calls are numbered from zero, every object of the old epoch is dead, what was running for it
    is of no more interest to anybody, and `errors` is empty. Ray, the connections and live actors stay. Returns when
    every party has called it, within ``init_timeout_s``.

    Typical use::

        try:
            fed.get(step())
        except fed.TaskError:
            fed.reset()

    Raises:
        FailureError: The job has failed and the driver was not told yet: this call does. Call it again.
        JobAborted: A party has left, so that there is nobody to go on with.
        FedTimeoutError: Not every party called it in time.
        UsageError: There is no job.
    """
    current_job().reset()


def parties() -> tuple[str, ...]:
    """All parties of the job, sorted."""
    return current_job().config.parties


def party() -> str:
    """This party. To branch on it is to run different programs: use it for output and for local paths only."""
    return current_job().party


def errors() -> tuple[Failure, ...]:
    """Every failure of this epoch known here so far. Reading clears nothing."""
    return current_job().failures


def statistics() -> JobStatistics:
    """What this party did in this job so far: calls, and objects and bytes that left it."""
    return current_job().statistics()


def _on_ray(arguments: Mapping[str, Any]) -> Job:
    loaded = options.load(arguments, os.environ, Path.cwd())
    # Imported here because they take a second, which a wrong option or the in-process runtime need not cost.
    if loaded.tls is not None:
        from fed.transport.credentials import check_own_credentials, exposed_key

        check_own_credentials(loaded.party, loaded.tls)
        exposed = exposed_key(loaded.tls)
        if exposed:
            logger.warning("%s", exposed)
    from fed.runtime.cluster import prepare_environment

    prepare_environment(own_cluster=loaded.ray_address in (None, "local"))
    from fed.runtime.ray import RayRuntime

    incarnation = new_incarnation()
    return Job(loaded, RayRuntime(loaded, hello_of(loaded, incarnation)), incarnation)


def _leave_at_exit(left: Job, process: int) -> None:
    """The program ended without a shutdown: by an exception, which Python then keeps in `sys`, or regularly."""
    if os.getpid() != process:
        # A child that was forked during the job, and is in none.
        return
    code = 1
    try:
        try:
            left.close(getattr(sys, "last_value", None))
        except JobInterrupted as interruption:
            # It may have come before the job was closed.
            left.close(interruption)
            raise
        return
    except FedError as error:
        logger.error("the job failed: %s", error)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    # Python has decided on its exit code by now, and it would say that all is well. What else is registered to run
    # at the exit runs first.
    atexit.unregister(_leave_at_exit)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)
