"""Options: where they come from, in which order, and the sentence that each mistake gets."""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import cloudpickle
import pytest

from fed.config import Address, Config, TLSConfig, check_party_name, codec, gather, load, sources
from fed.errors import ConfigError, FedError

TWO = {"alice": "127.0.0.1:9001", "bob": "127.0.0.1:9002"}
GIVEN: Mapping[str, Any] = {"job": "train", "party": "alice", "addresses": TWO}
DECLARED = r"expected a list of dataclasses, enums, namedtuples and fed\.codec\(\.\.\.\), found"
ARGUMENTS_ONLY = ("exceptions", "types", "failure_handler")
SCALARS = [
    field.name for field in dataclasses.fields(Config) if field.name not in ("addresses", "tls", *ARGUMENTS_ONLY)
]


@dataclasses.dataclass
class Sample:
    """A type that may cross."""


class Point(NamedTuple):
    """Another."""

    x: int


class Colour(enum.Enum):
    """Another."""

    RED = 1


def make(**options: Any) -> Config:
    addresses = {name: Address.parse(text) for name, text in TWO.items()}
    return Config(**{"job": "train", "party": "alice", "addresses": addresses, **options})


def write(directory: Path, text: str, name: str = "fed.toml") -> Path:
    path = directory / name
    path.write_text(text, encoding="utf-8")
    return path


# Addresses


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("10.0.0.5:9001", "10.0.0.5", 9001),
        ("alice.example:1", "alice.example", 1),
        ("[::1]:65535", "::1", 65535),
        ("localhost:09", "localhost", 9),
    ],
)
def test_an_address_is_host_and_port(text: str, host: str, port: int) -> None:
    assert Address.parse(text) == Address(host, port)
    assert Address.parse(str(Address(host, port))) == Address(host, port)


@pytest.mark.parametrize(
    "text",
    ["", "alice", ":1", "alice:", "alice:0", "alice:65536", "::1:9", "a b:1", "http://a:1", "a:1x", "a:٣", "[]:1"],
)
def test_a_malformed_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"is malformed: write host:port, for example 10.0.0.5:9001"):
        Address.parse(text)


@pytest.mark.parametrize(
    ("host", "port"), [("", 1), ("a b", 1), ("a", 0), ("a", 65536), ("a", True), ("a", "1"), (3, 1)]
)
def test_an_address_cannot_be_made_wrong(host: Any, port: Any) -> None:
    with pytest.raises(ConfigError, match="of an address: expected"):
        Address(host, port)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("localhost", True),
        ("LOCALHOST", True),
        ("127.example.com", False),
        ("127.0.0.1.example.com", False),
        ("0.0.0.0", False),
        ("10.0.0.1", False),
        ("::", False),
    ],
)
def test_only_this_machines_own_addresses_are_loopback(host: str, loopback: bool) -> None:
    assert Address(host, 1).is_loopback is loopback


# Construction


def test_a_config_freezes_what_it_was_given() -> None:
    addresses = {name: Address.parse(text) for name, text in TWO.items()}
    config = Config(job="train", party="alice", addresses=addresses, expose_errors={"bob": "trace"})
    addresses.clear()
    assert config.parties == ("alice", "bob")
    assert config.peers == ("bob",)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.job = "other"  # type: ignore[misc]
    assert not hasattr(config.addresses, "__setitem__")
    assert not hasattr(config.expose_errors, "__setitem__")


def test_a_config_can_be_sent_to_another_process() -> None:
    config = make(
        tls=TLSConfig(Path("ca"), Path("cert"), Path("key")),
        expose_errors={"bob": "type"},
        ray_proxy_resources={"fed": 1},
    )
    assert cloudpickle.loads(cloudpickle.dumps(config)) == config


def test_one_party_alone_is_legal() -> None:
    assert Config(job="j", party="a", addresses={"a": Address("localhost", 1)}).peers == ()


