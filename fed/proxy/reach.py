"""Whether a proxy has reached its driver over the direct channel."""

from __future__ import annotations

import asyncio

from fed.channel import ChannelError, Role

__all__ = ["Reach"]


class Reach:
    """Resolves when a proxy has reached its driver for the first time. Belongs to the proxy's event loop.

    Args:
        role: Which proxy.
    """

    def __init__(self, role: Role) -> None:
        self._role = role
        self._reached = asyncio.Event()

    def reached(self) -> None:
        """The driver is there."""
        self._reached.set()

    async def wait(self, within_s: float) -> None:
        """Wait until the driver is there.

        Raises:
            ChannelError: It was not in time.
        """
        try:
            await asyncio.wait_for(self._reached.wait(), within_s)
        except asyncio.TimeoutError:
            raise ChannelError(
                f"the {self._role.name.lower()} proxy could not reach its driver within {within_s:g} s: if they are on "
                "two nodes of the cluster, let these reach one another's ports"
            ) from None
