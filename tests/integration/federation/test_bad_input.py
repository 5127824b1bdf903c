"""What is wrong with a party or between two parties: one sentence, exit code 2, at the real command line."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from fed.config import TLSConfig
from fed.testing.simulation import free_addresses
from fed.transport.certificates import Authority, write_credentials
from tests.support.drivers import PROGRAMS, Driver, Start
from tests.support.launching import fed, fed_here

YESTERDAY = dt.datetime.now(dt.timezone.utc) - dt.timedelta(days=1)


def refused_alone(directory: Path, *arguments: str, run: Callable[..., Any] = fed_here, **file: Any) -> str:
    """Run one party with a fed.toml, and return the one sentence that it ends with.

    Args:
        directory: Where the file is written.
        *arguments: Of ``fed run``; those of a program that joins, if there are none.
        run: `tests.support.launching.fed` for a process of its own.
        **file: What is in the file.
    """
    addresses = dict(zip(("alice", "bob"), map(str, free_addresses(2)), strict=True))
    addresses.update({key: value for key, value in file.items() if key in addresses})
    parties = "\n".join(f'{name} = "{address}"' for name, address in addresses.items())
    tls = "\n".join(f'{key} = "{file[key]}"' for key in ("ca", "cert", "key") if key in file)
    ray = f'[ray]\naddress = "{file["ray"]}"' if "ray" in file else ""
    text = f'job = "test"\n[parties]\n{parties}\n[tls]\n{tls}\n[options]\n{file.get("options", "")}\n{ray}'
    (directory / "fed.toml").write_text(text)
    ended = run("run", *(arguments or (str(PROGRAMS / "joins.py"), "--party", "alice")), cwd=directory)
    assert ended.returncode == 2, ended
    assert ended.stdout == ""
    sentences: list[str] = [line for line in ended.stderr.splitlines() if line.startswith(("fed: error:", "Error:"))]
    assert len(sentences) == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    return sentences[0]


def files_of(tls: TLSConfig) -> dict[str, Any]:
    return {"ca": str(tls.ca), "cert": str(tls.cert), "key": str(tls.key)}


@pytest.fixture(scope="module")
def issued(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, TLSConfig]:
    return write_credentials(tmp_path_factory.mktemp("issued"), ["alice", "bob"])


def test_a_missing_script(tmp_path: Path, issued: Mapping[str, TLSConfig]) -> None:
    sentence = refused_alone(tmp_path, "absent.py", "--party", "alice", run=fed, **files_of(issued["alice"]))
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
    sentence = refused_alone(tmp_path, **files_of(issued["alice"]), run=fed, ray=address)
    assert f"cannot use the Ray cluster at {address!r} (option ray_address, else RAY_ADDRESS)" in sentence
    assert "token" not in sentence


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


def test_two_parties_with_different_job_names(federation: Start) -> None:
    both_refuse(federation("joins.py", per_party={"bob": {"FED_JOB": "other"}}), "different job names")


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
