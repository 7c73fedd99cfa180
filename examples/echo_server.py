"""An echo server: every message goes back as it came. The smallest complete program.

Lives here: a handler of two lines, and everything the command line can say about where to listen
and whom to let in. Must never live here: closing handshakes; the server does them.

    python examples/echo_server.py --port 8000
    python examples/echo_server.py --port 0 --tls cert.pem key.pem --origin 'https://*.example.com'
"""

from __future__ import annotations

import argparse
import signal
import ssl
from functools import partial
from pathlib import Path

import trio

from trio_ws import (
    Deflate,
    Limits,
    Policy,
    Server,
    WebSocket,
    allow_origins,
    open_tcp_listeners,
    open_unix_listener,
    same_origin,
    serve_listeners,
    unsafe_any_origin,
)


async def echo(ws: WebSocket) -> None:
    """Answer each message with itself until the peer goes away."""
    async for message in ws:
        await ws.send(message)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="A WebSocket echo server.")
    where = parser.add_argument_group("where to listen")
    where.add_argument("--host", default="127.0.0.1", help="address (default: %(default)s)")
    where.add_argument("--port", type=int, default=8000, help="0: any (default: %(default)s)")
    where.add_argument("--unix", metavar="PATH", type=Path, help="a unix socket instead of TCP")
    where.add_argument("--tls", nargs=2, metavar=("CERT", "KEY"), help="PEM files; serves wss:")
    # Without these two, browsers may connect from pages of this very server only.
    origins = parser.add_argument_group("whose pages may connect").add_mutually_exclusive_group()
    origins.add_argument("--origin", action="append", metavar="PATTERN", help="may be repeated")
    origins.add_argument("--unsafe-any-origin", action="store_true", help="every page of the web")
    default = Limits().max_message
    parser.add_argument(
        "--grace", type=float, default=10.0, metavar="SECONDS", help="for peers, on SIGTERM"
    )
    parser.add_argument("--max-message", type=int, default=default, metavar="BYTES")
    parser.add_argument("--compression", action="store_true", help="with clients that offer it")
    return parser.parse_args()


def policy_of(args: argparse.Namespace) -> Policy:
    """Say who may connect."""
    if args.unsafe_any_origin:
        return Policy(origins=unsafe_any_origin)
    return Policy(origins=allow_origins(*args.origin) if args.origin else same_origin)


def tls_of(args: argparse.Namespace) -> ssl.SSLContext | None:
    """Load the certificate, if there is one."""
    if args.tls is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*args.tls)
    return context


async def open_listeners(args: argparse.Namespace) -> list[trio.abc.Listener[trio.SocketStream]]:
    """Bind and listen: on a path, or on every address of a host."""
    if args.unix is not None:
        return [await open_unix_listener(args.unix)]
    return [*await open_tcp_listeners(args.port, host=args.host)]


async def main(args: argparse.Namespace) -> None:
    """Serve until SIGINT cancels or SIGTERM drains."""
    # Any number of fragments: this is what the conformance suite talks to, and it sends messages
    # in frames of 64 bytes. A server of your own should keep the default.
    limits = Limits(max_message=args.max_message, max_fragments=None)
    policy, tls = policy_of(args), tls_of(args)
    compression = Deflate() if args.compression else None
    scheme = "ws" if tls is None else "wss"
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            listeners = await open_listeners(args)
            start = partial(serve_listeners, echo, listeners, ssl_context=tls)
            start = partial(start, policy=policy, limits=limits, compression=compression)
            server: Server = await nursery.start(start)
            if args.unix is not None:
                print(f"listening on {scheme}+unix:{args.unix}", flush=True)
            else:
                host = f"[{args.host}]" if ":" in args.host else args.host
                print(f"listening on {scheme}://{host}:{server.port}", flush=True)
            # Both are polite: each peer is told 1001, "going away". Cancellation, for a human at
            # the keyboard, gives them `Limits.cancel_grace`, a second, to answer. A drain, for a
            # deploy, answers whoever is still coming in, and has all the time that it is given.
            async for signum in signals:
                if signum == signal.SIGTERM:
                    await server.drain(args.grace)
                    return
                nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, parse_args())
