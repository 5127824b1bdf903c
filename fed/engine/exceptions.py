"""Failures to exceptions: what the user sees of a record, in the party where it happened and in the others.

Every sentence names what failed and where, and says what can be done about it where that is known. It is made of the
record alone: `Failure.detail` is for everybody, `Failure.message` and `Failure.traceback` are empty where they are
not exposed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from fed.core.failure import Exposure, Failure, Kind
from fed.errors import (
    DeadlockError,
    DeliveryError,
    DivergenceError,
    EgressDenied,
    FailureError,
    InitError,
    JobAborted,
    PartyLeftError,
    PartyLostError,
    RemoteError,
    TaskError,
)
from fed.text import indented

__all__ = ["RemoteTraceback", "aborted", "error_of", "init_error", "pointer", "sentence"]

_CLASSES: Final[Mapping[Kind, type[FailureError]]] = {
    Kind.UNSERIALIZABLE: DeliveryError,
    Kind.DELIVERY: DeliveryError,
    Kind.EGRESS_DENIED: EgressDenied,
    Kind.PARTY_LOST: PartyLostError,
    Kind.PARTY_LEFT: PartyLeftError,
    Kind.DRIVER: PartyLeftError,
    Kind.DIVERGED: DivergenceError,
    Kind.DEADLOCK: DeadlockError,
    Kind.TIMEOUT: FailureError,
    Kind.INIT: FailureError,
    Kind.INTERNAL: FailureError,
}


class RemoteTraceback(Exception):
    """The traceback of a worker, shown above the exception that it belongs to."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return "\n" + self.text


def error_of(
    failure: Failure,
    party: str,
    cause: BaseException | None = None,
    exceptions: Sequence[type[Exception]] = (),
) -> FailureError:
    """The exception for a failure, as this party raises it.

    Args:
        failure: The record.
        party: This party.
        cause: The user's original exception, where the task ran here.
        exceptions: Declared classes; the error is an instance of the one that bears the failure's type name.
    """
    error_class: type[FailureError] = _CLASSES.get(failure.kind, TaskError)
    if error_class is TaskError and (failure.src_party != party or failure.hops):
        error_class = RemoteError
    text = sentence(failure, party)
    for declared in exceptions:
        if failure.kind is Kind.TASK and declared.__name__ == failure.type_name:
            error = _both(error_class, declared, text, failure)
            break
    else:
        error = error_class(text, failure)
    if cause is not None:
        error.__cause__ = cause
    return error


def aborted(root: Failure) -> JobAborted:
    """The refusal of a fed call on a job that has been latched, and whose root was raised before."""
    # Without the message, which was raised with the root, and may have many lines.
    return JobAborted(
        f"the job was aborted: {sentence(root.redacted(Exposure.TYPE))}; nothing new runs: "
        "call fed.reset() to go on, or call fed.shutdown() to leave the job",
        root,
    )


def _both(error_class: type[FailureError], declared: type[Exception], text: str, failure: Failure) -> FailureError:
    """An error that is also one of the user's, made without calling the user's constructor. Total."""
    try:
        both = type(declared.__name__, (error_class, declared), {"__module__": declared.__module__})
        error: FailureError = both.__new__(both, text, failure)  # type: ignore[call-overload]
        FailureError.__init__(error, text, failure)
    # The class is the user's, and its layout or metaclass may forbid this. The failure must be told all the same.
    except Exception:  # noqa: BLE001
        return error_class(text, failure)
    return error


def sentence(failure: Failure, party: str = "") -> str:
    """What went wrong and where, for a person.

    Args:
        failure: The record.
        party: Who reads it; left out, the sentence fits every reader.
    """
    # Its own failures it has at first hand.
    denied = f"; party {party!r} has no record of it" if failure.hops and failure.origin == party else ""
    return _SENTENCES[failure.kind](failure, party) + denied


def pointer(failure: Failure, party: str) -> str:
    """Where another party than the failure's own finds what this one is not told; empty if there is nothing more.

    It names the party and the entry in its log, never a path: how a party's disk is laid out is nobody else's matter.
    """
    withheld = _withheld(failure)
    if failure.src_party == party or failure.hops or not withheld:
        return ""
    return f"{withheld} in the log of party {failure.src_party!r} under {failure.error_id}"


