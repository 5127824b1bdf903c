"""What this party's proxies are to know of the job, and what they tell of the peers.

Events are handled on the direct channel's thread for control, which makes no call to the runtime.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from fed.core.failure import Failure, Fault, Kind
from fed.core.notice import NoticeKind
from fed.engine.error_queue import QUESTIONS
from fed.proxy.control import Snapshot
from fed.proxy.events import PeerEvent, PeerEventKind
from fed.proxy.peer_session import REJECTED
from fed.runtime.contract import Outcome, Proxies

if TYPE_CHECKING:
    from fed.engine.shell import Shell

__all__ = ["Dialogue"]

logger = logging.getLogger("fed")


class _ProxyListener(NamedTuple):
    """Takes in what one of the proxies says (`fed.proxy.control.Listener`)."""

    dialogue: Dialogue
    name: str

    def handle(self, events: Sequence[PeerEvent]) -> None:
        """See `fed.proxy.control.Listener`."""
        try:
            self.dialogue.hear(events)
        # Also what ends a thread: this one is not the job's to end.
        except BaseException as error:
            logger.exception("what peers told could not be taken in")
            self.dialogue.failed(error)

    def lives_again(self) -> None:
        """See `fed.proxy.control.Listener`."""
        logger.warning("the %s proxy of party %r was killed and lives again", self.name, self.dialogue.party)


class Dialogue:
    """The job's end of the talk with its proxies.

    Attributes:
        greeted: Whether the sender was asked to greet the peers, and has answered.
        incarnations: The life of each peer's driver that has greeted this party.
        disagreed: Peers whose greeting was refused, and why.

    Args:
        shell: Of the job.
    """

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self.greeted = False
        self.incarnations: dict[str, str] = {}
        self.disagreed: dict[str, str] = {}
        # Who will acknowledge nothing more, and why.
        self._left: dict[str, Failure | None] = {}
        # Whether the proxies are about to learn the state of the job.
        self._publishing = False

    @property
    def party(self) -> str:
        """This party."""
        return self._shell.party

    def listen(self, proxies: Proxies) -> None:
        """Let the proxies begin, and hear what they tell."""
        proxies.direct.sender.listen(_ProxyListener(self, "sender"))
        proxies.direct.receiver.listen(_ProxyListener(self, "receiver"))

    def watch(self, proxies: Proxies) -> None:
        """Hear from here on of a proxy that has gone for good, or lives again and cannot do its work."""
        for name, ended in proxies.ended().items():
            self._shell.runtime.watch(ended, functools.partial(self._handle_end, name))

    def publish(self) -> None:
        """Have the proxies learn the state of the job, once for all changes before that. With the lock."""
        if not self._publishing:
            self._publishing = True
            # On one thread, so that an older one never comes after a newer one.
            self._shell.errors.run(self._publish_now)

    def departed(self, peer: str, failure: Failure | None) -> None:
        """A peer acknowledges nothing more. With the lock."""
        self._left[peer] = failure
        self.publish()

    def failed(self, error: BaseException) -> None:
        """What a proxy told could not be taken in."""
        self._shell.thread_failed(error)

    def _publish_now(self) -> None:
        """Let the proxies know the state of the job."""
        with self._shell.lock:
            self._publishing = False
            snapshot = Snapshot(
                epoch=self._shell.running().number,
                greeted=self.greeted,
                begun=self._shell.joined_at > 0,
                incarnations=dict(self.incarnations),
                left=dict(self._left),
            )
        self._shell.running_proxies().direct.publish(snapshot)

    def hear(self, events: Sequence[PeerEvent]) -> None:
        """A proxy tells what peers told or did, or what it found of them."""
        with self._shell.lock:
            for event in events:
                self._handle_event(event)
            self._shell.changed.notify_all()
        if any(event.notice is not None and event.notice.failure is not None for event in events):
            self._shell.soon(self._shell.running().arrivals.submit_ready)
        for event in events:
            if event.kind is PeerEventKind.ABSENT:
                self._shell.running_proxies().direct.receiver.suspect(event.peer)

    def _handle_event(self, event: PeerEvent) -> None:
        if event.kind is PeerEventKind.NOTICE and event.notice is not None:
            notice, epoch = event.notice, self._shell.running()
            if notice.kind in QUESTIONS:
                if notice.epoch == epoch.number:
                    self._shell.stall.hear(event.peer, notice)
                return
            if notice.kind is NoticeKind.FAILURE and notice.failure is not None and notice.epoch == epoch.number:
                epoch.arrivals.note_missing(event.peer, notice.objects, self._shell.believed(notice.failure))
            self._shell.carry_out(self._shell.coordinator.heard(event.peer, notice))
        elif event.kind is PeerEventKind.GREETED:
            self._handle_greeting(event.peer, event.incarnation)
        elif event.kind is PeerEventKind.DISAGREED:
            self.disagreed[event.peer] = event.reason
        elif event.kind is PeerEventKind.LOST:
            lease = f"lease_s is {self._shell.config.lease_s:g}"
            if event.reason:
                lease = f"{event.reason}, so less than the lease was waited for; {lease}"
            self._lose(event.peer, f"nothing was heard of it for {event.silent_s:.1f} s ({lease})")
        elif event.kind is PeerEventKind.REJECTED and not self._shell.life.leaving:
            self._lose(event.peer, REJECTED, event.reason)

    def _handle_greeting(self, peer: str, incarnation: str) -> None:
        """A peer's driver has greeted this party for the first time. The lock is held."""
        if self.incarnations.get(peer) == incarnation:
            return
        if self._shell.joined_at:
            # It came before the receiver had heard that the job has begun, with the one before.
            self._lose(peer, "it was started anew")
            return
        self.incarnations[peer] = incarnation
        self._shell.running().arrivals.started_anew(peer)
        self.publish()
        self._shell.carry_out(self._shell.coordinator.started_anew(peer))

    def _lose(self, peer: str, detail: str, message: str = "") -> None:
        """A peer is gone, or has given us up. The lock is held."""
        failure = self._shell.new_failure(Fault(Kind.PARTY_LOST, "PartyLostError", detail=detail, message=message))
        self._shell.carry_out(self._shell.coordinator.lost(peer, dataclasses.replace(failure, src_party=peer)))

    def _handle_end(self, name: str, outcome: Outcome) -> None:
        """A proxy was closed, has gone for good, or lives again in vain: then this party is cut off from the others."""
        fault = outcome.fault
        if fault is not None:
            fault = dataclasses.replace(fault, detail=f"the {name} proxy failed")
        elif outcome.value is not None:
            detail = f"the {name} proxy was killed, and the one in its place cannot do its work"
            logger.error("%s: %s", detail, outcome.value)
            # What stands in the way names addresses of this party's own.
            fault = Fault(Kind.INTERNAL, "ConfigError", detail=detail, message=outcome.value)
        if fault is not None:
            with self._shell.lock:
                self._shell.learn_defect(fault)
