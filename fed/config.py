"""The options of a job: frozen, validated on construction, and loaded from arguments, environment and ``fed.toml``.

Order, strongest first: arguments of `fed.init`, environment (``FED_*``), ``fed.toml``, defaults. A key that
nobody knows is refused with the nearest valid name.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

from fed.errors import ConfigError

__all__ = ["Address", "Config", "TLSConfig"]

PARTY_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


@dataclasses.dataclass(frozen=True, slots=True)
class Address:
    """Where a party's receiver listens, as ``host:port``.

    Attributes:
        host: A DNS name, an IPv4 address, or an IPv6 address without brackets.
        port: 1 to 65535.
    """

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``host:port`` or ``[ipv6]:port``.

        Raises:
            ConfigError: The text is neither.
        """
        host, colon, port = text.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        bare = host[1:-1] if bracketed else host
        well_formed = colon and bare and not re.search(r"[\s/@\[\]]", bare) and (bracketed or ":" not in bare)
        if not well_formed or not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
            raise ConfigError(f"address {text!r} is malformed: write host:port, for example 10.0.0.5:9001")
        return cls(bare, int(port))

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host == "localhost" or self.host == "::1" or self.host.startswith("127.")

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclasses.dataclass(frozen=True, slots=True)
class TLSConfig:
    """Paths of this party's credentials, all PEM.

    Attributes:
        ca: The certificate authority that every party's certificate must chain to.
        cert: This party's certificate; its SAN holds the URI ``fed://<party>``.
        key: The private key of `cert`, unencrypted.
    """

    ca: Path
    cert: Path
    key: Path


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that one party needs to know to take part in one job.

    Attributes:
        job: Name of the job, equal in every party.
        party: This party's name.
        addresses: Where each party's receiver is reached, this one included.
        listen: Where this party binds, if other than its address (behind NAT, in a container). None: its address.
        tls: Credentials. None: no TLS, which only loopback addresses may do, unless `insecure`.
        insecure: Allow connections without TLS to other machines. Anyone on the path can then read and forge.
        ray_address: The Ray cluster to use: ``local`` starts one, anything else joins one.
            None: one that is already initialised in this process, else ``local``.
        ray_namespace: Ray namespace for the proxy actors. None: one made for the job and party.
        on_error: ``abort``: the first failure latches the job. ``isolate``: failed tasks poison what depends on
            them, and catching the error is legal.
        expose_errors: How much of an error others may see: ``type``, ``message`` or ``trace``; or a mapping from
            party to one of these.
        exceptions: Exception classes that a raised error is an instance of too. Equal in every party.
        types: Dataclasses and enums that may cross. Equal in every party.
        failure_handler: Called once, with a report, when the job fails.
        init_timeout_s: Seconds that `fed.init` waits for the other parties.
        drain_timeout_s: Seconds that a regular `fed.shutdown` waits for undelivered results and for the others.
        max_object_bytes: Largest object this party accepts. None: no limit.
        receive_buffer_bytes: Bytes of objects held that nobody waits for yet; more stay with their owners.
        max_pending_receives: Receives that may be outstanding; a fed call then waits for some to arrive.
        small_object_bytes: Objects up to this size travel in batches, larger ones as streams of their own.
        chunk_bytes: Size of one chunk of a stream.
    """

    job: str
    party: str
    addresses: Mapping[str, Address]
    listen: Address | None = None
    tls: TLSConfig | None = None
    insecure: bool = False
    ray_address: str | None = None
    ray_namespace: str | None = None
    on_error: Literal["abort", "isolate"] = "abort"
    expose_errors: str | Mapping[str, str] = "type"
    exceptions: tuple[type[Exception], ...] = ()
    types: tuple[type, ...] = ()
    failure_handler: Callable[[Any], object] | None = None
    init_timeout_s: float = 120.0
    drain_timeout_s: float = 600.0
    max_object_bytes: int | None = None
    receive_buffer_bytes: int = 256 * 1024 * 1024
    max_pending_receives: int = 1000
    small_object_bytes: int = 64 * 1024
    chunk_bytes: int = 1024 * 1024

    def __post_init__(self) -> None:
        object.__setattr__(self, "addresses", MappingProxyType(dict(self.addresses)))

    @property
    def parties(self) -> tuple[str, ...]:
        """Every party's name, sorted, so that the order is equal everywhere."""
        return tuple(sorted(self.addresses))

    @property
    def peers(self) -> tuple[str, ...]:
        """Every party but this one, sorted."""
        return tuple(name for name in self.parties if name != self.party)
