"""Who stands in front of us: what a trusted proxy says about its client.

Lives here: which peers are trusted, reading `X-Forwarded-*` from those and from nobody else, and
the key under which a client is counted. Must never live here: a refusal. Lists are read from the
right: each proxy appends, so the right-most entry is what our own proxy saw, while everything to
the left may have been invented by the client.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from ._origin import authority_untrusted
from ._request import Address, Forwarded, Scheme, UpgradeRequest

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__: list[str] = []

IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_SCHEMES: dict[bytes, Scheme] = {
    b"http": "http",
    b"https": "https",
    # Some proxies name the WebSocket scheme here.
    b"ws": "http",
    b"wss": "https",
}
_with_port = re.compile(r"\[(?P<v6>[^\]]*)\](?::[0-9]{1,5})?|(?P<v4>[0-9.]+):[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class TrustedProxies:
    """Networks, and whether the peers of Unix sockets, are believed."""

    networks: tuple[IPNetwork, ...] = ()
    unix: bool = False

    @classmethod
    def parse(cls, entries: Iterable[str | IPNetwork]) -> TrustedProxies:
        """Read the application's list; ValueError for what is neither a network nor "unix"."""
        networks: list[IPNetwork] = []
        unix = False
        for entry in entries:
            if entry == "unix":
                unix = True
            else:
                networks.append(ipaddress.ip_network(entry))
        return cls(tuple(networks), unix)

    def trusts(self, address: IPAddress) -> bool:
        return any(address.version == net.version and address in net for net in self.networks)

    def trusts_peer(self, peer: Address) -> bool:
        if isinstance(peer, str):
            return self.unix
        if not self.networks:
            return False
        address = None if peer is None else address_untrusted(peer[0])
        return address is not None and self.trusts(address)

    def resolve(self, request: UpgradeRequest) -> UpgradeRequest:
        """`request` as its client sent it, if its peer is a trusted proxy; else `request`."""
        if not self.trusts_peer(request.peer_address):
            return request
        said = Forwarded(
            scheme=_SCHEMES.get(_rightmost(request, b"x-forwarded-proto").lower()),
            host=self._host(request),
            client_address=self._client(request),
        )
        return replace(request, forwarded=said)

    def _host(self, request: UpgradeRequest) -> str | None:
        authority = authority_untrusted(_rightmost(request, b"x-forwarded-host"))
        return None if authority is None else str(authority)

    def _client(self, request: UpgradeRequest) -> str | None:
        """The right-most hop that is not trusted; the left-most where all are.

        An entry that is no address ends the search: what is left of it was written by whoever the
        last known hop is.
        """
        nearest: str | None = None
        for hop in reversed(_elements(request, b"x-forwarded-for")):
            address = address_untrusted(hop.decode("latin-1"))
            if address is None:
                break
            nearest = str(address)
            if not self.trusts(address):
                break
        return nearest


def address_untrusted(text: str) -> IPAddress | None:
    """An IP address, also with a port as some proxies write it; IPv4-mapped IPv6 becomes IPv4."""
    match = _with_port.fullmatch(text)
    if match is not None:
        text = match["v6"] or match["v4"] or ""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        return address.ipv4_mapped or address
    return address


def key_of(client_address: str | None) -> str | None:
    """The key under which a client is counted: an IPv4 address, or an IPv6 /64.

    A subscriber commonly gets a whole IPv6 /64, so that single addresses would count nothing.
    None if the address is unknown: there is nothing to tell clients apart by.
    """
    address = None if client_address is None else address_untrusted(client_address)
    if address is None:
        return None
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return str(ipaddress.IPv6Network((int(address), 64), strict=False))


def _elements(request: UpgradeRequest, name: bytes) -> list[bytes]:
    parts = b",".join(request.header_all(name)).split(b",")
    return [part.strip(b" \t") for part in parts]


def _rightmost(request: UpgradeRequest, name: bytes) -> bytes:
    return _elements(request, name)[-1]