SECONDS = "expected a number of seconds above 0, found"
AMOUNTS = "expected an amount per resource, 0.0001 or more, for example fed=0.001, found"
NAME = r"expected a party's name \(1 to 63 letters, digits, '_', '.' or '-', a letter or digit first\), found"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"job": ""}, r"job: expected a job's name \(1 to 128 letters, .*, found ''"),
        ({"job": "a b"}, r"job: expected a job's name .*, found 'a b'"),
        ({"job": "../x"}, r"job: expected a job's name"),
        ({"job": 3}, r"job: expected a job's name .*, found 3"),
        ({"party": "a/b"}, f"party: {NAME} 'a/b'"),
        ({"party": "a" * 64}, f"party: {NAME} 'aaa"),
        ({"party": "alice\n"}, f"party: {NAME}"),
        ({"party": "dave"}, "party 'dave' has no address: the parties are alice, bob"),
        ({"addresses": {}}, "addresses: expected host:port for every party, .*, found {}"),
        ({"addresses": ["alice"]}, r"addresses: expected host:port for every party, .*, found \['alice'\]"),
        ({"addresses": {"alice": 3}}, "addresses: address of party 'alice': expected host:port, found 3"),
        ({"addresses": {"a b": Address("localhost", 1)}}, f"addresses: party: {NAME} 'a b'"),
        (
            {"addresses": {"alice": Address("localhost", 1), "bob": Address("LOCALHOST", 1)}},
            "parties 'alice' and 'bob' have the same address LOCALHOST:1",
        ),
        ({"listen": 9001}, "listen: expected host:port, found 9001"),
        ({"tls": "ca.pem"}, "tls: expected ca, cert and key, found 'ca.pem'"),
        ({"insecure": "yes"}, "insecure: expected true or false, found 'yes'"),
        ({"ray_address": ""}, "ray_address: expected a non-empty string, found ''"),
        ({"ray_namespace": 1}, "ray_namespace: expected a non-empty string, found 1"),
        ({"ray_proxy_resources": "fed"}, f"ray_proxy_resources: {AMOUNTS} 'fed'"),
        ({"ray_proxy_resources": None}, f"ray_proxy_resources: {AMOUNTS} None"),
        ({"ray_proxy_resources": {"fed": 0}}, f"ray_proxy_resources: {AMOUNTS} {{'fed': 0}}"),
        ({"ray_proxy_resources": {"fed": 0.00001}}, f"ray_proxy_resources: {AMOUNTS} {{'fed': 1e-05}}"),
        ({"ray_proxy_resources": {"fed": float("inf")}}, f"ray_proxy_resources: {AMOUNTS} {{'fed': inf}}"),
        ({"ray_proxy_resources": {"fed": float("nan")}}, f"ray_proxy_resources: {AMOUNTS} {{'fed': nan}}"),
        ({"ray_proxy_resources": {"fed": True}}, f"ray_proxy_resources: {AMOUNTS} {{'fed': True}}"),
        ({"ray_proxy_resources": {"fed": "1"}}, f"ray_proxy_resources: {AMOUNTS} {{'fed': '1'}}"),
        ({"ray_proxy_resources": {"": 1}}, f"ray_proxy_resources: {AMOUNTS} {{'': 1}}"),
        (
            {"ray_proxy_resources": {"fed": 1, "CPU": 1}},
            "ray_proxy_resources: every node has CPU: name a resource that only the node of the proxies has",
        ),
        ({"on_error": "ignore"}, "on_error: expected 'abort' or 'isolate', found 'ignore'"),
        ({"on_error": ["abort"]}, r"on_error: expected 'abort' or 'isolate', found \['abort'\]"),
        (
            {"expose_errors": "all"},
            "expose_errors: expected 'type', 'message' or 'trace', or one of these per party, f",
        ),
        ({"expose_errors": {"bob": "all"}}, "expose_errors: expected 'type', .*, found {'bob': 'all'}"),
        ({"expose_errors": {3: "type"}}, "expose_errors: expected 'type', .*"),
        ({"expose_errors": {"bobb": "type"}}, "expose_errors: unknown party 'bobb', did you mean 'bob'?"),
        ({"exceptions": [int]}, "exceptions: expected a list of subclasses of Exception, found "),
        ({"exceptions": ValueError}, "exceptions: expected a list of subclasses of Exception, found "),
        ({"exceptions": [KeyboardInterrupt]}, "exceptions: expected a list of subclasses of Exception, found "),
        ({"types": [int]}, f"types: {DECLARED} "),
        ({"types": [Sample()]}, f"types: {DECLARED} "),
        ({"failure_handler": 3}, "failure_handler: expected a function, found 3"),
        ({"init_timeout_s": 0}, f"init_timeout_s: {SECONDS} 0"),
        ({"init_timeout_s": -1.5}, f"init_timeout_s: {SECONDS} -1.5"),
        ({"init_timeout_s": float("nan")}, f"init_timeout_s: {SECONDS} nan"),
        ({"drain_timeout_s": float("inf")}, f"drain_timeout_s: {SECONDS} inf"),
        ({"drain_timeout_s": True}, f"drain_timeout_s: {SECONDS} True"),
        ({"init_timeout_s": "1"}, f"init_timeout_s: {SECONDS} '1'"),
        ({"lease_s": 0}, f"lease_s: {SECONDS} 0"),
        ({"lease_s": None}, f"lease_s: {SECONDS} None"),
        ({"max_object_bytes": 0}, "max_object_bytes: expected a whole number of bytes, 1 or more, found 0"),
        (
            {"max_object_bytes": 1e9},
            "max_object_bytes: expected a whole number of bytes, 1 or more, found 1000000000.0",
        ),
        (
            {"receive_buffer_bytes": None},
            "receive_buffer_bytes: expected a whole number of bytes, 1 or more, found None",
        ),
        ({"small_object_bytes": -1}, "small_object_bytes: expected a whole number of bytes, 0 or more, found -1"),
        (
            {"chunk_bytes": 2**31},
            "chunk_bytes: expected a whole number of bytes from 1 to 1073741824, found 2147483648",
        ),
    ],
)
def test_each_wrong_value_is_refused_in_one_sentence(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=f"^{sentence}") as caught:
        make(**options)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250
    assert isinstance(caught.value, (FedError, ValueError))


