"""The server under test, in a process of its own, so that its memory is nobody else's.

    python server.py '{"ping_timeout": 2}' [--wrapped] [--deflate] [--tls CERT KEY]

Lives here: handlers that need no cleverness, and the wish to be watched: it prints its port, then
one JSON line for each line on stdin, and ends in good order when stdin does. Must never live here:
a measurement that somebody outside could take.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import resource
import ssl
from collections import Counter

import trio

from trio_ws import (
    ConnectionClosed,
    Deflate,
    Limits,
    Routes,
    Server,
    WebSocket,
    open_tcp_listeners,
    serve_listeners,
)
from trio_ws.testing import WrappedStream

CHUNK = bytes(64 * 1024)

ends: Counter[str] = Counter()


def note(closed: ConnectionClosed) -> None:
    ends[str(closed.close.code)] += 1


async def echo(ws: WebSocket) -> None:
    try:
        while True:
            await ws.send(await ws.receive())
    except ConnectionClosed as exc:
        note(exc)


async def idle(ws: WebSocket) -> None:
    """As most handlers wait."""
    async for _ in ws:
        pass


async def deaf(ws: WebSocket) -> None:
    """Receives nothing; waits for the end."""
    await ws.wait_closed()


async def firehose(ws: WebSocket) -> None:
    """Sends until it cannot."""
    try:
        while True:
            await ws.send(CHUNK)
    except ConnectionClosed as exc:
        note(exc)


class Wrapping(trio.abc.Listener[trio.abc.Stream]):
    """Gives streams that are no plain sockets."""

    def __init__(self, below: trio.SocketListener) -> None:
        self._below = below

    async def accept(self) -> trio.abc.Stream:
        return WrappedStream(await self._below.accept())

    async def aclose(self) -> None:
        await self._below.aclose()


def report(server: Server) -> str:
    gc.collect()  # what was cut loose in cycles is no leak
    return json.dumps(
        {
            "tasks": trio.lowlevel.current_statistics().tasks_living,
            "connections": len(server.connections),
            "ends": dict(ends),
        }
    )


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A server to be tormented.")
    parser.add_argument("limits", type=json.loads, help="fields of Limits, as JSON")
    parser.add_argument("--wrapped", action="store_true", help="streams that are no plain sockets")
    parser.add_argument("--deflate", action="store_true", help="with compression")
    parser.add_argument("--tls", nargs=2, metavar=("CERT", "KEY"))
    return parser.parse_args()


async def main(args: argparse.Namespace) -> None:
    tls = None
    if args.tls:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*args.tls)
    sockets = await open_tcp_listeners(0, host="127.0.0.1", backlog=1024)
    port = sockets[0].socket.getsockname()[1]
    listeners = [Wrapping(each) for each in sockets] if args.wrapped else sockets

    async def run(task_status: trio.TaskStatus[Server]) -> None:
        await serve_listeners(
            Routes({"/echo": echo, "/idle": idle, "/deaf": deaf, "/firehose": firehose}),
            listeners,
            ssl_context=tls,
            limits=Limits(**args.limits),
            compression=Deflate() if args.deflate else None,
            task_status=task_status,
        )

    async with trio.open_nursery() as nursery:
        server = await nursery.start(run)
        print(port, flush=True)
        async for asked in trio.lowlevel.FdStream(os.dup(0)):
            for _ in range(asked.count(b"\n")):
                print(report(server), flush=True)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    logging.basicConfig(level=logging.WARNING)  # on stderr: whoever started us reads it
    trio.run(main, options())
