"""The public API as its users type it. Nothing here runs: mypy --strict and pyright check it.

Lives here: one use of each public name, with the types a user would write. A line that must be
refused carries the error that it must give; mypy reports an ignore that is not needed.
"""

from __future__ import annotations

import ssl
from typing import Literal, assert_type

import h11
import trio
import trio.abc

from trio_ws import (
    Accept,
    Broker,
    BrokerError,
    Check,
    ClientOptions,
    Close,
    CloseCode,
    ConnectionClosed,
    ConnectionLost,
    Deflate,
    HandshakeError,
    Instrument,
    InvalidURL,
    Limits,
    Member,
    MemoryBroker,
    Policy,
    Presence,
    Rejected,
    Response,
    Room,
    RoomStats,
    Routes,
    Server,
    ServerOptions,
    ServerStats,
    UpgradeRequest,
    WebSocket,
    WebSocketError,
    allow_origins,
    connect,
    connect_stream,
    open_tcp_listeners,
    open_unix_listener,
    reconnect,
    same_origin,
    serve,
    serve_listeners,
    serve_stream,
    serve_upgrade,
    unsafe_any_origin,
    worth_retrying,
)
from trio_ws.metrics import Metrics


async def handler(ws: WebSocket) -> None:
    async for message in ws:
        assert_type(message, str | bytes)
        await ws.send(message)
    await ws.send("text")
    await ws.send(b"bytes")
    await ws.send(bytearray(b"bytes"))
    await ws.send(memoryview(b"bytes"))
    await ws.send(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(await ws.receive(), str | bytes)
    assert_type(await ws.ping(), float)
    assert_type(await ws.wait_closed(), Close)
    await ws.close(1000, "bye")
    await ws.close(CloseCode.GOING_AWAY)
    await ws.aclose()
    assert_type(ws.closed, Close | None)
    assert_type(ws.request, UpgradeRequest)
    assert_type(ws.subprotocol, str | None)
    channel: trio.abc.Channel[str | bytes] = ws
    await trio.aclose_forcefully(channel)


async def authorize(request: UpgradeRequest) -> Response | Accept | None:
    if request.header(b"authorization") is None:
        return Response(401, headers=[("WWW-Authenticate", "Bearer")], body=b"a token, please")
    if request.path == "/anonymous":
        return None
    return Accept(context={"user": "ada"})


async def page(request: UpgradeRequest) -> Response:
    assert_type(request.target, str)
    assert_type(request.path, str)
    assert_type(request.query, str)
    assert_type(request.header(b"host"), bytes | None)
    assert_type(request.host, str)
    return Response(200, headers=[(b"Content-Type", b"text/plain")], body=b"hello")


def no_bots(request: UpgradeRequest) -> Response | None:
    return Response(403) if request.header(b"user-agent") == b"bot" else None


def policies() -> None:
    check: Check = no_bots
    policy = Policy(
        origins=allow_origins("https://*.example.com"),
        hosts=["example.com"],
        checks=[check],
        subprotocols=["chat"],
        trusted_proxies=["10.0.0.0/8", "unix"],
    )
    Policy(origins=same_origin)
    Policy(origins=unsafe_any_origin)
    Policy(origin=same_origin)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    options = ServerOptions(policy=policy, limits=Limits(max_message=1024), authorize=authorize)
    assert_type(options.policy, Policy)


async def server(context: ssl.SSLContext, stream: trio.abc.Stream) -> None:
    routes = Routes({"/chat/{room}": handler})
    await serve(handler, 8000)
    await serve(routes, 0, host="127.0.0.1", ssl_context=context, limits=Limits(), http=page)
    await serve(handler, 0, limit=Limits())  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    async with trio.open_nursery() as nursery:
        started = await nursery.start(serve, handler, 0)
        running: Server = started
        assert_type(running.port, int)
        stats = running.stats()
        assert_type(stats, ServerStats)
        assert_type(stats.latency_median, float | None)
        code: int = next(iter(stats.closed))
        assert_type(await running.drain(10), tuple[tuple[str, int] | str | None, ...])
        await running.drain(10, code=code, reason="new version", spread=5)
    tcp = await open_tcp_listeners(0, host="127.0.0.1")
    await serve_listeners(handler, tcp)
    unix = await open_unix_listener("/run/app.sock", mode=0o600)
    await serve_listeners(handler, [unix], cancel_code=1012, cancel_reason="restart")
    await serve_stream(handler, stream, authorize=authorize, raise_handler_errors=True)


async def upgrade(stream: trio.abc.Stream, request: h11.Request) -> None:
    await serve_upgrade(handler, stream, request, b"", cancel_on_close=True)
    await serve_upgrade(handler, stream, b"GET /", b"")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


class Counting(Instrument):
    def message_received(self, ws: WebSocket, size: int, kind: Literal["text", "binary"]) -> None:
        assert_type(ws.request, UpgradeRequest)

    def closed(self, ws: WebSocket, close: Close, cause: BaseException | None) -> None:
        assert_type(close.code, int)


async def watched() -> None:
    metrics = Metrics()
    await serve(handler, 0, instruments=(Counting(), metrics), http=metrics.http)
    await serve(handler, 0, instruments=[Counting])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]


