"""What is counted: echo servers and their peer in one process that does the same every time.

Lives here: the servers, the peer's bytes, the cases. Must never live here: valgrind, counts, what
is made of them (`guard`, `ledger`).

    python benchmarks/instructions/workload.py CASE ...

Nothing here depends on time or on another process. The peer is no task: it acts when the loop is
about to wait, that is when the server has done all it can, and its bytes are made beforehand. The
clock stands still, so that no timer fires in one run and not in another. A unix socket hands bytes
over within the call that writes them. What is left to chance is trio's coin, which turns the order
of a pass's tasks around.
"""

from __future__ import annotations

import argparse
import gc
import os
import socket
import struct
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import trio
import trio.testing

import trio_ws

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Mapping

MARKER: Final = "getpriority"
"""A function of the C library that nothing else calls; valgrind is told to watch it."""

MASK: Final = b"\x3a\xc5\x0f\x71"

REQUEST: Final = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)

Script: TypeAlias = "Generator[None, None, None]"
"""What the peer does. Each `yield` lets the server go on until it waits; before it there must be
something to wake it, or nobody ever wakes."""


def mark() -> None:
    """The count begins here, or ends here."""
    os.getpriority(os.PRIO_PROCESS, 0)


# -- the peer ------------------------------------------------------------------------------------


def frame(payload: bytes, *, opcode: int = 2, masked: bool = False) -> bytes:
    """One frame, whole (RFC 6455 section 5.2)."""
    bit, size = 0x80 * masked, len(payload)
    if size < 126:
        head = struct.pack("!BB", 0x80 | opcode, bit | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", 0x80 | opcode, bit | 126, size)
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, bit | 127, size)
    if not masked:
        return head + payload
    return head + MASK + bytes(byte ^ MASK[i % 4] for i, byte in enumerate(payload))


SMALL: Final = bytes(range(32))
BULK: Final = bytes(range(256)) * 256
CLOSE: Final = struct.pack("!H", 1000)


class Peer(trio.abc.Instrument):
    """Takes one step of its script whenever the loop is about to wait.

    Attributes:
        error: what ended the script before its end.
    """

    def __init__(self, script: Script, over: Callable[[], None]) -> None:
        self._script = script
        self._over = over
        self._token = trio.lowlevel.current_trio_token()
        self.error: Exception | None = None

    def before_io_wait(self, timeout: float) -> None:
        if timeout <= 0:  # tasks are ready to run
            return
        try:
            next(self._script)
        except StopIteration:
            self._token.run_sync_soon(self._over)
        except Exception as exc:  # noqa: BLE001  trio would log it and go on without the peer
            self.error = exc
            self._token.run_sync_soon(self._over)


def open_sockets(path: str, count: int) -> list[socket.socket]:
    """Sockets that take a bulk message in one write, and never wait."""
    sockets = []
    for _ in range(count):
        sock = socket.socket(socket.AF_UNIX)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        sock.connect(path)
        sock.setblocking(False)
        sockets.append(sock)
    return sockets


def upgrade(sockets: list[socket.socket]) -> Script:
    for sock in sockets:
        sock.send(REQUEST)
    yield
    for sock in sockets:
        assert sock.recv(4096).startswith(b"HTTP/1.1 101 ")


def exchange(
    askers: list[socket.socket], ask: bytes, hearers: list[socket.socket], answer: bytes
) -> Script:
    """Every asker writes `ask`; then `answer` must be there for every hearer."""
    for sock in askers:
        assert sock.send(ask) == len(ask)
    yield
    for sock in hearers:
        heard = sock.recv(1 << 20)
        while len(heard) < len(answer):
            heard += sock.recv(1 << 20)
        assert heard == answer


def talk(
    path: str, *, connections: int, ask: bytes, answer: bytes, rounds: int, raw: bool, room: bool
) -> Script:
    """`rounds` exchanges, after as many that warm the interpreter up."""
    sockets = open_sockets(path, connections)
    askers = sockets[:1] if room else sockets
    try:
        if not raw:
            yield from upgrade(sockets)
        for counted in (False, True):
            if counted:
                mark()
            for _ in range(rounds):
                yield from exchange(askers, ask, sockets, answer)
        mark()
    finally:
        for sock in sockets:
            sock.close()
    yield


def come_and_go(path: str, *, rounds: int) -> Script:
    """Opening handshake, closing handshake, end of the socket."""
    close, answer = frame(CLOSE, opcode=8, masked=True), frame(CLOSE, opcode=8)
    for counted in (False, True):
        if counted:
            mark()
        for _ in range(rounds):
            sockets = open_sockets(path, 1)
            yield from upgrade(sockets)
            yield from exchange(sockets, close, sockets, answer)
            assert sockets[0].recv(1) == b""
            sockets[0].close()
    mark()


