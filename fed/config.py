"""The options of a job: frozen, validated on construction, and loaded from arguments, environment and ``fed.toml``.

Where an option can be given, strongest first:

1. an argument of `fed.init` or `fed.job`; None counts as not given;
2. the environment; an empty variable counts as not given;
3. a file: the argument ``config``, else ``FED_CONFIG``, else ``fed.toml`` in the current directory if there is one;
4. the default.

The three credentials are looked up one by one, so that a file may give the authority and the environment the key.
Everything else, the list of parties too, comes whole from the strongest place that gives it. Relative paths in a
file are relative to that file, others to the current directory. A name that nobody knows is refused wherever it
stands, with the nearest valid one.

==========================  ===========================  =========================================================
in ``fed.toml``             environment                  value
==========================  ===========================  =========================================================
``job``                     ``FED_JOB``                  the job's name, equal in every party
``party``                   ``FED_PARTY``                this party's name
``listen``                  ``FED_LISTEN``               ``host:port`` to bind, if other than the party's address
``insecure``                ``FED_INSECURE``             true allows connections without TLS to other machines
``[parties]``               ``FED_ADDRESSES``            ``host:port`` per party; ``alice=host:port,bob=host:port``
``[tls] ca``                ``FED_TLS_CA``               path; ``{party}`` in it stands for this party's name, so
                                                         that one file serves every party
``[tls] cert``              ``FED_TLS_CERT``             path, likewise
``[tls] key``               ``FED_TLS_KEY``              path, likewise
``[ray] address``           ``FED_RAY_ADDRESS``          ``local``, or the address of a running cluster
``[ray] namespace``         ``FED_RAY_NAMESPACE``        namespace for the proxy actors
``[ray] proxy_resources``   ``FED_RAY_PROXY_RESOURCES``  what a node must have to run the proxies: a table, or
                                                         ``fed=0.001``; ``none`` undoes it
``[options]`` and below:
``on_error``                ``FED_ON_ERROR``             ``abort`` or ``isolate``
``expose_errors``           ``FED_EXPOSE_ERRORS``        ``type``, ``message`` or ``trace``; or one of these per party:
                                                         a table, ``bob=message,carol=type``
``init_timeout_s``          ``FED_INIT_TIMEOUT_S``       seconds, and likewise for every other option of `Config`
==========================  ===========================  =========================================================

The arguments bear the names of the fields of `Config`, plus ``config``. Classes and functions (``exceptions``,
``types``, ``failure_handler``) can be given as arguments only. Variables that begin with ``FED_RUN_`` belong to the
command ``fed run``, which talks to its children by them; one is read here: ``FED_RUN_JOB`` names the job if
nothing else does.
"""

from __future__ import annotations

import dataclasses
import difflib
import enum
import ipaddress
import math
import re
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

from fed.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["Address", "Config", "TLSConfig", "check_party_name", "gather", "load"]

PARTY_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
JOB_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
FILE_NAME: Final = "fed.toml"
ENVIRONMENT_PREFIX: Final = "FED_"
RUN_PREFIX: Final = "FED_RUN_"
DEFAULT_JOB_VARIABLE: Final = "FED_RUN_JOB"
CONFIG_VARIABLE: Final = "FED_CONFIG"
LOG_DIR_VARIABLE: Final = "FED_LOG_DIR"
"""Read by the command line, and known here, since a script may also be started without it."""
EXPOSURES: Final = ("type", "message", "trace")
COMMON_RESOURCES: Final = ("CPU", "GPU", "memory", "object_store_memory")
"""Resources that tell no node from another. Ray has options of their own for them, and refuses them by name."""
LEAST_AMOUNT: Final = 0.0001
"""Ray counts resources in these."""
MAX_CHUNK_BYTES: Final = 1024**3
"""A chunk travels in one protobuf message, which cannot exceed 2 GiB."""


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
            raise _mismatch("host of an address", self.host, "a DNS name or an IP address without brackets")
        if not _is_int(self.port) or not 1 <= self.port <= 65535:
            raise _mismatch("port of an address", self.port, "a number from 1 to 65535")

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
            object.__setattr__(self, field.name, _PATH.checked(getattr(self, field.name), f"{field.name} of tls"))


