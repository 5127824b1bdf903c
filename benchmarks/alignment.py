"""What the parties of a benchmark do together, whatever they measure. Runs in the parties."""

from __future__ import annotations

import fed

__all__ = ["align"]


@fed.remote
def _ready(*_: None) -> None:
    """Runs when its arguments are there."""


def align() -> None:
    """Wait until every party has come here."""
    here = [_ready.party(party).remote() for party in fed.parties()]
    fed.get([_ready.party(party).remote(*here) for party in fed.parties()])
