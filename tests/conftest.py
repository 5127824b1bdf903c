"""What every test is held to: it leaves no thread behind, and the whole run leaves no process behind."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator

import psutil
import pytest


def eventually(holds: Callable[[], bool], within_s: float = 10.0) -> bool:
    """Whether something outside our control comes true in time. For the end of other processes and threads only."""
    deadline = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def fed_threads() -> list[str]:
    """Threads of the library that are alive."""
    return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("fed-"))


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    yield
    assert eventually(lambda: not fed_threads()), f"threads left behind: {fed_threads()}"


@pytest.fixture(autouse=True, scope="session")
def _no_process_left() -> Iterator[None]:
    # The shared cluster is ended by its own fixture before this one looks, since that one is asked for later.
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    yield

    def left() -> list[str]:
        children = psutil.Process().children(recursive=True)
        return [child.name() for child in children if child.pid not in before and child.status() != psutil.STATUS_ZOMBIE]

    assert eventually(lambda: not left()), f"processes left behind: {left()}"


@pytest.fixture(autouse=True)
def _no_variables_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("FED_")]:
        monkeypatch.delenv(name)
