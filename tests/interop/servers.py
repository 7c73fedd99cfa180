"""Other people's servers, each an echo server on 127.0.0.1.

Lives here: starting and ending them. Each echoes messages, takes the subprotocol "echo" and
compression if offered, and closes as the message "close CODE REASON" says. Must never live here: a
client.
"""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aiohttp import WSMsgType, web
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

TLSFiles = tuple[Path, Path]
"""A certificate and its key, PEM."""

NODE_SERVER = Path(__file__).parent / "server.mjs"


def context_of(tls: TLSFiles | None) -> ssl.SSLContext | None:
    if tls is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*tls)
    return context


@contextmanager
def node_server(tls: TLSFiles | None) -> Iterator[int]:
    """node's `ws`."""
    command = ["node", str(NODE_SERVER), *map(str, tls or ())]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            yield int(process.stdout.readline())
            process.stdin.close()
            assert process.wait(10) == 0
        finally:
            process.kill()


@contextmanager
def websockets_server(tls: TLSFiles | None) -> Iterator[int]:
    """Python's `websockets`, in threads of its own."""

    def echo(ws: ServerConnection) -> None:
        try:
            for message in ws:
                if isinstance(message, str) and message.startswith("close "):
                    _, code, reason = message.split(" ")
                    ws.close(int(code), reason)
                else:
                    ws.send(message)
        except ConnectionClosed:
            pass  # with a code that is an error to it

    options = {"subprotocols": ["echo"], "select_subprotocol": choose, "max_size": 2**24}
    with serve(echo, "127.0.0.1", 0, ssl=context_of(tls), **options) as server:  # type: ignore[arg-type]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.socket.getsockname()[1]
        finally:
            server.shutdown()
            thread.join(10)


def choose(_: ServerConnection, offered: list[str]) -> str | None:
    return "echo" if "echo" in offered else None


async def aiohttp_echo(request: web.Request) -> web.WebSocketResponse:
    ws = web.WebSocketResponse(protocols=["echo"], max_msg_size=2**24)
    await ws.prepare(request)
    async for message in ws:
        if message.type is WSMsgType.TEXT and message.data.startswith("close "):
            _, code, reason = message.data.split(" ")
            await ws.close(code=int(code), message=reason.encode())
        elif message.type is WSMsgType.TEXT:
            await ws.send_str(message.data)
        elif message.type is WSMsgType.BINARY:
            await ws.send_bytes(message.data)
    return ws


@contextmanager
def aiohttp_server(tls: TLSFiles | None) -> Iterator[int]:
    """`aiohttp`, in a thread with a loop of its own."""
    ready = threading.Event()
    ports: list[int] = []
    loop = asyncio.new_event_loop()
    over = asyncio.Event()

    async def main() -> None:
        application = web.Application()
        application.router.add_get("/", aiohttp_echo)
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context_of(tls)).start()
        ports.append(runner.addresses[0][1])
        ready.set()
        await over.wait()
        await runner.cleanup()

    def run() -> None:
        try:
            loop.run_until_complete(main())
        finally:
            loop.close()
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(10)
        yield ports[0]
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(10)


SERVERS = {"node": node_server, "websockets": websockets_server, "aiohttp": aiohttp_server}
