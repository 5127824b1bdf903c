"""What a person is told of an error that ends a script: short in the terminal, in full in the log.

In the party where it happened, the user's own traceback comes first and nothing of Ray's or of this library's is in
it; then one line that names the failure, and where the log is. In the other parties there is that line, where to see
more, and what the other party exposes. Text that another party wrote is shown without control characters, which
could redraw the terminal.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import traceback
from pathlib import Path
from typing import Final

from fed.core.failure import Exposure, Failure, Kind
from fed.engine.exceptions import RemoteTraceback, pointer, sentence
from fed.errors import FailureError, FedError, JobAborted, RemoteError
from fed.runtime.body import text_of

__all__ = ["Account", "account_of", "entry"]

_PACKAGE: Final = str(Path(__file__).parents[1]) + os.sep


@dataclasses.dataclass(frozen=True)
class Account:
    """What the terminal shows.

    Attributes:
        traceback: The user's own, with its lines' ends; empty if there is none.
        lines: What follows it.
    """

    traceback: str
    lines: tuple[str, ...]


def account_of(error: FedError, party: str, place: str = "", log: Path | None = None) -> Account:
    """What to show of an error that a script died of.

    Args:
        error: The error.
        party: This party; empty if that is not known.
        place: File and line of the script that the error went through last.
        log: This party's log.
    """
    failure = error.failure if isinstance(error, FailureError) and isinstance(error.failure, Failure) else None
    if failure is None:
        shown = _users_traceback(error.__cause__) if isinstance(error, FailureError) and error.__cause__ else ""
        return Account(shown, (f"fed: error: {error}{f' ({place})' if place else ''}",))
    tags = ", ".join(text for text in (failure.kind.value, place) if text)
    refused = isinstance(error, JobAborted)
    origin = _origin(error)
    if not isinstance(origin, RemoteError) and (not party or failure.src_party == party):
        cause = origin.__cause__
        shown = _users_traceback(cause) if cause is not None and failure.kind is Kind.TASK else ""
        # The traceback ends with the message.
        text = sentence(failure.redacted(Exposure.TYPE), party) if shown and not refused else str(error)
        first, *rest = text.splitlines() or [""]
        # What has many lines is as a rule Ray's. The log has all of it; of programs that differ it has no more.
        logged = log is not None and failure.kind is not Kind.DIVERGED
        # These are indented already.
        below = [f"fed: log: {log}"] if logged else [line for line in rest if line.strip()]
        return Account(shown, (f"fed: error: {first.rstrip(' :')} [{tags}]", *below))
    exposed = failure.traceback or (failure.message if "\n" in failure.message else "")
    # One line names the failure. What the message has beyond its first line is shown below.
    text, *_ = (str(error) if refused else sentence(failure, party)).splitlines() or [""]
    lines = [f"fed: error: {text} [{tags}]"]
    if exposed:
        name = "traceback" if failure.traceback else "message"
        cut = ", cut" if failure.truncated else ""
        lines.append(f"fed: {name} from party {failure.src_party!r}{cut}:")
        lines += [f"    {line}" for line in exposed.splitlines()]
    where = pointer(failure, party)
    return Account("", (*lines, *([f"fed: {where}"] if where else [])))


def entry(error: BaseException, error_id: str = "") -> str:
    """What the log holds of an error: the record, and the whole traceback of the cause.

    Args:
        error: The error.
        error_id: The failure that the other parties were told of, where the error does not carry it.
    """
    failure = getattr(error, "failure", None)
    if not isinstance(failure, Failure):
        named = f"failure {error_id}: " if error_id else ""
        return named + f"{type(error).__name__}: {text_of(error)}\n{_full(error)}"
    lines = [f"failure {failure.error_id} [{failure.kind.value}]: {sentence(failure)}"]
    if failure.cause_types:
        lines.append(f"raised from: {', '.join(failure.cause_types)}")
    cause = _origin(error).__cause__
    if cause is not None:
        lines.append(_full(cause))
    elif failure.traceback:
        lines.append(failure.traceback)
    elif failure.message and failure.message not in lines[0]:
        lines.append(failure.message)
    if failure.kind in (Kind.WORKER_CRASHED, Kind.OUT_OF_MEMORY, Kind.ACTOR_DIED) and not isinstance(
        error, RemoteError
    ):
        lines.append(
            f"What the worker wrote is in Ray's own logs, as a rule in {_ray_logs()}; those of a cluster that was "
            "started for this run alone are removed at its end, unless RAY_TMPDIR names a directory"
        )
    return "\n".join(line.rstrip("\n") for line in lines)


def _origin(error: BaseException) -> BaseException:
    """The error of the failure itself, where this one only refuses a call, or interrupts, because of it."""
    return error.__cause__ if isinstance(error, JobAborted) and isinstance(error.__cause__, FailureError) else error


def _ray_logs() -> Path:
    return Path(os.environ.get("RAY_TMPDIR") or "/tmp") / "ray" / "session_latest" / "logs"  # noqa: S108 - Ray's default


def _full(error: BaseException) -> str:
    origin = error.__cause__
    if isinstance(origin, RemoteTraceback) and error.__traceback__ is None:
        # The worker's own traceback, which ends with the exception; formatted as a chain, that would come twice.
        return origin.text.strip("\n")
    return "".join(traceback.format_exception(error)).rstrip("\n")


def _users_traceback(cause: BaseException) -> str:
    """The traceback of a cause, without frames of Ray's and of this library's; empty if there are no others."""
    origin = cause.__cause__
    if isinstance(origin, RemoteTraceback) and cause.__traceback__ is None:
        return origin.text.strip("\n") + "\n"
    formatted = traceback.TracebackException.from_exception(cause)
    ray = getattr(sys.modules.get("ray"), "__file__", None)
    # Ray's compiled modules bear the paths of the machine where they were built.
    inner = (_PACKAGE, "python/ray/", *([str(Path(ray).parent) + os.sep] if ray else []))
    pending: list[traceback.TracebackException | None] = [formatted]
    users = False
    while pending:
        one = pending.pop()
        if one is not None:
            frames = [frame for frame in one.stack if not frame.filename.startswith(inner)]
            users = users or bool(frames)
            one.stack = traceback.StackSummary.from_list(frames)
            pending += [one.__cause__, one.__context__]
    return "".join(formatted.format()) if users else ""
