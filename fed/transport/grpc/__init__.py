"""The transport between machines: gRPC over HTTP/2, with mutual TLS.

Each link holds two channels to its peer, and they share no connection: *control* carries greetings and notices,
*data* carries objects. So a stalled object cannot delay the news of a failure [E03].

========  ===============  ====================================  =======
Method    Kind             Frames                                Channel
========  ===============  ====================================  =======
Greet     unary            Hello, Greeting                       control
Tell      unary            Notice, nothing                       control
Exchange  bidirectional    batches of small parcels, of acks     data
Upload    client stream    an offer, then bare chunks; a result  data
========  ===============  ====================================  =======

Frames are bytes to gRPC: `fed.transport.wire` reads them, so that what is malformed is refused here and not inside
the library, and a chunk is not wrapped, for that would be one more copy.

Laws:

1. Whoever calls proves its name on every call: by its certificate or, without TLS, by the name it greeted with.
   Every call but Greet also names the incarnation that it greeted as, and is out of turn unless the last greeting
   of its party was by that one. A listener that was restarted knows nobody, so its peers find out and greet again.
2. A link trusts exactly the certificate whose name it has checked. gRPC shows a client nothing of its server's
   certificate, so `fed.transport.identity.prove` looks at it first, over a connection of its own, and it alone
   becomes the trust anchor of both channels. They can then reconnect, but only to the same identity.
3. Errors of gRPC and asyncio end at `fed.transport.grpc.calls.map_error`.
4. Waiting ends: a call that waits for the peer runs in a task of its own, which `close` and timeouts end, and which
   does not outlive the link.

All state belongs to one event loop.
"""

from __future__ import annotations

import os

# Without this, gRPC's core writes to the terminal about every handshake that fails and every port that is taken,
# past Python's logging. What matters of it is an exception here. It reads the variable when it is first imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from fed.transport.grpc.link import GrpcLink
from fed.transport.grpc.listener import GrpcListener

__all__ = ["GrpcLink", "GrpcListener"]
