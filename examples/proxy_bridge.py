"""A bridge between WebSockets and TCP, in both directions: each message is a piece of the stream.

Lives here: `bridge`, and one server on either side of it. Must never live here: buffers; each
direction holds one piece, so a slow reader slows down the writer behind the other network.

    python examples/proxy_bridge.py --port 8000 --to tcp://127.0.0.1:5432   # WebSockets in, TCP out
    python examples/proxy_bridge.py --port 5433 --to ws://127.0.0.1:8000/   # TCP in, WebSockets out

Both together carry TCP through anything that lets WebSockets pass. A WebSocket has no half-close:
whichever side ends its stream ends both directions.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from urllib.parse import urlsplit

import trio

from trio_ws import ConnectionClosed, HandshakeError, WebSocket, connect, serve_listeners

Start = Callable[..., Awaitable[object]]


async def bridge(ws: WebSocket, stream: trio.SocketStream) -> None:
    """Carry bytes both ways until one side ends; then `stream` is closed, and `ws` by its owner.

    Cancelled: both ends are told, the TCP side by its end, the WebSocket by a Close frame. A piece
    that was on its way may be lost, and to TCP it may have gone in part: its protocol has to know
    an end that was meant from one that was not, as over any TCP connection.
    """

    async def to_tcp() -> None:
        async for message in ws:
            if isinstance(message, str):
                await ws.close(1003, "binary messages only")
                return
            await stream.send_all(message)

    async def to_websocket() -> None:
        async for piece in stream:
            await ws.send(bytes(piece))

    async def until_over(direction: Callable[[], Awaitable[None]]) -> None:
        try:
            await direction()
        except ConnectionClosed:
            pass  # the WebSocket has ended, and `ws.closed` says how
        except trio.BrokenResourceError:
            await ws.close(1014, "the TCP side broke")
        # The first direction that is over ends the other one, wherever that waits.
        nursery.cancel_scope.cancel()

    async with stream, trio.open_nursery() as nursery:
        nursery.start_soon(until_over, to_tcp)
        nursery.start_soon(until_over, to_websocket)


async def websocket_in(host: str, port: int, ws: WebSocket) -> None:
    """A WebSocket has come: connect to the TCP side."""
    try:
        with trio.fail_after(10):
            stream = await trio.open_tcp_stream(host, port)
    except (OSError, trio.TooSlowError):
        await ws.close(1014, "the TCP side does not answer")
        return
    await bridge(ws, stream)


async def tcp_in(url: str, stream: trio.SocketStream) -> None:
    """A TCP connection has come: connect to the WebSocket side."""
    async with stream:
        try:
            async with connect(url) as ws:
                await bridge(ws, stream)
        except HandshakeError as exc:
            print(f"not connected: {exc}", file=sys.stderr)


def starter(to: str) -> tuple[str, Start]:
    """What shall listen, and how it is started with its listeners."""
    parts = urlsplit(to)
    if parts.scheme in ("ws", "wss"):
        return "tcp", partial(trio.serve_listeners, partial(tcp_in, to))
    if parts.scheme == "tcp" and parts.hostname and parts.port:
        return "ws", partial(serve_listeners, partial(websocket_in, parts.hostname, parts.port))
    raise SystemExit("--to: a ws:// or wss:// URL, or tcp://HOST:PORT")


async def main(args: argparse.Namespace) -> None:
    """Serve until SIGINT or SIGTERM; every WebSocket hears 1001, "going away"."""
    scheme, start = starter(args.to)
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            listeners = await trio.open_tcp_listeners(args.port, host="127.0.0.1")
            await nursery.start(start, listeners)
            port = listeners[0].socket.getsockname()[1]
            print(f"listening on {scheme}://127.0.0.1:{port}", flush=True)
            async for _ in signals:
                nursery.cancel_scope.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A bridge between WebSockets and TCP.")
    parser.add_argument("--port", type=int, default=8000, help="0: any (default: %(default)s)")
    parser.add_argument("--to", required=True, help="tcp://HOST:PORT, or a ws:// or wss:// URL")
    trio.run(main, parser.parse_args())
