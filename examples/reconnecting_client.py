"""A client that stays connected: print every message, come back when the connection is gone.

Lives here: what is done on each connection, and which ends are the last. Must never live here:
waiting between attempts; `reconnect` backs off, at random, so that a server which restarts is not
met by all of its clients at once.

    python examples/reconnecting_client.py ws://127.0.0.1:8000/ --greeting hello
"""

from __future__ import annotations

import argparse
import signal
import sys

import trio

from trio_ws import ConnectionClosed, HandshakeError, WebSocket, reconnect


async def follow(ws: WebSocket, greeting: str | None) -> None:
    """One connection, to its end. A subscription starts from the beginning each time."""
    print("connected", flush=True)
    if greeting is not None:
        await ws.send(greeting)
    async for message in ws:
        print(message, flush=True)


async def stay_connected(url: str, greeting: str | None) -> None:
    """Follow one connection after another, until the server says that it is over."""
    async with reconnect(url) as connections:
        async for ws in connections:
            try:
                await follow(ws, greeting)
            except ConnectionClosed as exc:
                # Another connection's would be an error of this program.
                if exc.close is not ws.closed:
                    raise
            print(f"gone: {ws.closed}", flush=True)
            if ws.closed is not None and ws.closed.code == 1000:
                break  # our rule: "normal closure" is the end, "going away" is not


async def main(args: argparse.Namespace) -> int:
    """Stay connected until SIGINT or SIGTERM; the server hears 1001, "going away"."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                async for _ in signals:
                    nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            try:
                await stay_connected(args.url, args.greeting)
            except HandshakeError as exc:  # one that trying again would not change
                print(f"not connected: {exc}", file=sys.stderr)
                return 1
            finally:
                nursery.cancel_scope.cancel()
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A WebSocket client that comes back.")
    parser.add_argument("url", help="such as ws://127.0.0.1:8000/")
    parser.add_argument("--greeting", help="sent on each connection, to subscribe, say")
    sys.exit(trio.run(main, parser.parse_args()))
