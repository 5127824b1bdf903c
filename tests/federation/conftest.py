"""Real federations: a driver process for each party, on one shared Ray cluster, over gRPC with mutual TLS."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from fed.config import TLSConfig
from fed.runtime.cluster import LocalCluster
from fed.testing.simulation import free_addresses
from fed.transport.certificates import write_credentials

PROGRAMS = Path(__file__).parent / "programs"
PARTIES = ("alice", "bob", "carol", "dave", "erin")


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


@pytest.fixture(autouse=True)
def logs(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where drivers that this test starts write their logs, rather than in the user's home."""
    directory = tmp_path_factory.mktemp("logs")
    monkeypatch.setenv("FED_LOG_DIR", str(directory))
    return directory


@pytest.fixture(scope="session")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, TLSConfig]:
    return write_credentials(tmp_path_factory.mktemp("tls"), PARTIES)


@pytest.fixture
def federation(ray_cluster: LocalCluster, credentials: Mapping[str, TLSConfig]) -> Iterator[Start]:
    """Starts a program in every party. ``per_party`` and ``everywhere`` set variables of the environment."""
    drivers: list[Driver] = []

    def start(
        program: str,
        parties: Sequence[str] = ("alice", "bob"),
        *arguments: str,
        everywhere: Mapping[str, str] | None = None,
        per_party: Mapping[str, Mapping[str, str]] | None = None,
        stdin: bool = False,
    ) -> dict[str, Driver]:
        addresses = dict(zip(parties, free_addresses(len(parties)), strict=True))
        started = {}
        for party in parties:
            tls = credentials[party]
            environment = {
                **os.environ,
                **ray_cluster.environment(),
                "PYTHONUNBUFFERED": "1",
                "FED_JOB": "test",
                "FED_PARTY": party,
                "FED_ADDRESSES": ",".join(f"{name}={address}" for name, address in addresses.items()),
                "FED_TLS_CA": str(tls.ca),
                "FED_TLS_CERT": str(tls.cert),
                "FED_TLS_KEY": str(tls.key),
                "FED_RAY_NAMESPACE": f"test-{party}",
                "FED_INIT_TIMEOUT_S": "60",
                **(everywhere or {}),
                **(per_party or {}).get(party, {}),
            }
            process = subprocess.Popen(
                [sys.executable, "-m", "fed.cli.driver", str(PROGRAMS / program), *arguments],
                env={name: value for name, value in environment.items() if value},
                stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
            started[party] = Driver(party, process)
            drivers.append(started[party])
        return started

    yield start
    for driver in drivers:
        driver.kill()