async def client(context: ssl.SSLContext, stream: trio.abc.Stream) -> None:
    async with connect("wss://example.com/chat") as ws:
        assert_type(ws, WebSocket)
        assert_type(ws.response, Response | None)
    async with connect(
        "wss://example.com/chat",
        ssl_context=context,
        headers=[("Authorization", "Bearer x"), (b"Origin", b"https://example.com")],
        subprotocols=["chat"],
        proxy="socks5h://proxy.example:1080",
        redirects=3,
        limits=Limits(handshake_timeout=3),
        compression=Deflate(),
        instruments=[Counting()],
        cancel_code=4000,
        cancel_reason="bye",
    ) as ws:
        await ws.send("hello")
    async with connect("ws://example.com/", proxy=None) as ws:
        pass
    async with connect_stream(stream, "ws://localhost/", subprotocols=("a", "b")) as ws:
        assert_type(ws, WebSocket)
    connect("ws://example.com/", header=[])  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    assert_type(ClientOptions().redirects, int)


def stubborn(exc: HandshakeError) -> bool:
    return worth_retrying(exc) or isinstance(exc, Rejected)


async def feed() -> None:
    async with reconnect("wss://example.com/feed", retry=stubborn, proxy=None) as connections:
        async for ws in connections:
            assert_type(ws, WebSocket)
            async for message in ws:
                assert_type(message, str | bytes)


async def errors(ws: WebSocket) -> None:
    try:
        await ws.receive()
    except ConnectionLost as exc:
        assert_type(exc.close, Close)
    except ConnectionClosed as exc:
        assert_type(exc.close.code, int)
    except Rejected as exc:
        assert_type(exc.response, Response)
    except (HandshakeError, InvalidURL, WebSocketError):
        raise


async def rooms(ws: WebSocket) -> None:
    room = Room(overflow="drop_oldest", backlog=10, backlog_bytes=1024)
    async with room.join(ws, context="ada") as member:
        assert_type(member, Member)
        assert_type(member.ws, WebSocket)
        room.publish("text", exclude=[member])
        room.publish(b"bytes", exclude={member, ws})
        room.publish(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Room(overflow="panic")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(room.members, tuple[Member, ...])
    assert_type(room.stats(), RoomStats)
    with room.presence() as changes:
        async for change in changes:
            assert_type(change, Presence)
            assert_type(change.joined, tuple[Member, ...])


async def brokers(ws: WebSocket) -> None:
    broker: Broker = MemoryBroker(keep=100)
    try:
        async with Room("lobby", broker=broker, wrap=lambda _, message: message) as room:
            assert_type(room, Room)
            assert_type(await room.broadcast("text", token="once"), str)
            async with room.join(ws, after="0"):
                pass
    except BrokerError as exc:
        assert_type(exc, BrokerError)
    async with broker.subscribe("lobby", after="0") as messages:
        async for record in messages:
            assert_type(record, tuple[str, str | bytes])
    assert_type(await broker.history("lobby", 10), list[tuple[str, str | bytes]])
