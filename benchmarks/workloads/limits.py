"""What the machine gives: the limits that no workload is compared with by itself.

Copies within a process, a call and a stream between two processes, an actor call in Ray.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from typing import Any, Final

import numpy as np

from benchmarks.harness import Lab
from benchmarks.outcome import Outcome, Reading
from benchmarks.statistics import spread

__all__ = ["actor_calls", "copy", "full", "socket_stream", "unary_calls"]

REPEATS: Final = 10
COPY_BYTES: Final = 256 << 20
SOCKET_BYTES: Final = 512 << 20


def copy(*, fresh: bool) -> float:
    """Seconds to copy a gigabyte, into memory that was used before or into fresh pages."""
    source = np.ones(COPY_BYTES, dtype=np.uint8)
    target = np.empty_like(source)
    if not fresh:
        target[:] = 0
    began = time.perf_counter()
    np.copyto(target, source)
    took = time.perf_counter() - began
    if target[-1] != 1:
        raise RuntimeError("nothing was copied")
    return took / (COPY_BYTES / 1e9)


def socket_stream() -> float:
    """Seconds for a gigabyte over a TCP connection on loopback, from one thread to another."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        chunk = bytes(1 << 20)
        took = [0, 0.0]

        def receive() -> None:
            connection, _ = server.accept()
            with connection:
                buffer = bytearray(1 << 20)
                began = time.perf_counter()
                while count := connection.recv_into(buffer):
                    took[0] += count
                took[1] = time.perf_counter() - began

        thread = threading.Thread(target=receive)
        thread.start()
        with socket.create_connection(server.getsockname()) as connection:
            for _ in range(SOCKET_BYTES // len(chunk)):
                connection.sendall(chunk)
        thread.join()
    if took[0] != SOCKET_BYTES:
        raise RuntimeError(f"{took[0]} of {SOCKET_BYTES} bytes arrived")
    return took[1] / (SOCKET_BYTES / 1e9)


def unary_calls(count: int) -> float:
    """Seconds for a unary gRPC call of 100 bytes on loopback, one after another, both ends in this process."""
    import grpc
    import grpc.aio

    async def answer(request: bytes, _: Any) -> bytes:
        return request

    async def calls() -> float:
        server = grpc.aio.server()
        handlers = {"Echo": grpc.unary_unary_rpc_method_handler(answer)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("limits", handlers),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            echo, request = channel.unary_unary("/limits/Echo"), bytes(range(100))
            await echo(request)
            began = time.perf_counter()
            for _ in range(count):
                if await echo(request) != request:
                    raise RuntimeError("the echo is another one")
            took = time.perf_counter() - began
        await server.stop(None)
        return took / count

    return asyncio.run(calls())


class Echo:
    """An actor."""

    def echo(self, value: int) -> int:
        """The same."""
        return value


def actor_calls(count: int) -> float:
    """Seconds for a call of a Ray actor, one after another."""
    import ray

    actor = ray.remote(Echo).options(num_cpus=0).remote()
    ray.get(actor.echo.remote(0))
    began = time.perf_counter()
    for number in range(count):
        if ray.get(actor.echo.remote(number)) != number:
            raise RuntimeError("the echo is another one")
    return (time.perf_counter() - began) / count


def full(lab: Lab) -> Outcome:
    """Each a few times, one after another."""
    found: dict[str, list[float]] = {}
    for _ in range(REPEATS):
        for key, seconds in (
            ("memcpy into warm memory", lab.producer.call(copy, fresh=False)),
            ("memcpy into fresh pages", lab.producer.call(copy, fresh=True)),
            ("TCP socket", lab.producer.call(socket_stream)),
            ("gRPC unary, 100 bytes", lab.producer.call(unary_calls, count=300)),
            ("Ray actor call", lab.raw.call(actor_calls, count=200)),
        ):
            found.setdefault(key, []).append(seconds)
    readings = []
    for key, values in found.items():
        moved = key.startswith(("memcpy", "TCP"))
        shown = spread([1 / value if moved else value * 1e3 for value in values])
        note = f"{shown.low:.3g} to {shown.high:.3g}, {shown.count} blocks"
        readings.append(Reading(key, shown.median, "GB/s" if moved else "ms", note=note))
    return Outcome("limits", "what the machine gives", "", readings=tuple(readings))
