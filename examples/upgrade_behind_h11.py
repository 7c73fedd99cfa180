"""WebSockets behind an HTTP server that you have already: here a small one of its own, on h11.

Lives here: an HTTP/1.1 server of one page, keep-alive and all, and the one place where it hands a
connection over. Must never live here: a rule about upgrades; `serve_upgrade` knows them, and sends
the refusal if there is one.

    python examples/upgrade_behind_h11.py --port 8000
"""

from __future__ import annotations

import argparse
import signal
from functools import partial

import h11
import trio

from trio_ws import WebSocket, serve_upgrade

PATIENCE = 10.0  # seconds: for a request to arrive, and for its answer to be taken
PAGE = b"""<!doctype html><meta charset="utf-8"><title>Echo</title>
<form><input autofocus><button>send</button></form><pre></pre>
<script>
  const ws = new WebSocket(location.origin.replace("http", "ws") + "/echo");
  const [form, input, log] = ["form", "input", "pre"].map((tag) => document.querySelector(tag));
  ws.onmessage = (event) => (log.textContent += event.data + "\\n");
  form.onsubmit = (event) => { event.preventDefault(); ws.send(input.value); input.value = ""; };
</script>
"""


async def echo(ws: WebSocket) -> None:
    """Answer each message with itself until the peer goes away."""
    async for message in ws:
        await ws.send(message)


async def next_event(http: h11.Connection, stream: trio.abc.Stream) -> object:
    """Read what the client says next."""
    while True:
        event = http.next_event()
        if event is not h11.NEED_DATA:
            return event
        http.receive_data(bytes(await stream.receive_some(4096)))


async def answer(http: h11.Connection, stream: trio.abc.Stream, request: h11.Request) -> None:
    """Answer a plain request: the page, and nothing else."""
    while type(await next_event(http, stream)) is h11.Data:
        pass  # a body that nobody has asked for
    status, kind, body = 200, "text/html; charset=utf-8", PAGE
    if request.method not in (b"GET", b"HEAD"):
        status, kind, body = 405, "text/plain", b"only GET and HEAD\n"
    elif request.target != b"/":
        status, kind, body = 404, "text/plain", b"there is only one page\n"
    headers = [("Content-Type", kind), ("Content-Length", str(len(body)))]
    if status == 405:
        headers.append(("Allow", "GET, HEAD"))
    sent = http.send(h11.Response(status_code=status, headers=headers)) or b""
    if request.method != b"HEAD":
        sent += http.send(h11.Data(data=body)) or b""
    await stream.send_all(sent + (http.send(h11.EndOfMessage()) or b""))


def wants_websocket(request: h11.Request) -> bool:
    """Whether the request asks for one, well or badly; header names come in lower case."""
    words = b",".join(value for name, value in request.headers if name == b"upgrade")
    return b"websocket" in (word.strip().lower() for word in words.split(b","))


async def converse(stream: trio.abc.Stream) -> None:
    """Serve one connection: any number of pages, then perhaps a WebSocket, which is its last."""
    http = h11.Connection(h11.SERVER)
    while True:
        with trio.fail_after(PATIENCE):
            request = await next_event(http, stream)
            if not isinstance(request, h11.Request):
                return  # the client has closed
            upgrade = wants_websocket(request)
            if not upgrade:
                await answer(http, stream, request)
        if upgrade:
            trailing_data, _ = http.trailing_data
            await serve_upgrade(echo, stream, request, trailing_data)
            return
        if http.our_state is not h11.DONE or http.their_state is not h11.DONE:
            return  # somebody has said "Connection: close"
        http.start_next_cycle()


async def connection(stream: trio.SocketStream) -> None:
    """Serve one connection; what goes wrong with it is its own affair."""
    async with stream:
        try:
            await converse(stream)
        except (h11.RemoteProtocolError, trio.BrokenResourceError, trio.TooSlowError):
            pass  # not HTTP, gone, or asleep; a server of yours has more to say about it


async def main(host: str, port: int) -> None:
    """Serve until SIGINT or SIGTERM; cancellation then tells every WebSocket 1001."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            serve = partial(trio.serve_tcp, connection, port, host=host)
            listeners: list[trio.SocketListener] = await nursery.start(serve)
            shown = f"[{host}]" if ":" in host else host
            print(f"listening on http://{shown}:{listeners[0].socket.getsockname()[1]}", flush=True)
            async for _ in signals:
                nursery.cancel_scope.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="An HTTP server that hands WebSockets over.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="0: any (%(default)s)")
    args = parser.parse_args()
    trio.run(main, args.host, args.port)