def _withheld(failure: Failure) -> str:
    kind = failure.kind
    if kind is Kind.TASK or (kind is Kind.DRIVER and failure.type_name not in _LEAVING):
        if failure.traceback:
            return "the whole of it is" if failure.truncated else ""
        return "the traceback is" if failure.message else "the message and traceback are"
    if kind in _BY_RAY:
        return "what Ray reported is"
    if kind in (Kind.DELIVERY, Kind.EGRESS_DENIED) and not (failure.detail or failure.message):
        return "the reason is"
    if kind is Kind.UNSERIALIZABLE and not failure.message:
        return "the place in the value is"
    if kind in (Kind.INIT, Kind.INTERNAL):
        return "the rest is"
    return ""


_BY_RAY: Final = frozenset({Kind.CANCELLED, Kind.WORKER_CRASHED, Kind.OUT_OF_MEMORY, Kind.ACTOR_DIED, Kind.OBJECT_LOST})

_LEAVING: Final[Mapping[str, str]] = {
    "SystemExit": "its program called sys.exit",
    "KeyboardInterrupt": "it was interrupted",
}
"""What a driver can be ended by that is no error, and how to say so."""


def _where(failure: Failure) -> str:
    """The task and its party."""
    named = f"task {failure.task}" if failure.task else "a task"
    return f"{named} at {_source(failure)}"


def _of_task(failure: Failure) -> str:
    return f" in task {failure.task}" if failure.task else ""


def _party(failure: Failure) -> str:
    return f"party {failure.src_party!r}"


def _source(failure: Failure) -> str:
    """The party, and who says so if that is not the party itself."""
    return f"{_party(failure)}{failure.hearsay}"


def _told(failure: Failure, otherwise: str = "") -> str:
    """What is known of the reason, after a colon."""
    texts = [text for text in (failure.detail, failure.message) if text] or [otherwise]
    return "".join(f": {indented(text)}" for text in texts if text)


def _of_ray(failure: Failure, happened: str, otherwise: str) -> str:
    """A sentence on what Ray reports, without its own text, which is long and names processes, paths and addresses."""
    return f"{happened}: {failure.detail or otherwise}"


def _task(failure: Failure, _: str) -> str:
    return str(failure)


def _cancelled(failure: Failure, _: str) -> str:
    return f"{_where(failure)} was cancelled" + (f": {failure.detail}" if failure.detail else "")


def _worker_crashed(failure: Failure, _: str) -> str:
    return _of_ray(failure, f"the worker of {_where(failure)} died", "it crashed, was killed, or ran out of memory")


def _out_of_memory(failure: Failure, _: str) -> str:
    return _of_ray(
        failure,
        f"{_where(failure)} was killed because the machine ran out of memory",
        "let fewer tasks run at once, or reserve more for each with .options(memory=...)",
    )


def _actor_died(failure: Failure, _: str) -> str:
    return _of_ray(failure, f"the actor of {_where(failure)} died", "it crashed, was killed, or ran out of memory")


def _object_lost(failure: Failure, _: str) -> str:
    return _of_ray(failure, f"Ray lost a value of {_where(failure)}", "a node of its cluster died or did not answer")


def _delivery(failure: Failure, party: str) -> str:
    result = f"the result of {failure.task}" if failure.task else "a value"
    whose = "" if failure.src_party == party else f" of {_party(failure)}"
    return f"could not deliver {result}{whose}{failure.hearsay}{_told(failure, 'a party refused it')}"


def _unserializable(failure: Failure, party: str) -> str:
    whose = "" if failure.src_party == party else f" of {_party(failure)}"
    why = indented(failure.message) or failure.detail
    if failure.message and failure.truncated:
        # It names the place in the value, which may be long, and the reason after it.
        why = f"{why}: {failure.detail}"
    return f"could not deliver the result of {failure.task}{whose}{failure.hearsay}: {why}"


