"""Who is at the other end, and whether that accepts who this party is.

The gRPC library shows a server the certificate of each client, but shows a client nothing of its server's. So a
link first makes a TLS connection of its own (`prove`), reads the server's certificate there, checks the name, and
hands back exactly that certificate. It then becomes the only trust anchor of the gRPC channels, which binds them
to the identity that was checked, on every connection that they make later as well.

A refused client certificate shows itself only after the handshake of TLS 1.3, and gRPC's server then closes the
connection without a word, as does one that is being stopped. So `prove` waits for the first byte of HTTP/2, and
believes in a refusal only when it has met the same silence twice. What it says then is what was seen: why the other
party closed, that party alone knows.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from fed.config import Address, TLSConfig
from fed.errors import ConfigError
from fed.transport.contract import PeerAbsent, PeerUnreachable, PeerUntrusted
from fed.transport.credentials import SCHEME, brief, check_own_credentials, host_name, party_of

__all__ = ["ServerCertificate", "prove", "reach"]

ASK_AGAIN_S: Final = 0.5
"""How long nobody may answer until another connection is begun beside those that wait."""

_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
_NOT_ISSUED: Final = frozenset({7, 18, 19, 20, 21})
"""Verification codes of OpenSSL (x509_vfy.h), which the ssl module passes on as bare numbers."""
_HTTP2_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
"""RFC 9113, 3.4: the client's preface and an empty SETTINGS frame."""
_HTTP2_SETTINGS: Final = 4

_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class ServerCertificate(NamedTuple):
    """A server's certificate, after its name was checked.

    Attributes:
        pem: It, and nothing of its chain.
        host_name: A name that it is valid for, by which gRPC is to call it.
    """

    pem: bytes
    host_name: str


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
    except _Silence as silence:
        raise PeerUntrusted(_why_silent(party, peer, address, tls, silence)) from silence


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
    """The connection was closed without a byte after the handshake, or broken off by an alert.

    Attributes:
        alert: What the other end said: the text of an alert of TLS (RFC 8446, 6), or nothing.
        shaken: Whether this end had completed the handshake.
    """

    def __init__(self, error: OSError | None, *, shaken: bool) -> None:
        super().__init__(str(error))
        reason = error.reason if isinstance(error, ssl.SSLError) else ""
        _, alert, text = (reason or "").partition("ALERT_")
        self.alert = text.lower().replace("_", " ") if alert else ""
        self.shaken = shaken


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
            f"used any more: {brief(error)}"
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
            raise _Silence(error, shaken=False) from error
        if error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"):
            raise PeerUntrusted(
                f"{where} does not speak TLS at that port: give that party the options tls.*, or correct its address"
            ) from error
        raise PeerUnreachable(f"{where}: the TLS handshake failed: {brief(error)}") from error
    try:
        encoded = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        certificate = _checked(where, peer, x509.load_der_x509_certificate(encoded))
        if not await reader.read(1):
            raise _Silence(None, shaken=True)
    except OSError as error:
        raise _Silence(error, shaken=True) from error
    except ValueError as error:
        raise PeerUntrusted(f"{where}: its certificate cannot be read: {brief(error)}") from error
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
        raise PeerUnreachable(f"{where} cannot be reached: {brief(error)}") from error


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
        named = party_of(cert)
    except ValueError as error:
        raise PeerUntrusted(
            f"{where}: its certificate {error}: have it issued with the SAN URI {SCHEME}{peer}"
        ) from error
    if named != peer:
        raise PeerUntrusted(
            f"{where}: the certificate there belongs to party {named!r}, not to {peer!r}: correct the address of "
            f"{peer!r}, or its certificate"
        )
    host = host_name(cert)
    if host is None:
        raise PeerUntrusted(
            f"{where}: its certificate has no DNS name, no IP address and no common name: have it issued with one"
        )
    return ServerCertificate(cert.public_bytes(serialization.Encoding.PEM), host)


def _why_they_are_refused(where: str, tls: TLSConfig, error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code == _EXPIRED:
        return f"{where}: its certificate, or one that it was issued by, has expired: that party must have it renewed"
    if error.verify_code == _NOT_YET_VALID:
        return (
            f"{where}: its certificate, or one that it was issued by, is not valid yet: one of the two machines' "
            "clocks is wrong, or wait"
        )
    if error.verify_code in _NOT_ISSUED:
        return (
            f"{where}: its certificate does not lead to the authority in {tls.ca} (tls.ca): all parties of a job need "
            f"certificates of one authority, each followed by those in between ({error.verify_message})"
        )
    return f"{where}: its certificate cannot be accepted ({error.verify_message}): that party must have it reissued"


def _why_silent(party: str, peer: str, address: Address, tls: TLSConfig, silence: _Silence) -> str:
    where = f"party {peer!r} at {address}"
    said = f" with the alert {silence.alert!r}" if silence.alert else " without saying why"
    try:
        check_own_credentials(party, tls)
    except ConfigError as error:
        return f"{where} closed the connection{said}, and this party's certificate cannot be accepted: {error}"
    if not silence.shaken:
        # It has not seen our certificate, or not checked it.
        return (
            f"{where} broke off the TLS handshake{said}: see that party's output, and whether its tls.cert and tls.key "
            "can be used"
        )
    return (
        f"{where} closed the connection{said} when it had been shown this party's certificate {tls.cert}, in which "
        "this party finds nothing wrong: see whether that party's tls.ca holds the authority that issued it, and "
        "whether its clock is right"
    )
