"""The direct channel within one process."""

from __future__ import annotations

import pytest
from typing_extensions import override

from fed.channel import ProxyEnd, Role
from fed.channel.memory import MemoryDriverEnd, MemoryProxyEnd
from tests.support.channels import *  # noqa: F403 - the suite
from tests.support.channels import Channel


class MemoryChannel(Channel):
    def __init__(self) -> None:
        self.driver: MemoryDriverEnd = MemoryDriverEnd("alice")

    @override
    def proxy(self, role: Role, boot_id: str | None = None) -> ProxyEnd:
        return MemoryProxyEnd(self.driver, role, boot_id)


@pytest.fixture
def channel() -> Channel:
    return MemoryChannel()
