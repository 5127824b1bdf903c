"""The files of a cluster of our own are nobody else's, and go with it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
import pytest
import ray

from fed.runtime.cluster import LocalCluster, init_ray
from tests.support.launching import descendants_of, environment, eventually, fed, is_gone, script, started, variable_of
from tests.support.worlds import free_address

SEEN = """
import json, os, pathlib, stat

def seen():
    place = pathlib.Path(os.environ["RAY_TMPDIR"])
    sessions = len(list(place.glob("ray/session_2*")))
    return {"place": str(place), "mode": stat.S_IMODE(place.stat().st_mode), "sessions": sessions}
"""

SIMULATION = f"""{SEEN}
from fed.runtime.cluster import LocalCluster

with LocalCluster(num_cpus=1):
    inside = seen()
print(json.dumps({{**inside, "set": os.environ.get("RAY_TMPDIR")}}))
"""

JOB = f"""{SEEN}
import fed

def run():
    with fed.job(job="j", party="alice", addresses={{"alice": "{free_address()}"}}):
        inside = seen()
    print(json.dumps({{**inside, "set": os.environ.get("RAY_TMPDIR")}}))

run()
"""


def ended(program: str, **environment: str) -> Any:
    others = {name: text for name, text in os.environ.items() if name != "RAY_TMPDIR"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**others, **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("program", [SIMULATION, JOB], ids=["of a simulation", "of a job"])
def test_the_files_of_a_cluster_of_our_own_are_private_and_removed(program: str) -> None:
    found = ended(program)
    assert (found["mode"], found["sessions"], found["set"]) == (0o700, 1, None)
    assert Path(found["place"]).name.startswith("fed-ray-")
    assert not Path(found["place"]).exists()


FAILING = f"""{SEEN}
import ray
import fed

def fail(**_):
    print(json.dumps({{**seen(), "set": None}}))
    raise RuntimeError("It is broken.\\n  1. Mend it, or\\n  2. leave it.")

ray.init = fail
try:
    fed.init(job="j", party="alice", addresses={{"alice": "{free_address()}"}})
except fed.ConfigError as error:
    assert str(error).endswith(": It is broken. 1. Mend it, or 2. leave it."), error
else:
    raise AssertionError
"""


def test_the_files_of_a_cluster_that_does_not_start_are_removed() -> None:
    assert not Path(ended(FAILING)["place"]).exists()


def gcs_servers(pid: int) -> list[int]:
    """Of the cluster that a process starts, the first of its processes that stays."""
    found = []
    for child in descendants_of(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            if psutil.Process(child).name() == "gcs_server":
                found.append(child)
    return found


def test_of_a_cluster_that_is_abandoned_while_it_starts_nothing_is_left(tmp_path: Path) -> None:
    script(tmp_path, "raise AssertionError")
    with started("run", "script.py", "--simulate", "alice", cwd=tmp_path) as process:
        eventually(lambda: bool(gcs_servers(process.pid)))
        [server] = gcs_servers(process.pid)
        place = Path(variable_of(server, "RAY_TMPDIR"))
        assert place.exists()
        # Two of one kind that come at once are one.
        os.kill(process.pid, signal.SIGINT)
        os.kill(process.pid, signal.SIGHUP)
        assert process.wait(60) == 130
        eventually(lambda: is_gone(server))
        assert not place.exists()


def test_sigterm_while_ray_starts_is_the_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    handled: list[int] = []

    def ours(signum: int, _: FrameType | None) -> None:
        handled.append(signum)

    def init(**_: Any) -> None:
        signal.signal(signal.SIGTERM, lambda signum, _: sys.exit(signum))
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(ray, "init", init)
    before = signal.signal(signal.SIGTERM, ours)
    try:
        with pytest.raises(SystemExit):
            init_ray(address="local")
        assert signal.getsignal(signal.SIGTERM) is ours
    finally:
        signal.signal(signal.SIGTERM, before)
    assert handled == [signal.SIGTERM]


def test_a_program_joins_the_cluster_that_ray_is_told_of(ray_cluster: LocalCluster, tmp_path: Path) -> None:
    text = """
        import fed, ray
        with fed.job():
            print("at", ray.get_runtime_context().gcs_address)
    """
    script(tmp_path, text)
    variables = {**ray_cluster.environment(), "FED_ADDRESSES": f"alice={free_address()}"}
    del variables["FED_RAY_ADDRESS"]
    # As in a job that was submitted.
    told = {"RAY_ADDRESS": ray_cluster.address, "RAY_JOB_CONFIG_JSON_ENV_VAR": '{"runtime_env": {}, "metadata": {}}'}
    result = fed("run", "script.py", "--party", "alice", cwd=tmp_path, env=environment(**variables, **told))
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"at {ray_cluster.address}\n"


def test_a_place_that_was_named_is_left_as_it_is(tmp_path_factory: pytest.TempPathFactory) -> None:
    # A short path, for the sockets.
    place = os.environ["RAY_TMPDIR"] + "/n"
    Path(place).mkdir(mode=0o755)
    found = ended(SIMULATION, RAY_TMPDIR=place)
    assert (found["place"], found["sessions"], found["set"]) == (place, 1, place)
    assert list(Path(place).glob("ray/session_2*"))
