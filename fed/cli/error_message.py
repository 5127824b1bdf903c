"""What is said of an error that ends a script: short in the terminal, in full in the log.

In the party where it happened, the user's own traceback comes first and nothing of Ray's or of this library's is in
it; then one line that names the failure, and where the log is. In the other parties there is that line, where to see
more, and what the other party exposes. Text that another party wrote is shown without control characters, which
could redraw the terminal.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import Final, NamedTuple

from fed.core.failure import Exposure, Failure, Kind
from fed.engine.exceptions import RemoteTraceback, pointer, sentence
from fed.errors import FailureError, FedError, JobAborted, RemoteError
from fed.runtime.worker import text_of

__all__ = ["ErrorMessage", "error_message", "log_entry"]

_PACKAGE: Final = str(Path(__file__).parents[1]) + os.sep


class ErrorMessage(NamedTuple):
    """What the terminal shows.

    Attributes:
        traceback: The user's own, with its lines' ends; empty if there is none.
        lines: What follows it.
    """

    traceback: str
    lines: tuple[str, ...]


def error_message(error: FedError, party: str, place: str = "", log: Path | None = None) -> ErrorMessage:
    """What to show of an error that a script died of.

    Args:
        error: The error.
        party: This party; empty if that is not known.
        place: File and line of the script that the error went through last.
        log: This party's log.
    """
    failure = error.failure if isinstance(error, FailureError) else None
    if not isinstance(failure, Failure):
        shown = _users_traceback(error.__cause__) if isinstance(error, FailureError) and error.__cause__ else ""
        return ErrorMessage(shown, (f"fed: error: {error}{f' ({place})' if place else ''}",))
    tags = ", ".join(text for text in (failure.kind.value, place) if text)
    if not isinstance(_origin(error), RemoteError) and (not party or failure.src_party == party):
        return _at_the_source(error, failure, party, tags, log)
    return _at_a_peer(error, failure, party, tags)


def _at_the_source(error: FedError, failure: Failure, party: str, tags: str, log: Path | None) -> ErrorMessage:
    cause = _origin(error).__cause__
    shown = _users_traceback(cause) if cause is not None and failure.kind is Kind.TASK else ""
    # The traceback ends with the message.
    brief = shown and not isinstance(error, JobAborted)
    text = sentence(failure.redacted(Exposure.TYPE), party) if brief else str(error)
    first, *rest = text.splitlines() or [""]
    # What has many lines is as a rule Ray's. The log has all of it; of programs that differ it has no more.
    logged = log is not None and failure.kind is not Kind.DIVERGED
    # These are indented already.
    below = [f"fed: log: {log}"] if logged else [line for line in rest if line.strip()]
    return ErrorMessage(shown, (f"fed: error: {first.rstrip(' :')} [{tags}]", *below))


def _at_a_peer(error: FedError, failure: Failure, party: str, tags: str) -> ErrorMessage:
    # One line names the failure. What the message has beyond its first line is shown below.
    text, *_ = (str(error) if isinstance(error, JobAborted) else sentence(failure, party)).splitlines() or [""]
    lines = [f"fed: error: {text} [{tags}]"]
    exposed = failure.traceback or (failure.message if "\n" in failure.message else "")
    if exposed:
        name = "traceback" if failure.traceback else "message"
        cut = ", cut" if failure.truncated else ""
        lines.append(f"fed: {name} from party {failure.src_party!r}{cut}:")
        lines += [f"    {line}" for line in exposed.splitlines()]
    where = pointer(failure, party)
    return ErrorMessage("", (*lines, *([f"fed: {where}"] if where else [])))


def log_entry(error: BaseException, error_id: str = "") -> str:
    """What the log holds of an error: the record, and the whole traceback of the cause.

    Args:
        error: The error.
        error_id: The failure that the other parties were told of, where the error does not carry it.
    """
    failure = getattr(error, "failure", None)
    if not isinstance(failure, Failure):
        named = f"failure {error_id}: " if error_id else ""
        return f"{named}{type(error).__name__}: {text_of(error)}\n{_whole_traceback(error)}"
    lines = [f"failure {failure.error_id} [{failure.kind.value}]: {sentence(failure)}"]
    if failure.cause_types:
        lines.append(f"raised from: {', '.join(failure.cause_types)}")
    cause = _origin(error).__cause__
    if cause is not None:
        lines.append(_whole_traceback(cause))
    elif failure.traceback:
        lines.append(failure.traceback)
    elif failure.message and failure.message not in lines[0]:
        lines.append(failure.message)
    died = failure.kind in (Kind.WORKER_CRASHED, Kind.OUT_OF_MEMORY, Kind.ACTOR_DIED)
    if died and not isinstance(error, RemoteError):
        ray_logs = Path(os.environ.get("RAY_TMPDIR") or "/tmp") / "ray" / "session_latest" / "logs"  # noqa: S108 - Ray's
        lines.append(
            f"What the worker wrote is in Ray's own logs, as a rule in {ray_logs}; those of a cluster that was "
            "started for this run alone are removed at its end, unless RAY_TMPDIR names a directory"
        )
    return "\n".join(line.rstrip("\n") for line in lines)


def _origin(error: BaseException) -> BaseException:
    """The error of the failure itself, where this one only refuses a call, or interrupts, because of it."""
    return error.__cause__ if isinstance(error, JobAborted) and isinstance(error.__cause__, FailureError) else error


def _workers_traceback(error: BaseException) -> str:
    """The worker's own traceback, which ends with the exception; empty for an exception of this process."""
    origin = error.__cause__
    return origin.text.strip("\n") if isinstance(origin, RemoteTraceback) and error.__traceback__ is None else ""


def _whole_traceback(error: BaseException) -> str:
    # Formatted as a chain, the worker's would come twice.
    return _workers_traceback(error) or "".join(traceback.format_exception(error)).rstrip("\n")


def _users_traceback(cause: BaseException) -> str:
    """The traceback of a cause, without frames of Ray's and of this library's; empty if there are no others."""
    workers = _workers_traceback(cause)
    if workers:
        return workers + "\n"
    formatted = traceback.TracebackException.from_exception(cause)
    ray = getattr(sys.modules.get("ray"), "__file__", None)
    # Ray's compiled modules bear the paths of the machine where they were built.
    inner = (_PACKAGE, "python/ray/", *([str(Path(ray).parent) + os.sep] if ray else []))
    pending: list[traceback.TracebackException | None] = [formatted]
    users = False
    while pending:
        part = pending.pop()
        if part is not None:
            frames = [frame for frame in part.stack if not frame.filename.startswith(inner)]
            users = users or bool(frames)
            part.stack = traceback.StackSummary.from_list(frames)
            pending += [part.__cause__, part.__context__]
    return "".join(formatted.format()) if users else ""
