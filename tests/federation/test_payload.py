"""Large objects through the real proxies: whole, and within the memory that is promised."""

from __future__ import annotations

import threading
from collections.abc import Callable

import psutil
import pytest

from tests.conftest import eventually
from tests.federation.conftest import Driver

Start = Callable[..., dict[str, Driver]]

GIB = 1 << 30


class ProxyMemory:
    """The largest memory of each proxy process while it is watched, in bytes."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self.peaks: dict[int, int] = {}
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> ProxyMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            for process in proxies():
                try:
                    resident = process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
                self.peaks[process.pid] = max(self.peaks.get(process.pid, 0), resident)


def proxies() -> list[psutil.Process]:
    """The proxy actors of this test's cluster, by what Ray calls their processes."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            command = " ".join(process.cmdline())
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
        if command.startswith(("ray::FedSender", "ray::FedReceiver")):
            found.append(process)
    return found


def private_bytes(process: psutil.Process) -> int:
    """Memory of its own, without the object store that all processes of the cluster map."""
    info = process.memory_info()
    return int(info.rss - info.shared)


def carry(federation: Start, nbytes: int, within_s: float) -> tuple[dict[int, int], dict[int, int]]:
    """Send one array. Returns the peak memory of each proxy, and its private memory afterwards."""
    with ProxyMemory() as memory:
        drivers = federation("payload.py", ("alice", "bob"), str(nbytes), stdin=True)
        for driver in drivers.values():
            driver.wait_for("consumed", within_s)
            assert f"consumed True {nbytes}" in driver.output
    after = {process.pid: private_bytes(process) for process in proxies()}
    assert len(after) == 4
    for driver in drivers.values():
        driver.proceed()
    for driver in drivers.values():
        assert driver.end() == 0, driver.output
    assert eventually(lambda: not proxies()), "the proxies outlive their job"
    return {pid: peak for pid, peak in memory.peaks.items() if pid in after}, after


@pytest.mark.ray
def test_an_object_of_many_chunks_crosses_whole(federation: Start) -> None:
    carry(federation, 50_000_000, within_s=60)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(500)
def test_an_object_of_two_and_a_half_gibibytes_crosses_in_bounded_memory(federation: Start) -> None:
    nbytes = 5 * GIB // 2
    peaks, after = carry(federation, nbytes, within_s=400)
    print({pid: (round(peak / nbytes, 2), round(after[pid] / nbytes, 2)) for pid, peak in peaks.items()})
    for pid, peak in peaks.items():
        assert peak < 2.5 * nbytes, f"proxy {pid} held {peak / nbytes:.2f} times the object"
        assert after[pid] < 0.25 * nbytes, f"proxy {pid} still holds {after[pid] / nbytes:.2f} times the object"
