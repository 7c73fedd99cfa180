"""`max_connections`, and per address: who counts, who is told 503 or 429, who waits.

Lives here: places of one server. Must never live here: listeners that fail (test_server_accepting).
"""

from __future__ import annotations

import pytest
import trio
import trio.testing

from trio_ws import Limits, Policy, Server, UpgradeRequest, serve, serve_listeners
from trio_ws.testing import RawPeer, upgrade_head

from .server_world import MemoryListener, echo, serving, talk


@pytest.mark.row("E12")
async def test_the_cap_counts_silent_streams_and_refuses_the_rest_with_503() -> None:
    listener = MemoryListener()
    async with serving(listener, limits=Limits(max_connections=3)):
        peers = [RawPeer(listener.connect()) for _ in range(2)]
        for peer in peers:
            await peer.request()
        silent = listener.connect()
        await trio.testing.wait_all_tasks_blocked()
        extra = listener.connect()
        await extra.send_all(upgrade_head())
        answer = await extra.receive_some()
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nRetry-After: " in answer
        await extra.aclose()
        await silent.aclose()
        await trio.testing.wait_all_tasks_blocked()
        peers.append(RawPeer(listener.connect()))
        await peers[-1].request()
        for peer in peers:
            await talk(peer)


@pytest.mark.row("E12")
async def test_64_more_are_held_to_be_told_then_accepting_waits() -> None:
    listener, other = MemoryListener(), MemoryListener()
    async with trio.open_nursery() as nursery:

        async def run(task_status: trio.TaskStatus[Server]) -> None:
            await serve_listeners(
                echo,
                [listener, other],
                limits=Limits(max_connections=1),
                task_status=task_status,
            )

        await nursery.start(run)
        streams = [listener.connect() for _ in range(100)]
        await trio.testing.wait_all_tasks_blocked()
        assert listener.accepts == 65
        latecomer = other.connect()
        await latecomer.send_all(upgrade_head())
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0) as scope:
            await latecomer.receive_some()
        assert scope.cancelled_caught, "in hand, not served"
        for stream in streams[1:65]:
            await stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert (await latecomer.receive_some()).startswith(b"HTTP/1.1 503 ")
        assert listener.accepts >= 100
        nursery.cancel_scope.cancel()


async def test_a_stream_in_hand_is_closed_when_the_server_is_cancelled() -> None:
    listener, other = MemoryListener(), MemoryListener()
    async with trio.open_nursery() as nursery:

        async def run(task_status: trio.TaskStatus[Server]) -> None:
            limits = Limits(max_connections=1)
            await serve_listeners(echo, [listener, other], limits=limits, task_status=task_status)

        await nursery.start(run)
        streams = [listener.connect() for _ in range(65)]
        await trio.testing.wait_all_tasks_blocked()
        streams.append(other.connect())
        await trio.testing.wait_all_tasks_blocked()
        assert (listener.accepts, other.accepts) == (65, 1)
        nursery.cancel_scope.cancel()
    for stream in streams:
        assert await stream.receive_some() == b""


async def test_an_extra_stream_is_let_in_if_there_is_room_when_it_asks() -> None:
    listener = MemoryListener()
    async with serving(listener, limits=Limits(max_connections=1)):
        first = listener.connect()
        await trio.testing.wait_all_tasks_blocked()
        second = RawPeer(listener.connect())
        await trio.testing.wait_all_tasks_blocked()
        await first.aclose()
        await trio.testing.wait_all_tasks_blocked()
        await second.request()
        await talk(second)


async def test_the_cap_per_address() -> None:
    """Counted by the address that a trusted proxy names; given back when the connection ends."""

    def head(address: str) -> list[tuple[bytes, bytes]]:
        return [(b"X-Forwarded-For", address.encode())]

    async with trio.open_nursery() as nursery:

        async def run(task_status: trio.TaskStatus[Server]) -> None:
            await serve(
                echo,
                0,
                host="127.0.0.1",
                policy=Policy(trusted_proxies=["127.0.0.0/8"]),
                limits=Limits(max_connections_per_address=1),
                task_status=task_status,
            )

        server = await nursery.start(run)

        async def dial() -> trio.SocketStream:
            return await trio.open_tcp_stream("127.0.0.1", server.port)

        async with RawPeer(await dial()) as one, RawPeer(await dial()) as two:
            await one.request(headers=head("2001:db8::1"))
            await two.request(headers=head("192.0.2.1"))
            async with await dial() as refused:
                await refused.send_all(upgrade_head(headers=head("2001:db8::2")))
                answer = await refused.receive_some()
                assert answer.startswith(b"HTTP/1.1 429 ")
                assert b"\r\nRetry-After: " in answer
            await one.send_close()
            await one.expect_close(1000)
            await one.expect_eof()
        await trio.testing.wait_all_tasks_blocked()
        async with RawPeer(await dial()) as three:
            await three.request(headers=head("2001:db8::2"))
            await talk(three)
        nursery.cancel_scope.cancel()


async def test_a_place_is_kept_while_authorize_thinks() -> None:
    """Two requests of one address in `authorize` at once do not slip past a cap of one."""
    listener = MemoryListener()
    go = trio.Event()

    async def authorize(request: UpgradeRequest) -> None:
        await go.wait()

    async with serving(listener, authorize=authorize, limits=Limits(max_connections=1)):
        first = listener.connect()
        await first.send_all(upgrade_head())
        await trio.testing.wait_all_tasks_blocked()
        second = listener.connect()
        await second.send_all(upgrade_head())
        assert (await second.receive_some()).startswith(b"HTTP/1.1 503 ")
        go.set()
        assert (await first.receive_some()).startswith(b"HTTP/1.1 101 ")
