"""A large object through the real proxies."""

from __future__ import annotations

from tests.support.drivers import Start
from tests.support.payload import carry


def test_an_object_of_many_chunks_crosses_whole(federation: Start) -> None:
    carry(federation, 50_000_000, within_s=60)
