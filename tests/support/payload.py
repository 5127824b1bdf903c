"""Large objects through the real proxies, and what those need of memory."""

from __future__ import annotations

import contextlib
import threading

import psutil

from tests.support.drivers import Start
from tests.support.eventually import eventually
from tests.support.kills import proxies


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
            for pid in proxies():
                with contextlib.suppress(psutil.NoSuchProcess):
                    self.peaks[pid] = max(self.peaks.get(pid, 0), psutil.Process(pid).memory_info().rss)


def private_bytes(pid: int) -> int:
    """Memory of its own, without the object store that all processes of the cluster map."""
    info = psutil.Process(pid).memory_info()
    return int(info.rss - info.shared)


def carry(federation: Start, nbytes: int, within_s: float) -> tuple[dict[int, int], dict[int, int]]:
    """Send one array. Returns the peak memory of each proxy, and its private memory afterwards."""
    with ProxyMemory() as memory:
        drivers = federation("payload.py", ("alice", "bob"), str(nbytes), stdin=True)
        for driver in drivers.values():
            driver.wait_for("consumed", within_s)
            assert f"consumed True {nbytes}" in driver.output
    after = {pid: private_bytes(pid) for pid in proxies()}
    assert len(after) == 4
    for driver in drivers.values():
        driver.proceed()
    for driver in drivers.values():
        assert driver.end() == 0, driver.output
    assert eventually(lambda: not proxies()), "the proxies outlive their job"
    return {pid: peak for pid, peak in memory.peaks.items() if pid in after}, after
