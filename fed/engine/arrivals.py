"""Objects of other parties on their way in: waited for, here, or never to come."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Final

from fed.core.failure import Failure, Fault, Kind
from fed.core.rendezvous import Key
from fed.engine.dataflow import Submitter
from fed.engine.records import READY, Entry, inherited
from fed.engine.results import Results
from fed.engine.services import EpochState
from fed.object import ObjectId
from fed.proxy.arriving import Arrived
from fed.runtime.contract import Outcome, Submission

__all__ = ["MAX_MISSING", "Arrivals"]

MAX_MISSING: Final = 1 << 17
"""Objects of one other party that will not come and that nobody has waited for yet. No program has nearly as many under
way, and a party that names objects without end must not fill the memory with their names."""


class Arrivals:
    """What one epoch waits for from other parties.

    Attributes:
        expected: The objects that are waited for.

    Args:
        state: Of the epoch.
        results: Where their states are kept.
        submitter: The tasks that wait for them.
    """

    def __init__(self, state: EpochState, results: Results, submitter: Submitter) -> None:
        self._state = state
        self._results = results
        self._submitter = submitter
        self.expected: dict[Key, Entry] = {}
        # Of those that are large, by which call they are taken.
        self._taking: dict[Key, Submission] = {}
        # What will not come and nobody has waited for yet, by owner.
        self._missing: dict[str, dict[ObjectId, Failure]] = {}
        # What will not come and was waited for, which the receiver has not heard.
        self._given_up: list[Key] = []

    def clear(self) -> None:
        """The epoch is over. With the lock."""
        self.expected.clear()
        self._taking.clear()
        self._missing.clear()
        self._given_up.clear()

    def expect(self, entries: Sequence[Entry]) -> None:
        """Wait for objects from here on. Without the lock, and `submit_ready` after that."""
        keys = [Key(entry.party, entry.id) for entry in entries]
        with self._state.lock:
            self.expected.update(zip(keys, entries, strict=True))
            for key, entry in zip(keys, entries, strict=True):
                failure = self._missing.get(key.peer, {}).pop(key.id, None) or self._state.aborted
                if failure is not None:
                    self._not_coming(entry, failure)
            keys = [key for key in keys if key in self.expected]
        if keys:
            self._state.proxies.direct.arrivals.expect(keys)

    def give_up_all(self, root: Failure) -> None:
        """The job has failed: nothing that is waited for comes any more. With the lock."""
        for entry in list(self.expected.values()):
            self._not_coming(entry, root)

    def note_missing(self, peer: str, objects: Iterable[ObjectId], failure: Failure) -> None:
        """A party tells that objects of it will never come. With the lock, and `submit_ready` after that."""
        if self._state.aborted is not None:
            return
        missing = self._missing.setdefault(peer, {})
        for object_id in objects:
            entry = self.expected.get(Key(peer, object_id))
            if entry is not None:
                self._not_coming(entry, failure)
            elif object_id.epoch != self._state.number or object_id in missing:
                continue
            elif len(missing) < MAX_MISSING:
                missing[object_id] = failure
            else:
                # To forget one would let this party wait for it for ever.
                detail = f"party {peer!r} tells of more than {MAX_MISSING} failed objects that nobody has asked for"
                job = self._state.job
                job.learn(job.new_failure(Fault(Kind.DIVERGED, "DivergenceError", detail=detail)), ends_job=True)
                return

    def started_anew(self, peer: str) -> None:
        """Another driver takes the place of a party's: what that one had told is worth nothing. With the lock."""
        self._missing.pop(peer, None)

    def submit_ready(self) -> None:
        """Submit what is ready, and have done with what will not come. Without the lock."""
        with self._state.lock:
            given_up, self._given_up = self._given_up, []
        if given_up:
            self._state.proxies.direct.arrivals.confirm(given_up)
        self._submitter.submit_ready()

    def arrived(self, arrivals: Sequence[Arrived]) -> None:
        """Objects have come. On the channel's thread."""
        large: list[Key] = []
        with self._state.lock:
            if self._state.over:
                return
            self._state.moves += 1
            for key, small in arrivals:
                entry = self.expected.get(key)
                if entry is None:
                    continue
                if small is not None:
                    entry.small = small
                    self._came(entry)
                else:
                    large.append(key)
            self._state.changed.notify_all()
        for key in large:
            self._take(key)
        self.submit_ready()

    def _take(self, key: Key) -> None:
        taking = self._state.proxies.take(key)
        with self._state.lock:
            if key not in self.expected:
                return
            self._taking[key] = taking
        # What becomes possible by it is not to be submitted on the runtime's thread.
        took = functools.partial(self._took, key, taking)
        self._state.watch(taking.done, lambda outcome: self._state.job.soon(functools.partial(took, outcome)))

    def _took(self, key: Key, taking: Submission, outcome: Outcome) -> None:
        """On the data-sending thread."""
        with self._state.lock:
            if self._state.over or self._taking.get(key) is not taking:
                return
            del self._taking[key]
            if outcome.fault is not None and outcome.fault.kind is Kind.OBJECT_LOST:
                # A receiver that was killed was asked in vain, and the one in its place tells of the object again.
                return
            self._state.moves += 1
            entry = self.expected.get(key)
            if entry is None:
                return
            if outcome.fault is not None:
                self._not_coming(entry, self._state.proxy_failed(outcome.fault))
            elif outcome.value is not None:
                self._not_coming(entry, self._state.job.new_failure(outcome.value, "", entry.id.sequence))
            else:
                (entry.ref,) = taking.results
                self._came(entry)
            self._state.changed.notify_all()
            came = entry.state == READY
        if came:
            self._state.proxies.direct.arrivals.confirm([key])
        self.submit_ready()

    def _came(self, entry: Entry) -> None:
        """An object is here. With the lock."""
        self.expected.pop(Key(entry.party, entry.id), None)
        self._results.finish(self._results.ready(entry))
        self._submitter.apply(self._submitter.table.arrived(entry.id))

    def _not_coming(self, entry: Entry, failure: Failure) -> None:
        """An object will never be here. With the lock."""
        self._state.moves += 1
        key = Key(entry.party, entry.id)
        self.expected.pop(key, None)
        self._taking.pop(key, None)
        self._given_up.append(key)
        self._results.finish(self._results.fail(entry, failure, None))
        self._submitter.apply(self._submitter.table.failed(entry.id, inherited(failure, None)))
        self._state.learn_inherited(failure)
