"""A party whose Ray cluster has two nodes: the proxies run on the one that they are tied to, tasks on the other.

Both nodes are on this machine. The library is installed on the head only, as far as the other node can tell.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import pytest

import fed
from fed.runtime.cluster import LocalCluster
from fed.testing.simulation import free_addresses
from tests.support.drivers import Driver, Start
from tests.support.eventually import eventually

pytestmark = pytest.mark.timeout(240)

START_S = 60.0
STORE_BYTES = 400_000_000
HEAD, OTHER = "127.0.0.2", "127.0.0.3"
"""Addresses of the loopback interface. Ray takes 127.0.0.1 for the machine's other address, which may be none."""

NOT_INSTALLED = '''
"""Read by Python at its start. What lies in this node's own folder was shipped to it; nothing else has the library."""
import os
import sys
from importlib.machinery import PathFinder


class NotInstalled:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "fed":
            return None
        spec = PathFinder.find_spec(name, [entry for entry in sys.path if entry.startswith(os.environ["TEST_FOLDER"])])
        if spec is None:
            raise ModuleNotFoundError("No module named 'fed'", name="fed")
        return spec


sys.meta_path.insert(0, NotInstalled)
'''

TRY_IMPORT = """
import sys
import ray

def found():
    try:
        import fed
    except ModuleNotFoundError:
        return None
    return fed.__file__

ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)
for name in sys.argv[2:]:
    print(ray.get(ray.remote(found).options(resources={name: 0.001}).remote()))
ray.shutdown()
"""


@dataclasses.dataclass
class Nodes:
    """A cluster of two nodes: the head has the resource ``gate``, the other one ``far``."""

    address: str
    processes: Mapping[str, psutil.Popen]

    def node_of(self, pid: int) -> str:
        """The resource of the node that a process belongs to."""
        ancestors = {process.pid for process in psutil.Process(pid).parents()}
        return next(name for name, process in self.processes.items() if process.pid in ancestors)

    def actors(self, title: str) -> list[psutil.Process]:
        """Processes of actors of a class, by what Ray calls them."""
        found = []
        for node in self.processes.values():
            for process in node.children(recursive=True):
                try:
                    if process.cmdline()[:1] and process.cmdline()[0].startswith(f"ray::{title}"):
                        found.append(process)
                except (psutil.NoSuchProcess, psutil.ZombieProcess):
                    continue
        return found


def ray_start(folder: Path, *arguments: str, environment: Mapping[str, str]) -> psutil.Popen:
    """Start a node that lives as long as the process that is returned."""
    script = Path(sysconfig.get_path("scripts")) / "ray"
    resources = {"gate" if "--head" in arguments else "far": 1}
    command = [
        *(sys.executable, str(script), "start", "--block", "--disable-usage-stats", "--num-cpus=4"),
        # Of the operating system's choice; what Ray chooses by itself is the same in every cluster.
        *("--min-worker-port=0", "--max-worker-port=0"),
        *(f"--object-store-memory={STORE_BYTES}", f"--resources={json.dumps(resources)}", *arguments),
    ]
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("FED_")}
    with (folder / "output").open("w") as output:
        return psutil.Popen(
            command, env={**inherited, **environment}, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )


def await_started(process: psutil.Popen, folder: Path) -> None:
    def said() -> str:
        return (folder / "output").read_text()

    assert eventually(lambda: "Ray runtime started" in said() or process.poll() is not None, START_S), said()
    assert process.poll() is None, said()


def end(process: psutil.Popen) -> None:
    children = process.children(recursive=True)
    process.terminate()
    _, alive = psutil.wait_procs([process, *children], timeout=20)
    for left in alive:
        left.kill()
    psutil.wait_procs(alive, timeout=10)


@pytest.fixture(scope="module")
def nodes(ray_cluster: LocalCluster) -> Iterator[Nodes]:
    """Started after the cluster that the other parties use, since both are to have its token."""
    # A short path: Ray's Unix sockets lie below it, and their names have a limit.
    with tempfile.TemporaryDirectory(prefix="n-", ignore_cleanup_errors=True) as root:
        folders = {name: Path(root) / name for name in ("gate", "far")}
        for folder in folders.values():
            folder.mkdir()
        (folders["far"] / "sitecustomize.py").write_text(NOT_INSTALLED)
        port, client = (address.port for address in free_addresses(2))
        processes: dict[str, psutil.Popen] = {}
        try:
            processes["gate"] = ray_start(
                folders["gate"],
                *("--head", f"--node-ip-address={HEAD}", f"--port={port}", f"--ray-client-server-port={client}"),
                *("--include-dashboard=false", f"--temp-dir={folders['gate']}"),
                environment={},
            )
            await_started(processes["gate"], folders["gate"])
            processes["far"] = ray_start(
                folders["far"],
                *(f"--address={HEAD}:{port}", f"--node-ip-address={OTHER}", f"--temp-dir={folders['far']}"),
                environment={"PYTHONPATH": str(folders["far"]), "TEST_FOLDER": str(folders["far"])},
            )
            await_started(processes["far"], folders["far"])
            yield Nodes(f"{HEAD}:{port}", processes)
        finally:
            for name in reversed(processes):
                end(processes[name])


