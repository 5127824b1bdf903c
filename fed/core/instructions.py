"""What `fed.core.coordination` says is to be done."""

from __future__ import annotations

from typing import NamedTuple

from fed.core.failure import Failure
from fed.core.notice import Notice

__all__ = ["Instruction", "Latched", "PeerDeparted", "SendControl", "Settled", "Switched"]


class SendControl(NamedTuple):
    """Tell a peer something."""

    peer: str
    notice: Notice


class Latched(NamedTuple):
    """The job has latched: begin to wait for the votes, wake the driver."""


class Settled(NamedTuple):
    """The root is final: let go of everyone who waits for objects, run the failure handler."""

    root: Failure


class PeerDeparted(NamedTuple):
    """A peer will acknowledge nothing more: because of a failure, or because its program has ended."""

    peer: str
    failure: Failure | None


class Switched(NamedTuple):
    """The next epoch begins, of which peers that are further have told this already."""

    epoch: int
    early: tuple[tuple[str, Notice], ...] = ()


Instruction = SendControl | Latched | Settled | PeerDeparted | Switched
