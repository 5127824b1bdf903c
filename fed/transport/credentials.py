"""Certificates as files: whose one is, and whether this party can use and be known by its own.

A party *is* the SAN URI ``fed://<party>`` of its certificate; one certificate names exactly one party.
"""

from __future__ import annotations

import codecs
import contextlib
import datetime
import functools
import re
import ssl
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, PublicKeyAlgorithmOID

from fed.config import PARTY_NAME, TLSConfig
from fed.errors import ConfigError
from fed.text import cut, plain

__all__ = [
    "SCHEME",
    "Credentials",
    "brief",
    "check_own_credentials",
    "exposed_key",
    "host_name",
    "load_credentials",
    "party_of",
    "party_of_certificate",
]

MAX_SHOWN_BYTES: Final = 200
"""Of the names in a certificate, within an error."""

SCHEME: Final = "fed://"
"""What the URI of a party begins with."""

TAKEN: Final = "on the curve P-256 or P-384, or one for RSA of 2048 bits or more"
SIGNED_WITH: Final = frozenset({"sha224", "sha256", "sha384", "sha512"})
MIN_RSA_BITS: Final = 1976
"""What OpenSSL counts as 112 bits of security, below which it takes no key."""

_PEM: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----")


class Credentials(NamedTuple):
    """The contents of the files of a `TLSConfig`, all PEM."""

    ca: bytes
    cert: bytes
    key: bytes


# This party's own credentials ----------------------------------------------------------------------------------


def load_credentials(tls: TLSConfig) -> Credentials:
    """Read the files.

    Raises:
        ConfigError: One of them cannot be read, or is not PEM.
    """
    return Credentials(_read("tls.ca", tls.ca), _read("tls.cert", tls.cert), _read("tls.key", tls.key))


def check_own_credentials(party: str, tls: TLSConfig) -> None:
    """Check that the credentials prove that they are this party's, and that TLS can use them.

    Before a peer has to find out: it sees a connection that is closed, and cannot know why.

    Raises:
        ConfigError: They do not; the message names the option, the file and the way out.
    """
    credentials = load_credentials(tls)
    authorities = _certificates("tls.ca", tls.ca, credentials.ca)
    certificates = _certificates("tls.cert", tls.cert, credentials.cert)
    cert, *intermediates = certificates
    key = _public(_private_key(tls.key, credentials.key).public_key())
    if key != _public(cert.public_key()):
        if key in map(_public, [other.public_key() for other in intermediates]):
            raise ConfigError(
                f"tls.cert: {tls.cert} does not begin with the certificate of {tls.key}: put that first, and after it "
                "those that it was issued by"
            )
        raise ConfigError(f"tls.key: {tls.key} is not the key of {tls.cert}: give the two that were made together")
    _check_validity("tls.cert", tls.cert, cert, "")
    _check_usable(tls.cert, cert)
    try:
        named = party_of(cert)
    except ValueError as error:
        raise ConfigError(f"tls.cert: {tls.cert} {error}: have it issued with the SAN URI {SCHEME}{party}") from error
    if named != party:
        raise ConfigError(
            f"tls.cert: {tls.cert} belongs to party {named!r}, and this is party {party!r}: give this party's own"
        )
    if not _may_be_both(cert):
        raise ConfigError(
            f"tls.cert: {tls.cert} is not for both ends of a connection: have it issued with the extended key usages "
            "clientAuth and serverAuth, since every party is client and server"
        )
    if host_name(cert) is None:
        raise ConfigError(
            f"tls.cert: {tls.cert} has no DNS name, no IP address and no common name: have it issued with one"
        )
    path = _path(cert, intermediates, authorities)
    if path is None:
        raise ConfigError(
            f"tls.cert: {tls.cert} was not issued by the authority in {tls.ca} (tls.ca), nor by one whose certificate "
            "follows it and was: give the authority that all parties of the job share, and a certificate issued by it, "
            "followed by those in between"
        )
    for issuer in path:
        option, file = ("tls.cert", tls.cert) if issuer in intermediates else ("tls.ca", tls.ca)
        _check_validity(option, file, issuer, f"the authority {_subject(issuer)} in ")
        _check_authority(option, file, issuer)
    for signed in (cert, *path[:-1]):
        if signed.signature_hash_algorithm is not None and signed.signature_hash_algorithm.name not in SIGNED_WITH:
            raise ConfigError(
                f"tls.cert: {_subject(signed)} in {tls.cert} is signed with {signed.signature_hash_algorithm.name}, "
                "which TLS does not take: have it issued with SHA-256"
            )
    trouble = _handshake_trouble(tls)
    if trouble:
        raise ConfigError(
            f"tls.cert: two ends that both have {tls.cert} and {tls.ca} (tls.ca) cannot connect ({trouble}): have what "
            "that names issued anew"
        )


