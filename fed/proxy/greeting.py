"""What two parties must agree on before they exchange anything, and the sentence that says what differs."""

from __future__ import annotations

from collections.abc import Sequence

from fed.transport.contract import Hello

__all__ = ["disagreement"]


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
            return (
                f"different {what}: party {theirs.party!r} has {_names(others)}, party {mine.party!r} has "
                f"{_names(ours)}; give all parties the same ones"
            )
    return None


def _names(names: Sequence[str]) -> str:
    return ", ".join(names) if names else "none"
