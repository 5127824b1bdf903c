"""How the two ends of a connection prove to one another that they belong together. Pure.

::

    proxy                                                                        driver
    hello: version, role, lane, boot, nonce ───────────────────────────────────►
          ◄──────────────────────────── challenge: nonce, MAC over "driver" and both
    proof: MAC over "proxy" and both ──────────────────────────────────────────►

The MAC is HMAC-SHA256 under a token of 32 random bytes, which the proxy has from Ray, as an argument of its
constructor. It covers the hello with the proxy's nonce, and the driver's nonce, so none can be used again or for
anything else (ISO/IEC 9798-4, three pass mutual authentication). The driver proves itself first: a proxy tells nothing
but its name to whoever happens to listen at an address. Before all that comes the handshake of TLS, where there is one.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import ssl
import struct
from collections.abc import Callable
from typing import Final, NamedTuple

from fed.channel.contract import ChannelError, Lane, Role

__all__ = [
    "CHALLENGE_BYTES",
    "HANDSHAKE_S",
    "HELLO_BYTES",
    "PROOF_BYTES",
    "Challenged",
    "Hello",
    "Tls",
    "challenge",
    "new_boot_id",
    "new_token",
    "prove",
]

_MAGIC: Final = b"fed channel 1\n"
_NONCE_BYTES: Final = 32
_BOOT_BYTES: Final = 16
_HELLO: Final = struct.Struct(f"{len(_MAGIC)}sBB{_BOOT_BYTES}s{_NONCE_BYTES}s")

HELLO_BYTES: Final = _HELLO.size
CHALLENGE_BYTES: Final = _NONCE_BYTES + hashlib.sha256().digest_size
PROOF_BYTES: Final = hashlib.sha256().digest_size
HANDSHAKE_S: Final = 10.0
"""How long either end waits for what the other one has to say first."""


class Tls(NamedTuple):
    """How both ends of a TCP connection are secured.

    Attributes:
        context: This end's; made for the server or the client side, with a certificate, and verifying the other's.
        check: Raises `ChannelError` if a certificate (in DER) that was verified is not the party's own.
    """

    context: ssl.SSLContext
    check: Callable[[bytes], None]


def new_token() -> bytes:
    """What both ends of a party's connections know, and nobody else."""
    return secrets.token_bytes(32)


def new_boot_id() -> str:
    """A name for one life of a proxy, unlike any other."""
    return secrets.token_hex(_BOOT_BYTES)


class Hello(NamedTuple):
    """What a proxy says first.

    Attributes:
        role: Which proxy it is.
        lane: What the connection is for.
        boot_id: Its life; from `new_boot_id`.
    """

    role: Role
    lane: Lane
    boot_id: str

    def encoded(self) -> bytes:
        """As it travels, with a new nonce."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return _HELLO.pack(_MAGIC, self.role.value, self.lane.value, bytes.fromhex(self.boot_id), nonce)


class Challenged(NamedTuple):
    """What the driver makes of a hello.

    Attributes:
        hello: It, which nobody has proven yet.
        answer: What is to be sent.
        proof: What has to come then.
    """

    hello: Hello
    answer: bytes
    proof: bytes

    def accepts(self, proof: bytes) -> bool:
        """Whether what came proves the hello. Takes as long for each answer."""
        return hmac.compare_digest(proof, self.proof)


def challenge(token: bytes, encoded: bytes) -> Challenged:
    """The driver's answer to a hello.

    Raises:
        ChannelError: It is none.
    """
    try:
        magic, role, lane, boot, _ = _HELLO.unpack(encoded)
        hello = Hello(Role(role), Lane(lane), boot.hex())
    except (struct.error, ValueError) as error:
        raise ChannelError("something connected that is no proxy") from error
    if magic != _MAGIC:
        raise ChannelError("something connected that is no proxy of this release")
    nonce = secrets.token_bytes(_NONCE_BYTES)
    answer = nonce + _mac(token, b"driver", encoded, nonce)
    return Challenged(hello, answer, _mac(token, b"proxy", encoded, nonce))


def prove(token: bytes, encoded: bytes, answer: bytes) -> bytes:
    """The proxy's proof, after the driver's.

    Raises:
        ChannelError: Whoever answered does not know the token.
    """
    nonce, mac = answer[:_NONCE_BYTES], answer[_NONCE_BYTES:]
    if not hmac.compare_digest(mac, _mac(token, b"driver", encoded, nonce)):
        raise ChannelError("what listens there is not this party's driver")
    return _mac(token, b"proxy", encoded, nonce)


def _mac(token: bytes, who: bytes, encoded: bytes, nonce: bytes) -> bytes:
    # All parts but the first have fixed lengths, and the first ones differ at once.
    return hmac.new(token, who + encoded + nonce, hashlib.sha256).digest()
