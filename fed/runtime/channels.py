"""How the proxies of a party reach its driver: where they are, and what secures it."""

from __future__ import annotations

import ssl

import ray
import ray.util

from fed.channel import ChannelError, ProxyEnd, Role
from fed.channel.handshake import Tls
from fed.channel.socket_driver import SocketDriverEnd
from fed.channel.socket_proxy import SocketAddress, SocketProxyEnd
from fed.config import Config
from fed.transport.credentials import party_of_certificate

__all__ = ["driver_end", "node_id", "proxy_end"]


def driver_end(config: Config) -> SocketDriverEnd:
    """Where this driver's proxies connect to: on its own node, and on a port where the cluster has others."""
    if sum(node["Alive"] for node in ray.nodes()) < 2:
        return SocketDriverEnd(config.party)
    return SocketDriverEnd(config.party, ray.util.get_node_ip_address(), secured(config, server=True))


def proxy_end(config: Config, address: SocketAddress, drivers_node: str, role: Role) -> ProxyEnd:
    """The way from a proxy, which this is called in, to its driver."""
    remote = node_id() != drivers_node
    return SocketProxyEnd(address, role, remote=remote, tls=secured(config, server=False) if remote else None)


def node_id() -> str:
    """The node of the cluster that this process is on."""
    found: str = ray.get_runtime_context().get_node_id()
    return found


def secured(config: Config, *, server: bool) -> Tls | None:
    """Both ends show the party's own certificate; nothing in a job without TLS."""
    tls = config.tls
    if tls is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # The name in it is the party's, and not that of a host.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(tls.ca)
    context.load_cert_chain(tls.cert, tls.key)

    def check(certificate: bytes) -> None:
        try:
            party = party_of_certificate(ssl.DER_cert_to_PEM_cert(certificate).encode())
        except ValueError as error:
            raise ChannelError(f"the certificate {error}") from error
        if party != config.party:
            raise ChannelError(f"the certificate is that of party {party!r}, and not this party's own")

    return Tls(context, check)
