"""``trio-ws serve``: a server to try clients with.

Lives here: two handlers (echo, broadcast) and what is told about connections. Must never live here:
a server's rules; they are the library's.
"""

from __future__ import annotations

import json
import logging
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio

from trio_ws import ConnectionClosed, WebSocket
from trio_ws import serve as serve_websockets

from .options import CommandFailed, add_json_option, add_origin_options, policy_of
from .running import run_until_signal
from .words import OK

if TYPE_CHECKING:
    import argparse

    from trio_ws import Policy, Server

BACKLOG: Final = 100
"""Messages that may wait for a member of the broadcast; one that is slower is told 1013."""


def add_command(commands: Any) -> None:
    """Add this command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "serve",
        help="an echo or broadcast server to try clients with",
        description="A WebSocket server to try clients with, on every path. Ctrl-C stops it.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address (default: %(default)s)")
    parser.add_argument(
        "--port", type=_port, default=8000, help="0: a free one (default: %(default)s)"
    )
    parser.add_argument(
        "--broadcast",
        action="store_true",
        help="send each message to all the other clients, instead of back",
    )
    parser.add_argument("--verbose", action="store_true", help="tell about scanners' requests, too")
    add_json_option(parser, "where it listens, as a JSON object on stdout")
    add_origin_options(parser)
    parser.set_defaults(run=run)


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise ValueError(text)
    return number


def run(args: argparse.Namespace) -> int:
    """Run the command; ended by a signal, its status is 0: that is how a server ends."""
    policy = policy_of(args)
    # Refusals with their row, connections with how they ended: the library's own logs.
    logging.basicConfig(
        level=logging.DEBUG if args.verbose else logging.INFO,
        format="%(asctime)s %(message)s",
        datefmt="%H:%M:%S",
        stream=sys.stderr,
    )
    return run_until_signal(partial(_serve, args, policy), signalled=OK)


async def _serve(args: argparse.Namespace, policy: Policy) -> int:
    handler = Broadcast().handle if args.broadcast else echo
    async with trio.open_nursery() as nursery:
        start = partial(serve_websockets, handler, host=args.host, policy=policy)
        try:
            server: Server = await nursery.start(start, args.port)
        except OSError as exc:
            raise CommandFailed(f"cannot listen on {args.host} port {args.port}: {exc}") from exc
        host = f"[{args.host}]" if ":" in args.host else args.host
        url = f"ws://{host}:{server.port}/"
        print(json.dumps({"event": "listening", "url": url}) if args.json else url, flush=True)
    return OK


async def echo(ws: WebSocket) -> None:
    """Send each message back."""
    async for message in ws:
        await ws.send(message)


class Broadcast:
    """Everybody hears what the others say."""

    def __init__(self) -> None:
        self._members: dict[WebSocket, trio.MemorySendChannel[str | bytes]] = {}

    async def handle(self, ws: WebSocket) -> None:
        """One member: the handler of its connection."""
        to_member, backlog = trio.open_memory_channel[str | bytes](BACKLOG)
        self._members[ws] = to_member
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._deliver, ws, backlog)
                async for message in ws:
                    self._publish(message, ws)
                nursery.cancel_scope.cancel()
        finally:
            del self._members[ws]

    def _publish(self, message: str | bytes, speaker: WebSocket) -> None:
        for member, to_member in self._members.items():
            if member is speaker:
                continue
            try:
                to_member.send_nowait(message)
            except trio.WouldBlock:
                to_member.close()  # `_deliver` sees the end behind what already waits
            except trio.ClosedResourceError:
                pass  # too slow before; on its way out

    async def _deliver(
        self, ws: WebSocket, backlog: trio.MemoryReceiveChannel[str | bytes]
    ) -> None:
        try:
            async for message in backlog:
                await ws.send(message)
        except ConnectionClosed:
            return  # the member's own loop tells it
        await ws.close(1013, "too slow for this room")
