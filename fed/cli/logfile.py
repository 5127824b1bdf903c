"""The log file of one party: what the terminal is spared, for whoever has to find out.

Everything that the library logs goes there, and the full traceback of every failure that began in this party, under
the failure's id, which is what the other parties are told. It holds what stays in the party, so nobody else may read
it. Runs are appended one after the other, each after a line that names it; the oldest go first.

Times are in UTC, so that the logs of parties in different places can be laid side by side.
"""

from __future__ import annotations

import copy
import errno
import logging
import os
import platform
import re
import stat
import sys
import time
from collections.abc import Mapping
from importlib.metadata import version
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final

from fed.cli.error_message import log_entry
from fed.cli.reports import RUN_LOG_DIR_VARIABLE, report_of
from fed.config import LOG_DIR_VARIABLE
from fed.errors import FailureError
from fed.text import indented, plain

__all__ = ["LogFile", "log_directory"]

MAX_BYTES: Final = 10_000_000
OLD_FILES: Final = 2
OWNER_ONLY: Final = 0o600


def log_directory(environ: Mapping[str, str], job: str) -> Path:
    """Where logs go: what was asked for, else a place of the user's own.

    Args:
        environ: The process's environment.
        job: The script's name, which tells one program's logs from another's.
    """
    asked = environ.get(RUN_LOG_DIR_VARIABLE) or environ.get(LOG_DIR_VARIABLE)
    if asked:
        return Path(asked).absolute()
    state = environ.get("XDG_STATE_HOME", "")
    # Its specification says to ignore a relative one.
    base = Path(state) if state.startswith("/") else Path("~/.local/state").expanduser()
    return base / "fedray" / job


class LogFile(RotatingFileHandler):
    """Writes a party's log.

    A log that cannot be written any more, on a full disk for example, is given up with one warning.

    Args:
        directory: Where; it is made if it is not there.
        party: Whose; the file is named after it.

    Raises:
        OSError: The directory or the file cannot be made, or is not this user's.
    """

    def __init__(self, directory: Path, party: str) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = re.sub(r"[^A-Za-z0-9_.-]+", "-", party) or "driver"
        self.path = directory / f"{name}.log"
        self._party = party
        self._logged: set[str] = set()
        self._reported: dict[str, str] = {}
        super().__init__(
            self.path, maxBytes=MAX_BYTES, backupCount=OLD_FILES, encoding="utf-8", errors="backslashreplace"
        )
        formatter = _Indented("%(asctime)s.%(msecs)03dZ %(process)d %(levelname)s %(name)s: %(message)s")
        formatter.datefmt = "%Y-%m-%dT%H:%M:%S"
        formatter.converter = time.gmtime
        self.setFormatter(formatter)

    def begin(self, job: str, script: str) -> None:
        """Write the line that a run begins with."""
        self.say(
            f"---- job {job}, party {self._party}: {script}, fedray {version('fedray')}, "
            f"Python {platform.python_version()}, {sys.platform}"
        )

    def say(self, text: str, level: int = logging.INFO) -> None:
        """Write something that is for the log alone."""
        self.handle(logging.LogRecord("fed.cli", level, __file__, 0, text, None, None))

    def log_error(self, error: BaseException) -> None:
        """Write an error with all that is known of it, unless its failure has been written already."""
        error_id = str(getattr(getattr(error, "failure", None), "error_id", ""))
        # The library reports a failure when it happens, and the script may end with the same one.
        if error_id in self._logged:
            return
        if error_id:
            self._logged.add(error_id)
        self.say(log_entry(error, self._reported.get(type(error).__name__, "")), logging.ERROR)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, and the failure that it reports."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, FailureError):
            # Written as a failure below, not as the exception that stands for it. The record is other handlers' too.
            record = copy.copy(record)
            record.exc_info = record.exc_text = None
        super().emit(record)
        report = report_of(record)
        if report is not None and report.event == "failed" and report.detail.get("src_party") == self._party:
            # The peers are told this id, also where the error is the script's own and does not carry it.
            name = report.detail.get("type") or str(report.detail.get("root")).partition(" ")[0]
            self._reported.setdefault(str(name), str(report.detail.get("error_id") or ""))
        if isinstance(error, FailureError):
            try:
                self.log_error(error)
            except Exception:  # noqa: BLE001 - as every handler does: whoever logs is not to suffer for it
                self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - its name in the standard library
        """Give the log up where the file is the reason."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        logging.getLogger("fed").removeHandler(self)
        self.addFilter(lambda _: False)
        print(f"fed: warning: the log {self.path} cannot be written any more: {error}", file=sys.stderr)

    def _open(self) -> TextIOWrapper:
        # A file object that ends up as this handler's stream, which is closed with it.
        raw = open(self.baseFilename, "ab", opener=_open_privately)  # noqa: SIM115 - pathlib takes no opener
        return TextIOWrapper(raw, encoding=self.encoding, errors=self.errors)


class _Indented(logging.Formatter):
    """One record, whose further lines cannot be taken for records."""

    def format(self, record: logging.LogRecord) -> str:
        """As the standard library does, plain, and indented from the second line on."""
        return indented(plain(super().format(record), lines=True))


def _open_privately(path: str, flags: int) -> int:
    # Not to wait for a reader, should somebody have put a pipe there.
    # Nor to follow a link, which somebody may have planted to have another file of this user's written to.
    try:
        descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW, OWNER_ONLY)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(f"{path} is a symbolic link: remove it") from error
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"{path} is not a file")
        if status.st_uid != os.geteuid():
            raise OSError(f"{path} belongs to another user, who could read what is written to it")
        os.fchmod(descriptor, OWNER_ONLY)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
