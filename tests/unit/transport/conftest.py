from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from fed.config import TLSConfig
from fed.transport.certificates import Authority, write_credentials
from tests.support.worlds import PARTIES, GrpcWorld, MemoryWorld, World


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="session")
def credentials(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, TLSConfig]:
    directory: Path = tmp_path_factory.mktemp("credentials")
    return write_credentials(directory, PARTIES, authority=authority)


@pytest.fixture(params=["memory", "grpc", "grpc-mtls"])
def make_world(request: pytest.FixtureRequest, credentials: Mapping[str, TLSConfig]) -> Callable[[], World]:
    """A new world of each kind. To be called inside of the running event loop."""
    if request.param == "memory":
        return MemoryWorld
    if request.param == "grpc":
        return lambda: GrpcWorld({})
    return lambda: GrpcWorld(credentials)
