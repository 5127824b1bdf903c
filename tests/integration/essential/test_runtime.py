"""The runtime on Ray keeps the contract of runtimes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fed.runtime.contract import Proxies, Runtime
from tests.support.runtimes import *  # noqa: F403 - the suite
from tests.support.runtimes import ray_runtime, running


@pytest.fixture(scope="module")
def started(ray_cluster: object) -> Iterator[tuple[Runtime, Proxies]]:
    yield from running(ray_runtime())