@pytest.mark.parametrize(
    "options",
    [
        {"exceptions": [ValueError]},
        {"types": [Sample, Colour, Point, codec(Path, to_bytes=bytes, from_bytes=lambda data: Path(data.decode()))]},
        {"small_object_bytes": 0},
        {"drain_timeout_s": 20},
        {"init_timeout_s": 15, "drain_timeout_s": 15, "lease_s": 15},
        {"init_timeout_s": 0.5, "lease_s": 0.5},
        {"expose_errors": {"bob": "trace"}},
        {"failure_handler": print},
        {"listen": "127.0.0.1:1"},
        {"ray_proxy_resources": {}},
        {"ray_proxy_resources": {"fed": 1, "node:10.0.0.5": 0.0001}},
        {"tls": {"ca": "a", "cert": "b", "key": "c"}},
    ],
)
def test_each_right_value_is_accepted(options: dict[str, Any]) -> None:
    make(**options)


NO_TLS = "which other machines can reach, but there is no TLS: give tls .ca, cert and key., or insecure=True to accept"


def test_other_machines_are_reached_with_tls_or_a_word() -> None:
    addresses = {"alice": Address("127.0.0.1", 1), "bob": Address("bob.example", 1)}
    with pytest.raises(ConfigError, match=f"^party 'bob' is at bob.example:1, {NO_TLS}"):
        make(addresses=addresses)
    with pytest.raises(ConfigError, match=f"^listen is 0.0.0.0:1, {NO_TLS}"):
        make(listen=Address("0.0.0.0", 1))
    make(addresses=addresses, insecure=True)
    make(addresses=addresses, tls=TLSConfig(Path("ca"), Path("cert"), Path("key")))


@pytest.mark.parametrize("name", ["init_timeout_s", "drain_timeout_s"])
@pytest.mark.parametrize(
    ("options", "found"),
    [({}, r"\(14\) is below lease_s \(15\)"), ({"lease_s": 14.5}, r"\(14\) is below lease_s \(14.5\)")],
)
def test_e38_nobody_stops_waiting_before_a_party_can_be_lost(name: str, options: dict[str, Any], found: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name} {found}: it would run out before .*; make it longer, or the lease"):
        make(**{name: 14}, **options)


def test_a_partys_name_is_checked_for_whoever_asks() -> None:
    assert check_party_name("org-1.site_2", "--simulate") == "org-1.site_2"
    with pytest.raises(ConfigError, match=f"^--simulate: {NAME} '-x'"):
        check_party_name("-x", "--simulate")


# The order of places


def test_the_strongest_place_wins(tmp_path: Path) -> None:
    text = """
        job = "file"
        party = "bob"
        [options]
        init_timeout_s = 21
        receive_buffer_bytes = 11
        chunk_bytes = 1
    """
    write(tmp_path, text)
    environ = {"FED_JOB": "environment", "FED_INIT_TIMEOUT_S": "22", "FED_RECEIVE_BUFFER_BYTES": "12"}
    config = load({"init_timeout_s": 23, "party": "alice", "addresses": TWO}, environ, tmp_path)
    assert (
        config.job,
        config.party,
        config.init_timeout_s,
        config.receive_buffer_bytes,
        config.chunk_bytes,
        config.drain_timeout_s,
    ) == (
        "environment",
        "alice",
        23,
        12,
        1,
        600,
    )


