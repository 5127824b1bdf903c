"""Federations whose parties are in network namespaces, or behind forwarders."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from fed.config import TLSConfig
from tests.support.drivers import PROGRAMS
from tests.support.hosting import Host, hosted
from tests.support.namespaces import Network

PARTIES: Final = ("alice", "bob", "carol")
PROGRAM: Final = PROGRAMS / "crossings.py"

Recorded = Callable[[str, object], None]
"""The fixture ``record``: notes something that a test has measured."""


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
