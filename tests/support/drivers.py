"""One party's driver as a process of its own, and how a test starts one in every party."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

PROGRAMS: Final = Path(__file__).parent / "programs"
"""What drivers run."""

PARTIES: Final = ("alice", "bob", "carol", "dave", "erin")
"""Those that have credentials."""


@dataclasses.dataclass
class Driver:
    """One party's driver process and what it has printed."""

    party: str
    process: subprocess.Popen[str]
    lines: list[str] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        self._printed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        if self.process.stdout is None:
            raise RuntimeError("the driver's output is not piped")
        for line in self.process.stdout:
            with self._printed:
                self.lines.append(line.rstrip("\n"))
                self._printed.notify_all()

    def wait_for(self, text: str, within_s: float = 60) -> None:
        """Wait until it has printed a line that holds a text."""
        with self._printed:
            found = self._printed.wait_for(lambda: any(text in line for line in self.lines), within_s)
        assert found, f"{self.party} did not print {text!r}:\n{self.output}"

    def proceed(self) -> None:
        """Let a program go on that waits for a line of input."""
        if self.process.stdin is None:
            raise RuntimeError("the driver has no standard input")
        self.process.stdin.close()

    def end(self, within_s: float = 60) -> int:
        """Wait for its end. Returns the exit code."""
        code = self.process.wait(within_s)
        self._reader.join(10)
        return code

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()
        if self.process.stdout is not None:
            self._reader.join(10)
            self.process.stdout.close()


Start = Callable[..., dict[str, Driver]]
"""The fixture ``federation``: starts a program in every party."""
