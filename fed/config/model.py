"""The options of a job: frozen, and validated on construction. Where they come from is `fed.config.sources`."""

from __future__ import annotations

import dataclasses
import difflib
import enum
import ipaddress
import math
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, get_type_hints

from fed.config.codecs import DeclaredType, TypeCodec
from fed.errors import ConfigError

__all__ = ["COMMON_RESOURCES", "PARTY_NAME", "Address", "Config", "TLSConfig", "check_party_name", "check_ray_address"]

PARTY_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
JOB_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
EXPOSURES: Final = ("type", "message", "trace")
COMMON_RESOURCES: Final = ("CPU", "GPU", "memory", "object_store_memory")
"""Resources that tell no node from another. Ray has options of their own for them, and refuses them by name."""
LEAST_AMOUNT: Final = 0.0001
"""Ray counts resources in these."""
MAX_CHUNK_BYTES: Final = 1024**3
"""A chunk travels in one protobuf message, which cannot exceed 2 GiB."""
MAX_PORT: Final = 65535

_ADDRESS: Final = re.compile(r"(?:\[(?P<ipv6>[^\s/@\[\]]+)\]|(?P<host>[^\s/@\[\]:]+)):(?P<port>[0-9]{1,5})")


def wrong_value(where: str, found: object, expected: str) -> ConfigError:
    """The error of a value that an option cannot hold."""
    shown = repr(found)
    return ConfigError(f"{where}: expected {expected}, found {shown if len(shown) <= 80 else shown[:77] + '...'}")


