"""The runtime in this process keeps the contract of runtimes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fed.runtime.contract import Proxies, Runtime
from tests.support.runtimes import *  # noqa: F403 - the suite
from tests.support.runtimes import local_runtime, running


@pytest.fixture(scope="module")
def started() -> Iterator[tuple[Runtime, Proxies]]:
    yield from running(local_runtime())