def exposed_key(tls: TLSConfig) -> str:
    """A sentence if other users of this machine may read the private key, or replace it; else empty.

    A group may be meant to: it is how some systems hand a key to a service.
    """
    mode = stat.S_IMODE(tls.key.stat().st_mode)
    if not mode & stat.S_IRWXO:
        return ""
    return (
        f"tls.key: {tls.key} is open to every user of this machine (mode {mode:04o}): chmod o-rwx it, and renew the key"
    )


def _read(option: str, path: Path) -> bytes:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"{option}: cannot read {path}: {reason}") from error
    if not _PEM.search(content):
        raise ConfigError(f"{option}: {path} is not a PEM file: it has no line -----BEGIN ...-----")
    if content.startswith(codecs.BOM_UTF8):
        raise ConfigError(f"{option}: {path} begins with a byte order mark: save it as plain ASCII")
    return content


def _certificates(option: str, path: Path, content: bytes) -> list[x509.Certificate]:
    labels = _labels(content)
    if not {b"CERTIFICATE", b"X509 CERTIFICATE"}.intersection(labels):
        raise ConfigError(f"{option}: {path} holds no certificate, but {_listed(labels)}: give one as CERTIFICATE")
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError as error:
        raise ConfigError(f"{option}: {path} holds a certificate that cannot be read: {brief(error)}") from error


def _private_key(path: Path, content: bytes) -> PrivateKeyTypes:
    labels = _labels(content)
    if not any(label.endswith(b"PRIVATE KEY") and b"OPENSSH" not in label for label in labels):
        raise ConfigError(
            f"tls.key: {path} holds no private key that TLS can use, but {_listed(labels)}: give one as PRIVATE KEY, "
            "which `openssl pkcs8 -topk8 -nocrypt` writes"
        )
    try:
        return serialization.load_pem_private_key(content, password=None)
    except TypeError as error:
        raise ConfigError(
            f"tls.key: {path} is encrypted: decrypt it, and protect it by the permissions of its file"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"tls.key: {path} holds a private key that cannot be read: {brief(error)}") from error


def _labels(content: bytes) -> list[bytes]:
    return [match[1] for match in _PEM.finditer(content)]


def _listed(labels: Iterable[bytes]) -> str:
    return _shown(", ".join(label.decode("ascii") for label in dict.fromkeys(labels)))


def _check_validity(option: str, path: Path, cert: x509.Certificate, which: str) -> None:
    now = datetime.datetime.now(datetime.timezone.utc)
    if now > cert.not_valid_after_utc:
        raise ConfigError(
            f"{option}: {which}{path} expired on {_date(cert.not_valid_after_utc)}: have it renewed by its authority"
        )
    if now < cert.not_valid_before_utc:
        raise ConfigError(
            f"{option}: {which}{path} is not valid before {_date(cert.not_valid_before_utc)}: set this machine's "
            "clock, or wait"
        )


# What the TLS of gRPC takes was found by handshakes of grpcio 1.85, which brings BoringSSL; that of Python is OpenSSL.


def _check_usable(path: Path, cert: x509.Certificate) -> None:
    """Whether both libraries can prove this party by its key."""
    key = cert.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey):
        usable, what = isinstance(key.curve, (ec.SECP256R1, ec.SECP384R1)), f"on the curve {key.curve.name}"
    elif isinstance(key, rsa.RSAPublicKey):
        usable, what = key.key_size >= MIN_RSA_BITS, f"for RSA of {key.key_size} bits"
        if cert.public_key_algorithm_oid == PublicKeyAlgorithmOID.RSASSA_PSS:
            usable, what = False, "for RSASSA-PSS alone"
    else:
        usable, what = False, f"of the kind {_kind(key)}"
    if not usable:
        raise ConfigError(
            f"tls.cert: {path} has a key {what}, which the TLS of gRPC does not take: make one {TAKEN}, and have its "
            "certificate issued"
        )
    try:
        usage = cert.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return
    if not usage.digital_signature:
        raise ConfigError(
            f"tls.cert: {path} has a key that may not sign, so that it cannot prove itself: have it issued with the "
            "key usage digitalSignature"
        )