@dataclasses.dataclass(frozen=True)
class _Rule:
    """What one option may hold, and how the text of an environment variable becomes that.

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
            raise _mismatch(where, value, self.expected)
        return converted


def _mismatch(where: str, found: object, expected: str) -> ConfigError:
    shown = repr(found)
    return ConfigError(f"{where}: expected {expected}, found {shown if len(shown) <= 80 else shown[:77] + '...'}")


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_seconds(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= threading.TIMEOUT_MAX


def _integers(expected: str, least: int, most: float = math.inf) -> _Rule:
    return _Rule(expected, lambda value: _is_int(value) and least <= value <= most, read=int)


def _optional(rule: _Rule) -> _Rule:
    return dataclasses.replace(rule, accepts=lambda value: value is None or rule.accepts(value))


def _one_of(*choices: str) -> _Rule:
    return _Rule(_enumerated([repr(choice) for choice in choices]), lambda value: value in choices)


def _enumerated(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} or {items[-1]}"


def _read_bool(text: str) -> bool:
    known = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    try:
        return known[text.lower()]
    except KeyError:
        raise ValueError(text) from None


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


def _to_address(value: object) -> object:
    return Address.parse(value) if isinstance(value, str) else value


def _to_addresses(value: object) -> object:
    if not isinstance(value, Mapping):
        return value
    for name, address in value.items():
        _PARTY.checked(name, "party")
        if not isinstance(address, (str, Address)):
            raise _mismatch(f"address of party {name!r}", address, "host:port")
    return MappingProxyType({name: _to_address(address) for name, address in value.items()})


def _to_path(value: object) -> object:
    return Path(value) if isinstance(value, str) and value else value


def _to_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, (list, set, frozenset)) else value


def _to_tls(value: object) -> object:
    if not isinstance(value, Mapping):
        return value
    names = [field.name for field in dataclasses.fields(TLSConfig)]
    for name in value:
        if name not in names:
            raise _unknown("key", name, names, "mapping")
    for name in names:
        if name not in value:
            raise ConfigError(f"{name} is missing; TLS needs {', '.join(names[:-1])} and {names[-1]}")
    return TLSConfig(**value)


def _is_exposure(value: object) -> bool:
    return value in EXPOSURES if isinstance(value, str) else _is_exposure_table(value)


def _is_exposure_table(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(name, str) and isinstance(level, str) and level in EXPOSURES for name, level in value.items()
    )


def _is_resources(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(name, str)
        and name
        and isinstance(amount, (int, float))
        and not isinstance(amount, bool)
        and LEAST_AMOUNT <= amount < math.inf
        for name, amount in value.items()
    )


def _to_resources(value: object) -> object:
    if not isinstance(value, Mapping):
        return value
    for name in value:
        if name in COMMON_RESOURCES:
            raise ConfigError(f"every node has {name}: name a resource that only the node of the proxies has")
    return MappingProxyType(dict(value))


def _is_declared_type(value: object) -> bool:
    if not isinstance(value, type):
        return False
    is_namedtuple = issubclass(value, tuple) and hasattr(value, "_fields")
    return dataclasses.is_dataclass(value) or issubclass(value, enum.Enum) or is_namedtuple


_TEXT: Final = _Rule("a non-empty string", lambda value: isinstance(value, str) and value != "")
_PATH: Final = _Rule("a path", lambda value: isinstance(value, Path), convert=_to_path)
_FLAG: Final = _Rule("true or false", lambda value: isinstance(value, bool), read=_read_bool)
_SECONDS: Final = _Rule("a number of seconds above 0", _is_seconds, read=float)
_BYTES: Final = _integers("a whole number of bytes, 1 or more", 1)
_BYTES_OR_ZERO: Final = _integers("a whole number of bytes, 0 or more", 0)
_CHUNK: Final = _integers(f"a whole number of bytes from 1 to {MAX_CHUNK_BYTES}", 1, MAX_CHUNK_BYTES)
_JOB: Final = _Rule(
    "a job's name (1 to 128 letters, digits, '_', '.' or '-', a letter or digit first)",
    lambda value: isinstance(value, str) and JOB_NAME.fullmatch(value) is not None,
)
_PARTY: Final = _Rule(
    "a party's name (1 to 63 letters, digits, '_', '.' or '-', a letter or digit first)",
    lambda value: isinstance(value, str) and PARTY_NAME.fullmatch(value) is not None,
)
_ADDRESS: Final = _Rule("host:port", lambda value: isinstance(value, Address), convert=_to_address, read=_to_address)
_ADDRESSES: Final = _Rule(
    "host:port for every party, for example alice=10.0.0.5:9001,bob=10.0.0.6:9001",
    lambda value: isinstance(value, Mapping) and len(value) > 0,
    convert=_to_addresses,
    read=_read_pairs,
)
_TLS: Final = _Rule("ca, cert and key", lambda value: isinstance(value, TLSConfig), convert=_to_tls)
_EXPOSURE: Final = _Rule(
    f"{_enumerated([repr(level) for level in EXPOSURES])}, or one of these per party",
    _is_exposure,
    convert=lambda value: MappingProxyType(dict(value)) if isinstance(value, Mapping) else value,
    read=lambda text: _read_pairs(text) if "=" in text else text,
)
_RESOURCES: Final = _Rule(
    f"an amount per resource, {LEAST_AMOUNT:g} or more, for example fed=0.001",
    _is_resources,
    convert=_to_resources,
    read=_read_amounts,
)
_EXCEPTIONS: Final = _Rule(
    "a list of subclasses of Exception",
    lambda value: (
        isinstance(value, tuple) and all(isinstance(item, type) and issubclass(item, Exception) for item in value)
    ),
    convert=_to_tuple,
)
_TYPES: Final = _Rule(
    "a list of dataclasses, enums and namedtuples",
    lambda value: isinstance(value, tuple) and all(_is_declared_type(item) for item in value),
    convert=_to_tuple,
)
_CALLABLE: Final = _Rule("a function", callable)


def check_party_name(name: object, where: str) -> str:
    """Return `name` if it can name a party.

    Args:
        name: What somebody gave as a name.
        where: Where it was given; begins the sentence of the error.

    Raises:
        ConfigError: It cannot.
    """
    return str(_PARTY.checked(name, where))


def _option(rule: _Rule, *, table: str | None = "options", key: str = "") -> dict[str, Any]:
    """The metadata of a field of `Config`: its rule and its place in the file.

    Args:
        rule: What the field may hold.
        table: The table of the file, empty for the top level; None: neither file nor environment can hold it.
        key: Its key in that table, if other than the field's name.
    """
    return {"rule": rule, "table": table, "key": key}


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
        ray_address: The Ray cluster to use: ``local`` starts one, anything else joins one.
            None: one that is already initialised in this process, else ``local``.
        ray_namespace: Ray namespace for the proxy actors. None: one made for the job and party.
        ray_proxy_resources: Amounts of Ray's resources that each of the two proxies takes. They run, and run again
            after a crash, on a node that has them: the one with this party's address. Empty: wherever Ray places them.
        on_error: ``abort``: the first failure latches the job. ``isolate``: failed tasks poison what depends on
            them, and catching the error is legal.
        expose_errors: How much of an error others may see: ``type``, ``message`` or ``trace``; or a mapping from
            party to one of these.
        exceptions: Exception classes that a raised error is an instance of too. Equal in every party.
        types: Dataclasses, enums and namedtuples that may cross. Equal in every party.
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

    job: str = dataclasses.field(metadata=_option(_JOB, table=""))
    party: str = dataclasses.field(metadata=_option(_PARTY, table=""))
    addresses: Mapping[str, Address] = dataclasses.field(metadata=_option(_ADDRESSES, table="parties"))
    listen: Address | None = dataclasses.field(default=None, metadata=_option(_optional(_ADDRESS), table=""))
    tls: TLSConfig | None = dataclasses.field(default=None, metadata=_option(_optional(_TLS), table="tls"))
    insecure: bool = dataclasses.field(default=False, metadata=_option(_FLAG, table=""))
    ray_address: str | None = dataclasses.field(
        default=None, metadata=_option(_optional(_TEXT), table="ray", key="address")
    )
    ray_namespace: str | None = dataclasses.field(
        default=None, metadata=_option(_optional(_TEXT), table="ray", key="namespace")
    )
    ray_proxy_resources: Mapping[str, float] = dataclasses.field(
        default_factory=dict, metadata=_option(_RESOURCES, table="ray", key="proxy_resources")
    )
    on_error: Literal["abort", "isolate"] = dataclasses.field(
        default="abort", metadata=_option(_one_of("abort", "isolate"))
    )
    expose_errors: str | Mapping[str, str] = dataclasses.field(default="type", metadata=_option(_EXPOSURE))
    exceptions: tuple[type[Exception], ...] = dataclasses.field(default=(), metadata=_option(_EXCEPTIONS, table=None))
    types: tuple[type, ...] = dataclasses.field(default=(), metadata=_option(_TYPES, table=None))
    failure_handler: Callable[[Any], object] | None = dataclasses.field(
        default=None, metadata=_option(_optional(_CALLABLE), table=None)
    )
    handler_timeout_s: float = dataclasses.field(default=30.0, metadata=_option(_SECONDS))
    interrupt_driver: bool = dataclasses.field(default=True, metadata=_option(_FLAG))
    init_timeout_s: float = dataclasses.field(default=120.0, metadata=_option(_SECONDS))
    drain_timeout_s: float = dataclasses.field(default=600.0, metadata=_option(_SECONDS))
    lease_s: float = dataclasses.field(default=15.0, metadata=_option(_SECONDS))
    max_object_bytes: int | None = dataclasses.field(default=None, metadata=_option(_optional(_BYTES)))
    receive_buffer_bytes: int = dataclasses.field(default=256 * 1024 * 1024, metadata=_option(_BYTES))
    small_object_bytes: int = dataclasses.field(default=64 * 1024, metadata=_option(_BYTES_OR_ZERO))
    chunk_bytes: int = dataclasses.field(default=1024 * 1024, metadata=_option(_CHUNK))

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            rule: _Rule = field.metadata["rule"]
            object.__setattr__(self, field.name, rule.checked(getattr(self, field.name), field.name))
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
                    raise _unknown("party", name, self.parties, "expose_errors")

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


@dataclasses.dataclass(frozen=True)
class _Slot:
    """One thing that can be given: an option, or one of the three credentials.

    Attributes:
        name: The field's name, or ``tls.`` and the field's name.
        rule: What it may hold.
        table: Its table in the file, empty for the top level.
        key: Its key in that table; empty where the whole table is the value.
        variable: Its environment variable.
    """

    name: str
    rule: _Rule
    table: str
    key: str
    variable: str

    @property
    def place(self) -> str:
        """How a sentence names its place in a file."""
        return " ".join(part for part in (self.table and f"[{self.table}]", self.key) if part)


def _slots() -> Iterable[_Slot]:
    for field in dataclasses.fields(Config):
        rule, table, key = field.metadata["rule"], field.metadata["table"], field.metadata["key"]
        if field.name == "tls":
            for part in dataclasses.fields(TLSConfig):
                yield _Slot(f"tls.{part.name}", _PATH, table, part.name, f"{ENVIRONMENT_PREFIX}TLS_{part.name.upper()}")
        elif table is not None:
            whole_table = field.name == "addresses"
            variable = ENVIRONMENT_PREFIX + field.name.upper()
            yield _Slot(field.name, rule, table, "" if whole_table else key or field.name, variable)


_SLOTS: Final = tuple(_slots())
_ARGUMENTS_ONLY: Final = tuple(field.name for field in dataclasses.fields(Config) if field.metadata["table"] is None)


def load(arguments: Mapping[str, Any], environ: Mapping[str, str], directory: Path) -> Config:
    """Put a job's options together from every place where they can be given.

    Args:
        arguments: What `fed.init` was given. Beside the fields of `Config`: ``config``, the path of the file. Addresses
            may be strings, ``tls`` a mapping, paths strings. None counts as not given.
        environ: The process's environment.
        directory: Where ``fed.toml`` is looked for, and what relative paths outside of a file are relative to.

    Returns:
        The options, checked, with absolute paths if `directory` is absolute.

    Raises:
        ConfigError: Something is missing, unknown, malformed or contradictory. The message is one sentence that names
            the place and what would be right.
    """
    given = gather(arguments, environ, directory)
    for slot in _SLOTS:
        if slot.name in ("job", "party", "addresses") and slot.name not in given:
            raise ConfigError(
                f"no {slot.name} given: pass {slot.name}= to fed.init, set {slot.variable}, or write {slot.place} in "
                f"{FILE_NAME}"
            )
    credentials = {slot.key: given.pop(slot.name) for slot in _SLOTS if slot.table == "tls" and slot.name in given}
    if credentials:
        given["tls"] = _credentials(credentials, given["party"])
    return Config(**given)


def gather(arguments: Mapping[str, Any], environ: Mapping[str, str], directory: Path) -> dict[str, Any]:
    """Look up what is given anywhere, each option checked for itself, without asking whether it is enough.

    For those who look before `fed.init` is called, as ``fed run`` does. The arguments are those of `load`.

    Returns:
        The given options by the names of the fields of `Config`; the credentials as ``tls.ca`` and so on.

    Raises:
        ConfigError: Something is unknown or malformed.
    """
    from_arguments = _from_arguments(arguments, directory)
    from_environment = _from_environment(environ, directory)
    given = {**_from_file(_file(arguments, environ, directory)), **from_environment, **from_arguments}
    if environ.get(DEFAULT_JOB_VARIABLE):
        given.setdefault("job", environ[DEFAULT_JOB_VARIABLE])
    return given


def _credentials(paths: Mapping[str, Path], party: str) -> TLSConfig:
    for slot in _SLOTS:
        if slot.table == "tls" and slot.key not in paths:
            raise ConfigError(
                f"{slot.key} of tls is missing, though {' and '.join(paths)} {'is' if len(paths) == 1 else 'are'} "
                f"given: set {slot.variable}, or write {slot.place} in {FILE_NAME}"
            )
    return TLSConfig(**{name: Path(str(path).replace("{party}", party)) for name, path in paths.items()})


def _file(arguments: Mapping[str, Any], environ: Mapping[str, str], directory: Path) -> Path | None:
    named = arguments.get("config")
    if named is not None:
        path: Path = _PATH.checked(named, "argument config")
        return directory / path
    if environ.get(CONFIG_VARIABLE):
        return directory / environ[CONFIG_VARIABLE]
    path = directory / FILE_NAME
    return path if path.exists() else None


def _from_file(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    content = _parsed(path)
    given: dict[str, Any] = {}
    tables = {slot.table for slot in _SLOTS if slot.table}
    for table in sorted({"", *tables}):
        entries = (
            {key: value for key, value in content.items() if key not in tables} if not table else content.get(table)
        )
        if entries is None:
            continue
        if not isinstance(entries, Mapping):
            raise _mismatch(f"{path}: {table}", entries, f"a table, [{table}]")
        slots = {slot.key: slot for slot in _SLOTS if slot.table == table}
        if "" in slots:
            slots, entries = {table: slots[""]}, {table: entries}
        for key, value in entries.items():
            if key not in slots:
                raise _unknown_in_file(path, table, key, [*slots, *(tables if not table else ())])
            slot = slots[key]
            value = slot.rule.checked(value, f"{path}: {slot.place}")
            given[slot.name] = path.parent / value if slot.table == "tls" else value
    return given


def _unknown_in_file(path: Path, table: str, key: str, valid: Iterable[str]) -> ConfigError:
    where = f"[{table}] of {path}" if table else str(path)
    if key in _ARGUMENTS_ONLY:
        return ConfigError(f"{where}: {key} cannot stand in a file: pass it to fed.init as an argument")
    elsewhere = [slot for slot in _SLOTS if key in (slot.key, slot.name) and slot.table != table]
    if elsewhere:
        home = f"in [{elsewhere[0].table}] as {elsewhere[0].key}" if elsewhere[0].table else "at the top of the file"
        return ConfigError(f"{where}: unknown key {key!r}: it belongs {home}")
    return _unknown("key", key, valid, where)


def _parsed(path: Path) -> dict[str, Any]:
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8: byte {error.start} is {error.object[error.start]:#04x}") from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        problem, line, column = _position(str(error), text)
        raise ConfigError(f"{path}, line {line}, column {column}: {problem}") from None


def _position(message: str, text: str) -> tuple[str, int, int]:
    """Split the parser's message into the problem, its line and its column, both from 1."""
    match = re.fullmatch(r"(.*) \(at line (\d+), column (\d+)\)", message, re.DOTALL)
    if match:
        return match[1], int(match[2]), int(match[3])
    # The parser says "at end of document" instead of a position.
    lines = text.split("\n")
    return message, len(lines), len(lines[-1]) + 1