def test_the_parties_come_whole_from_one_place(tmp_path: Path) -> None:
    write(tmp_path, '[parties]\nalice = "127.0.0.1:1"\nbob = "127.0.0.1:2"\n')
    environ = {"FED_ADDRESSES": " carol = 127.0.0.1:3 , dave=[::1]:4", "FED_PARTY": "carol", "FED_JOB": "j"}
    assert load({}, environ, tmp_path).addresses == {"carol": Address("127.0.0.1", 3), "dave": Address("::1", 4)}


def test_nothing_and_none_count_as_not_given(tmp_path: Path) -> None:
    environ = {"FED_JOB": "j", "FED_PARTY": "alice", "FED_LISTEN": "", "FED_TLS_CA": "", "FED_CONFIG": ""}
    config = load({"addresses": TWO, "job": None, "tls": None, "config": None}, environ, tmp_path)
    assert (config.job, config.listen, config.tls) == ("j", None, None)


def test_a_word_undoes_what_a_file_asks_of_the_cluster(tmp_path: Path) -> None:
    write(tmp_path, "[ray]\nproxy_resources = {fed = 1}")
    assert load(GIVEN, {}, tmp_path).ray_proxy_resources == {"fed": 1}
    assert load(GIVEN, {"FED_RAY_PROXY_RESOURCES": ""}, tmp_path).ray_proxy_resources == {"fed": 1}
    assert load(GIVEN, {"FED_RAY_PROXY_RESOURCES": "none"}, tmp_path).ray_proxy_resources == {}
    assert load({**GIVEN, "ray_proxy_resources": {}}, {}, tmp_path).ray_proxy_resources == {}


def test_the_command_names_a_job_that_nobody_else_names(tmp_path: Path) -> None:
    given = {"party": "alice", "addresses": TWO}
    assert load(given, {"FED_RUN_JOB": "script"}, tmp_path).job == "script"
    write(tmp_path, 'job = "file"')
    assert load(given, {"FED_RUN_JOB": "script"}, tmp_path).job == "file"


def test_rays_own_variable_names_the_cluster_that_nobody_else_names(tmp_path: Path) -> None:
    environ = {"RAY_ADDRESS": "10.0.0.5:6379"}
    assert load(GIVEN, environ, tmp_path).ray_address == "10.0.0.5:6379"
    assert load(GIVEN, {"RAY_ADDRESS": ""}, tmp_path).ray_address is None
    assert load({**GIVEN, "ray_address": "local"}, environ, tmp_path).ray_address == "local"
    assert load(GIVEN, {**environ, "FED_RAY_ADDRESS": "auto"}, tmp_path).ray_address == "auto"
    write(tmp_path, "[ray]\naddress = '10.0.0.6:6379'")
    assert load(GIVEN, environ, tmp_path).ray_address == "10.0.0.6:6379"


@pytest.mark.parametrize("address", ["http://127.0.0.1:8265", "ray://10.0.0.5:10001"])
def test_a_cluster_is_named_by_its_gcs(address: str, tmp_path: Path) -> None:
    sentence = (
        f"{address!r} leads to a dashboard or a Ray client server, which fed cannot use: give host:port of the clu"
    )
    for where, arguments, environ in (
        ("argument ray_address", {"ray_address": address}, {}),
        ("FED_RAY_ADDRESS", {}, {"FED_RAY_ADDRESS": address}),
        ("RAY_ADDRESS", {}, {"RAY_ADDRESS": address}),
    ):
        with pytest.raises(ConfigError, match=f"^{where}: {sentence}"):
            load({**GIVEN, **arguments}, environ, tmp_path)
    # What nobody asks for does no harm.
    assert load({**GIVEN, "ray_address": "local"}, {"RAY_ADDRESS": address}, tmp_path).ray_address == "local"


@pytest.mark.parametrize("name", ["job", "party", "addresses"])
def test_what_is_missing_is_named_with_the_places_for_it(name: str, tmp_path: Path) -> None:
    given = {key: value for key, value in GIVEN.items() if key != name}
    place = {"addresses": r"\[parties\]"}.get(name, name)
    sentence = f"^no {name} given: pass {name}= to fed.init, set FED_{name.upper()}, or write {place} in fed.toml$"
    with pytest.raises(ConfigError, match=sentence):
        load(given, {}, tmp_path)


def test_looking_at_what_is_given_asks_for_nothing(tmp_path: Path) -> None:
    assert gather({}, {}, tmp_path) == {}
    assert gather({}, {"FED_PARTY": "bob", "FED_TLS_CA": "ca.pem"}, tmp_path) == {
        "party": "bob",
        "tls.ca": tmp_path / "ca.pem",
    }


# Arguments


