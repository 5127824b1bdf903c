"""What a failed simulation comes down to: which party's failure was the root, and which parties merely followed.

Laws:

1. The root is the failure that most parties name; among equals, the one that was named first. The party where it
   began describes it, since it knows most.
2. If no party names one, the party that failed first is the root itself.
3. That programs differ is no party's own failure: it has a record of the one that noticed, and that one is not named.
4. Every party has one row, or shares one with those that ended in the same way.

Pure: made of what the parties reported (see `fed.cli.reports`) and of their exit codes.
"""

from __future__ import annotations

import dataclasses
import signal
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from fed.cli.reports import Report
from fed.core.failure import Kind
from fed.text import plain

__all__ = ["Row", "Summary"]

ROOT: Final = "root cause"
MAX_CHARS: Final = 300
"""Of a message that a task's exception carries; all of it has been shown, or is in the log."""

MAX_LABEL_CHARS: Final = 24

_SIGNAL_NAMES: Final = {128 + number: number.name for number in signal.Signals}
"""By the exit code that stands for each."""


@dataclasses.dataclass(frozen=True)
class Row:
    """A label and what is said beside it. `parties` are those that the label names, if it does."""

    label: str
    parties: tuple[str, ...]
    lines: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class _Root:
    """The failure that a party names."""

    key: str
    source: str
    type_name: str
    text: str
    mutual: bool

    @classmethod
    def of(cls, detail: Mapping[str, Any]) -> _Root:
        noted_by, root = str(detail.get("src_party") or ""), str(detail.get("root") or "")
        mutual = detail.get("kind") == Kind.DIVERGED.value
        return cls(
            # Texts differ between the parties, as not all may know all; without an id, the place has to do.
            key=str(detail.get("error_id") or noted_by),
            source="" if mutual else noted_by,
            # Where it is not given, it is the word that a failure's text begins with.
            type_name=str(detail.get("type") or root.partition(" ")[0]),
            text=_first_line(str(detail.get("text") or root)),
            mutual=mutual,
        )


