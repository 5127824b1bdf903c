"""What the tests on real Ray and real processes share: a cluster, credentials, and federations of driver processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from fed.config import TLSConfig
from fed.runtime.cluster import LocalCluster
from fed.testing.simulation import free_addresses
from fed.transport.certificates import write_credentials
from tests.support import namespaces
from tests.support.drivers import PARTIES, PROGRAMS, Driver, Start
from tests.support.hosting import FOUR, Gate, Host, hosted
from tests.support.namespaces import Network
from tests.support.networked import PARTIES as NETWORKED
from tests.support.networked import Recorded, in_namespaces


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[LocalCluster]:
    """One Ray cluster for all tests of this process that need one, which this process has joined."""
    with LocalCluster(num_cpus=8) as cluster:
        yield cluster


@pytest.fixture
def logs(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, _no_variables_of_the_caller: None
) -> Path:
    """Where drivers that this test starts write their logs, rather than in the user's home."""
    directory = tmp_path_factory.mktemp("logs")
    monkeypatch.setenv("FED_LOG_DIR", str(directory))
    return directory


@pytest.fixture(autouse=True)
def _logs_stay_out_of_the_users_home(request: pytest.FixtureRequest) -> None:
    if "integration" in request.path.relative_to(request.config.rootpath).parts:
        request.getfixturevalue("logs")


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


@pytest.fixture(scope="module")
def whole_network() -> Iterator[Network]:
    """The network of all tests of a file."""
    reason = namespaces.missing()
    if reason is not None:
        pytest.skip(f"no network namespaces: {reason}")
    with Network(NETWORKED) as one:
        yield one


@pytest.fixture
def record(request: pytest.FixtureRequest, record_property: Recorded) -> Recorded:
    """Notes something that a test has measured, in the report, and on the standard output too."""

    def note(name: str, value: object) -> None:
        record_property(name, value)
        print(f"{request.node.name}: {name} {value}")

    return note


@pytest.fixture
def network(whole_network: Network, record: Recorded) -> Iterator[Network]:
    """It, with nothing cut."""
    before = whole_network.cuts
    yield whole_network
    whole_network.restore()
    record("cuts", whole_network.cuts - before)


@pytest.fixture(scope="module")
def host(whole_network: Network, credentials: Mapping[str, TLSConfig]) -> Iterator[Host]:
    """Three parties."""
    with in_namespaces(whole_network, NETWORKED, credentials) as one:
        yield one


@pytest.fixture(scope="module")
def secured(
    ray_cluster: LocalCluster, credentials: Mapping[str, TLSConfig], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Mapping[str, Mapping[str, str]]]:
    """Makes the environments of the parties of a job, over mutual TLS."""

    def environments(job: str, *parties: str, **variables: str) -> Mapping[str, Mapping[str, str]]:
        addresses = dict(zip(parties, free_addresses(len(parties)), strict=True))
        logs = tmp_path_factory.mktemp("logs")
        return {
            party: {
                **ray_cluster.environment(),
                "FED_JOB": job,
                "FED_PARTY": party,
                "FED_ADDRESSES": ",".join(f"{name}={address}" for name, address in addresses.items()),
                "FED_TLS_CA": str(credentials[party].ca),
                "FED_TLS_CERT": str(credentials[party].cert),
                "FED_TLS_KEY": str(credentials[party].key),
                "FED_INIT_TIMEOUT_S": "60",
                "FED_LOG_DIR": str(logs / party),
                **variables,
            }
            for party in parties
        }

    return environments


@pytest.fixture(scope="module")
def four(secured: Callable[..., Any]) -> Iterator[Host]:
    """Four parties whose job aborts at the first failure. Dave's driver is not to be interrupted."""

    def environments() -> Mapping[str, Mapping[str, str]]:
        made = secured("four", *FOUR)
        return {**made, "dave": {**made["dave"], "FED_INTERRUPT_DRIVER": "false"}}

    with hosted(environments) as host:
        yield host


@pytest.fixture(scope="module")
def two(secured: Callable[..., Any]) -> Iterator[Host]:
    """Another job in the same Ray cluster: two parties that may survive failures."""
    with hosted(lambda: secured("two", "alice", "bob", FED_ON_ERROR="isolate")) as host:
        yield host


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Callable[[str], Gate]]:
    """Makes gates, and closes them at the end."""
    gates: list[Gate] = []

    def make(name: str = "gate") -> Gate:
        gates.append(Gate(tmp_path / name))
        return gates[-1]

    yield make
    for one in gates:
        one.close()