def test_arguments_may_be_plain_values(tmp_path: Path) -> None:
    tls = {"ca": "ca.pem", "cert": Path("cert.pem"), "key": "/etc/key.pem"}
    addresses = {"alice": Address("127.0.0.1", 1), "bob": "127.0.0.1:2"}
    config = load(
        {**GIVEN, "addresses": addresses, "tls": tls, "types": [Sample], "listen": "127.0.0.1:3"}, {}, tmp_path
    )
    assert config.tls == TLSConfig(tmp_path / "ca.pem", tmp_path / "cert.pem", Path("/etc/key.pem"))
    assert config.addresses["bob"] == Address("127.0.0.1", 2)
    assert config.types == (Sample,)
    assert config.listen == Address("127.0.0.1", 3)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"init_timeout": 3}, "arguments: unknown option 'init_timeout', did you mean 'init_timeout_s'?"),
        ({"timeout_in_ms": 3}, "arguments: unknown option 'timeout_in_ms', did you mean '"),
        ({"adresses": 3}, "arguments: unknown option 'adresses', did you mean 'addresses'?"),
        ({"qqq": 3}, "arguments: unknown option 'qqq', valid are addresses, chunk_bytes, config, "),
        ({"init_timeout_s": "3"}, f"argument init_timeout_s: {SECONDS} '3'"),
        ({"addresses": {"alice": "nowhere"}}, "argument addresses: address 'nowhere' is malformed: write host:port"),
        ({"addresses": "alice"}, "argument addresses: expected host:port for every party, .* found 'alice'"),
        ({"tls": {"ca": "x", "key": "y"}}, "argument tls: cert is missing; TLS needs ca, cert and key"),
        ({"tls": {"certs": "x"}}, "argument tls: mapping: unknown key 'certs', did you mean 'cert'?"),
        ({"tls": {"ca": 1, "cert": "", "key": ""}}, "argument tls: ca of tls: expected a path, found 1"),
        ({"config": 3}, "argument config: expected a path, found 3"),
        ({"config": "nope.toml"}, ".*/nope.toml cannot be read: No such file or directory"),
        ({"config": "."}, ".* cannot be read: Is a directory"),
    ],
)
def test_each_wrong_argument_is_refused_in_one_sentence(arguments: Any, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"^{sentence}"):
        load({**GIVEN, **arguments}, {}, tmp_path)


# Environment


SAMPLES = {
    "job": ("j", "j"),
    "party": ("bob", "bob"),
    "listen": ("127.0.0.1:7", Address("127.0.0.1", 7)),
    "insecure": ("yes", True),
    "ray_address": ("local", "local"),
    "ray_namespace": ("n", "n"),
    "ray_proxy_resources": ("node:10.0.0.5=0.001, fed=2", {"node:10.0.0.5": 0.001, "fed": 2.0}),
    "on_error": ("isolate", "isolate"),
    "expose_errors": ("alice=message,bob=type", {"alice": "message", "bob": "type"}),
    "handler_timeout_s": ("2.5", 2.5),
    "interrupt_driver": ("off", False),
    "init_timeout_s": ("20.5", 20.5),
    "drain_timeout_s": ("100", 100.0),
    "lease_s": ("2.5", 2.5),
    "max_object_bytes": ("1", 1),
    "receive_buffer_bytes": ("2", 2),
    "small_object_bytes": ("0", 0),
    "chunk_bytes": ("1_000", 1000),
}


@pytest.mark.parametrize("name", SCALARS)
def test_every_scalar_option_has_a_variable(name: str, tmp_path: Path) -> None:
    text, expected = SAMPLES[name]
    arguments = {other: value for other, value in GIVEN.items() if other != name}
    assert getattr(load(arguments, {f"FED_{name.upper()}": text}, tmp_path), name) == expected


def test_the_directory_of_the_logs_is_no_option_and_known_all_the_same(tmp_path: Path) -> None:
    assert load(GIVEN, {"FED_LOG_DIR": "x"}, tmp_path).party == GIVEN["party"]


