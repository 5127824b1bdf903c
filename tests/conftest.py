"""What every test is held to: it leaves no thread behind, and the whole run leaves no process behind."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from fed.runtime.cluster import LocalCluster


def eventually(holds: Callable[[], bool], within_s: float = 10.0) -> bool:
    """Whether something outside our control comes true in time. For the end of other processes and threads only."""
    deadline = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def fed_threads() -> set[threading.Thread]:
    """Threads of the library that are alive."""
    return {thread for thread in threading.enumerate() if thread.name.startswith("fed-")}


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    # What a fixture of the whole module started is there before, and may stay.
    before = fed_threads()
    yield
    assert eventually(lambda: fed_threads() <= before), f"threads left behind: {fed_threads() - before}"


@pytest.fixture(autouse=True, scope="session")
def _no_file_left() -> Iterator[None]:
    """Whatever Ray and the library write goes to a folder of this run, where only Ray's sessions may be at the end."""
    # A short path: Ray's Unix sockets lie below it, and their names have a limit.
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="ft-") as folder:
        patch.setenv("RAY_TMPDIR", folder)
        patch.setenv("TMPDIR", folder)
        # The logs of the parties.
        patch.setenv("XDG_STATE_HOME", folder)
        patch.setattr(tempfile, "tempdir", folder)
        yield
        left = sorted(path.name for path in Path(folder).iterdir() if path.name.startswith("fed-"))
        assert not left, f"files left behind: {left}"


@pytest.fixture(autouse=True, scope="session")
def _no_port_left() -> Iterator[None]:
    def listening() -> set[int]:
        connections = psutil.Process().net_connections("inet")
        return {one.laddr.port for one in connections if one.status == psutil.CONN_LISTEN}

    before = listening()
    yield
    assert listening() <= before, f"ports left behind: {listening() - before}"


@pytest.fixture(autouse=True, scope="session")
def _no_process_left() -> Iterator[None]:
    # The shared cluster is ended by its own fixture before this one looks, since that one is asked for later.
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    yield

    def left() -> list[str]:
        children = psutil.Process().children(recursive=True)
        return [
            child.name() for child in children if child.pid not in before and child.status() != psutil.STATUS_ZOMBIE
        ]

    assert eventually(lambda: not left()), f"processes left behind: {left()}"


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[LocalCluster]:
    """One Ray cluster for all tests that need one, which this process has joined."""
    with LocalCluster(num_cpus=8) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def _no_variables_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("FED_")]:
        monkeypatch.delenv(name)
