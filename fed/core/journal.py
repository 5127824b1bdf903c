"""The journal: what a program has called so far, and how far the others are known to have called the same.

Each call has a text that names everything the parties must agree on: the operation, the function, the party, which
objects are used and where among the arguments. A rolling digest over the texts is exchanged now and then; parties
whose programs have differed once differ in every digest from there on. The texts themselves travel only when two
digests differ, to find the first call that does [E43].

Laws:

1. The digest of a call depends on every call before it. So it is part of the name of every object that the call
   makes, and no party is ever given the object of a different program.
2. What all peers agree on is forgotten, and of the rest the oldest beyond a limit: a journal is bounded. Nothing
   escapes by that, since a later digest shows an early difference too.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from fed.text import cut, plain

__all__ = ["SEGMENT", "Difference", "Journal"]

DEPTH: Final = 65_536
"""Calls that are remembered while a peer has not said that it has come as far."""

SEGMENT: Final = 4096
"""Calls that are told at once."""

MAX_TEXT_BYTES: Final = 256
"""Of one call; the rest of a longer one is represented by its digest."""


class Difference(NamedTuple):
    """The first call in which two programs differ.

    Attributes:
        call: Its number.
        mine: What this party called; empty if that is not remembered.
        theirs: What the peer called; empty likewise.
    """

    call: int
    mine: str
    theirs: str


class Journal:
    """The calls of one party in one epoch.

    Args:
        peers: Every party but this one.
    """

    __slots__ = ("_agreed", "_ahead", "_calls", "_digests", "_first", "digest")

    def __init__(self, peers: Iterable[str]) -> None:
        # Calls from number `_first` on: each one's text, and the digest after it.
        self._calls: deque[tuple[str, int]] = deque()
        self._first = 0
        self._agreed = dict.fromkeys(peers, 0)
        # What peers that are further than this party have said.
        self._ahead: dict[str, tuple[int, int]] = {}
        self.digest = 0

    @property
    def calls(self) -> int:
        """How many calls there were."""
        return self._first + len(self._calls)

    def note(self, text: str, *, same_as: str | None = None) -> list[str]:
        """A call is made.

        Args:
            text: What is called.
            same_as: What it counts as in the digest, if something else.

        Returns:
            The peers that are known to have called something else.
        """
        self.digest = _digest(self.digest, text if same_as is None else same_as)
        self._calls.append((_shortened(text), self.digest))
        if len(self._calls) > DEPTH:
            self._calls.popleft()
            self._first += 1
        if not self._ahead:
            return []
        calls = self.calls
        reached = [peer for peer, (theirs, _) in self._ahead.items() if theirs == calls]
        return [peer for peer in reached if self.heard(peer, *self._ahead.pop(peer))]

    def heard(self, peer: str, calls: int, digest: int) -> bool:
        """A peer has told how far it is.

        Args:
            peer: Which.
            calls: How many calls it has made.
            digest: The digest of them all.

        Returns:
            Whether this party is known to have called something else.
        """
        agreed = self._agreed.get(peer)
        if agreed is None:
            return False
        if calls > self.calls:
            self._ahead[peer] = (calls, digest)
            return False
        self._ahead.pop(peer, None)
        if calls <= max(agreed, self._first):
            return False
        if self._calls[calls - 1 - self._first][1] != digest:
            return True
        self._agreed[peer] = calls
        self._forget_agreed()
        return False

    def agree(self, peer: str, calls: int) -> bool:
        """A peer has told what it called, and up to this many calls it is the same. Returns whether that was news."""
        if not self._agreed.get(peer, calls) < calls <= self.calls:
            return False
        self._agreed[peer] = calls
        self._forget_agreed()
        return True

    def agrees(self, peer: str, calls: int) -> bool:
        """Whether a peer is known to have made the same calls as this party up to this many."""
        return self._agreed.get(peer, -1) >= calls

    def forget(self, peer: str) -> None:
        """A peer has left: what it agrees to matters no more."""
        if self._agreed.pop(peer, None) is not None:
            self._ahead.pop(peer, None)
            self._forget_agreed()

    def segment(self, peer: str) -> tuple[int, tuple[str, ...]]:
        """The calls from the last one on that a peer is known to agree to: the first one's number, and the texts."""
        first = max(self._agreed.get(peer, 0), self._first)
        texts = [text for text, _ in self._calls]
        return first, tuple(texts[first - self._first :][:SEGMENT])

    def compare(self, first: int, texts: Sequence[str]) -> Difference | None:
        """The first call that differs from what a peer says it called; None if none of them does.

        Args:
            first: The number of the peer's first text.
            texts: What it called.
        """
        for number, theirs in enumerate(texts, start=first):
            place = number - self._first
            if 0 <= place < len(self._calls):
                # As the texts of others are, where they come in.
                mine, _ = cut(plain(cut(self._calls[place][0], MAX_TEXT_BYTES)[0]), MAX_TEXT_BYTES)
                if mine != theirs:
                    return Difference(number, mine, theirs)
        return None

    def validate(self) -> None:
        """Check the laws; run at the teardown of tests.

        Raises:
            RuntimeError: A law is broken.
        """
        if len(self._calls) > DEPTH:
            raise RuntimeError(f"{len(self._calls)} calls are remembered")
        if self._calls and self._calls[-1][1] != self.digest:
            raise RuntimeError("the digest is not that of the last call")
        for peer, calls in self._agreed.items():
            if calls > self.calls:
                raise RuntimeError(f"{peer!r} agrees to calls that were not made")
        for peer, (calls, _) in self._ahead.items():
            if calls <= self.calls:
                raise RuntimeError(f"{peer!r} is not ahead")

    def _forget_agreed(self) -> None:
        agreed = min(self._agreed.values(), default=self.calls)
        while self._first < agreed:
            self._calls.popleft()
            self._first += 1


def _shortened(text: str) -> str:
    # Counting bytes means encoding; most texts are far too short for that to matter.
    if len(text) <= MAX_TEXT_BYTES // 4:
        return text
    data = text.encode("utf-8", "replace")
    if len(data) <= MAX_TEXT_BYTES:
        return text
    mark = f"... ({_digest(0, text):016x})"
    return data[: MAX_TEXT_BYTES - len(mark)].decode("utf-8", "ignore") + mark


def _digest(before: int, text: str) -> int:
    data = before.to_bytes(8, "big") + text.encode("utf-8", "replace")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")
