"""What two parties must agree on before they exchange anything, and the sentence that says what differs."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from typing import Final

from fed.config import Config, declared_name
from fed.errors import ConfigError
from fed.serde.declared import declare
from fed.transport.contract import MAX_GREETING_BYTES, PROTOCOL_VERSION, Hello

__all__ = ["disagreement", "hello_of"]

MAX_NAMED: Final = 5


def hello_of(config: Config, incarnation: str) -> Hello:
    """How a party greets the others.

    Raises:
        ConfigError: It declares more than fits into a greeting, or what cannot be declared.
    """
    try:
        declare(config.types)
    except (TypeError, ValueError) as error:
        raise ConfigError(str(error)) from error
    types = tuple(sorted(map(declared_name, config.types)))
    exceptions = tuple(sorted(declared.__name__ for declared in config.exceptions))
    # Each name takes up to three bytes more, and what else is in a greeting less than a kilobyte.
    names = (*types, *exceptions, *config.parties)
    nbytes = sum(len(name.encode("utf-8", "replace")) + 3 for name in names)
    if nbytes > MAX_GREETING_BYTES - 1024:
        raise ConfigError(
            f"the names of {len(types)} types and {len(exceptions)} exceptions take {nbytes} bytes, and a greeting has "
            f"room for {MAX_GREETING_BYTES - 1024}: declare fewer (options types and exceptions)"
        )
    return Hello(
        protocol=PROTOCOL_VERSION,
        version=importlib.metadata.version("fedray"),
        job=config.job,
        party=config.party,
        incarnation=incarnation,
        parties=config.parties,
        types=types,
        exceptions=exceptions,
    )


def disagreement(mine: Hello, theirs: Hello) -> str | None:
    """The first thing that differs between two greetings, as a sentence for both sides; None if they agree.

    The sentence names each side by its party, because both of them will read it.
    """
    if mine.protocol != theirs.protocol:
        return (
            f"incompatible protocol version: party {theirs.party!r} speaks {theirs.protocol} "
            f"(fedray {theirs.version}), party {mine.party!r} speaks {mine.protocol} (fedray {mine.version}); "
            "install the same release everywhere"
        )
    if mine.job != theirs.job:
        return (
            f"different job names: party {theirs.party!r} runs {theirs.job!r}, "
            f"party {mine.party!r} runs {mine.job!r}; give all parties the same job"
        )
    for what, ours, others in (
        ("parties", mine.parties, theirs.parties),
        ("declared types", mine.types, theirs.types),
        ("declared exceptions", mine.exceptions, theirs.exceptions),
    ):
        if ours != others:
            more = _more(theirs.party, others, mine.party, ours), _more(mine.party, ours, theirs.party, others)
            differing = "; ".join(filter(None, more)) or "the same names in another order, or twice"
            return f"different {what}: {differing}; give all parties the same ones"
    return None


def _more(party: str, names: Sequence[str], other: str, others: Sequence[str]) -> str:
    """What one has and the other has not, a few of it and quoted: one of them is a peer, and may name anything."""
    known = frozenset(others)
    more = [name for name in names if name not in known]
    if not more:
        return ""
    rest = f" and {len(more) - MAX_NAMED} more" if len(more) > MAX_NAMED else ""
    return f"party {party!r} has {', '.join(map(repr, more[:MAX_NAMED]))}{rest}, which party {other!r} lacks"
