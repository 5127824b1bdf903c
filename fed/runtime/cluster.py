"""A Ray cluster of this process's own, for simulations and tests: started quietly, joined by children, gone at the end.

One cluster is one trust domain: whoever has its token can run code in it. A simulation shares one among all
parties, which is why it is no substitute for the real thing, where each party has its own.

Ray's ports listen on every interface of the machine, whatever address the cluster goes by. The token, made anew
for each cluster, is what keeps others out. Its files, sockets and logs lie where only this user can reach them: Ray's
own choice is a directory that every user of the machine may write to.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

from fed.config import RAY_ADDRESS_VARIABLE
from fed.errors import ConfigError, InitError, UsageError
from fed.text import in_one_line

__all__ = [
    "LocalCluster",
    "PrivateDirectory",
    "environment_for_workers",
    "init_ray",
    "prepare_environment",
    "reason_of",
    "refuse_second_cluster",
]

_QUIET: Mapping[str, str] = MappingProxyType(
    {
        # Ray announces with a warning that this default will change; this is the value after the change.
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        # Every failure is raised or reported by this library; Ray would print the unread ones a second time.
        "RAY_IGNORE_UNHANDLED_ERRORS": "1",
    }
)
_TOKEN_BYTES = 32
_SUBMITTED_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Set by ``ray job submit`` in what it runs; `ray.init` reads it."""
_SIMULATION_VARIABLE = "FED_RUN_CLUSTER"
_NOT_THE_PROGRAMS = ("LC_CTYPE", "GRPC_VERBOSITY")
"""Set by Python itself where there is no locale, and by `fed.transport.grpc`, which every worker imports."""
_DIRECTORY_VARIABLE = "RAY_TMPDIR"
_REMOVALS = 20
"""A worker that is just ending may write a file while they are removed."""


class PrivateDirectory:
    """Where a cluster of this process's own keeps its sockets and logs, with mode 0700, as long as it runs.

    Without effect where `RAY_TMPDIR` is set: then that is the place, and is left as it is.
    """

    def __init__(self) -> None:
        self._path: str | None = None

    def make(self) -> None:
        """Make it, and have Ray and the processes started from here use it."""
        if _DIRECTORY_VARIABLE not in os.environ:
            # Sockets lie below it, and their names have a limit: not in a directory of many letters.
            parent = "/tmp" if os.access("/tmp", os.W_OK | os.X_OK) else None  # noqa: S108 - a random name, mode 0700
            os.environ[_DIRECTORY_VARIABLE] = self._path = tempfile.mkdtemp(prefix="fed-ray-", dir=parent)

    def remove(self) -> None:
        """Remove it, after the cluster has ended. Does nothing if it was not made."""
        path, self._path = self._path, None
        if path is None:
            return
        del os.environ[_DIRECTORY_VARIABLE]
        for attempt in range(_REMOVALS):
            try:
                shutil.rmtree(path)
            except FileNotFoundError:
                return
            except OSError as error:
                if attempt == _REMOVALS - 1:
                    logging.getLogger("fed").warning("the directory of Ray's files cannot be removed: %s", error)
            else:
                return