@pytest.mark.parametrize(
    ("text", "value"), [("1", True), ("True", True), ("ON", True), ("0", False), ("false", False), ("no", False)]
)
def test_a_switch_is_read_in_many_spellings(text: str, value: bool, tmp_path: Path) -> None:
    assert load(GIVEN, {"FED_INSECURE": text}, tmp_path).insecure is value


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        (
            {"FED_PARTYY": "x"},
            r"environment: unknown variable 'FED_PARTYY', did you mean 'FED_PARTY'\? If it is meant for something ",
        ),
        (
            {"FED_INIT_TIMEOUT": "x"},
            "environment: unknown variable 'FED_INIT_TIMEOUT', did you mean 'FED_INIT_TIMEOUT_S'?",
        ),
        ({"FED_LEASE": ""}, "environment: unknown variable 'FED_LEASE', did you mean 'FED_LEASE_S'?"),
        ({"FED_ADDRESS": "x"}, "environment: unknown variable 'FED_ADDRESS', did you mean 'FED_ADDRESSES'?"),
        ({"FED_TLS_CRT": "x"}, "environment: unknown variable 'FED_TLS_CRT', did you mean 'FED_TLS_CERT'?"),
        ({"FED_LOGDIR": "x"}, "environment: unknown variable 'FED_LOGDIR', did you mean 'FED_LOG_DIR'?"),
        ({"FED_TYPES": "x"}, "FED_TYPES: types cannot stand in a variable: pass it to fed.init as an argument"),
        ({"FED_INSECURE": "tru"}, "FED_INSECURE: expected true or false, found 'tru'"),
        ({"FED_DRAIN_TIMEOUT_S": "long"}, f"FED_DRAIN_TIMEOUT_S: {SECONDS} 'long'"),
        ({"FED_DRAIN_TIMEOUT_S": "nan"}, f"FED_DRAIN_TIMEOUT_S: {SECONDS} nan"),
        (
            {"FED_CHUNK_BYTES": "1.5"},
            "FED_CHUNK_BYTES: expected a whole number of bytes from 1 to 1073741824, found '1.5'",
        ),
        ({"FED_ADDRESSES": "alice:1"}, "FED_ADDRESSES: expected host:port for every party, .*, found 'alice:1'"),
        ({"FED_ADDRESSES": "alice=1"}, "FED_ADDRESSES: address '1' is malformed: write host:port, for example"),
        ({"FED_ADDRESSES": "a=h:1,a=h:2"}, "FED_ADDRESSES: party 'a' occurs twice"),
        ({"FED_RAY_PROXY_RESOURCES": "fed"}, f"FED_RAY_PROXY_RESOURCES: {AMOUNTS} 'fed'"),
        ({"FED_RAY_PROXY_RESOURCES": "fed=much"}, f"FED_RAY_PROXY_RESOURCES: {AMOUNTS} 'fed=much'"),
        ({"FED_RAY_PROXY_RESOURCES": "fed=0"}, f"FED_RAY_PROXY_RESOURCES: {AMOUNTS} {{'fed': 0.0}}"),
        ({"FED_RAY_PROXY_RESOURCES": "fed=1,fed=2"}, "FED_RAY_PROXY_RESOURCES: resource 'fed' occurs twice"),
        ({"FED_LISTEN": "9001"}, "FED_LISTEN: address '9001' is malformed: write host:port"),
        (
            {"FED_EXPOSE_ERRORS": "bob="},
            "FED_EXPOSE_ERRORS: expected 'type', 'message' or 'trace', or one of these per",
        ),
        ({"FED_CONFIG": "nope.toml"}, ".*/nope.toml cannot be read: No such file or directory"),
        (
            {"FED_TLS_CA": "x"},
            r"cert of tls is missing, though ca is given: set FED_TLS_CERT, or write \[tls\] cert in ",
        ),
        (
            {"FED_TLS_CA": "x", "FED_TLS_CERT": "y"},
            "key of tls is missing, though ca and cert are given: set FED_TLS_KEY",
        ),
    ],
)
def test_each_wrong_variable_is_refused_in_one_sentence(environ: Any, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"^{sentence}"):
        load(GIVEN, environ, tmp_path)


def test_other_programs_variables_are_left_alone(tmp_path: Path) -> None:
    environ = {
        "FEDORA": "1",
        "FED_RUN_STATUS_FD": "3",
        "PATH": "",
        "FED_ROUNDS": "5",
        "FED_EPOCHS": "",
        "FED_SEED": "1",
    }
    assert load(GIVEN, environ, tmp_path) == load(GIVEN, {}, tmp_path)


@pytest.mark.parametrize("service", ["fed", "fed-alice", "fed-party", "fed-job", "fed-listen", "fed-config", "fed-ray"])
def test_what_kubernetes_tells_of_services_is_left_alone(service: str, tmp_path: Path) -> None:
    name = service.upper().replace("-", "_")
    link = "tcp://10.96.0.7:8080"
    environ = {
        f"{name}_SERVICE_HOST": "10.96.0.7",
        f"{name}_SERVICE_PORT": "8080",
        f"{name}_SERVICE_PORT_GRPC": "8080",
        f"{name}_PORT": link,
        f"{name}_PORT_8080_TCP": link,
        f"{name}_PORT_8080_TCP_PROTO": "tcp",
        f"{name}_PORT_8080_TCP_PORT": "8080",
        f"{name}_PORT_8080_TCP_ADDR": "10.96.0.7",
    }
    assert load(GIVEN, environ, tmp_path) == load(GIVEN, {}, tmp_path)