def _from_environment(environ: Mapping[str, str], directory: Path) -> dict[str, Any]:
    slots = {slot.variable: slot for slot in _SLOTS}
    given: dict[str, Any] = {}
    for variable in sorted(environ):
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable.startswith(RUN_PREFIX):
            continue
        name = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
        if name in _ARGUMENTS_ONLY:
            raise ConfigError(f"{variable}: {name} cannot stand in a variable: pass it to fed.init as an argument")
        known = [*slots, CONFIG_VARIABLE, LOG_DIR_VARIABLE]
        if variable not in known:
            raise _unknown("variable", variable, known, "environment")
        if variable in slots and environ[variable]:
            slot = slots[variable]
            value = _read(slot, environ[variable])
            given[slot.name] = directory / value if slot.table == "tls" else value
    return given


def _read(slot: _Slot, text: str) -> Any:
    try:
        value = slot.rule.read(text)
    except ConfigError as error:
        raise ConfigError(f"{slot.variable}: {error}") from None
    except ValueError:
        raise _mismatch(slot.variable, text, slot.rule.expected) from None
    return slot.rule.checked(value, slot.variable)


def _from_arguments(arguments: Mapping[str, Any], directory: Path) -> dict[str, Any]:
    fields = {field.name: field for field in dataclasses.fields(Config)}
    given: dict[str, Any] = {}
    for name, value in arguments.items():
        if name not in fields and name != "config":
            raise _unknown("option", name, [*fields, "config"], "arguments")
        if value is None or name == "config":
            continue
        checked = fields[name].metadata["rule"].checked(value, f"argument {name}")
        if isinstance(checked, TLSConfig):
            for part in dataclasses.fields(checked):
                given[f"tls.{part.name}"] = directory / getattr(checked, part.name)
        else:
            given[name] = checked
    return given


def _unknown(kind: str, name: object, valid: Iterable[str], where: str) -> ConfigError:
    choices = sorted(valid)
    near = difflib.get_close_matches(str(name), choices, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"valid are {', '.join(choices)}"
    return ConfigError(f"{where}: unknown {kind} {name!r}, {hint}")