class Summary:
    """Collects the reports of the parties, and says in the end what they come to."""

    def __init__(self, parties: Sequence[str]) -> None:
        self._parties = tuple(parties)
        self._roots: dict[str, _Root] = {}
        self._deaths: dict[str, Mapping[str, Any]] = {}
        self._logs: dict[str, str] = {}

    def add(self, party: str, report: Report) -> None:
        """Take a report. A second failure of a party is not the reason of its end."""
        if report.event == "failed":
            self._roots.setdefault(party, _Root.of(report.detail))
        elif report.event == "died":
            self._deaths.setdefault(party, report.detail)
        elif report.event == "log":
            self._logs[party] = str(report.detail.get("path") or "")

    @property
    def source(self) -> str | None:
        """The party where it began, as the parties say; None if they say nothing."""
        root = self._root()
        return root.source if root is not None and root.source in self._parties else None

    def title(self, codes: Mapping[str, int], signalled: frozenset[str], first_failed: str) -> str:
        """How many failed, and where it began. The arguments are those of `rows`."""
        root = self._root()
        failed = [party for party, code in codes.items() if code and party not in signalled]
        mutual = root is not None and root.mutual
        began = "their programs differ" if mutual else f"it began in {self.source or first_failed}"
        return f"{len(failed)} of {len(self._parties)} parties failed, {began}"

    def rows(self, codes: Mapping[str, int], signalled: frozenset[str], first_failed: str) -> list[Row]:
        """The root cause, and what became of each party.

        Args:
            codes: The exit codes; those of a signal are 128 and its number.
            signalled: The parties that were told to end.
            first_failed: The party that failed first.
        """
        root = self._root()
        source = self.source if root is not None else first_failed
        text = root.text if root is not None and root.text else self._own_end(first_failed, codes[first_failed])
        rows = [Row(ROOT, (), (text,))]
        if source is not None:
            rows.append(Row(source, (source,), self._at_source(source, codes[source], source in signalled, root)))
        grouped: dict[str, list[str]] = {}
        for party in self._parties:
            if party != source:
                how = self._elsewhere(party, codes[party], party in signalled, root)
                grouped.setdefault(how, []).append(party)
        for how, parties in grouped.items():
            label = ", ".join(parties)
            if len(label) > MAX_LABEL_CHARS and len(parties) > 1:
                rows.append(Row(f"{len(parties)} parties", (), (how, label)))
            else:
                rows.append(Row(label, tuple(parties), (how,)))
        return rows

    def _root(self) -> _Root | None:
        if not self._roots:
            return None
        key = Counter(root.key for root in self._roots.values()).most_common(1)[0][0]
        named = {party: root for party, root in self._roots.items() if root.key == key}
        first = next(iter(named.values()))
        return named.get(first.source, first)

    def _at_source(self, party: str, code: int, signalled: bool, root: _Root | None) -> tuple[str, ...]:
        death = self._deaths.get(party, {})
        log = self._logs.get(party)
        logged = (f"log: {log}",) if log else ()
        if signalled:
            how = f"failed here, and was told to end ({_exit(code)})"
        elif death.get("type") == "KeyboardInterrupt":
            how = f"was interrupted ({_exit(code)})"
        elif death.get("type") == "SystemExit" and (root is None or root.type_name == "SystemExit"):
            # Not where its program merely says by it that it has seen a failure.
            how = f"left here ({_exit(code)})"
        elif death.get("traceback"):
            how = f"failed here ({_exit(code)}): its own traceback is above"
        elif death or party in self._roots:
            how = f"failed here ({_exit(code)})"
        else:
            how = _silent(code)
        return (how, *logged)

    def _elsewhere(self, party: str, code: int, signalled: bool, root: _Root | None) -> str:
        named = self._roots.get(party)
        if signalled:
            return f"still running, told to end ({_exit(code)})"
        if named is not None and root is not None and named.key != root.key:
            return f"named another root ({_exit(code)}): {named.text}"
        if code == 0:
            return "ended well"
        if named is not None and root is not None:
            if root.mutual:
                return f"failed ({_exit(code)})"
            return f"followed ({_exit(code)})" + (f": told by {root.source}" if root.source else "")
        death = self._deaths.get(party)
        if death is None:
            return _silent(code)
        if death.get("type") == "SystemExit":
            return f"its program called sys.exit ({_exit(code)})"
        if death.get("type") == "KeyboardInterrupt":
            return f"was interrupted ({_exit(code)})"
        text = _first_line(str(death.get("text") or "")) or f"its program raised {death.get('type')}"
        return f"failed as well ({_exit(code)}): {text}"

    def _own_end(self, party: str, code: int) -> str:
        """The root cause where no party names one: how the first one ended."""
        death = self._deaths.get(party)
        if death is None:
            return f"party {party!r} {_silent(code)}"
        if death.get("type") == "SystemExit":
            return f"the program of party {party!r} called sys.exit"
        if death.get("type") == "KeyboardInterrupt":
            return f"party {party!r} was interrupted"
        return _first_line(str(death.get("text") or "")) or f"{death.get('type')} in the program of party {party!r}"


def _exit(code: int) -> str:
    name = _SIGNAL_NAMES.get(code)
    return f"exit {code}, {name}" if name else f"exit {code}"


def _silent(code: int) -> str:
    """How a process ended that could report nothing."""
    if code == 0:
        return "ended well"
    name = _SIGNAL_NAMES.get(code)
    died = f"died of signal {code - 128} ({name})" if name else f"died with exit code {code}"
    return f"{died}, said nothing"


def _first_line(text: str) -> str:
    line = next(iter(plain(text, lines=True).strip().splitlines()), "")
    return line if len(line) <= MAX_CHARS else line[: MAX_CHARS - 1] + "…"
