"""A wide-area estimate: the stream and the small loop over a line with a delay and a rate.

The line is `tests.support.lines`, in a process of its own: nothing is lost on it, and TCP's own windows do not see its
length. So this tells what the flow control of gRPC and our acknowledgements cost over a distance, and nothing of what
loss does. The line is a program too, and takes one core: at 10 Gbit/s it is what limits, and only the ratio tells
something. Limits: a plain gRPC stream over the same line; for the small loop one round trip, which is the least.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Final

from benchmarks.harness import Lab, Worker
from benchmarks.outcome import Measurement, Outcome, Reading
from benchmarks.statistics import Pair, spread
from benchmarks.workloads import small_loop, stream
from fed.config import Address
from tests.support.lines import Line

__all__ = ["draw", "full"]

ROUND_TRIPS_MS: Final = (1, 10, 50, 200)
RATES: Final = {"100 Mbit/s": 1e8 / 8, "1 Gbit/s": 1e9 / 8, "10 Gbit/s": 1e10 / 8}
WORK_S: Final = 1.5
"""How long a transfer would take at the line's rate."""
LEAST_BYTES, MOST_BYTES = 16 << 20, 512 << 20
PAIRS: Final = 3
ITERATIONS: Final = {1: 50, 10: 30, 50: 10, 200: 4}
UNLIMITED: Final = 1e12
TARGET: Final = 1 / 0.85


@functools.cache
def _line(port: int) -> Line:
    return Line(Address("127.0.0.1", port), delay_s=0, bytes_per_s=UNLIMITED)


def draw(port: int, round_trip_ms: float, bytes_per_s: float) -> int:
    """In the line's process: let the line to a port be like this. Returns the port of its near end."""
    line = _line(port)
    line.set(delay_s=round_trip_ms / 2e3, bytes_per_s=bytes_per_s)
    return line.address.port


def full(lab: Lab) -> Outcome:
    """The stream at each round trip and rate; the small loop at each round trip."""
    measurements, readings = [], []
    with lab.worker("plain", "line") as line:
        ports = [int(lab.consumer.call(function)) for function in (stream.listen, stream.listen_plain)]
        for rate, bytes_per_s in RATES.items():
            for round_trip_ms in ROUND_TRIPS_MS:
                shape = {"round_trip_ms": round_trip_ms, "bytes_per_s": bytes_per_s}
                near = [int(line.call(draw, port=port, **shape)) for port in ports]
                nbytes = int(min(MOST_BYTES, max(LEAST_BYTES, bytes_per_s * WORK_S))) >> 20 << 20
                case = stream.case(lab, f"{rate}, {round_trip_ms} ms", nbytes, PAIRS, near)
                # Both have sent as much over this line before, so that both know its length.
                found = Measurement(case.key, case.measure(), TARGET, x=round_trip_ms, series=rate)
                measurements.append(found)
                for name in ("ours", "limit"):
                    reached = 1e9 / getattr(found.comparison, name).median / bytes_per_s
                    label = "our stream" if name == "ours" else "plain stream"
                    readings.append(Reading(f"{case.key}: {label}, part of the line's rate", 100 * reached, "%"))
        readings += _small_loops(lab, line)
    return Outcome(
        "wide area",
        "our stream over a line with a round-trip time and a rate; time for a gigabyte",
        "a plain gRPC stream over the same line",
        tuple(measurements),
        tuple(readings),
        "round trip, ms",
    )


def _small_loops(lab: Lab, line: Worker) -> list[Reading]:
    lines: list[int] = []

    def through(addresses: Mapping[str, Address]) -> dict[str, dict[str, Address]]:
        known: dict[str, dict[str, Address]] = {}
        for party in addresses:
            known[party] = {}
            for peer, address in addresses.items():
                port = address.port
                if peer != party:
                    lines.append(port)
                    port = int(line.call(draw, port=port, round_trip_ms=0, bytes_per_s=UNLIMITED))
                known[party][peer] = Address(address.host, port)
        return known

    readings = []
    with lab.federation(through=through) as federation:
        federation.slowest(small_loop.federated, iterations=50)
        for round_trip_ms in ROUND_TRIPS_MS:
            for port in lines:
                line.call(draw, port=port, round_trip_ms=round_trip_ms, bytes_per_s=RATES["1 Gbit/s"])
            iterations = ITERATIONS[round_trip_ms]
            found = [federation.slowest(small_loop.federated, iterations=iterations) for _ in range(5)]
            pairs = [Pair(seconds, round_trip_ms / 1e3) for seconds in found]
            trips = spread([pair.ratio for pair in pairs])
            note = f"{trips.median:.2f} round trips; 5 blocks of {iterations}"
            key = f"small loop, {round_trip_ms} ms: time for an iteration"
            readings.append(Reading(key, spread(found).median * 1e3, "ms", note=note))
    return readings
