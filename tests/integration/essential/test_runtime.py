"""The runtime on Ray keeps the contract of runtimes."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterator

import pytest

from fed.channel import ChannelError
from fed.channel.socket_driver import SocketDriverEnd
from fed.errors import ConfigError
from fed.runtime.contract import Proxies, Runtime
from tests.support.runtimes import *  # noqa: F403 - the suite
from tests.support.runtimes import ray_runtime, running


@pytest.fixture(scope="module")
def started(ray_cluster: object) -> Iterator[tuple[Runtime, Proxies]]:
    yield from running(ray_runtime())


@pytest.mark.usefixtures("ray_cluster")
def test_a_channel_that_cannot_be_opened_is_said_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: object, __: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(SocketDriverEnd, "start", full)
    with pytest.raises(ConfigError, match=r"cannot make the socket that the proxies connect to: .*No space left"):
        ray_runtime().start()


class Unreachable:
    """Serves a proxy that does not reach its driver."""

    async def reach(self, within_s: float) -> None:
        raise ChannelError(f"not within {within_s:g} s")


@pytest.mark.parametrize(("closed", "said"), [(False, "not within 10 s"), (True, None)])
def test_a_proxy_that_does_not_reach_its_driver_ends_with_the_sentence_that_says_so_unless_it_is_closed(
    closed: bool, said: str | None
) -> None:
    """Ray makes the actors; here their constructors, which need a cluster, are left out."""
    from fed.runtime.ray_proxies import FedReceiver, FedSender

    async def ends() -> list[str | None]:
        sender, receiver = object.__new__(FedSender), object.__new__(FedReceiver)
        sender._server = receiver._server = Unreachable()  # type: ignore[assignment]
        sender._closed = receiver._closed = asyncio.Event()
        if closed:
            sender._closed.set()
        receiver._start = asyncio.ensure_future(receiver._listen(0.0))
        return list(await asyncio.gather(sender.ended(), receiver.ended()))

    assert asyncio.run(ends()) == [said] * 2
