"""Who is at the other end, and whether this party can prove who it is itself.

A party *is* the SAN URI ``fed://<party>`` of its certificate; one certificate names exactly one party.

The gRPC library shows a server the certificate of each client, but shows a client nothing of its server's. So a
link first makes a TLS connection of its own (`prove`), reads the server's certificate there, checks the name, and
hands back exactly that certificate. It then becomes the only trust anchor of the gRPC channels, which binds them
to the identity that was checked, on every connection that they make later as well.

A refused client certificate shows itself only after the handshake of TLS 1.3, and gRPC's server then closes the
connection without a word, as does one that is being stopped. So `prove` waits for the first byte of HTTP/2, and
believes in a refusal only when it has met the same silence twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import functools
import re
import socket
import ssl
import stat
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fed.config import PARTY_NAME, Address, TLSConfig
from fed.errors import ConfigError
from fed.text import cut
from fed.transport.contract import PeerAbsent, PeerUnreachable, PeerUntrusted

__all__ = [
    "Credentials",
    "ServerCertificate",
    "check_own_credentials",
    "exposed_key",
    "load_credentials",
    "party_of_certificate",
    "prove",
    "reach",
]

MAX_SHOWN_BYTES: Final = 200
"""Of the names in a certificate, within an error."""

ASK_AGAIN_S: Final = 0.5
"""How long nobody may answer until another connection is begun beside those that wait."""

_SCHEME: Final = "fed://"
_PEM: Final = re.compile(rb"-----BEGIN [A-Z ]+-----")
_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
_NOT_ISSUED: Final = frozenset({7, 18, 19, 20, 21})
"""Verification codes of OpenSSL (x509_vfy.h), which the ssl module passes on as bare numbers."""
_HTTP2_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
"""RFC 9113, 3.4: the client's preface and an empty SETTINGS frame."""
_HTTP2_SETTINGS: Final = 4

_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Credentials(NamedTuple):
    """The contents of the files of a `TLSConfig`, all PEM."""

    ca: bytes
    cert: bytes
    key: bytes


class ServerCertificate(NamedTuple):
    """A server's certificate, after its name was checked.

    Attributes:
        pem: It, and nothing of its chain.
        host_name: A name that it is valid for, by which gRPC is to call it.
    """

    pem: bytes
    host_name: str


# This party's own credentials ----------------------------------------------------------------------------------


def load_credentials(tls: TLSConfig) -> Credentials:
    """Read the files.

    Raises:
        ConfigError: One of them cannot be read, or is not PEM.
    """
    return Credentials(_read("tls.ca", tls.ca), _read("tls.cert", tls.cert), _read("tls.key", tls.key))