def unknown_name(kind: str, name: object, valid: Iterable[str], where: str) -> ConfigError:
    """The error of a name that nobody knows, with the nearest valid one."""
    choices = sorted(valid)
    near = difflib.get_close_matches(str(name), choices, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"valid are {', '.join(choices)}"
    return ConfigError(f"{where}: unknown {kind} {name!r}, {hint}")


@dataclasses.dataclass(frozen=True, slots=True)
class Address:
    """Where a party's receiver listens, as ``host:port``.

    Attributes:
        host: A DNS name, an IPv4 address, or an IPv6 address without brackets.
        port: 1 to 65535.
    """

    host: str
    port: int

    def __post_init__(self) -> None:
        if not isinstance(self.host, str) or not self.host or re.search(r"[\s/@\[\]]", self.host):
            raise wrong_value("host of an address", self.host, "a DNS name or an IP address without brackets")
        if not _is_int(self.port) or not 1 <= self.port <= MAX_PORT:
            raise wrong_value("port of an address", self.port, f"a number from 1 to {MAX_PORT}")

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``host:port`` or ``[ipv6]:port``.

        Raises:
            ConfigError: The text is neither.
        """
        match = _ADDRESS.fullmatch(text)
        if match is None or not 1 <= int(match["port"]) <= MAX_PORT:
            raise ConfigError(f"address {text!r} is malformed: write host:port, for example 10.0.0.5:9001")
        return cls(match["ipv6"] or match["host"], int(match["port"]))

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            # A name. Only this one is known to stay here; 127.example.com would not.
            return self.host.lower() == "localhost"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclasses.dataclass(frozen=True, slots=True)
class TLSConfig:
    """Paths of this party's credentials, all PEM. Strings are taken as paths.

    Attributes:
        ca: The certificate authority that every party's certificate must chain to.
        cert: This party's certificate; its SAN holds the URI ``fed://<party>``.
        key: The private key of `cert`, unencrypted.
    """

    ca: Path
    cert: Path
    key: Path

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, PATH.checked(getattr(self, field.name), f"{field.name} of tls"))


@dataclasses.dataclass(frozen=True)
class Rule:
    """What an option may hold, and how the text of an environment variable becomes that.

    Attributes:
        expected: Ends the sentence "expected ...".
        accepts: Whether a value is fine.
        convert: Brings equivalent forms (a string for a path, a list for a tuple) into the one that is stored, and
            leaves anything else alone. It may raise ConfigError with a better sentence than "expected ...".
        read: Reads the text of a variable; raises ValueError if it cannot.
    """

    expected: str
    accepts: Callable[[Any], bool]
    convert: Callable[[Any], Any] = lambda value: value
    read: Callable[[str], Any] = str

    def checked(self, value: object, where: str) -> Any:
        """The value as it is stored.

        Raises:
            ConfigError: It is not fine; the sentence begins with `where`.
        """
        try:
            converted = self.convert(value)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None
        if not self.accepts(converted):
            raise wrong_value(where, value, self.expected)
        return converted


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return _is_int(value) or isinstance(value, float)


def _is_exposure(value: object) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(name, str) and level in EXPOSURES for name, level in value.items())
    return value in EXPOSURES


def _is_resources(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(name, str) and name and _is_number(amount) and LEAST_AMOUNT <= amount < math.inf
        for name, amount in value.items()
    )


def _is_declared_type(value: object) -> bool:
    if isinstance(value, TypeCodec):
        return True
    if not isinstance(value, type):
        return False
    is_namedtuple = issubclass(value, tuple) and hasattr(value, "_fields")
    return dataclasses.is_dataclass(value) or issubclass(value, enum.Enum) or is_namedtuple


def _to_address(value: object) -> object:
    return Address.parse(value) if isinstance(value, str) else value


def _to_addresses(value: object) -> object:
    if not isinstance(value, Mapping):
        return value
    for name, address in value.items():
        check_party_name(name, "party")
        if not isinstance(address, (str, Address)):
            raise wrong_value(f"address of party {name!r}", address, "host:port")
    return MappingProxyType({name: _to_address(address) for name, address in value.items()})


def _to_frozen(value: object) -> object:
    if isinstance(value, Mapping):
        return MappingProxyType(dict(value))
    return tuple(value) if isinstance(value, (list, set, frozenset)) else value


def _to_resources(value: object) -> object:
    if isinstance(value, Mapping):
        for name in value:
            if name in COMMON_RESOURCES:
                raise ConfigError(f"every node has {name}: name a resource that only the node of the proxies has")
    return _to_frozen(value)


def _to_ray_address(value: object) -> object:
    if isinstance(value, str) and "://" in value:
        raise ConfigError(
            f"{value!r} leads to a dashboard or a Ray client server, which fed cannot use: give host:port of the "
            "cluster's GCS, for example 10.0.0.5:6379, or auto on one of its nodes, or local"
        )
    return value


def _to_tls(value: object) -> object:
    if not isinstance(value, Mapping):
        return value
    names = [field.name for field in dataclasses.fields(TLSConfig)]
    for name in value:
        if name not in names:
            raise unknown_name("key", name, names, "mapping")
    for name in names:
        if name not in value:
            raise ConfigError(f"{name} is missing; TLS needs ca, cert and key")
    return TLSConfig(**value)


def _read_bool(text: str) -> bool:
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    raise ValueError(text)


def _read_pairs(text: str, kind: str = "party") -> dict[str, str]:
    pairs: dict[str, str] = {}
    for item in text.split(","):
        name, equals, value = (part.strip() for part in item.partition("="))
        if not (name and equals and value):
            raise ValueError(text)
        if name in pairs:
            raise ConfigError(f"{kind} {name!r} occurs twice")
        pairs[name] = value
    return pairs


def _read_amounts(text: str) -> dict[str, float]:
    # An empty variable counts as not given, so that it takes a word to undo what a file says.
    if text.lower() == "none":
        return {}
    return {name: float(amount) for name, amount in _read_pairs(text, "resource").items()}


def _name(kind: str, pattern: re.Pattern[str], most: int) -> Rule:
    return Rule(
        f"a {kind}'s name (1 to {most} letters, digits, '_', '.' or '-', a letter or digit first)",
        lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None,
    )


def _integer(expected: str, least: int, most: float = math.inf) -> Rule:
    return Rule(expected, lambda value: _is_int(value) and least <= value <= most, read=int)


_TEXT: Final = Rule("a non-empty string", lambda value: isinstance(value, str) and value != "")
_RAY_ADDRESS: Final = dataclasses.replace(_TEXT, convert=_to_ray_address)
PATH: Final = Rule(
    "a path",
    lambda value: isinstance(value, Path),
    convert=lambda value: Path(value) if isinstance(value, str) and value else value,
)
_FLAG: Final = Rule("true or false", lambda value: isinstance(value, bool), read=_read_bool)
_SECONDS: Final = Rule(
    "a number of seconds above 0",
    # Python can wait no longer.
    lambda value: _is_number(value) and 0 < value <= threading.TIMEOUT_MAX,
    read=float,
)
_BYTES: Final = _integer("a whole number of bytes, 1 or more", 1)
_BYTES_OR_ZERO: Final = _integer("a whole number of bytes, 0 or more", 0)
_CHUNK: Final = _integer(f"a whole number of bytes from 1 to {MAX_CHUNK_BYTES}", 1, MAX_CHUNK_BYTES)
_JOB: Final = _name("job", JOB_NAME, 128)
_PARTY: Final = _name("party", PARTY_NAME, 63)
_LISTEN: Final = Rule("host:port", lambda value: isinstance(value, Address), convert=_to_address)
_ADDRESSES: Final = Rule(
    "host:port for every party, for example alice=10.0.0.5:9001,bob=10.0.0.6:9001",
    lambda value: isinstance(value, Mapping) and len(value) > 0,
    convert=_to_addresses,
    read=_read_pairs,
)
_TLS: Final = Rule("ca, cert and key", lambda value: isinstance(value, TLSConfig), convert=_to_tls)
_ON_ERROR: Final = Rule("'abort' or 'isolate'", lambda value: value in ("abort", "isolate"))
_EXPOSURE: Final = Rule(
    "'type', 'message' or 'trace', or one of these per party",
    _is_exposure,
    convert=_to_frozen,
    read=lambda text: _read_pairs(text) if "=" in text else text,
)
_RESOURCES: Final = Rule(
    f"an amount per resource, {LEAST_AMOUNT:g} or more, for example fed=0.001",
    _is_resources,
    convert=_to_resources,
    read=_read_amounts,
)
_EXCEPTIONS: Final = Rule(
    "a list of subclasses of Exception",
    lambda value: (
        isinstance(value, tuple) and all(isinstance(item, type) and issubclass(item, Exception) for item in value)
    ),
    convert=_to_frozen,
)
_TYPES: Final = Rule(
    "a list of dataclasses, enums, namedtuples and fed.codec(...)",
    lambda value: isinstance(value, tuple) and all(_is_declared_type(item) for item in value),
    convert=_to_frozen,
)
_FUNCTION: Final = Rule("a function", callable)


def check_party_name(name: object, where: str) -> str:
    """Return `name` if it can name a party.

    Args:
        name: What somebody gave as a name.
        where: Where it was given; begins the sentence of the error.

    Raises:
        ConfigError: It cannot.
    """
    return str(_PARTY.checked(name, where))


def check_ray_address(address: str, where: str) -> str:
    """Return `address` if it can be that of a Ray cluster.

    Args:
        address: What somebody gave as one.
        where: Where it was given; begins the sentence of the error.

    Raises:
        ConfigError: It cannot.
    """
    return str(_RAY_ADDRESS.checked(address, where))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that one party needs to know to take part in one job.

    Whatever can be wrong with it without looking at another machine or at the disk is refused on construction.

    Attributes:
        job: Name of the job, equal in every party.
        party: This party's name.
        addresses: Where each party's receiver is reached, this one included. No two are the same.
        listen: Where this party binds, if other than its address (behind NAT, in a container). None: its address.
        tls: Credentials. None: no TLS, which only loopback addresses may do, unless `insecure`.
        insecure: Allow connections without TLS to other machines. Anyone on the path can then read and forge.
        ray_address: The Ray cluster to use: ``local`` starts one, ``host:port`` or ``auto`` joins one.
            None: one that is already initialised in this process, else ``local``.
        ray_namespace: Ray namespace for the proxy actors. None: one made for the job and party.
        ray_proxy_resources: Amounts of Ray's resources that each of the two proxies takes. They run, and run again
            after a crash, on a node that has them: the one with this party's address. Empty: wherever Ray places them.
        on_error: ``abort``: the first failure latches the job. ``isolate``: failed tasks poison what depends on
            them, and catching the error is legal.
        expose_errors: How much of an error others may see: ``type``, ``message`` or ``trace``; or a mapping from
            party to one of these.
        exceptions: Exception classes that a raised error is an instance of too. Equal in every party.
        types: Dataclasses, enums, namedtuples and codecs (`fed.codec`) of what may cross. Equal in every party.
        failure_handler: Called once, with a report, when the job fails.
        handler_timeout_s: Seconds that leaving waits for a failure handler that is running.
        interrupt_driver: Whether a driver that is outside fed when the job fails is interrupted there. Only the main
            thread can be.
        init_timeout_s: Seconds that `fed.init` and `fed.reset` wait for the other parties.
        drain_timeout_s: Seconds that a regular `fed.shutdown` waits for undelivered results and for the others.
        lease_s: Seconds of silence after which a party is lost. Every party should have the same.
        max_object_bytes: Largest object this party accepts. None: no limit.
        receive_buffer_bytes: Bytes of objects held that nobody waits for yet; more stay with their owners.
        small_object_bytes: Objects up to this size travel in batches, larger ones as streams of their own.
        chunk_bytes: Size of one chunk of a stream; more than 2 MiB comes to 2 MiB.

    Raises:
        ConfigError: A value is wrong, or two of them contradict one another.
    """

    job: Annotated[str, _JOB]
    party: Annotated[str, _PARTY]
    addresses: Annotated[Mapping[str, Address], _ADDRESSES]
    listen: Annotated[Address | None, _LISTEN] = None
    tls: Annotated[TLSConfig | None, _TLS] = None
    insecure: Annotated[bool, _FLAG] = False
    ray_address: Annotated[str | None, _RAY_ADDRESS] = None
    ray_namespace: Annotated[str | None, _TEXT] = None
    ray_proxy_resources: Annotated[Mapping[str, float], _RESOURCES] = dataclasses.field(default_factory=dict)
    on_error: Annotated[Literal["abort", "isolate"], _ON_ERROR] = "abort"
    expose_errors: Annotated[str | Mapping[str, str], _EXPOSURE] = "type"
    exceptions: Annotated[tuple[type[Exception], ...], _EXCEPTIONS] = ()
    types: Annotated[tuple[DeclaredType, ...], _TYPES] = ()
    failure_handler: Annotated[Callable[[Any], object] | None, _FUNCTION] = None
    handler_timeout_s: Annotated[float, _SECONDS] = 30.0
    interrupt_driver: Annotated[bool, _FLAG] = True
    init_timeout_s: Annotated[float, _SECONDS] = 120.0
    drain_timeout_s: Annotated[float, _SECONDS] = 600.0
    lease_s: Annotated[float, _SECONDS] = 15.0
    max_object_bytes: Annotated[int | None, _BYTES] = None
    receive_buffer_bytes: Annotated[int, _BYTES] = 256 * 1024 * 1024
    small_object_bytes: Annotated[int, _BYTES_OR_ZERO] = 64 * 1024
    chunk_bytes: Annotated[int, _CHUNK] = 1024 * 1024

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None or field.default is not None:
                object.__setattr__(self, field.name, RULES[field.name].checked(value, field.name))
        self._check_parties()
        self._check_secrecy()
        self._check_times()

    def _check_parties(self) -> None:
        if self.party not in self.addresses:
            raise ConfigError(f"party {self.party!r} has no address: the parties are {', '.join(self.parties)}")
        taken: dict[tuple[str, int], str] = {}
        for name in self.parties:
            address = self.addresses[name]
            other = taken.setdefault((address.host.lower(), address.port), name)
            if other != name:
                raise ConfigError(f"parties {other!r} and {name!r} have the same address {address}")
        if not isinstance(self.expose_errors, str):
            for name in self.expose_errors:
                if name not in self.addresses:
                    raise unknown_name("party", name, self.parties, "expose_errors")

    def _check_times(self) -> None:
        # Whoever waits must wait longer than it takes to find that it waits in vain [E38].
        for name in ("init_timeout_s", "drain_timeout_s"):
            if getattr(self, name) < self.lease_s:
                raise ConfigError(
                    f"{name} ({getattr(self, name):g}) is below lease_s ({self.lease_s:g}): it would run out before a "
                    "party that is gone is known to be lost; make it longer, or the lease shorter"
                )

    def _check_secrecy(self) -> None:
        if self.tls is not None or self.insecure:
            return
        reachable = [(f"party {name!r} is at", self.addresses[name]) for name in self.parties]
        if self.listen is not None:
            reachable.append(("listen is", self.listen))
        for subject, address in reachable:
            if not address.is_loopback:
                raise ConfigError(
                    f"{subject} {address}, which other machines can reach, but there is no TLS: give tls (ca, cert and "
                    "key), or insecure=True to accept that anyone on the path can read and forge"
                )

    @property
    def parties(self) -> tuple[str, ...]:
        """Every party's name, sorted, so that the order is equal everywhere."""
        return tuple(sorted(self.addresses))

    @property
    def peers(self) -> tuple[str, ...]:
        """Every party but this one, sorted."""
        return tuple(name for name in self.parties if name != self.party)


RULES: Final[Mapping[str, Rule]] = {
    name: hint.__metadata__[0] for name, hint in get_type_hints(Config, include_extras=True).items()
}
"""The rule of every option, by the names of the fields of `Config`."""