# The file


def test_a_whole_file(tmp_path: Path) -> None:
    text = """
        job = "train"
        party = "alice"
        listen = "0.0.0.0:9001"
        insecure = false
        [parties]
        alice = "alice.example:9001"
        bob = "bob.example:9001"
        [tls]
        ca = "ca.pem"
        cert = "{party}.pem"
        key = "/etc/fed/{party}.key"
        [ray]
        address = "local"
        namespace = "n"
        proxy_resources = {fed = 1, "node:10.0.0.5" = 0.001}
        [options]
        init_timeout_s = 60
        on_error = "isolate"
        expose_errors = {bob = "message"}
    """
    (tmp_path / "site").mkdir()
    write(tmp_path / "site", text)
    config = load({"party": "bob"}, {"FED_CONFIG": "site/fed.toml"}, tmp_path)
    assert config == Config(
        job="train",
        party="bob",
        addresses={"alice": Address("alice.example", 9001), "bob": Address("bob.example", 9001)},
        listen=Address("0.0.0.0", 9001),
        tls=TLSConfig(tmp_path / "site" / "ca.pem", tmp_path / "site" / "bob.pem", Path("/etc/fed/bob.key")),
        ray_address="local",
        ray_namespace="n",
        ray_proxy_resources={"fed": 1, "node:10.0.0.5": 0.001},
        on_error="isolate",
        expose_errors={"bob": "message"},
        init_timeout_s=60,
    )


def test_credentials_are_looked_up_one_by_one(tmp_path: Path) -> None:
    write(tmp_path, '[tls]\nca = "ca.pem"\ncert = "cert.pem"\nkey = "key.pem"\n', "other.toml")
    environ = {"FED_TLS_KEY": "secret/{party}.key"}
    config = load({**GIVEN, "config": "other.toml"}, environ, tmp_path)
    assert config.tls == TLSConfig(tmp_path / "ca.pem", tmp_path / "cert.pem", tmp_path / "secret" / "alice.key")