class LocalCluster:
    """A Ray cluster that this process starts and ends.

    Enter it in the main thread: Ray is unusable once the thread that initialised it has ended. This process counts as
    one of the cluster's drivers. Should it be killed, Ray ends the cluster's processes within about three seconds.

    The first one in a process sets ``RAY_`` variables and leaves them: Ray has read them by then and never looks
    again, so that a process whose environment went back could neither start another cluster nor tell its children.

    Args:
        num_cpus: CPUs that the cluster offers to tasks; they are counted, not reserved. None: those of the machine.
    """

    def __init__(self, *, num_cpus: int | None = None) -> None:
        self._num_cpus = num_cpus
        self._address: str | None = None
        self._directory = PrivateDirectory()

    @property
    def address(self) -> str:
        """Where drivers join it, as ``host:port``.

        Raises:
            UsageError: It is not running.
        """
        if self._address is None:
            raise UsageError("the local Ray cluster is not running: enter it with a with statement first")
        return self._address

    def environment(self) -> dict[str, str]:
        """The variables that a child process needs to join it, beside those of this process.

        They hold the cluster's token: give them to nobody else.

        Raises:
            UsageError: It is not running.
        """
        credentials = {name: text for name, text in os.environ.items() if name.startswith("RAY_AUTH_")}
        return {
            **_QUIET,
            **credentials,
            "FED_RAY_ADDRESS": self.address,
            _SIMULATION_VARIABLE: self.address,
            # A Ray call after the end of the job would otherwise start another cluster in silence.
            "RAY_ENABLE_AUTO_CONNECT": "0",
        }

    def __enter__(self) -> LocalCluster:
        """Start it, in two to four seconds.

        Raises:
            UsageError: This process already uses a Ray cluster.
            ConfigError: This process is a job of one.
            InitError: Ray did not start.
        """
        refuse_second_cluster()
        prepare_environment(own_cluster=True)
        if self._num_cpus is not None:
            # Each party has two proxies that wait far more than they work; Ray would warn every driver of their number.
            os.environ.setdefault("RAY_worker_maximum_startup_concurrency", str(2 * self._num_cpus))
        import ray

        if ray.is_initialized():
            raise UsageError("this process already uses a Ray cluster: a local one can only be started without it")
        try:
            self._directory.make()
            init_ray(address="local", num_cpus=self._num_cpus, include_dashboard=False, log_to_driver=False)
            self._address = str(ray.get_runtime_context().gcs_address)
        except BaseException as error:
            ray.shutdown()
            self._directory.remove()
            if isinstance(error, Exception):
                raise InitError(f"the local Ray cluster did not start: {reason_of(error, 'local')}") from error
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the cluster with all its processes, in one to two seconds. Does nothing if it is not running."""
        if self._address is None:
            return
        self._address = None
        import ray

        try:
            ray.shutdown()
        finally:
            self._directory.remove()

    def discard(self) -> None:
        """Remove its files. For a process that ends at once, without closing it, maybe while it starts."""
        self._directory.remove()

    def __del__(self) -> None:
        if self._address is not None:
            warnings.warn(f"local Ray cluster at {self._address} was not closed", ResourceWarning, stacklevel=2)


def prepare_environment(*, own_cluster: bool) -> None:
    """Set the variables that Ray reads when it is imported: quiet, no usage reports, no cluster started by accident.

    Does nothing where Ray was imported before: it never looks again.

    Args:
        own_cluster: Whether this process will start a cluster. Then it gets a token of its own; otherwise Ray would
            leave one in the home directory, readable by every user of the machine.
    """
    if "ray" in sys.modules:
        return
    for name, text in {**_QUIET, "RAY_ENABLE_AUTO_CONNECT": "0"}.items():
        os.environ.setdefault(name, text)
    if own_cluster and "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(_TOKEN_BYTES)


def environment_for_workers(address: str) -> dict[str, str]:
    """What Ray has to set in the workers of a cluster, for them to have the variables that this program has set.

    Workers of a cluster that a program starts inherit them. So those of a simulation's are to have them too, which the
    command has started. In any other cluster Ray would write them where its other users may read them, and there is
    nothing to set. What the program has removed is not told: Ray can only set variables.
    """
    if os.environ.get(_SIMULATION_VARIABLE) != address:
        return {}
    started = Path("/proc/self/environ").read_bytes().split(b"\0")
    before = dict(os.fsdecode(entry).partition("=")[::2] for entry in started)
    return {
        name: text
        for name, text in os.environ.items()
        # Ray's own are the cluster's business.
        if before.get(name) != text and not name.startswith("RAY_") and name not in _NOT_THE_PROGRAMS
    }


def init_ray(**options: Any) -> None:
    """`ray.init`, quietly, and with the program's own SIGTERM handler in its place again afterwards."""
    import ray

    in_main_thread = threading.current_thread() is threading.main_thread()
    on_sigterm = signal.getsignal(signal.SIGTERM)
    terminated = False
    try:
        ray.init(logging_level=logging.ERROR, **options)
    except SystemExit as error:
        terminated = error.code == signal.SIGTERM
        raise
    finally:
        # Ray puts its own in place of ours, which ends the process without asking anybody.
        if in_main_thread and on_sigterm is not None:
            signal.signal(signal.SIGTERM, on_sigterm)
            if terminated and callable(on_sigterm):
                # Meanwhile it was Ray's that was asked.
                signal.raise_signal(signal.SIGTERM)


def reason_of(error: BaseException, address: str) -> str:
    """Why a cluster cannot be used: what Ray says, in one line, and what can be done where Ray says nothing of it."""
    reason = in_one_line(str(error)) or type(error).__name__
    if "AF_UNIX" in reason:
        return f"{reason} (give a directory with a shorter path by {_DIRECTORY_VARIABLE})"
    # Where the system refused a connection nobody asked for anything.
    asked = not (isinstance(error, OSError) and error.errno is not None)
    if asked and address != "local" and os.environ.get("RAY_AUTH_MODE") != "token":
        return f"{reason} (if it asks for a token, as one does that ray start has started, set RAY_AUTH_MODE=token)"
    return reason


def refuse_second_cluster() -> None:
    """Refuse to start a cluster within a job of another one.

    Ray would ask the new cluster for the packages that ``ray job submit`` has brought to the other one.

    Raises:
        ConfigError: This process is such a job's.
    """
    if _SUBMITTED_VARIABLE in os.environ:
        around = os.environ.get(RAY_ADDRESS_VARIABLE, "")
        raise ConfigError(
            f"the address 'local' starts a Ray cluster, but this program was submitted as a job to the one at "
            f"{around!r}: give {around!r} as the address (option ray_address, --ray-address in a simulation), or none"
        )