class Holder:
    def hold(self) -> None:
        """Nothing more: what it holds, it holds as long as it lives."""


def ports_of(process: psutil.Process) -> set[int]:
    return {one.laddr.port for one in process.net_connections("inet") if one.status == psutil.CONN_LISTEN}


def tell(driver: Driver) -> None:
    assert driver.process.stdin is not None
    driver.process.stdin.write("\n")
    driver.process.stdin.flush()


def test_the_library_is_not_installed_on_the_other_node(nodes: Nodes) -> None:
    script = [sys.executable, "-c", TRY_IMPORT, nodes.address, "gate", "far"]
    found = subprocess.run(script, check=True, capture_output=True, text=True, timeout=START_S).stdout.split()
    assert len(found) == 2
    assert found[0].endswith("__init__.py")
    assert found[1] == "None"


@pytest.mark.parametrize(("place", "other"), [("gate", "far"), ("far", "gate")])
def test_proxies_stay_on_the_node_that_they_are_tied_to_and_tasks_run_on_the_other(
    federation: Start, nodes: Nodes, place: str, other: str
) -> None:
    drivers = federation(
        "nodes.py",
        ("alice", "bob"),
        other,
        per_party={
            "alice": {
                "FED_RAY_ADDRESS": "",
                "TEST_CLUSTER": nodes.address,
                "FED_RAY_PROXY_RESOURCES": f"{place}=0.001",
            },
        },
        stdin=True,
    )
    alice = drivers["alice"]
    address = psutil.Process(alice.process.pid).environ()["FED_ADDRESSES"].split(",")[0]
    port = int(address.rpartition(":")[2])

    def play(turn: int) -> psutil.Process:
        for driver in drivers.values():
            driver.wait_for(f"round {turn}", 120)
        right, *pids = next(line for line in alice.lines if line.startswith(f"round {turn}")).split()[2:]
        assert right == "True"
        assert {nodes.node_of(int(pid)) for pid in pids} == {other}
        (sender,) = nodes.actors("FedSender")
        (receiver,) = nodes.actors("FedReceiver")
        assert (nodes.node_of(sender.pid), nodes.node_of(receiver.pid)) == (place, place)
        assert port in ports_of(receiver)
        return receiver

    first = play(1)
    first.kill()
    # At once: while nobody listens, objects begin to cross in both directions.
    for driver in drivers.values():
        tell(driver)
    second = play(2)
    assert second.pid != first.pid
    for driver in drivers.values():
        tell(driver)
    for driver in drivers.values():
        assert driver.end() == 0, driver.output
    assert eventually(lambda: not nodes.actors("Fed")), "the proxies outlive their job"


def test_a_resource_that_no_node_has_is_refused_with_those_that_there_are(federation: Start, nodes: Nodes) -> None:
    asked = {"FED_RAY_ADDRESS": nodes.address, "FED_RAY_PROXY_RESOURCES": "gaet=0.001"}
    alice = federation("joins.py", ("alice",), everywhere=asked)["alice"]
    # Ray would wait for such a node as long as the program runs.
    assert alice.end(within_s=40) == 2, alice.output
    (told,) = [line for line in alice.lines if line.startswith("fed: error:")]
    assert "no node of the Ray cluster has room for both proxies, each of which takes gaet=0.001" in told
    assert f"{HEAD} has gate=1, node:{HEAD}=1; {OTHER} has far=1, node:{OTHER}=1. Start the node" in told
    assert "(option ray_proxy_resources)" in told


def test_the_address_of_a_node_names_it(federation: Start, nodes: Nodes) -> None:
    asked = {"FED_RAY_ADDRESS": nodes.address, "FED_RAY_PROXY_RESOURCES": f"node:{HEAD}=0.001"}
    alice = federation("joins.py", ("alice",), everywhere=asked)["alice"]
    assert alice.end() == 0, alice.output


def test_a_resource_that_is_in_use_is_named_by_the_one_who_waited_for_it(
    ray_cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not before the cluster runs: what is set for Ray before, it reads when it is imported.
    import ray

    monkeypatch.setitem(vars(sys.modules["fed.engine.joining"]), "START_S", 2.0)
    node = next(name for name in ray.cluster_resources() if name.startswith("node:") and "__" not in name)
    holder = ray.remote(Holder).options(num_cpus=0, resources={node: 0.8}).remote()
    ray.get(holder.hold.remote())
    try:
        with pytest.raises(fed.InitError) as caught:
            fed.init(job="j", party="alice", addresses={"alice": free_addresses(1)[0]}, ray_proxy_resources={node: 0.3})
    finally:
        ray.kill(holder)
    assert str(caught.value) == (
        f"party 'alice' waited too long for the proxies to start where each finds {node}=0.3 not in use (option "
        "ray_proxy_resources)"
    )
