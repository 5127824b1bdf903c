"""W10, what TLS costs: the small loop and the payload, with mutual TLS and without, in turns.

Limit: the same without TLS. Targets: 1.1 times for the small loop, 1.35 times for the payload. Beside them stands what
TLS costs a plain gRPC stream, which has nothing to do but encrypt, carry and decrypt.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks.harness import Federation, Lab
from benchmarks.outcome import Case, Measurement, Outcome
from benchmarks.workloads import payload, small_loop, stream
from fed.transport.certificates import write_credentials

__all__ = ["full"]

LOOP_TARGET: Final = 1.1
PAYLOAD_TARGET: Final = 1.35
SIZES: Final = {16: (5, 10), 100: (3, 8), 400: (1, 6)}
"""MB: arrays in a block, pairs."""
STREAM_BYTES: Final = 256 << 20


def full(lab: Lab) -> Outcome:
    """Two federations on one cluster."""
    with (
        lab.shared_cluster() as cluster,
        lab.federation(cluster=cluster.variables, tls=True) as secure,
        lab.federation(cluster=cluster.variables, tls=False) as plain,
    ):

        def case(key: str, pairs: int, function: Callable[..., float], **arguments: Any) -> Case:
            ours, limit = (functools.partial(one.slowest, function, **arguments) for one in _both(secure, plain))
            return Case(key, ours, limit, pairs)

        loop = case("W10 small loop", 15, small_loop.federated, iterations=100)
        measurements = [Measurement(loop.key, loop.measure(), LOOP_TARGET)]
        for size, (arrays, pairs) in SIZES.items():
            found = case(f"W10 {size} MB", pairs, payload.federated, nbytes=size * 1_000_000, seeds=list(range(arrays)))
            measurements.append(Measurement(found.key, found.measure(), PAYLOAD_TARGET))
    stream_alone = _plain_stream(lab)
    measurements.append(Measurement(stream_alone.key, stream_alone.measure()))
    return Outcome(
        "W10",
        "the small loop, the payload and a plain gRPC stream with mutual TLS",
        "the same without TLS",
        tuple(measurements),
    )


def _plain_stream(lab: Lab) -> Case:
    with tempfile.TemporaryDirectory() as directory:
        # One name for both ends: whose certificate it is, a plain stream does not ask.
        config = write_credentials(Path(directory), ["alice"])["alice"]
        tls = {"ca": str(config.ca), "cert": str(config.cert), "key": str(config.key)}
        secure = int(lab.consumer.call(stream.listen_plain, tls=tls))
        plain = int(lab.consumer.call(stream.listen_plain))
        ours = functools.partial(lab.producer.call, stream.stream_plain, port=secure, nbytes=STREAM_BYTES, tls=tls)
        # While the credentials are there.
        ours()
    limit = functools.partial(lab.producer.call, stream.stream_plain, port=plain, nbytes=STREAM_BYTES)
    return Case("W10 a plain stream of 256 MiB", ours, limit, pairs=15)


def _both(secure: Federation, plain: Federation) -> tuple[Federation, Federation]:
    return secure, plain
