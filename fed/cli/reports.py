"""What ``fed run`` and its drivers tell one another: variables on the way there, reports on the way back.

A report is one JSON object per line, on a pipe of its own. The job reports by logging: a record of the logger ``fed``
with the attributes ``fed_event`` and ``fed_detail``. So the job knows of no command line, and the driver only forwards.

===========  ===============================================  =================================================
event        detail                                           meaning
===========  ===============================================  =================================================
``waiting``  ``{"for": ["bob", "carol"]}``                    `fed.init` waits for these parties
``joined``   ``{}``                                           every party is ready
``failed``   ``{"root": "...", "src_party": "alice",          the job failed, and this is why. What follows
             "error_id": "...", "kind": "TASK",               ``src_party`` may be missing. ``text`` is what the
             "type": "ValueError", "text": "..."}``           driver is told, if the record has it as ``exc_info``
===========  ===============================================  =================================================

The driver itself adds these:

===========  ===============================================  =================================================
``log``      ``{"path": "/.../alice.log"}``                   where this party's log is
``died``     ``{"type": "ValueError", "text": "...",          the script ends with this error. ``text`` is a
             "traceback": true}``                             sentence of fed's, or empty; ``traceback``: whether
                                                              one has been shown
===========  ===============================================  =================================================
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from collections.abc import Mapping
from typing import Any, Final

from fed.errors import FedError

__all__ = ["Report", "ReportHandler", "decode", "encode", "report_of"]

LIFELINE_VARIABLE: Final = "FED_RUN_LIFELINE_FD"
REPORTS_VARIABLE: Final = "FED_RUN_STATUS_FD"
RUN_LOG_DIR_VARIABLE: Final = "FED_RUN_LOG_DIR"
DIRECTORY_VARIABLE: Final = "FED_RUN_DIRECTORY"
DIRECTORY_PREFIX: Final = "fed-run-"
"""The directory of a simulation's private keys: whoever is left last removes it."""


@dataclasses.dataclass(frozen=True)
class Report:
    """Something that a driver reports. Events that are not in the table above are allowed and ignored."""

    event: str
    detail: Mapping[str, Any]


def report_of(record: logging.LogRecord) -> Report | None:
    """The report that a log record carries; None: it is an ordinary one."""
    event, detail = getattr(record, "fed_event", None), getattr(record, "fed_detail", None)
    if not isinstance(event, str):
        return None
    known = dict(detail) if isinstance(detail, Mapping) else {}
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, FedError):
        known.setdefault("text", str(error))
    return Report(event, known)


def encode(report: Report) -> bytes:
    """One line."""
    return json.dumps({"event": report.event, "detail": dict(report.detail)}, default=str).encode() + b"\n"


def decode(line: bytes) -> Report:
    """The report of one line.

    Raises:
        ValueError: It is not one.
    """
    content = json.loads(line)
    if not isinstance(content, dict) or not isinstance(content.get("event"), str):
        raise ValueError("not a report")
    detail = content.get("detail")
    return Report(content["event"], detail if isinstance(detail, dict) else {})


class ReportHandler(logging.Handler):
    """Forwards reports to a descriptor, the writing end of a pipe, which it does not close."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record's report, if it carries one."""
        report = report_of(record)
        if report is not None:
            self.send(report)

    def send(self, report: Report) -> None:
        """Write a report that no log record carries."""
        try:
            os.write(self._descriptor, encode(report))
        except BrokenPipeError:
            # The command is gone, and so is everybody who could hear it; the lifeline ends this process.
            return
