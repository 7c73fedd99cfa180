"""The load of echoes counts honestly: against real servers, and against servers that cheat.

Lives here: the two drivers, their frames. Must never live here: other suites
(test_benchmarks_suites), statistics and the command line (test_benchmarks_command), or how fast
anything was.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Any

import pytest

from .benchmarks_world import MESSAGE, answering, exchange_of, linux, modules, serving

pytestmark = linux


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The modules of `benchmarks/`."""
    return modules(monkeypatch)


@pytest.mark.parametrize("case", ["1x1", "3x5", "16 KiB 3x4", "1 MiB 1x2"])
@pytest.mark.parametrize("name", ["raw", "wsproto", "websockets-asyncio", "trio_ws"])
def test_an_echo_is_counted_and_timed(bench: Any, name: str, case: str) -> None:
    """Both drivers get along with servers in their own processes, and every quantity is there."""
    values = bench.suites.measure_once("echo", case, name, seconds=0.1, core=None)
    assert list(values) == MESSAGE
    assert all(value > 0 for value in values.values())
    assert values["p50 us"] <= values["p99 us"]


def test_the_driver_is_chosen_by_what_a_socket_buffer_takes(bench: Any) -> None:
    """64 KiB under way are the small load's, one byte more is not; nobody has to say so."""
    chosen = {}
    for size in (16 * 1024 - 8, 16 * 1024 - 7):  # with a head of 8 bytes
        with contextlib.closing(bench.echo.driver([], exchange_of(bench, size), 4)) as driver:
            chosen[size] = type(driver).__name__
    assert list(chosen.values()) == ["Load", "Bulk"]


@pytest.mark.parametrize("kind", ["Load", "Bulk"])
def test_each_message_has_one_latency(bench: Any, kind: str) -> None:
    """What came back and what was timed are the same number, by either driver."""
    make = getattr(bench.load if kind == "Load" else bench.bulk, kind)
    with (
        bench.connections.holding() as connections,
        bench.servers.running("raw", "echo", core=None) as server,
    ):
        bench.connections.open_connections(server.port, 3, into=connections)
        exchange = bench.frames.Exchange.of(size=100, unmasks=False)
        latencies: list[tuple[float, int]] = []
        with contextlib.closing(make(connections, exchange, 4)) as load:
            load.start()
            messages = load.drive(0.1, latencies)
            load.finish()
    assert messages > 0
    assert sum(count for _, count in latencies) == messages
    assert all(seconds > 0 for seconds, _ in latencies)


DAMAGES = {
    "altered": "not the reply",
    "masked": "not the reply",
    "twice": "more replies|never came back",  # in one read, or in two
    "closed": "not the reply",
    "once": "never came back",
    "half": "never came back",
    "gone": "not the reply",
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("case", ["1x1", "1 MiB 1x1"])
def test_a_wrong_echo_voids_the_measurement(
    bench: Any, monkeypatch: pytest.MonkeyPatch, damage: str, case: str
) -> None:
    """A server cannot win by answering wrongly, twice, or no longer."""
    exchange = exchange_of(bench, bench.load.Case.parse(case).size)
    reply = {
        "altered": exchange.reply[:-1] + b"~",
        "masked": exchange.request,
        "twice": exchange.reply * 2,
        "closed": bytes([0x88, 0]),
        "once": exchange.reply,
        "half": exchange.reply[: len(exchange.reply) // 2],
        "gone": b"",
    }[damage]
    for module in (bench.load, bench.bulk):
        monkeypatch.setattr(module, "PATIENCE", 0.5)

    def talk(connection: socket.socket) -> None:
        got = 0
        while got < len(exchange.request):
            got += len(connection.recv(1 << 20))
        connection.sendall(reply)
        if damage == "gone":
            connection.shutdown(socket.SHUT_RDWR)

    with (
        serving(talk, bench.frames.UPGRADED) as server,
        bench.connections.holding() as connections,
        pytest.raises(bench.connections.LoadError, match=DAMAGES[damage]),
    ):
        bench.echo.measure(server, connections, case, 0.1)


@pytest.mark.parametrize("size", [32, 100_000])
def test_what_is_still_under_way_at_the_end_is_compared_too(bench: Any, size: int) -> None:
    """The last reply counts like all others."""
    exchange = exchange_of(bench, size)
    with (
        serving(answering(exchange.reply[:-1] + b"~"), bench.frames.UPGRADED) as server,
        bench.connections.holding() as connections,
    ):
        bench.connections.open_connections(server.port, 1, into=connections)
        with contextlib.closing(bench.echo.driver(connections, exchange, 1)) as load:
            load.start()
            with pytest.raises(bench.connections.LoadError, match="not the reply"):
                load.finish()


def test_a_server_that_reads_before_it_writes_gets_every_byte_once(bench: Any) -> None:
    """The kernel takes the messages in pieces, whenever it likes; whole they arrive, in order."""
    exchange = exchange_of(bench, 300_000)
    total = len(exchange.request) * 4
    seen: list[bytes] = []

    def talk(connection: socket.socket) -> None:
        got = bytearray()
        while len(got) < total:
            got += connection.recv(50_000)
        seen.append(bytes(got))
        connection.sendall(exchange.reply * 4)

    with (
        serving(talk, bench.frames.UPGRADED) as server,
        bench.connections.holding() as connections,
    ):
        bench.connections.open_connections(server.port, 1, into=connections)
        connections[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)
        with contextlib.closing(bench.bulk.Bulk(connections, exchange, 4)) as load:
            load.start()
            load.finish()
    assert seen == [exchange.request * 4]


@pytest.mark.parametrize("size", [0, 32, 125, 126, 65535, 65536])
def test_frames_are_what_wsproto_reads(bench: Any, size: int) -> None:
    """The prebuilt bytes are one whole message, and its echo, for an independent implementation."""
    from wsproto.connection import Connection, ConnectionType
    from wsproto.events import BytesMessage

    exchange = exchange_of(bench, size)
    server = Connection(ConnectionType.SERVER)
    server.receive_data(exchange.request)
    events = list(server.events())
    payload = b"".join(event.data for event in events if isinstance(event, BytesMessage))
    assert len(payload) == size
    assert events[-1].message_finished  # type: ignore[attr-defined]
    assert server.send(BytesMessage(data=payload)) == exchange.reply
