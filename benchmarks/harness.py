"""Processes to measure in, and how two things are measured in turns.

A *lab* starts workers (`benchmarks.worker`) and ends them. The parties of a *federation* are workers that have joined
a job, each on its own Ray cluster unless they share one; another worker, with a cluster of its own, does the same
work without a border. All stay up, and all but those whose turn it is stand still.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple

import psutil

from benchmarks.others import Meter
from benchmarks.statistics import Pair
from fed.config import Address, TLSConfig
from fed.testing.simulation import free_addresses
from fed.transport.certificates import write_credentials

__all__ = ["BenchmarkError", "Cluster", "Federation", "Lab", "Worker", "interleave"]

ROOT: Final = Path(__file__).parents[1]
CALL_S: Final = 600.0
"""How long a call may take. None should take a tenth of it."""
START_S: Final = 120.0
END_S: Final = 30.0
TAIL_BYTES: Final = 4000
PARTIES: Final = ("alice", "bob")


class BenchmarkError(Exception):
    """A measurement came to nothing: a wrong result, a process that failed or did not answer."""


class Worker:
    """A process that runs functions of this package, one at a time.

    Args:
        role: What it joins, see `benchmarks.worker`.
        name: Names it in errors, and names its log.
        directory: Where it writes what it prints.
        environment: Its variables.

    Attributes:
        process: The process.
        answers: Can be waited for: there is something to read when it has answered, or has ended.
    """

    def __init__(self, role: str, name: str, directory: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self._log = directory / f"{name}.log"
        read, write = os.pipe()
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.worker", role, str(write)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                pass_fds=(write,),
                start_new_session=True,
                text=True,
            )
        os.close(write)
        self.answers = os.fdopen(read, "rb", buffering=0)
        self._rest = b""
        self._selector = selectors.DefaultSelector()
        self._selector.register(self.answers, selectors.EVENT_READ)

    def call(self, function: Callable[..., Any], within_s: float = CALL_S, **arguments: Any) -> Any:
        """Run a function there, by its name. Arguments and result are what JSON can carry."""
        self.begin(function, **arguments)
        return self.answer(within_s)

    def begin(self, function: Callable[..., Any], **arguments: Any) -> None:
        """Let it run a function. The answer is to be taken before the next one."""
        name = f"{function.__module__}:{function.__qualname__}"
        if self.process.stdin is None:
            raise RuntimeError("the worker's input is not piped")
        try:
            self.process.stdin.write(json.dumps({"function": name, "arguments": arguments}) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise self._error("has ended") from None

    def answer(self, within_s: float = CALL_S) -> Any:
        """Wait for the answer to what was begun.

        Raises:
            BenchmarkError: It raised, it ended, or the time is up.
        """
        deadline = time.monotonic() + within_s
        while b"\n" not in self._rest:
            if not self._selector.select(max(0.0, deadline - time.monotonic())):
                raise self._error(f"did not answer within {within_s:g} s")
            data = os.read(self.answers.fileno(), 1 << 16)
            if not data:
                raise self._error("has ended")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        answer = json.loads(line)
        if "error" in answer:
            raise self._error(f"raised\n{answer['error']}")
        return answer["value"]

    def dismiss(self) -> None:
        """Let it end when it has done what it does."""
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()

    def close(self, within_s: float = END_S) -> None:
        """Wait for its end, and kill it with all that it has started if that takes too long. Idempotent."""
        self.dismiss()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(within_s)
        self.kill()
        self._selector.close()
        self.answers.close()

    def kill(self) -> None:
        """SIGKILL to it, to all that it has started, and to all that those have, at once."""
        # Ray's workers leave the session. The group outlives its leader while a process of it is left.
        started: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):
            started = psutil.Process(self.process.pid).children(recursive=True)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        for process in started:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()

    def _error(self, what: str) -> BenchmarkError:
        printed = self._log.read_bytes()[-TAIL_BYTES:].decode(errors="replace")
        return BenchmarkError(f"{self.name} {what}\nit printed:\n{printed}")


class Federation:
    """Parties in one job.

    Args:
        workers: By party.
    """

    def __init__(self, workers: Mapping[str, Worker]) -> None:
        self.workers = workers

    def call(self, function: Callable[..., Any], within_s: float = CALL_S, **arguments: Any) -> dict[str, Any]:
        """Run a function in every party. Returns what each returned.

        Raises:
            BenchmarkError: A party raised or ended; what the others still do is not waited for. Or the time is up.
        """
        deadline = time.monotonic() + within_s
        found = {}
        with selectors.DefaultSelector() as selector:
            for party, worker in self.workers.items():
                worker.begin(function, **arguments)
                selector.register(worker.answers, selectors.EVENT_READ, party)
            while selector.get_map():
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                if not ready:
                    late = ", ".join(sorted(key.data for key in selector.get_map().values()))
                    raise BenchmarkError(f"no answer from {late} within {within_s:g} s")
                for key, _ in ready:
                    selector.unregister(key.fileobj)
                    found[key.data] = self.workers[key.data].answer(within_s)
        return found

    def slowest(self, function: Callable[..., float], **arguments: Any) -> float:
        """Run a function that returns seconds in every party. Returns the most."""
        return max(float(seconds) for seconds in self.call(function, **arguments).values())


class Cluster(NamedTuple):
    """A Ray cluster for many parties.

    Attributes:
        pid: The process that has started all of its processes.
        variables: By which a process joins it.
    """

    pid: int
    variables: dict[str, str]


class Lab:
    """Starts what is measured, and ends it with the block.

    Args:
        tls: Whether parties use mutual TLS where it is not said.
    """

    def __init__(self, *, tls: bool = False) -> None:
        self._tls = tls
        self._stack = contextlib.ExitStack()
        self._kept: contextlib.ExitStack = contextlib.ExitStack()
        self._workers: dict[str, Worker] = {}
        self._pair: Federation | None = None
        self._count = 0

    def __enter__(self) -> Lab:
        # A short name: Ray's sockets lie below, and their paths have a limit.
        folder = tempfile.TemporaryDirectory(prefix="fb-", ignore_cleanup_errors=True)
        self._directory = Path(self._stack.enter_context(folder))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # With the error, on which they are killed: who waits for somebody would not end by itself.
            self._kept.__exit__(kind, error, trace)
        finally:
            self._stack.close()

    @property
    def raw(self) -> Worker:
        """A worker with a Ray cluster of its own, started when it is first asked for."""
        return self._worker("ray", "ray")

    @property
    def producer(self) -> Worker:
        """A worker without Ray, likewise."""
        return self._worker("plain", "producer")

    @property
    def consumer(self) -> Worker:
        """Another one."""
        return self._worker("plain", "consumer")

    @property
    def pair(self) -> Federation:
        """Alice and bob, each on a cluster of its own, started when they are first asked for."""
        if self._pair is None:
            self._pair = self._kept.enter_context(self.federation())
        return self._pair

    def release(self) -> None:
        """End what these properties have started; it starts anew when it is asked for again."""
        self._workers.clear()
        self._pair = None
        self._kept.close()

    def _worker(self, role: str, name: str) -> Worker:
        if name not in self._workers:
            self._workers[name] = self._kept.enter_context(self.worker(role, name))
        return self._workers[name]

    @contextlib.contextmanager
    def worker(
        self, role: str, name: str, variables: Mapping[str, str] | None = None, *, ready: bool = True
    ) -> Iterator[Worker]:
        """A process.

        Args:
            role: What it joins.
            name: Names it.
            variables: What its environment has beyond the usual.
            ready: Wait until it has joined. Otherwise its first answer says so.
        """
        self._count += 1
        worker = Worker(role, f"{name}-{self._count}", self._directory, {**self.environment(), **(variables or {})})
        try:
            if ready:
                worker.answer(START_S)
            yield worker
        except BaseException:
            worker.kill()
            raise
        finally:
            worker.close()

    @contextlib.contextmanager
    def shared_cluster(self) -> Iterator[Cluster]:
        """A Ray cluster for many parties."""
        with self.worker("cluster", "cluster", ready=False) as worker:
            yield Cluster(worker.process.pid, worker.answer(START_S))

    @contextlib.contextmanager
    def federation(
        self,
        parties: Sequence[str] = PARTIES,
        *,
        cluster: Mapping[str, str] | None = None,
        tls: bool | None = None,
        through: Callable[[Mapping[str, Address]], Mapping[str, Mapping[str, Address]]] | None = None,
        **options: object,
    ) -> Iterator[Federation]:
        """Parties that have joined a job.

        Args:
            parties: Their names.
            cluster: The variables of the cluster that they share. None: each starts its own.
            tls: Mutual TLS. None: as the lab has it.
            through: Puts something between the parties: told where each listens, it says where each finds each.
            **options: Options of the job, equal in every party.
        """
        addresses = dict(zip(parties, free_addresses(len(parties)), strict=True))
        known = dict.fromkeys(parties, addresses) if through is None else through(addresses)
        self._count += 1
        job = f"bench-{self._count}"
        secure = self._tls if tls is None else tls
        credentials = write_credentials(self._directory / f"tls-{self._count}", parties) if secure else {}
        with contextlib.ExitStack() as stack:
            workers = {}
            for party in parties:
                variables = {
                    "FED_JOB": job,
                    "FED_PARTY": party,
                    "FED_ADDRESSES": ",".join(f"{name}={address}" for name, address in known[party].items()),
                    "FED_RAY_ADDRESS": "local",
                    # Between two calls of a worker's, its failure is raised by the next one.
                    "FED_INTERRUPT_DRIVER": "false",
                    "FED_RAY_NAMESPACE": f"{job}-{party}",
                    **(cluster or {}),
                    **_tls_variables(credentials.get(party)),
                    **{f"FED_{name.upper()}": str(value) for name, value in options.items()},
                }
                workers[party] = stack.enter_context(self.worker("party", party, variables, ready=False))
            for worker in workers.values():
                worker.answer(START_S)
            yield Federation(workers)
            # All at once, since each waits for the others.
            for worker in workers.values():
                worker.dismiss()

    def environment(self) -> dict[str, str]:
        """The variables of every process that is measured."""
        # What the caller's environment says about a job says nothing about these.
        own = {name: text for name, text in os.environ.items() if not name.startswith(("FED_", "RAY_"))}
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        folder = str(self._directory)
        return {**own, "PYTHONPATH": path, "RAY_TMPDIR": folder, "TMPDIR": folder, "FED_LOG_DIR": folder}


def interleave(count: int, ours: Callable[[], float], limit: Callable[[], float]) -> list[Pair]:
    """Measure two things in turns.

    Args:
        count: How many pairs.
        ours: Does a block of our work. Returns seconds for a unit of it.
        limit: The same for the limit.
    """
    pairs = []
    for _ in range(count):
        meter = Meter()
        pairs.append(Pair(ours(), limit(), meter.share()))
    return pairs


def _tls_variables(tls: TLSConfig | None) -> dict[str, str]:
    if tls is None:
        return {}
    return {"FED_TLS_CA": str(tls.ca), "FED_TLS_CERT": str(tls.cert), "FED_TLS_KEY": str(tls.key)}