def _egress_denied(failure: Failure, party: str) -> str:
    result = f"the result of {failure.task}" if failure.task else "a value"
    whose = "this party" if failure.src_party == party else _party(failure)
    return f"the policy of {whose}{failure.hearsay} keeps {result} in{_told(failure)}"


def _observed(failure: Failure, party: str) -> str:
    """Who says so of the failure's party, unless that is the reader."""
    return "" if failure.reporter == party else failure.hearsay


def _party_lost(failure: Failure, party: str) -> str:
    reason = _told(failure, "nothing was heard of it for longer than its lease")
    lost = f"{_party(failure)} was lost{_observed(failure, party)}"
    if failure.origin == failure.src_party:
        # Its sender's own word, and no silence.
        return f"{lost}{reason}; see how its program ended"
    return f"{lost}{reason}; see whether its program still runs and can be reached"


def _party_left(failure: Failure, party: str) -> str:
    known = failure.detail or failure.message or "its program was over while others still waited for it"
    # Some who note it say when it was, others why.
    when = f" {known}" if known.startswith("before ") else f" before the end: {known}"
    return f"{_party(failure)} left{_observed(failure, party)}{when}; every party must run the same program"


def _driver(failure: Failure, _: str) -> str:
    leaving = _LEAVING.get(failure.type_name)
    if leaving is not None:
        code = f" ({failure.message})" if failure.message else ""
        return f"{_source(failure)} left before the end: {leaving}{code}"
    return f"{_source(failure)} left: its driver raised {failure.type_name}{_told(failure)}"


def _diverged(failure: Failure, _: str) -> str:
    found = failure.detail or "it made a call that the others did not make"
    return f"{_source(failure)} found that {found}: every party must run the same program"


def _deadlock(failure: Failure, _: str) -> str:
    return f"deadlock, every party waits and nothing runs (found by {_source(failure)}){_told(failure)}"


def _timeout(failure: Failure, _: str) -> str:
    return f"a time limit ran out{_of_task(failure)} at {_source(failure)}{_told(failure)}"


def _init(failure: Failure, _: str) -> str:
    return f"the job could not start: the start of {_source(failure)} failed with {failure.type_name}{_told(failure)}"


def _internal(failure: Failure, _: str) -> str:
    return (
        f"a fault of fed itself, {failure.type_name}{_of_task(failure)} at {_source(failure)}{_told(failure)}; "
        "please report it, with the logs of all parties"
    )


_SENTENCES: Final[Mapping[Kind, Callable[[Failure, str], str]]] = {
    Kind.TASK: _task,
    Kind.CANCELLED: _cancelled,
    Kind.WORKER_CRASHED: _worker_crashed,
    Kind.OUT_OF_MEMORY: _out_of_memory,
    Kind.ACTOR_DIED: _actor_died,
    Kind.OBJECT_LOST: _object_lost,
    Kind.DELIVERY: _delivery,
    Kind.UNSERIALIZABLE: _unserializable,
    Kind.EGRESS_DENIED: _egress_denied,
    Kind.PARTY_LOST: _party_lost,
    Kind.PARTY_LEFT: _party_left,
    Kind.DRIVER: _driver,
    Kind.DIVERGED: _diverged,
    Kind.DEADLOCK: _deadlock,
    Kind.TIMEOUT: _timeout,
    Kind.INIT: _init,
    Kind.INTERNAL: _internal,
}


def init_error(peers: Mapping[str, str], timeout_s: float | None = None) -> InitError:
    """The error of a job that could not start.

    Args:
        peers: For each party that is not ready, the last thing heard of it.
        timeout_s: The budget that ran out, if that is the reason.
    """
    named = {peer: f"party {peer!r}" for peer in peers}
    parties = "; ".join(
        reason if reason.startswith(named[peer]) else f"{named[peer]}: {reason}"
        for peer, reason in sorted(peers.items())
    )
    within = f" within {timeout_s:g} s (init_timeout_s)" if timeout_s is not None else ""
    return InitError(f"the job could not start{within}: {parties}")
