"""Both ends of the direct channel, each put together of what serves its lanes."""

from __future__ import annotations

from fed.channel import ByLane, ByRole, DriverEnd, Lane, ProxyEnd, Role
from fed.proxy.arriving import ArrivalClient, ArrivalServer
from fed.proxy.control import ControlClient, ControlServer, Snapshot
from fed.proxy.pushing import PushClient, PushServer
from fed.proxy.receiver import Receiver
from fed.proxy.sender import Sender

__all__ = ["DirectClients", "DirectServer", "serve_receiver", "serve_sender"]


class DirectClients:
    """The driver's ends.

    Attributes:
        pushes: Small values, to the sender.
        arrivals: What arrives, from the receiver.
        sender: What else there is to say to the sender.
        receiver: Likewise to the receiver.
    """

    def __init__(self) -> None:
        self.pushes = PushClient()
        self.arrivals = ArrivalClient()
        self.sender = ControlClient()
        self.receiver = ControlClient()

    def start(self, end: DriverEnd) -> None:
        """Let the proxies connect.

        Raises:
            OSError: That cannot be done here.
        """
        end.start(
            ByRole(
                {
                    (Role.SENDER, Lane.DATA): self.pushes,
                    (Role.SENDER, Lane.CONTROL): self.sender,
                    (Role.RECEIVER, Lane.DATA): self.arrivals,
                    (Role.RECEIVER, Lane.CONTROL): self.receiver,
                }
            )
        )

    def publish(self, snapshot: Snapshot) -> None:
        """Let both proxies know the state of the job. Never blocks."""
        self.sender.publish(snapshot)
        self.receiver.publish(snapshot)
        self.arrivals.reset(snapshot.epoch)


class DirectServer:
    """A proxy and its end.

    Args:
        end: The channel.
        proxy: The proxy.
        data: What serves lane DATA.
        control: What serves lane CONTROL.
    """

    def __init__(
        self, end: ProxyEnd, proxy: Sender | Receiver, data: PushServer | ArrivalServer, control: ControlServer
    ) -> None:
        self._end = end
        self._proxy = proxy
        self._data = data
        self._control = control
        end.start(ByLane({Lane.DATA: data, Lane.CONTROL: control}))

    async def reach(self, within_s: float) -> None:
        """See `fed.proxy.control.ControlServer.reach`."""
        await self._control.reach(within_s)

    async def close(self) -> None:
        """End the channel and the proxy, and what is under way."""
        # In this order: what the end of the proxy lets go is not answered, or the driver would take it for done.
        await self._end.close()
        await self._proxy.close()
        await self._control.close()
        await self._data.close()


def serve_sender(end: ProxyEnd, sender: Sender) -> DirectServer:
    """Let a driver use a sender."""
    control = ControlServer(end, sender.events, sender.learn, send=sender.tell)
    end.orphaned = sender.orphaned
    return DirectServer(end, sender, PushServer(end, sender.push), control)


def serve_receiver(end: ProxyEnd, receiver: Receiver) -> DirectServer:
    """Let a driver use a receiver."""
    arrivals = ArrivalServer(end, receiver)
    receiver.attach(arrivals.deliver)
    control = ControlServer(end, receiver.events, receiver.learn, suspect=receiver.suspect)
    return DirectServer(end, receiver, arrivals, control)
