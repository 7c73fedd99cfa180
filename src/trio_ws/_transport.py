"""The transport under an opening handshake: its two ends, and its last bytes.

Lives here: looking through TLS, the addresses, delivering an answer that ends the connection. Must
never live here: what the bytes say, a deadline.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._request import Address

__all__: list[str] = []

DRAIN_BUDGET = 256 * 1024
"""Bytes read and dropped behind a refusal: closing a socket with unread input resets it, and a
reset may overtake the response. Whoever sends more than this is not waiting for an answer."""


async def deliver(stream: trio.abc.Stream, answer: bytes, *, read_size: int) -> None:
    """Send `answer` so that the client can read it: shut the sending side behind it, and drain what
    the client still sends before whoever calls closes."""
    await stream.send_all(answer)
    # TLS has no half-close that does not wait for the peer. Content-Length ends the response
    # already; the FIN below is for clients that wait for it.
    transport = transport_of(stream)
    if isinstance(transport, trio.abc.HalfCloseableStream):
        await transport.send_eof()
    left = DRAIN_BUDGET
    while left > 0:
        data = await stream.receive_some(read_size)
        if not data:
            return
        left -= len(data)


def transport_of(stream: trio.abc.Stream) -> trio.abc.Stream:
    """What lies under the TLS layers of `stream`."""
    while isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    return stream


def addresses_of(stream: trio.abc.Stream) -> tuple[Address, Address]:
    """The peer's and our own address; None where the stream has none, or has it no more."""
    transport = stream if isinstance(stream, trio.SocketStream) else transport_of(stream)
    if not isinstance(transport, trio.SocketStream):
        return None, None
    return (
        _address(transport.socket.getpeername),
        _address(transport.socket.getsockname),
    )


def _address(ask_socket: Callable[[], Any]) -> Address:
    try:
        address = ask_socket()
    except OSError:  # a peer that is gone already has no address
        return None
    if isinstance(address, tuple):
        return address[0], address[1]
    # Linux's abstract names are bytes.
    return address.decode("latin-1") if isinstance(address, bytes) else str(address)
