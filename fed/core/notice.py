"""What parties tell one another apart from data: small messages, each kept in order with the others of its sender.

The words, and what each one has:

========  =================  ==========================================================================
READY     nothing            the party has finished its own part of joining
FAILURE   failure, objects   these objects of the party will never come
LATCHED   failure            the party's job has latched; the failure is its vote for the root
PROGRESS  calls, digest      the party has made this many fed calls, and this is the digest of them all
JOURNAL   calls, texts       the calls themselves, from number `calls` on: the digests differ
RESET     calls, digest      the party is ready for the epoch after this one
GOODBYE   failure or         the party leaves: because of a failure, or
          calls, digest      because its program has ended, after this many calls
PING      nothing            the party is there, and has had nothing else to say for a while
ASK       calls              what are you at? The number is that of the question
STANDING  calls, standing    the answer
========  =================  ==========================================================================
"""

from __future__ import annotations

import dataclasses
import enum

from fed.core.failure import Failure
from fed.core.stall import PartyStatus
from fed.object import ObjectId

__all__ = ["Notice", "NoticeKind"]


class NoticeKind(enum.Enum):
    """What a notice tells; see the table above."""

    READY = "READY"
    FAILURE = "FAILURE"
    LATCHED = "LATCHED"
    PROGRESS = "PROGRESS"
    JOURNAL = "JOURNAL"
    RESET = "RESET"
    GOODBYE = "GOODBYE"
    PING = "PING"
    ASK = "ASK"
    STANDING = "STANDING"


@dataclasses.dataclass(frozen=True)
class Notice:
    """A small message on the control connection.

    Attributes:
        kind: What it tells.
        epoch: The epoch it belongs to; one of an earlier epoch is dropped, one of a later epoch waits for it.
        failure: What went wrong.
        objects: The objects that the receiving party will never get; at least one in a FAILURE, none elsewhere.
        calls: How many fed calls were made; in a JOURNAL, the number of the first one in `texts`; in an ASK and in
            the STANDING that answers it, the number of the question.
        digest: Of the calls made so far, 64 bits (`fed.core.journal`).
        texts: Calls, as text; at least one in a JOURNAL, none elsewhere.
        standing: In a STANDING, none elsewhere.
    """

    kind: NoticeKind
    epoch: int
    failure: Failure | None = None
    objects: tuple[ObjectId, ...] = ()
    calls: int = 0
    digest: int = 0
    texts: tuple[str, ...] = ()
    standing: PartyStatus | None = None
