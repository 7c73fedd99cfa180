"""Random schedules over one connection: any calls, any cancellations, any end. Nobody gets stuck.

Lives here: the property, with many seeds. Must never live here: a particular order of events (see
test_close_races), or the sweep over every step (see test_cancellation).
"""

from __future__ import annotations

import random
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing

from trio_ws import Close, ConnectionClosed, Limits, WebSocket
from trio_ws._attendant import Attendant
from trio_ws._connection import Connection
from trio_ws._services import open_services
from trio_ws.testing import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    TEXT,
    ChunkedStream,
    RawPeer,
    StallingStream,
    request,
)

ENDS = ("close", "eof", "abort", "fault", "local", "kill", "give up", "none")
LAST_WORD = 60.0
"""When the connection is closed if nothing else has ended it; seconds of the mock clock."""


def make_streams(rng: random.Random) -> tuple[trio.abc.Stream, trio.abc.Stream]:
    kind = rng.choice(("sockets", "lockstep", "memory", "chunked"))
    if kind == "sockets":
        ends = socket.socketpair()
        for end in ends:
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # the kernel's minimum
        near, far = (trio.SocketStream(trio.socket.from_stdlib_socket(end)) for end in ends)
        return near, far
    if kind == "lockstep":
        return trio.testing.lockstep_stream_pair()
    plain, other = trio.testing.memory_stream_pair()
    if kind == "memory":
        return plain, other
    stalling = StallingStream(plain, after=rng.randint(0, 500), seconds=3 * rng.random())
    return ChunkedStream(stalling, rng.randint(1, 50)), other


