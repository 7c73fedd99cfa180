"""A chat room: the WebSocket and its page on one port. Run it and open the address it prints.

Lives here: how the parts are put together, the policy, the command line, signals. Must never live
here: what happens on a connection (`conversation.py`) or in a room (`lobby.py`).
"""

from __future__ import annotations

import argparse
import os
import secrets
import signal
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import trio
from conversation import chat
from lobby import Brokers, Lobby
from pages import NOT_FOUND, ROOM_NAME, pages
from status import Status

from trio_ws import (
    Limits,
    Policy,
    Response,
    Routes,
    Server,
    UpgradeRequest,
    open_tcp_listeners,
    serve_listeners,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio_ws import WebSocket

    Handler = Callable[[WebSocket], Awaitable[None]]

GRACE, SPREAD = 10.0, 1.0  # seconds: a drain takes at most, and takes to tell everybody
WORDS = 300  # words between processes that are kept of a room: they are old within seconds
LIMITS = Limits(
    max_message=32 * 1024,  # bytes: the longest text fits, however its JSON is escaped
    ping_interval=10,  # seconds: a phone that went into a tunnel is noticed within half a minute
)


def room_name_is_good(request: UpgradeRequest) -> Response | None:
    """Refuse rooms that the page could not link to."""
    name = request.params.get("room")
    return None if name is None or ROOM_NAME.fullmatch(name) else NOT_FOUND


async def open_brokers(stack: AsyncExitStack, url: str | None) -> Brokers | None:
    """What this process shares with others, if there are others."""
    if url is None:
        return None
    # One process does without Redis, and without the package that speaks to it.
    from trio_ws.redis import RedisBroker  # noqa: PLC0415

    record = RedisBroker(url, prefix="chat")
    words = RedisBroker(url, prefix="chat-words", keep=WORDS)
    return Brokers(await stack.enter_async_context(record), await stack.enter_async_context(words))


def options_for(args: argparse.Namespace, lobby: Lobby, status: Status | None) -> dict[str, Any]:
    """What is served: the routes, and how."""
    routes: dict[str, Handler] = {"/chat/{room}": partial(chat, lobby)}
    if status is not None:
        routes["/status/live"] = status.show
    return {
        "handler": Routes(routes),
        "policy": Policy(checks=(room_name_is_good,), trusted_proxies=args.trusted_proxy),
        "limits": LIMITS,
        "http": partial(pages, status=status is not None),
    }


async def run(args: argparse.Namespace, brokers: Brokers | None) -> None:
    """Serve until SIGINT cancels or SIGTERM drains; both tell every page 1001, "going away"."""
    lobby = Lobby(f"{os.getpid():x}-{secrets.token_hex(4)}", brokers, args.rate)
    status = (
        Status(args.status_token, lobby, brokers and brokers.words) if args.status_token else None
    )
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        listeners = await open_tcp_listeners(args.port, host=args.host, reuse_port=args.reuse_port)
        async with trio.open_nursery() as nursery:
            await nursery.start(lobby.run)
            options = options_for(args, lobby, status)
            start = partial(serve_listeners, options.pop("handler"), listeners, **options)
            server: Server = await nursery.start(start)
            if status is not None:
                nursery.start_soon(status.run, server)
            shown = f"[{args.host}]" if ":" in args.host else args.host
            print(f"listening on http://{shown}:{server.port}", flush=True)
            async for signum in signals:
                if signum == signal.SIGTERM:  # a deploy: the pages come back, not all at once
                    lobby.freeze()
                    await server.drain(GRACE, spread=SPREAD)
                nursery.cancel_scope.cancel()


async def main(args: argparse.Namespace) -> None:
    """Serve, with the broker that was asked for."""
    async with AsyncExitStack() as stack:
        await run(args, await open_brokers(stack, args.redis))


def command_line() -> argparse.ArgumentParser:
    """What can be chosen."""
    parser = argparse.ArgumentParser(description="A chat room with its page on the same port.")
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    add("--port", type=int, default=8000, help="0: any (%(default)s)")
    add("--reuse-port", action="store_true", help="share the port with other processes")
    add("--redis", metavar="URL", help="share the rooms with other processes, through Redis")
    add("--rate", type=float, default=5.0, help="messages a second of one member (%(default)s)")
    add(
        "--trusted-proxy",
        action="append",
        default=[],
        metavar="NETWORK",
        help="a proxy whose X-Forwarded headers count, such as 127.0.0.1 (may be repeated)",
    )
    add(
        "--status-token",
        default=os.environ.get("CHAT_STATUS_TOKEN"),
        help="serve /status to who knows it; better given as $CHAT_STATUS_TOKEN",
    )
    return parser


if __name__ == "__main__":
    trio.run(main, command_line().parse_args())
