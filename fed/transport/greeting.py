"""What both ends check of a greeting, whatever carries it. What a job means by agreement is its handler's to check."""

from __future__ import annotations

from fed.transport.contract import PROTOCOL_VERSION, Handler, Hello, PeerRefused, Refusal

__all__ = ["answer_hello", "check_own_hello", "check_welcome"]


def check_own_hello(party: str, hello: Hello) -> None:
    """Check that a link greets in its own party's name.

    Raises:
        ValueError: It does not.
    """
    if hello.party != party:
        raise ValueError(f"this link belongs to party {party!r} and cannot greet as {hello.party!r}")


def answer_hello(handler: Handler, party: str, peer: str, hello: Hello) -> Hello:
    """The answer of `party` to the greeting of `peer`, who has proved to be that.

    Raises:
        Refusal: With a sentence that names what differs.
        NotNow: The handler puts the greeting off.
    """
    if hello.protocol != PROTOCOL_VERSION:
        raise Refusal(
            f"party {party!r} speaks protocol {PROTOCOL_VERSION}, but {peer!r} speaks {hello.protocol} "
            f"(release {hello.version}): install the same release of fed in both"
        )
    if peer == party:
        raise Refusal(f"party {party!r} was greeted by one that calls itself {peer!r} too: each name may be used once")
    return handler.on_hello(peer, hello)


def check_welcome(peer: str, address: str, welcome: Hello) -> None:
    """Check the answer to a greeting.

    Raises:
        PeerRefused: It comes from another party, or in another protocol.
    """
    if welcome.party != peer:
        raise PeerRefused(
            f"party {welcome.party!r} answered at {address}, where {peer!r} should be: correct the address of {peer!r}"
        )
    if welcome.protocol != PROTOCOL_VERSION:
        raise PeerRefused(
            f"party {peer!r} at {address} speaks protocol {welcome.protocol} (release {welcome.version}), this party "
            f"speaks {PROTOCOL_VERSION}: install the same release of fed in both"
        )
