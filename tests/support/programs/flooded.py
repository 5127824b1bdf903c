"""A receiver, until its standard input ends. Says where it listens, and at the end what it was made to do."""

import asyncio
import gc
import json
import resource
import sys
import time
from pathlib import Path

from fed.config import Address, TLSConfig
from fed.proxy.receiver import Receiver
from fed.serde.data import DataCodec
from fed.transport.grpc import GrpcListener
from tests.support.worlds import PARTIES, hello

MAX_STORED = 64 << 20


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def main() -> None:
    ca, cert, key = map(Path, sys.argv[1:])
    listener = GrpcListener("bob", Address("127.0.0.1", 1), TLSConfig(ca, cert, key), parties=PARTIES, any_port=True)
    receiver = Receiver(hello("bob"), listener, DataCodec(), max_stored_bytes=MAX_STORED)
    await receiver.start()
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, ended.set)
    gc.collect()
    before = peak = resident()
    charged = 0
    held_s = 0.0
    print(listener.address.port, flush=True)
    while not ended.is_set():
        began, used = time.monotonic(), time.process_time()
        await asyncio.sleep(0.005)
        # By processor time: what others take of the machine is not this loop's doing.
        held_s = max(held_s, min(time.monotonic() - began, time.process_time() - used))
        peak = max(peak, resident())
        charged = max(charged, receiver.statistics().table.stored_bytes)
    receiver.validate()
    await receiver.close()
    print(json.dumps({"grown": peak - before, "charged": charged, "held_s": held_s}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
