"""What is said of a cluster that cannot be used, and what the workers of a simulation's are told."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from fed.runtime.cluster import reason_of


@pytest.mark.parametrize(
    ("text", "address", "mode", "reason"),
    [
        ("It is broken.\n 1. Mend it, or\n 2. leave it.", "local", "", "It is broken. 1. Mend it, or 2. leave it."),
        ("", "local", "", "ValueError"),
        (
            "AF_UNIX path length cannot exceed 107 bytes: /x",
            "local",
            "",
            "AF_UNIX path length cannot exceed 107 bytes: /x (give a directory with a shorter path by RAY_TMPDIR)",
        ),
        (
            "It failed",
            "10.0.0.5:6379",
            "",
            "It failed (if it asks for a token, as one does that ray start has started, set RAY_AUTH_MODE=token)",
        ),
        ("Failed to connect", "10.0.0.5:6379", "token", "Failed to connect"),
    ],
)
def test_a_cluster_that_cannot_be_used_has_a_reason_in_one_line(
    text: str, address: str, mode: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", mode)
    assert reason_of(ValueError(text), address) == reason


SETS = """
import json, os
import fed, fed.transport.grpc
from fed.runtime.cluster import environment_for_workers, prepare_environment

prepare_environment(own_cluster=True)
found = [environment_for_workers("h:1")]
os.environ.update(NEW="1", CHANGED="2", KEPT="as it was", RAY_NEW="3")
print(json.dumps([*found, environment_for_workers("h:1"), environment_for_workers("h:2")]))
"""


def test_workers_of_a_simulation_are_told_what_the_program_itself_has_set() -> None:
    # Anything else that is told makes Ray start a worker anew for each party, where one is waiting.
    inherited = {name: text for name, text in os.environ.items() if name not in ("LC_ALL", "LC_CTYPE", "LANG")}
    env = {**inherited, "FED_RUN_CLUSTER": "h:1", "CHANGED": "1", "KEPT": "as it was"}
    done = subprocess.run([sys.executable, "-c", SETS], env=env, capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(done.stdout) == [{}, {"NEW": "1", "CHANGED": "2"}, {}]
