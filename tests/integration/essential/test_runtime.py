"""The runtime on Ray keeps the contract of runtimes."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from fed.channel.sockets import SocketDriverEnd
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
