"""Proxies that are killed while objects cross."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from pathlib import Path

import psutil

from tests.support.drivers import Start
from tests.support.eventually import eventually
from tests.support.hosting import ANSWER_S


def proxies() -> set[int]:
    """The sender and receiver proxies in the tests' own cluster, by process id. There may be others on this machine."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            command = process.cmdline()[:1] or [""]
            if command[0].startswith(("ray::FedSender", "ray::FedReceiver")):
                found.add(process.pid)
    return found


def kill_proxies(federation: Start, stop: Path, count: int, seed: int) -> None:
    """Kill proxies of two parties at random moments. No round may give another value, come twice, or never come.

    Args:
        federation: Starts the drivers.
        stop: A path that is free; a file there ends the rounds.
        count: How many are killed at least.
        seed: Of the moments and the victims.
    """
    chance = random.Random(seed)
    print(f"play it again with FED_TEST_SEED={seed}")
    others = proxies()
    drivers = federation("rounds.py", ("alice", "bob"), str(stop), everywhere={"FED_LEASE_S": "30"})
    for driver in drivers.values():
        driver.wait_for("round 2", 2 * ANSWER_S)
    killed = 0
    while killed < count:
        # At any moment of a round, which takes about half a second, and now and then while one is being restarted.
        time.sleep(chance.uniform(0, 1.5))
        alive = sorted(proxies() - others)
        victims = chance.sample(alive, k=min(len(alive), chance.choice([1, 1, 1, 2])))
        for victim in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
                killed += 1
        # The rounds go on, with the new ones.
        last = max(_round(driver.lines) for driver in drivers.values())
        for driver in drivers.values():
            driver.wait_for(f"round {last + 2}", 2 * ANSWER_S)
    stop.touch()
    rounds = set()
    for driver in drivers.values():
        assert driver.end(ANSWER_S) == 0, driver.output
        rounds.add(driver.lines[-1])
    assert len(rounds) == 1
    print(f"{killed} kills, {rounds.pop()}")
    assert eventually(lambda: proxies() <= others)


def _round(lines: list[str]) -> int:
    return max((int(line.split()[1]) for line in lines if line.startswith("round ")), default=0)
