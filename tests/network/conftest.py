"""Federations whose parties are in network namespaces, or behind forwarders."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from fed.config import TLSConfig
from fed.transport.certificates import write_credentials
from tests.federation.hosting import Host, hosted
from tests.network import namespaces
from tests.network.namespaces import Network

PARTIES = ("alice", "bob", "carol")
Recorded = Callable[[str, object], None]

PROGRAM = Path(__file__).parent / "programs" / "crossings.py"


@pytest.fixture(scope="session")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, TLSConfig]:
    return write_credentials(tmp_path_factory.mktemp("tls"), PARTIES)


def environment(
    job: str, party: str, addresses: Mapping[str, object], credentials: Mapping[str, TLSConfig]
) -> dict[str, str]:
    """The variables that a party's driver is started with."""
    tls = credentials[party]
    return {
        "FED_JOB": job,
        "FED_PARTY": party,
        "FED_ADDRESSES": ",".join(f"{name}={address}" for name, address in addresses.items()),
        "FED_TLS_CA": str(tls.ca),
        "FED_TLS_CERT": str(tls.cert),
        "FED_TLS_KEY": str(tls.key),
        "FED_INIT_TIMEOUT_S": "60",
        "FED_DRAIN_TIMEOUT_S": "60",
    }


@pytest.fixture(scope="session")
def whole_network() -> Iterator[Network]:
    """The network of all tests in this folder."""
    reason = namespaces.missing()
    if reason is not None:
        pytest.skip(f"no network namespaces: {reason}")
    with Network(PARTIES) as one:
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


@contextlib.contextmanager
def in_namespaces(network: Network, parties: Sequence[str], credentials: Mapping[str, TLSConfig]) -> Iterator[Host]:
    """Parties, each in a namespace and with a Ray cluster of its own."""
    addresses = {party: network.address(party) for party in parties}
    with tempfile.TemporaryDirectory(prefix="ft-", dir=os.environ["TMPDIR"]) as folder:

        def environments() -> Mapping[str, Mapping[str, str]]:
            return {
                party: {
                    **environment("network", party, addresses, credentials),
                    "FED_LOG_DIR": folder,
                    # Ray's Unix sockets lie below it, and their names have a limit.
                    "RAY_TMPDIR": tempfile.mkdtemp(prefix="r", dir=folder),
                }
                for party in parties
            }

        with hosted(environments, program=PROGRAM, command=network.command) as one:
            try:
                yield one
            finally:
                # Told to, a driver ends its Ray cluster, which otherwise outlives it by seconds and writes on.
                one.dismiss()


@pytest.fixture(scope="session")
def host(whole_network: Network, credentials: Mapping[str, TLSConfig]) -> Iterator[Host]:
    """Three parties."""
    with in_namespaces(whole_network, PARTIES, credentials) as one:
        yield one


@pytest.fixture(scope="session")
def pair(whole_network: Network, credentials: Mapping[str, TLSConfig]) -> Iterator[Host]:
    """Two parties, which are sooner there than three."""
    with in_namespaces(whole_network, PARTIES[:2], credentials) as one:
        yield one