# -- the servers ---------------------------------------------------------------------------------


async def echo_raw(stream: trio.SocketStream) -> None:
    while data := await stream.receive_some(1 << 16):
        await stream.send_all(data)


async def echo(ws: trio_ws.WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


async def echo_planted(ws: trio_ws.WebSocket) -> None:
    """The fault that the guard must see: a scheduler pass more for each message."""
    async for message in ws:
        await trio.lowlevel.checkpoint()
        await ws.send(message)


async def publish(ws: trio_ws.WebSocket, room: trio_ws.Room) -> None:
    async with room.join(ws):
        async for message in ws:
            room.publish(message)


# -- the cases -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One count.

    Attributes:
        handler: of the server; of `trio.serve_listeners` if `raw`, else of trio_ws's.
        script: what the peer does, on a unix socket's path.
        messages: what the count is divided by: messages echoed or delivered, or connections.
        raw: no WebSockets.
    """

    handler: Callable[[Any], Awaitable[None]]
    script: Callable[[str], Script]
    messages: int
    raw: bool = False


def talking(
    handler: Callable[[Any], Awaitable[None]] = echo,
    *,
    payload: bytes = SMALL,
    connections: int = 1,
    in_flight: int = 1,
    rounds: int,
    raw: bool = False,
    room: bool = False,
) -> Case:
    """A case of messages; a raw echo is asked with the very bytes of its counterpart."""
    ask = frame(payload, masked=True) * in_flight
    answer = ask if raw else frame(payload) * in_flight
    script = partial(
        talk,
        connections=connections,
        ask=ask,
        answer=answer,
        rounds=rounds,
        raw=raw,
        room=room,
    )
    return Case(handler=handler, script=script, messages=rounds * connections * in_flight, raw=raw)


CASES: Final[Mapping[str, Case]] = {
    "raw 1x1": talking(echo_raw, rounds=320, raw=True),
    "raw 100x1": talking(echo_raw, connections=100, rounds=10, raw=True),
    "raw 64 KiB": talking(echo_raw, payload=BULK, rounds=96, raw=True),
    "1x1": talking(rounds=320),
    "100x1": talking(connections=100, rounds=10),
    "16x16": talking(connections=16, in_flight=16, rounds=10),
    "64 KiB": talking(payload=BULK, rounds=96),
    "room of 100": talking(
        partial(publish, room=trio_ws.Room()), connections=100, rounds=32, room=True
    ),
    "handshake and close": Case(handler=echo, script=partial(come_and_go, rounds=48), messages=48),
    "planted": talking(echo_planted, rounds=320),
}
"""In the order in which they run. Rounds are few, because each is like the other."""

YARDSTICKS: Final[Mapping[str, str]] = {
    "1x1": "raw 1x1",
    "100x1": "raw 100x1",
    "16x16": "raw 1x1",
    "64 KiB": "raw 64 KiB",
    "room of 100": "raw 1x1",
    "handshake and close": "raw 1x1",
    "planted": "raw 1x1",
}
"""What each case is a multiple of."""


async def run(case: Case, path: str, clock: trio.testing.MockClock) -> None:
    """Serve on `path` until the case's script is over.

    Raises:
        Exception: the script's own: the server answered something else, or nothing.
    """
    async with trio.open_nursery() as nursery:

        def over() -> None:
            clock.autojump_threshold = 0  # whoever waits for a peer that is gone waits no longer
            nursery.cancel_scope.cancel()

        listeners = [await trio_ws.open_unix_listener(path)]
        serve: Any = trio.serve_listeners if case.raw else trio_ws.serve_listeners
        nursery.start_soon(serve, case.handler, listeners)
        await trio.testing.wait_all_tasks_blocked()
        gc.collect()
        gc.freeze()  # what came before must not decide when the collector walks, and how far
        peer = Peer(case.script(path), over)
        trio.lowlevel.add_instrument(peer)
    if peer.error is not None:
        raise peer.error


def main() -> None:
    """Run cases one after the other."""
    parser = argparse.ArgumentParser(description="Cases to be counted, in one process.")
    parser.add_argument("cases", nargs="+", choices=CASES, metavar="CASE")
    for name in parser.parse_args().cases:
        clock = trio.testing.MockClock()
        with tempfile.TemporaryDirectory() as folder:
            trio.run(run, CASES[name], str(Path(folder, "socket")), clock, clock=clock)


if __name__ == "__main__":
    main()