@dataclass
class Client:
    """Sends what chance says, reads at chance's pace, ends as told."""

    peer: RawPeer
    rng: random.Random
    end: str
    lock: trio.Lock = field(default_factory=trio.Lock)

    async def run(self) -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.read)
                for _ in range(self.rng.randint(0, 40)):
                    async with self.lock:
                        await self.say()
                    await trio.sleep(2 * self.rng.random() if self.rng.random() < 0.2 else 0)
                async with self.lock:
                    await self.finish(nursery.cancel_scope)
        except* (trio.EndOfChannel, trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def say(self) -> None:
        rng, peer = self.rng, self.peer
        do = rng.random()
        if do < 0.5:
            await peer.send_message(b"message" * rng.randint(0, 30))
        elif do < 0.7:
            await peer.send_frame(BINARY, b"a", fin=False)
            await trio.sleep(rng.random())
            await peer.send_frame(CONTINUATION, b"b" * rng.randint(0, 3000))
        else:
            await peer.send_ping(b"theirs")

    async def finish(self, scope: trio.CancelScope) -> None:
        if self.end == "close":
            await self.peer.send_close(1000)
        elif self.end == "eof":
            await self.peer.send_eof()
        elif self.end == "fault":
            await self.peer.send_frame(TEXT, masked=False)
        elif self.end == "abort":
            await trio.aclose_forcefully(self.peer.stream)
            scope.cancel()

    async def read(self) -> None:
        while True:
            frame = await self.peer.receive_frame()
            await trio.sleep(self.rng.random() if self.rng.random() < 0.3 else 0)
            async with self.lock:
                if frame.opcode == PING and self.rng.random() < 0.9:
                    await self.peer.send_pong(frame.payload)
                elif frame.opcode == CLOSE:
                    await self.peer.send_close(1000)


@dataclass(eq=False)
class Caller:
    """One task that calls one kind of thing a few times, with more or less patience."""

    ws: WebSocket
    rng: random.Random
    stories: list[Close]
    sending: list[Caller]

    async def run(self, call: Callable[[Caller], Awaitable[object]]) -> None:
        try:
            for _ in range(self.rng.randint(1, 6)):
                patience = self.rng.choice((0, self.rng.random(), 3, 1e9))
                with trio.move_on_after(patience):
                    await call(self)
                await trio.sleep(self.rng.random() if self.rng.random() < 0.3 else 0)
        except ConnectionClosed as exc:
            self.stories.append(exc.close)
        except trio.BusyResourceError:
            pass  # there are several receivers

    async def receive(self) -> None:
        await self.ws.receive()

    async def read(self) -> None:
        async with self.ws.message_reader() as chunks:
            async for _ in chunks:
                if self.rng.random() < 0.2:
                    return
                await trio.sleep(self.rng.random() if self.rng.random() < 0.2 else 0)

    async def send(self) -> None:
        self.sending.append(self)
        try:
            await self.ws.send(bytes(self.rng.choice((1, 100, 20_000))))
        finally:
            self.sending.remove(self)

    async def write(self) -> None:
        async with self.ws.message_writer("binary") as out:
            for _ in range(self.rng.randint(0, 4)):
                await out.send(bytes(self.rng.choice((1, 1000))))
                await trio.sleep(self.rng.random() if self.rng.random() < 0.5 else 0)

    async def ping(self) -> None:
        await self.ws.ping()

    async def wait_closed(self) -> None:
        await self.ws.wait_closed()


CALLS = (Caller.receive, Caller.read, Caller.send, Caller.write, Caller.ping, Caller.wait_closed)


async def bring_about(end: str, connection: Connection, ws: WebSocket, after: float) -> None:
    await trio.sleep(after)
    if end == "local":
        await ws.close()
    elif end == "kill":
        connection.kill()
    elif end == "give up":
        connection.give_up(TimeoutError())
    else:
        await trio.sleep(LAST_WORD)
        connection.start_close(1000)


async def nobody_waits_for_nobody(connection: Connection, sending: list[Caller]) -> None:
    """Four times a second: who waits for the peer has somebody who reads, unless reading ahead is
    full; who waits for room does so because there is none."""
    reader, writer = connection.reader, connection.writer
    while True:
        await trio.sleep(0.25)
        await trio.testing.wait_all_tasks_blocked()
        if connection.closed is None and not (reader.paused() or reader.fault):
            assert reader.driving or not (reader.waiters or reader.receiver)
        if not writer.outbox.sealed:
            assert writer.full() or not sending


@pytest.mark.row("C7", "C11", "D3")
@pytest.mark.parametrize("seed", range(250))
async def test_nobody_gets_stuck(
    seed: int, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """However it ends: every call wakes, all tell the one story, nothing of the machine is left
    held, and what the peer got is whole frames (`RawPeer` sees to that)."""
    rng = random.Random(seed)
    near, far = make_streams(rng)
    end = ENDS[seed % len(ENDS)]
    limits = Limits(
        max_outbox=rng.choice((1, 50, 5000)),
        read_ahead=rng.choice((0, 100, 65536)),
        ping_interval=rng.choice((None, 3, 20)),
        ping_timeout=rng.choice((3, 20)),
    )
    stories: list[Close] = []
    sending: list[Caller] = []
    async with open_services() as services:
        connection = Connection(near, client=False, limits=limits, services=services)
        ws = WebSocket(connection, request=request())
        if rng.random() < 0.5:
            Attendant(limits, services).watch(connection)
        with trio.fail_after(400):
            async with trio.open_nursery() as outer:
                outer.start_soon(Client(RawPeer(far), rng, end).run)
                outer.start_soon(nobody_waits_for_nobody, connection, sending)
                async with trio.open_nursery() as calls:
                    calls.start_soon(bring_about, end, connection, ws, 10 * rng.random())
                    for call in rng.choices(CALLS, k=rng.randint(2, 9)):
                        calls.start_soon(Caller(ws, rng, stories, sending).run, call)
                connection.start_close(1000)
                await connection.wait_gone()
                await trio.aclose_forcefully(far)
                outer.cancel_scope.cancel()
    assert not caplog.records, "no service task has failed"
    assert all(story is ws.closed for story in stories)
    reader, writer = connection.reader, connection.writer
    assert not reader.driving
    assert not reader.receiving
    assert not reader.waiters
    assert not reader.receiver
    assert not writer.composing
    assert not writer.outbox.size