def _check_authority(option: str, path: Path, issuer: x509.Certificate) -> None:
    """Whether both libraries can check what it has signed."""
    key = issuer.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey):
        usable = isinstance(key.curve, (ec.SECP224R1, ec.SECP256R1, ec.SECP384R1, ec.SECP521R1))
        what = f"on the curve {key.curve.name}"
    elif isinstance(key, rsa.RSAPublicKey):
        usable, what = key.key_size >= MIN_RSA_BITS, f"for RSA of {key.key_size} bits"
    else:
        usable, what = isinstance(key, ed25519.Ed25519PublicKey), f"of the kind {_kind(key)}"
    if not usable:
        raise ConfigError(
            f"{option}: the authority {_subject(issuer)} in {path} has a key {what}, which the TLS of gRPC does not "
            f"take: have the certificates issued by one with a key {TAKEN}"
        )


def _handshake_trouble(tls: TLSConfig) -> str:
    """What Python's TLS finds when it connects the credentials to themselves, in memory; empty if nothing."""
    ends = []
    pipes = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        for is_server in (False, True):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if is_server else ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_REQUIRED
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
            context.load_verify_locations(cafile=tls.ca)
            context.load_cert_chain(tls.cert, tls.key)
            ends.append(context.wrap_bio(*(pipes if is_server else pipes[::-1]), server_side=is_server))
        # Each of its flights takes one turn, and there are three.
        for _ in range(3):
            for end in ends:
                with contextlib.suppress(ssl.SSLWantReadError):
                    end.do_handshake()
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    except (OSError, ValueError) as error:
        return brief(error)
    return ""


def _kind(key: object) -> str:
    return type(key).__name__.removesuffix("PublicKey")


def _subject(cert: x509.Certificate) -> str:
    return repr(_shown(plain(cert.subject.rfc4514_string())))


def _path(
    cert: x509.Certificate, intermediates: list[x509.Certificate], authorities: list[x509.Certificate]
) -> list[x509.Certificate] | None:
    """Those by whose signatures the certificate leads to an authority. Bounded by the number of certificates given."""
    path: list[x509.Certificate] = []
    for _ in range(len(intermediates) + 1):
        current = path[-1] if path else cert
        authority = next((other for other in authorities if _issued(current, other)), None)
        if authority is not None:
            return [*path, authority]
        issuer = next((other for other in intermediates if _issued(current, other)), None)
        if issuer is None:
            return None
        path.append(issuer)
    return None


def _issued(cert: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        cert.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _may_be_both(cert: x509.Certificate) -> bool:
    try:
        usages = set(cert.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        return True
    # That it is for any usage is worth nothing to TLS.
    return {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH} <= usages


def _public(key: object) -> bytes:
    encoded: bytes = key.public_bytes(  # type: ignore[attr-defined]
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return encoded


# Whose certificate it is ---------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1024)
def party_of_certificate(pem: bytes) -> str:
    """The party that a certificate names.

    Raises:
        ValueError: It names none, or several; the text continues a sentence that begins with the certificate.
    """
    try:
        cert = x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise ValueError(f"cannot be read: {brief(error)}") from error
    return party_of(cert)


def party_of(cert: x509.Certificate) -> str:
    """See `party_of_certificate`."""
    names = [
        uri.removeprefix(SCHEME)
        for uri in _alternative_names(cert).get_values_for_type(x509.UniformResourceIdentifier)
        if uri.startswith(SCHEME)
    ]
    if not names:
        raise ValueError(f"names no party (it has no SAN URI {SCHEME}<party>)")
    if len(names) > 1:
        raise ValueError(f"names several parties: {_shown(', '.join(map(repr, names)))}")
    if not PARTY_NAME.fullmatch(names[0]):
        raise ValueError(f"names {_shown(repr(names[0]))}, which cannot be a party's name")
    return names[0]


def _alternative_names(cert: x509.Certificate) -> x509.SubjectAlternativeName:
    try:
        return cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return x509.SubjectAlternativeName([])
    except ValueError as error:
        raise ValueError(f"cannot be read: {brief(error)}") from error


def host_name(cert: x509.Certificate) -> str | None:
    """A name of the host that a certificate is valid for; None if it has none."""
    names = _alternative_names(cert)
    for name in names.get_values_for_type(x509.DNSName):
        return name.replace("*", "fed", 1)
    for ip_address in names.get_values_for_type(x509.IPAddress):
        return str(ip_address)
    for attribute in cert.subject.get_attributes_for_oid(NameOID.COMMON_NAME):
        return str(attribute.value)
    return None


def _shown(text: str) -> str:
    """As much of it as an error has room for; an authority may put any number of names into a certificate."""
    kept, was_cut = cut(text, MAX_SHOWN_BYTES)
    return f"{kept} ..." if was_cut else kept


def brief(error: Exception) -> str:
    """The first line of what an exception says."""
    return (str(error) or type(error).__name__).splitlines()[0]


def _date(moment: datetime.datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M UTC")
