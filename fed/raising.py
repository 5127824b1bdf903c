"""Failures to exceptions: what the user sees of a record, in the party where it happened and in the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from fed.core.failure import Failure, Kind
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

__all__ = ["RemoteTraceback", "aborted", "error_of"]

_CLASSES: Final[Mapping[Kind, type[FailureError]]] = {
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
    if error_class is TaskError and failure.src_party != party:
        error_class = RemoteError
    sentence = _sentence(failure, party)
    for declared in exceptions:
        if failure.kind is Kind.TASK and declared.__name__ == failure.type_name:
            error = _both(error_class, declared, sentence, failure)
            break
    else:
        error = error_class(sentence, failure)
    if cause is not None:
        error.__cause__ = cause
    return error


def aborted(root: Failure) -> JobAborted:
    """The refusal of a fed call on a job that has been latched, and whose root was raised before."""
    return JobAborted(f"the job was aborted by {root}; nothing new runs: leave the job, or call fed.shutdown()", root)


def _both(error_class: type[FailureError], declared: type[Exception], sentence: str, failure: Failure) -> FailureError:
    """An error that is also one of the user's, made without calling the user's constructor. Total."""
    try:
        both = type(declared.__name__, (error_class, declared), {"__module__": declared.__module__})
        error: FailureError = both.__new__(both, sentence, failure)  # type: ignore[call-overload]
        FailureError.__init__(error, sentence, failure)
    # The class is the user's, and its layout or metaclass may forbid this. The failure must be told all the same.
    except Exception:  # noqa: BLE001
        return error_class(sentence, failure)
    return error


def _sentence(failure: Failure, party: str) -> str:
    if failure.kind is Kind.DRIVER:
        return f"party {failure.src_party!r} left: its driver raised {failure.type_name}" + _message(failure)
    if failure.kind is Kind.PARTY_LEFT:
        return f"party {failure.src_party!r} left" + (_message(failure) or " before it delivered")
    if failure.kind is Kind.DELIVERY:
        object_name = f" the result of {failure.task}" if failure.task else ""
        whose = "" if failure.src_party == party else f" of party {failure.src_party!r}"
        return f"could not deliver{object_name}{whose}: {failure.message or f'{failure.type_name} is refused'}"
    return str(failure)


def _message(failure: Failure) -> str:
    return f": {failure.message}" if failure.message else ""


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
