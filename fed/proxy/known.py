"""What a driver knows and a proxy of its does not that has been killed and lives again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from fed.core.failure import Failure

__all__ = ["Known"]


class Known(NamedTuple):
    """The state of a job, as far as its proxies have a use for it.

    Attributes:
        epoch: The current one.
        begun: Whether the job has begun, so that no driver of a peer may be started anew any more.
        incarnations: The life of each peer's driver that this party has joined.
        left: Peers of which nothing more is expected, and the failure because of which they left or are lost, if it was
            one.
    """

    epoch: int
    begun: bool
    incarnations: Mapping[str, str]
    left: Mapping[str, Failure | None]