def test_the_named_file_is_used_instead_of_the_usual_one(tmp_path: Path) -> None:
    write(tmp_path, 'job = "usual"')
    write(tmp_path, 'job = "variable"', "variable.toml")
    write(tmp_path, 'job = "argument"', "argument.toml")
    given = {"party": "alice", "addresses": TWO}
    environ = {"FED_CONFIG": "variable.toml"}
    assert load(given, {}, tmp_path).job == "usual"
    assert load(given, environ, tmp_path).job == "variable"
    assert load({**given, "config": tmp_path / "argument.toml"}, environ, tmp_path).job == "argument"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a = = 1", "FILE, line 1, column 5: Invalid value"),
        ("\n\njob 3", "FILE, line 3, column 5: Expected '=' after a key in a key/value pair"),
        ("job = 'j'\nx = [", r"FILE, line 2, column 6: Invalid value \(at end of document\)"),
        ("jobs = 'j'", "FILE: unknown key 'jobs', did you mean 'job'?"),
        ("option = 1", "FILE: unknown key 'option', did you mean 'options'?"),
        ("[option]\non_error = 'abort'", "FILE: unknown key 'option', did you mean 'options'?"),
        ("zzz = 1", "FILE: unknown key 'zzz', valid are insecure, job, listen, options, parties, party, ray, tls"),
        ("options = 1", r"FILE: options: expected a table, \[options\], found 1"),
        ("on_error = 'abort'", r"FILE: unknown key 'on_error': it belongs in \[options\] as on_error"),
        ("addresses = 'a=b:1'", r"FILE: unknown key 'addresses': it belongs in \[parties\]$"),
        (
            "[options]\ninsecure = true",
            r"\[options\] of FILE: unknown key 'insecure': it belongs at the top of the file",
        ),
        (
            "[options]\nray_address = 'x'",
            r"\[options\] of FILE: unknown key 'ray_address': it belongs in \[ray\] as add",
        ),
        ("[options]\nchunks = 1", r"\[options\] of FILE: unknown key 'chunks', did you mean 'chunk_bytes'?"),
        ("[options]\ntypes = []", r"\[options\] of FILE: types cannot stand in a file: pass it to fed.init as an arg"),
        ("[tls]\ncertificate = 'x'", r"\[tls\] of FILE: unknown key 'certificate', did you mean 'cert'?"),
        ("[ray]\nadress = 'x'", r"\[ray\] of FILE: unknown key 'adress', did you mean 'address'?"),
        ("[options]\ndrain_timeout_s = '9'", rf"FILE: \[options\] drain_timeout_s: {SECONDS} '9'"),
        ("[options]\ndrain_timeout_s = -9", rf"FILE: \[options\] drain_timeout_s: {SECONDS} -9"),
        ("[ray]\nproxy_resources = 'fed'", rf"FILE: \[ray\] proxy_resources: {AMOUNTS} 'fed'"),
        ("[tls]\nca = 3", r"FILE: \[tls\] ca: expected a path, found 3"),
        ("[parties]\nalice = 9001", r"FILE: \[parties\]: address of party 'alice': expected host:port, found 9001"),
        ("[parties]\nalice = 'x'", r"FILE: \[parties\]: address 'x' is malformed: write host:port"),
        ("[parties]\n'a b' = 'x:1'", rf"FILE: \[parties\]: party: {NAME} 'a b'"),
        ("[parties]", r"FILE: \[parties\]: expected host:port for every party"),
        ("party = 3", f"FILE: party: {NAME} 3"),
        ("insecure = 'no'", "FILE: insecure: expected true or false, found 'no'"),
    ],
)
def test_each_mistake_in_a_file_is_refused_in_one_sentence(text: str, sentence: str, tmp_path: Path) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match="^" + sentence.replace("FILE", re.escape(str(path)))) as caught:
        load(GIVEN, {}, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b'job = "\xff"', ", line 1: byte 0xff is not UTF-8: save the file as UTF-8"),
        ('job = "j"\r\n# für alle\r\n'.encode("latin-1"), ", line 2: byte 0xfc is not UTF-8: save the file as UTF-8"),
        (b'\xef\xbb\xbfjob = "j"\n# \xe4', ", line 2: byte 0xe4 is not UTF-8: save the file as UTF-8"),
        ('job = "j"'.encode("utf-16"), " is UTF-16 or no text at all: save it as UTF-8"),
        ('\ufeffjob = "j"'.encode("utf-16-be"), " is UTF-16 or no text at all: save it as UTF-8"),
        ('job = "j"'.encode("utf-16-le"), " is UTF-16 or no text at all: save it as UTF-8"),
        ('job = "j"'.encode("utf-32"), " is UTF-16 or no text at all: save it as UTF-8"),
    ],
)
def test_a_file_that_is_not_utf_8_is_refused(content: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "fed.toml").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(GIVEN, {}, tmp_path)
    assert str(caught.value) == f"{tmp_path / 'fed.toml'}{sentence}"


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_file_may_come_from_windows(mark: str, end: str, tmp_path: Path) -> None:
    given = {"party": "alice", "addresses": TWO}
    (tmp_path / "fed.toml").write_bytes(f'{mark}job = "j"{end}[options]{end}lease_s = 3{end}'.encode())
    assert load(given, {}, tmp_path).lease_s == 3
    (tmp_path / "fed.toml").write_bytes(f"{mark}jobs = 'j'{end}".encode())
    with pytest.raises(ConfigError, match=r"unknown key 'jobs', did you mean 'job'\?"):
        load(given, {}, tmp_path)
    (tmp_path / "fed.toml").write_bytes(f"{mark}a = = 1{end}".encode())
    with pytest.raises(ConfigError, match=r"fed.toml, line 1, column 5: Invalid value$"):
        load(given, {}, tmp_path)


# The documentation


def test_the_module_and_the_class_document_every_option() -> None:
    module, options = sources.__doc__ or "", Config.__doc__ or ""
    for field in dataclasses.fields(Config):
        assert re.search(rf"^ +{field.name}: ", options, re.MULTILINE)
    for setting in sources.SETTINGS:
        assert setting.table == "options" or f"``{setting.place}``" in module
    for variable in re.findall(r"FED_[A-Z_]+[A-Z]", module):
        assert variable.startswith("FED_RUN") or variable in _variables()


def _variables() -> set[str]:
    scalars = {f"FED_{name.upper()}" for name in SCALARS}
    return scalars | {"FED_CONFIG", "FED_ADDRESSES", "FED_TLS_CA", "FED_TLS_CERT", "FED_TLS_KEY"}


def test_config_errors_stay_value_errors() -> None:
    assert issubclass(ConfigError, ValueError)
