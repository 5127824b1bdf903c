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

__all__ = [
    "MAX_FRAME_BYTES",
    "ChannelError",
    "Connection",
    "DriverEnd",
    "DriverHandler",
    "Lane",
    "ProxyEnd",
    "ProxyHandler",
    "Role",
]
