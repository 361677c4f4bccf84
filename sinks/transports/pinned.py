"""Connections to public addresses only, whatever a name resolves to, and when."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

import httpcore2

_UNICAST: Final = ip_network("2000::/3")


class PublicOnly(httpcore2.AsyncNetworkBackend):
    """Resolves a name once for each connection, and connects to the addresses that it has looked at.

    So a name that is answered otherwise the next time (DNS rebinding) leads nowhere else. TLS still asks for
    a certificate of the name. A name of which any address is not public is refused.
    """

    def __init__(self) -> None:
        self._inner = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect. Raises `httpcore2.ConnectError`."""
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpcore2.ConnectError(f"{host} cannot be resolved: {error}") from error
        addresses = list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
        refused = [address for address in addresses if not is_public(ip_address(address))]
        if refused:
            raise httpcore2.ConnectError(f"{host} is {refused[0]}, which is no public address")
        trouble = httpcore2.ConnectError(f"{host} has no address")
        for address in addresses:
            try:
                return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except httpcore2.ConnectError as error:
                trouble = error
        raise trouble


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Return whether an address is one of a single machine on the internet, and of no private network."""
    if isinstance(address, IPv4Address):
        return address.is_global and not address.is_multicast
    # Through a tunnel, where a machine has one, any address of IPv4 could be reached.
    tunnel = address.sixtofour is not None or address.teredo is not None
    return address in _UNICAST and address.is_global and not tunnel
