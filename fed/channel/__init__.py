"""The direct channel between a party's driver and its two proxies."""

from fed.channel.contract import (
    MAX_FRAME_BYTES,
    ChannelError,
    Connection,
    DriverEnd,
    DriverHandler,
    Lane,
    ProxyEnd,
    ProxyHandler,
    Role,
)
from fed.channel.routing import ByLane, ByRole

__all__ = [
    "MAX_FRAME_BYTES",
    "ByLane",
    "ByRole",
    "ChannelError",
    "Connection",
    "DriverEnd",
    "DriverHandler",
    "Lane",
    "ProxyEnd",
    "ProxyHandler",
    "Role",
]
