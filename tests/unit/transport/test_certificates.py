from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from fed.transport.certificates import Authority, write_credentials
from fed.transport.credentials import check_own_credentials, party_of_certificate


def test_a_certificate_names_its_party_and_its_hosts() -> None:
    cert = x509.load_pem_x509_certificate(Authority().issue("alice", ["bank.example", "192.0.2.7", "localhost"]).cert)
    names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["fed://alice"]
    assert names.get_values_for_type(x509.DNSName) == ["alice", "localhost", "bank.example"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1", "192.0.2.7"]
    usage = cert.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usage) == {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH}


def test_a_party_whose_name_is_no_host_name_gets_a_certificate_all_the_same() -> None:
    cert = Authority().issue("north_bank").cert
    assert party_of_certificate(cert) == "north_bank"
    names = x509.load_pem_x509_certificate(cert).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]


def test_credentials_on_disk_prove_what_they_should_and_keys_are_private(tmp_path: Path) -> None:
    for _ in ("first", "again, over the files of the first"):
        written = write_credentials(tmp_path / "certs", ["alice", "bob"])
        assert sorted(written) == ["alice", "bob"]
        for party, tls in written.items():
            check_own_credentials(party, tls)
            assert stat.S_IMODE(tls.key.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "certs").stat().st_mode) == 0o700


@pytest.mark.parametrize("hosts", [["not a host name"], ["bad..name"]])
def test_a_host_that_is_none_is_refused(hosts: list[str]) -> None:
    with pytest.raises(ValueError, match="host"):
        Authority().issue("alice", hosts)