def check_own_credentials(party: str, tls: TLSConfig) -> None:
    """Check that the credentials prove that they are this party's, before a peer has to find out.

    Raises:
        ConfigError: They do not; the message names the option, the file and the way out.
    """
    credentials = load_credentials(tls)
    authorities = _certificates("tls.ca", tls.ca, credentials.ca)
    cert, *intermediates = _certificates("tls.cert", tls.cert, credentials.cert)
    try:
        key = serialization.load_pem_private_key(credentials.key, password=None)
    except TypeError as error:
        raise ConfigError(
            f"tls.key: {tls.key} is encrypted: decrypt it, and protect it by the permissions of its file"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"tls.key: {tls.key} holds no private key that can be read: {_brief(error)}") from error
    if _public(key.public_key()) != _public(cert.public_key()):
        raise ConfigError(f"tls.key: {tls.key} is not the key of {tls.cert}: give the two that were made together")
    now = datetime.datetime.now(datetime.timezone.utc)
    if now > cert.not_valid_after_utc:
        raise ConfigError(
            f"tls.cert: {tls.cert} expired on {_date(cert.not_valid_after_utc)}: have it renewed by its authority"
        )
    if now < cert.not_valid_before_utc:
        raise ConfigError(
            f"tls.cert: {tls.cert} is not valid before {_date(cert.not_valid_before_utc)}: set this machine's clock, "
            "or wait"
        )
    try:
        named = _party_of(cert)
    except ValueError as error:
        raise ConfigError(f"tls.cert: {tls.cert} {error}: have it issued with the SAN URI {_SCHEME}{party}") from error
    if named != party:
        raise ConfigError(
            f"tls.cert: {tls.cert} belongs to party {named!r}, and this is party {party!r}: give this party's own"
        )
    if not _may_be_both(cert):
        raise ConfigError(
            f"tls.cert: {tls.cert} is not for both ends of a connection: have it issued with the extended key usages "
            "clientAuth and serverAuth, since every party is client and server"
        )
    if _host_name(cert) is None:
        raise ConfigError(
            f"tls.cert: {tls.cert} has no DNS name, no IP address and no common name: have it issued with one"
        )
    if not _chains(cert, intermediates, authorities):
        raise ConfigError(
            f"tls.cert: {tls.cert} was not issued by the authority in {tls.ca} (tls.ca): give the authority that all "
            "parties of the job share, and a certificate issued by it"
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
    return content


def _certificates(option: str, path: Path, content: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError as error:
        raise ConfigError(f"{option}: {path} holds no certificate that can be read: {_brief(error)}") from error


def _chains(cert: x509.Certificate, intermediates: list[x509.Certificate], authorities: list[x509.Certificate]) -> bool:
    """Whether signatures lead from the certificate to an authority. Bounded by the number of certificates given."""
    current = cert
    for _ in range(len(intermediates) + 1):
        if any(_issued(current, authority) for authority in authorities):
            return True
        issuer = next((other for other in intermediates if _issued(current, other)), None)
        if issuer is None:
            return False
        current = issuer
    return False


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
    needed = {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH}
    return needed <= usages or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in usages


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
        raise ValueError(f"cannot be read: {_brief(error)}") from error
    return _party_of(cert)


def _party_of(cert: x509.Certificate) -> str:
    names = [
        uri.removeprefix(_SCHEME)
        for uri in _alternative_names(cert).get_values_for_type(x509.UniformResourceIdentifier)
        if uri.startswith(_SCHEME)
    ]
    if not names:
        raise ValueError(f"names no party (it has no SAN URI {_SCHEME}<party>)")
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
        raise ValueError(f"cannot be read: {_brief(error)}") from error


def _host_name(cert: x509.Certificate) -> str | None:
    names = _alternative_names(cert)
    for name in names.get_values_for_type(x509.DNSName):
        return name.replace("*", "fed", 1)
    for ip_address in names.get_values_for_type(x509.IPAddress):
        return str(ip_address)
    for attribute in cert.subject.get_attributes_for_oid(NameOID.COMMON_NAME):
        return str(attribute.value)
    return None


# The peer ------------------------------------------------------------------------------------------------------


async def prove(party: str, peer: str, address: Address, tls: TLSConfig) -> ServerCertificate:
    """Make sure that `peer` answers at `address`, and that it accepts this party's certificate.

    Takes as long as the network does: the caller bounds it.

    Raises:
        PeerUntrusted: One of the two certificates does not prove what it must.
        PeerUnreachable: Nobody answered, or not to the end.
    """
    context = _client_context(peer, address, tls)
    with contextlib.suppress(_Silence):
        return await _prove_once(peer, address, tls, context)
    try:
        return await _prove_once(peer, address, tls, context)
    except _Silence as error:
        raise PeerUntrusted(_why_we_are_refused(party, peer, address, tls)) from error


async def reach(peer: str, address: Address) -> None:
    """Make sure that something at `address` speaks HTTP/2 without TLS.

    Raises:
        PeerUntrusted: It expects TLS.
        PeerUnreachable: Nobody answered, or not to the end.
    """
    where = f"party {peer!r} at {address}"
    reader, writer = await _dial(peer, address, None)
    try:
        writer.write(_HTTP2_PREFACE)
        frame = await reader.read(9)
    except OSError:
        frame = b""
    finally:
        writer.transport.abort()
    if frame[3:4] == bytes((_HTTP2_SETTINGS,)):
        return
    if await _speaks_tls(peer, address):
        raise PeerUntrusted(f"{where} expects TLS, and this party has none: give it the options tls.*")
    if len(frame) < 4:
        raise PeerUnreachable(f"{where} closed the connection at once: it is being started or stopped")
    raise PeerUntrusted(f"{where}: what answers there is no party of a job (no HTTP/2): correct the address")


async def _speaks_tls(peer: str, address: Address) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    # Nothing is said to whoever it is; that it can shake hands is all there is to know.
    context.verify_mode = ssl.CERT_NONE
    try:
        _, writer = await _dial(peer, address, context)
    except (ssl.SSLError, PeerUnreachable):
        return False
    writer.transport.abort()
    return True


class _Silence(Exception):
    """The handshake was completed, and then the connection was closed without a byte."""


def _client_context(peer: str, address: Address, tls: TLSConfig) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # The name that counts is the SAN URI, which is checked here; the host's is no part of a party's identity.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    # As gRPC does: whatever the file holds is trusted, an intermediate authority too.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.set_alpn_protocols(["h2"])
    try:
        context.load_verify_locations(cafile=tls.ca)
        context.load_cert_chain(tls.cert, tls.key, password=_no_password)
    except (OSError, ValueError) as error:
        raise PeerUntrusted(
            f"this party cannot prove itself to {peer!r} at {address}: its tls.ca, tls.cert or tls.key cannot be "
            f"used any more: {_brief(error)}"
        ) from error
    return context


def _no_password() -> str:
    # Without a callback OpenSSL would ask for the password of an encrypted key on the terminal.
    raise ValueError("tls.key is encrypted")


async def _prove_once(peer: str, address: Address, tls: TLSConfig, context: ssl.SSLContext) -> ServerCertificate:
    where = f"party {peer!r} at {address}"
    try:
        reader, writer = await _dial(peer, address, context)
    except ssl.SSLCertVerificationError as error:
        raise PeerUntrusted(_why_they_are_refused(where, tls, error)) from error
    except ssl.SSLError as error:
        if error.reason and "ALERT" in error.reason:
            raise _Silence from error
        if error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"):
            raise PeerUntrusted(
                f"{where} does not speak TLS at that port: give that party the options tls.*, or correct its address"
            ) from error
        raise PeerUnreachable(f"{where}: the TLS handshake failed: {_brief(error)}") from error
    try:
        encoded = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        certificate = _checked(where, peer, x509.load_der_x509_certificate(encoded))
        if not await reader.read(1):
            raise _Silence
    except OSError as error:
        raise _Silence from error
    except ValueError as error:
        raise PeerUntrusted(f"{where}: its certificate cannot be read: {_brief(error)}") from error
    finally:
        # Nothing was said, so nothing is owed; an orderly end of TLS would wait for the peer.
        writer.transport.abort()
    return certificate


async def _dial(peer: str, address: Address, context: ssl.SSLContext | None) -> _Streams:
    where = f"party {peer!r} at {address}"
    try:
        return await _first_connection(address, context)
    except ssl.SSLError:
        raise
    except socket.gaierror as error:
        raise PeerUnreachable(f"{where}: the name {address.host!r} cannot be resolved: {error.strerror}") from error
    except ConnectionRefusedError as error:
        raise PeerAbsent(f"{where}: nobody listens there yet (connection refused)") from error
    except ConnectionResetError as error:
        raise PeerUnreachable(f"{where} closed the connection during the handshake") from error
    except OSError as error:
        raise PeerUnreachable(f"{where} cannot be reached: {_brief(error)}") from error


async def _first_connection(address: Address, context: ssl.SSLContext | None) -> _Streams:
    """Connect, asking anew every `ASK_AGAIN_S` until there is an answer; the first one counts.

    The kernel asks anew as well, but before Linux 6.5 it waits twice as long each time, and so it does with whatever
    of a handshake is lost. A network that had been cut would be found whole again only after as much time again, and
    by then a lease may have run out that was longer than the cut. Those that wait go on, for a slow line.
    """
    attempts: list[asyncio.Task[_Streams]] = []
    answered: asyncio.Task[_Streams] | None = None
    try:
        while answered is None:
            attempts.append(asyncio.create_task(asyncio.open_connection(address.host, address.port, ssl=context)))
            await asyncio.wait(attempts, timeout=ASK_AGAIN_S, return_when=asyncio.FIRST_COMPLETED)
            answered = next((attempt for attempt in attempts if attempt.done()), None)
        return answered.result()
    finally:
        others = [attempt for attempt in attempts if attempt is not answered]
        for attempt in others:
            attempt.cancel()
        for outcome in await asyncio.gather(*others, return_exceptions=True):
            if isinstance(outcome, tuple):
                outcome[1].transport.abort()


def _checked(where: str, peer: str, cert: x509.Certificate) -> ServerCertificate:
    try:
        named = _party_of(cert)
    except ValueError as error:
        raise PeerUntrusted(
            f"{where}: its certificate {error}: have it issued with the SAN URI {_SCHEME}{peer}"
        ) from error
    if named != peer:
        raise PeerUntrusted(
            f"{where}: the certificate there belongs to party {named!r}, not to {peer!r}: correct the address of "
            f"{peer!r}, or its certificate"
        )
    host_name = _host_name(cert)
    if host_name is None:
        raise PeerUntrusted(
            f"{where}: its certificate has no DNS name, no IP address and no common name: have it issued with one"
        )
    return ServerCertificate(cert.public_bytes(serialization.Encoding.PEM), host_name)


def _why_they_are_refused(where: str, tls: TLSConfig, error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code == _EXPIRED:
        return f"{where}: its certificate has expired: that party must have it renewed"
    if error.verify_code == _NOT_YET_VALID:
        return f"{where}: its certificate is not valid yet: one of the two machines' clocks is wrong, or wait"
    if error.verify_code in _NOT_ISSUED:
        return (
            f"{where}: its certificate was not issued by the authority in {tls.ca} (tls.ca): all parties of a job need "
            f"certificates of one authority ({error.verify_message})"
        )
    return f"{where}: its certificate cannot be accepted ({error.verify_message}): that party must have it reissued"


def _why_we_are_refused(party: str, peer: str, address: Address, tls: TLSConfig) -> str:
    where = f"party {peer!r} at {address}"
    try:
        check_own_credentials(party, tls)
    except ConfigError as error:
        return f"{where} refused this party's certificate: {error}"
    return (
        f"{where} refused this party's certificate {tls.cert}: that party's tls.ca does not hold the authority that "
        "issued it, or its clock is wrong: all parties of a job need certificates of one authority"
    )


def _shown(text: str) -> str:
    """As much of it as an error has room for; an authority may put any number of names into a certificate."""
    kept, was_cut = cut(text, MAX_SHOWN_BYTES)
    return f"{kept} ..." if was_cut else kept


def _brief(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _date(moment: datetime.datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M UTC")
