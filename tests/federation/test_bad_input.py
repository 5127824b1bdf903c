"""What is wrong with a party or between two parties: one sentence, exit code 2, at the real command line."""

from __future__ import annotations

import datetime as dt
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from fed.config import TLSConfig
from fed.testing.simulation import free_addresses
from fed.transport.certificates import Authority, write_credentials
from tests.federation.conftest import PROGRAMS, Driver

Start = Callable[..., dict[str, Driver]]

YESTERDAY = dt.datetime.now(dt.timezone.utc) - dt.timedelta(days=1)


def fed_run(*arguments: str, directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fed.cli", "run", *arguments],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def refused_alone(directory: Path, *arguments: str, **file: str) -> str:
    """Run one party with a fed.toml, and return the one sentence that it ends with."""
    addresses = dict(zip(("alice", "bob"), map(str, free_addresses(2)), strict=True))
    addresses.update({key: value for key, value in file.items() if key in addresses})
    parties = "\n".join(f'{name} = "{address}"' for name, address in addresses.items())
    tls = "\n".join(f'{key} = "{file[key]}"' for key in ("ca", "cert", "key") if key in file)
    ray = f'[ray]\naddress = "{file["ray"]}"' if "ray" in file else ""
    text = f'job = "test"\n[parties]\n{parties}\n[tls]\n{tls}\n[options]\n{file.get("options", "")}\n{ray}'
    (directory / "fed.toml").write_text(text)
    ended = fed_run(*(arguments or (str(PROGRAMS / "joins.py"), "--party", "alice")), directory=directory)
    assert ended.returncode == 2, ended
    assert ended.stdout == ""
    sentences = [line for line in ended.stderr.splitlines() if line.startswith(("fed: error:", "Error:"))]
    assert len(sentences) == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    return sentences[0]


def files_of(tls: TLSConfig) -> dict[str, str]:
    return {"ca": str(tls.ca), "cert": str(tls.cert), "key": str(tls.key)}


@pytest.fixture(scope="module")
def issued(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, TLSConfig]:
    return write_credentials(tmp_path_factory.mktemp("issued"), ["alice", "bob"])


def test_a_missing_script(tmp_path: Path, issued: Mapping[str, TLSConfig]) -> None:
    sentence = refused_alone(tmp_path, "absent.py", "--party", "alice", **files_of(issued["alice"]))
    assert "absent.py" in sentence


def test_an_unknown_party(tmp_path: Path, issued: Mapping[str, TLSConfig]) -> None:
    script = str(PROGRAMS / "joins.py")
    sentence = refused_alone(tmp_path, script, "--party", "mallory", **files_of(issued["alice"]))
    assert "mallory" in sentence
    assert "alice" in sentence
    assert "bob" in sentence


def test_a_malformed_address(tmp_path: Path, issued: Mapping[str, TLSConfig]) -> None:
    sentence = refused_alone(tmp_path, bob="nowhere", **files_of(issued["alice"]))
    assert "nowhere" in sentence
    assert "host:port" in sentence


def test_a_duplicate_address(tmp_path: Path, issued: Mapping[str, TLSConfig]) -> None:
    sentence = refused_alone(tmp_path, alice="127.0.0.1:9001", bob="127.0.0.1:9001", **files_of(issued["alice"]))
    assert "'alice' and 'bob' have the same address 127.0.0.1:9001" in sentence


def test_an_unknown_option(tmp_path: Path, issued: Mapping[str, TLSConfig]) -> None:
    sentence = refused_alone(tmp_path, options="init_timeout = 3", **files_of(issued["alice"]))
    assert "did you mean 'init_timeout_s'?" in sentence


def test_a_missing_certificate(tmp_path: Path, issued: Mapping[str, TLSConfig]) -> None:
    sentence = refused_alone(tmp_path, **{**files_of(issued["alice"]), "cert": str(tmp_path / "absent.pem")})
    assert "tls.cert" in sentence
    assert "absent.pem" in sentence


def test_a_certificate_of_another_authority(tmp_path: Path, issued: Mapping[str, TLSConfig]) -> None:
    other = write_credentials(tmp_path / "other", ["alice"])
    sentence = refused_alone(tmp_path, **{**files_of(issued["alice"]), "ca": str(other["alice"].ca)})
    assert "tls.c" in sentence


def test_an_expired_certificate(tmp_path: Path) -> None:
    authority = Authority()
    tls = write_credentials(tmp_path / "tls", ["alice"], authority=authority)["alice"]
    expired = authority.issue("alice", valid_from=YESTERDAY - dt.timedelta(days=30), valid_for=dt.timedelta(days=30))
    tls.cert.write_bytes(expired.cert)
    tls.key.write_bytes(expired.key)
    sentence = refused_alone(tmp_path, **files_of(tls))
    assert "expired" in sentence
    assert YESTERDAY.strftime("%Y-%m-%d") in sentence


def test_a_certificate_of_another_party(tmp_path: Path, issued: Mapping[str, TLSConfig]) -> None:
    sentence = refused_alone(tmp_path, **files_of(issued["bob"]))
    assert "'bob'" in sentence
    assert "'alice'" in sentence


@pytest.mark.ray
def test_a_port_in_use(federation: Start) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        driver = federation("joins.py", ["alice"], everywhere={"FED_LISTEN": f"127.0.0.1:{port}"})["alice"]
        assert driver.end() == 2, driver.output
    assert f"127.0.0.1:{port}" in driver.output
    assert "Traceback" not in driver.output


def both_refuse(drivers: Mapping[str, Driver], words: str) -> None:
    for driver in drivers.values():
        assert driver.end() == 2, driver.output
        errors = [line for line in driver.lines if line.startswith("fed: error:")]
        assert len(errors) == 1, driver.output
        assert "Traceback" not in driver.output
        assert "joined" not in driver.output
    told = [driver.output for driver in drivers.values()]
    assert any(words in output and "'alice'" in output and "'bob'" in output for output in told), told


def test_a_ray_cluster_that_is_not_there(tmp_path: Path, issued: Mapping[str, TLSConfig]) -> None:
    (address,) = map(str, free_addresses(1))
    sentence = refused_alone(tmp_path, **files_of(issued["alice"]), ray=address)
    assert f"cannot use the Ray cluster at {address!r} (option ray_address)" in sentence


@pytest.mark.ray
def test_a_peer_that_never_comes(federation: Start) -> None:
    everywhere = {"FED_ADDRESSES": "", "FED_INIT_TIMEOUT_S": "1", "FED_LEASE_S": "1"}
    ours, theirs = free_addresses(2)
    everywhere["FED_ADDRESSES"] = f"alice={ours},bob={theirs}"
    driver = federation("joins.py", ["alice"], everywhere=everywhere)["alice"]
    assert driver.end() == 2, driver.output
    errors = [line for line in driver.lines if line.startswith("fed: error:")]
    assert len(errors) == 1
    assert f"within 1 s (init_timeout_s): party 'bob' at {theirs}" in errors[0]
    assert "(raylet)" not in driver.output
    assert "Traceback" not in driver.output


@pytest.mark.ray
def test_two_parties_with_different_job_names(federation: Start) -> None:
    both_refuse(federation("joins.py", per_party={"bob": {"FED_JOB": "other"}}), "different job names")


@pytest.mark.ray
def test_an_incompatible_protocol_version(federation: Start) -> None:
    both_refuse(federation("joins.py", per_party={"bob": {"TEST_PROTOCOL": "999"}}), "protocol version")


@pytest.mark.ray
def test_peers_of_different_authorities(federation: Start, tmp_path: Path) -> None:
    other = write_credentials(tmp_path / "tls", ["bob"])["bob"]
    theirs = {"FED_TLS_CA": str(other.ca), "FED_TLS_CERT": str(other.cert), "FED_TLS_KEY": str(other.key)}
    drivers = federation("joins.py", per_party={"bob": theirs})
    for party, driver in drivers.items():
        assert driver.end() == 2, driver.output
        errors = [line for line in driver.lines if line.startswith("fed: error:")]
        assert len(errors) == 1, driver.output
        assert "certificate" in errors[0] or "its own start failed" in errors[0]
        assert "joined" not in driver.output, party
