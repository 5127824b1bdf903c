"""Throw-away certificates, for simulation and tests.

A job in production uses the certificates of its parties' own authority. Here one authority, whose key never
leaves memory, issues them to all, so that a federation on one machine runs with the same mutual TLS as a real one.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fed.config import TLSConfig

__all__ = ["Authority", "Credentials", "write_credentials"]

_HOST_NAME: Final = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*")
_SKEW: Final = datetime.timedelta(hours=1)
"""Clocks of machines differ; a certificate is valid from a little before it is made."""


class Credentials(NamedTuple):
    """A certificate and its private key, both PEM."""

    cert: bytes
    key: bytes


class Authority:
    """An ephemeral certificate authority.

    Args:
        name: Its common name.
    """

    def __init__(self, name: str = "fed ephemeral authority") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.datetime.now(datetime.timezone.utc)
        usage = x509.KeyUsage(
            digital_signature=False,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        self._cert = (
            x509.CertificateBuilder()
            .subject_name(self._name)
            .issuer_name(self._name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=3650))
            .not_valid_after(now + datetime.timedelta(days=3650))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    @property
    def pem(self) -> bytes:
        """The authority's own certificate."""
        return self._cert.public_bytes(serialization.Encoding.PEM)

    def issue(
        self,
        party: str | None,
        hosts: Iterable[str] = (),
        *,
        valid_from: datetime.datetime | None = None,
        valid_for: datetime.timedelta = datetime.timedelta(days=30),
    ) -> Credentials:
        """Make a certificate for a party, for both ends of a connection, and its key.

        Args:
            party: The name that it proves, as the SAN URI ``fed://<party>``. None: it proves none.
            hosts: DNS names and IP addresses besides ``localhost``, ``127.0.0.1``, ``::1`` and, where it can be one,
                the party's own name.
            valid_from: When its validity begins, with a time zone. None: an hour ago.
            valid_for: How long it is valid.

        Raises:
            ValueError: One of the hosts is neither a DNS name nor an IP address.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        begin = valid_from or datetime.datetime.now(datetime.timezone.utc) - _SKEW
        names: list[x509.GeneralName] = [] if party is None else [x509.UniformResourceIdentifier(f"fed://{party}")]
        own = [party] if party is not None and _HOST_NAME.fullmatch(party) else []
        names += [_general_name(host) for host in dict.fromkeys([*own, "localhost", "127.0.0.1", "::1", *hosts])]
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH])
        cert = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, party or "nobody")]))
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + valid_for)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage, critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return Credentials(
            cert.public_bytes(serialization.Encoding.PEM),
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
        )


def write_credentials(
    directory: Path, parties: Iterable[str], hosts: Iterable[str] = (), *, authority: Authority | None = None
) -> Mapping[str, TLSConfig]:
    """Issue a certificate to each party and write them, with the authority's, into a directory.

    Args:
        directory: Where; made, readable by this user alone, if there is none.
        parties: The parties' names.
        hosts: DNS names and IP addresses besides those of `Authority.issue`.
        authority: Who issues them. None: a new one, which is forgotten.

    Returns:
        Each party's credentials. Key files can be read by this user alone.

    Raises:
        ValueError: One of the hosts is neither a DNS name nor an IP address.
    """
    issuer = authority or Authority()
    extra = tuple(hosts)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    ca = directory / "ca.pem"
    ca.write_bytes(issuer.pem)
    configs = {}
    for party in parties:
        credentials = issuer.issue(party, extra)
        config = TLSConfig(ca=ca, cert=directory / f"{party}.cert.pem", key=directory / f"{party}.key.pem")
        config.cert.write_bytes(credentials.cert)
        _write_private(config.key, credentials.key)
        configs[party] = config
    return configs


def _write_private(path: Path, content: bytes) -> None:
    # Made anew with its mode, so that there is no moment in which somebody else may open it.
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        if not _HOST_NAME.fullmatch(host):
            raise ValueError(f"{host!r} is neither the name of a host nor an IP address") from None
        return x509.DNSName(host)
