"""A process of the benchmark: it runs one function after another, as it is told, and answers each.

``python -m benchmarks.worker ROLE DESCRIPTOR``. A call is a line of JSON on the standard input, an answer a line of
JSON on the descriptor. When the input ends, so does the process: whoever started it has no more calls, or is gone
itself, which must not leave anything behind. The roles differ in what they join first:

=======  ====================================================================
party    a job, with what the environment says (``FED_*``)
ray      a Ray cluster of its own: the limit of what a party does
cluster  the same, for parties to join; its functions are not called
plain    nothing
=======  ====================================================================
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import IO, Any, Final

__all__ = ["handled", "main"]

LEAVE_S: Final = 60.0

handled: Final[list[int]] = []
"""When this party's failure handler began, each time, on the clock that all processes of a machine share."""


def main(role: str, descriptor: int) -> None:
    """Serve until the input ends."""
    # Not for the processes that Ray starts: whoever waits for an answer must notice when this one is gone.
    os.set_inheritable(descriptor, False)
    calls = _Calls()
    # Ray and its workers print to the standard output, so answers have a way of their own.
    with os.fdopen(descriptor, "w", buffering=1) as answers, _joined(role) as greeting:
        answer = {"value": greeting}
        while True:
            # Before the answer: whoever has it may end the input at once.
            calls.rest()
            _answer(answers, answer)
            line = calls.next()
            if line is None:
                break
            call = json.loads(line)
            try:
                answer = {"value": _function(call["function"])(**call["arguments"])}
            except Exception:  # noqa: BLE001 - whatever it is, the one who called is told
                answer = {"error": traceback.format_exc()}


class _Calls:
    """The lines of the standard input, and the end of this process when they end.

    They are read by a thread of their own, since a process may be in the middle of something when they end. What it
    does then is of no more use to anybody: it is killed with all of its session. Otherwise it has some time to leave.
    """

    def __init__(self) -> None:
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        # Both are set by one thread and read by the other; a moment late is soon enough.
        self._busy = True
        threading.Thread(target=self._read, name="benchmark-calls", daemon=True).start()

    def rest(self) -> None:
        """Nothing is being done."""
        self._busy = False

    def next(self) -> str | None:
        """The next line; None at the end."""
        line = self._lines.get()
        self._busy = True
        return line

    def _read(self) -> None:
        for line in sys.stdin:
            self._lines.put(line)
        if not self._busy:
            self._lines.put(None)
            time.sleep(LEAVE_S)
        os.killpg(os.getpgrp(), signal.SIGKILL)


def _function(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


def _answer(answers: IO[str], answer: dict[str, Any]) -> None:
    # Whoever reads the answer may look at what was printed before it.
    sys.stdout.flush()
    answers.write(json.dumps(answer) + "\n")


@contextlib.contextmanager
def _joined(role: str) -> Iterator[Any]:
    if role == "party":
        import fed

        with fed.job(failure_handler=_note):
            yield None
    elif role in ("ray", "cluster"):
        from fed.runtime.cluster import LocalCluster

        # A cluster of many parties offers a CPU to each, as that of a simulation does. They share what there is.
        with LocalCluster(num_cpus=16 if role == "cluster" else None) as cluster:
            yield cluster.environment()
    else:
        yield None


def _note(_: object) -> None:
    handled.append(time.monotonic_ns())


if __name__ == "__main__":
    # As a module that others import, and not as a second copy of it.
    from benchmarks import worker

    worker.main(sys.argv[1], int(sys.argv[2]))
