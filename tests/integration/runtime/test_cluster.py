"""The files of a cluster of our own are nobody else's, and go with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fed.runtime.cluster import LocalCluster
from tests.support.launching import environment, fed, script
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
