"""What docs/migrating.md says about the behaviour of three libraries, tried out on all three.

Lives here: the rows that carry a `*`. Must never live here: speed (benchmarks/), or a judgement;
where another library changes, this file and the guide change.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

import trio_ws

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

trio_websocket = pytest.importorskip("trio_websocket")
their_client = pytest.importorskip("websockets.trio.client")
their_server = pytest.importorskip("websockets.trio.server")

GUIDE = Path(__file__).parents[2] / "docs" / "migrating.md"


@dataclass(frozen=True, kw_only=True)
class Library:
    """How to start a server whose handler waits or raises, and how to wait in a client."""

    name: str
    serve: Callable[[trio.Nursery, Exception | None], Awaitable[int]]
    wait_in_client: Callable[..., Awaitable[None]]


async def wait_or_raise(error: Exception | None) -> None:
    if error is not None:
        raise error
    await trio.sleep_forever()


async def serve_trio_websocket(nursery: trio.Nursery, error: Exception | None) -> int:
    async def handler(request: Any) -> None:
        await request.accept()
        await wait_or_raise(error)

    start = partial(trio_websocket.serve_websocket, handler, "127.0.0.1", 0, None)
    return int((await nursery.start(start)).port)


async def serve_websockets(nursery: trio.Nursery, error: Exception | None) -> int:
    async def handler(_: Any) -> None:
        await wait_or_raise(error)

    start = partial(their_server.serve, handler, 0, host="127.0.0.1")
    server = await nursery.start(start)
    return int(server.listeners[0].socket.getsockname()[1])


async def serve_ours(nursery: trio.Nursery, error: Exception | None) -> int:
    async def handler(_: trio_ws.WebSocket) -> None:
        await wait_or_raise(error)

    server = await nursery.start(partial(trio_ws.serve, handler, 0, host="127.0.0.1"))
    return int(server.port)


def waiting_in(connect: Callable[[str], Any]) -> Callable[..., Awaitable[None]]:
    async def wait(url: str, task_status: trio.TaskStatus[None]) -> None:
        async with connect(url):
            task_status.started()
            await trio.sleep_forever()

    return wait


LIBRARIES = [
    Library(
        name="trio-websocket",
        serve=serve_trio_websocket,
        wait_in_client=waiting_in(trio_websocket.open_websocket_url),
    ),
    Library(
        name="websockets",
        serve=serve_websockets,
        wait_in_client=waiting_in(their_client.connect),
    ),
    Library(name="trio_ws", serve=serve_ours, wait_in_client=waiting_in(trio_ws.connect)),
]


@pytest.fixture(params=LIBRARIES, ids=lambda library: library.name)
def library(request: pytest.FixtureRequest) -> Library:
    return request.param


@pytest.fixture(autouse=True)
def quiet() -> None:
    """Errors of handlers are asked for here."""
    logging.getLogger("websockets").setLevel(logging.CRITICAL)


async def test_what_the_peer_of_a_cancelled_server_sees(library: Library) -> None:
    expected = {"trio-websocket": 1006, "websockets": 1006, "trio_ws": 1001}
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def run(task_status: trio.TaskStatus[int]) -> None:
            with scope:
                async with trio.open_nursery() as inside:
                    task_status.started(await library.serve(inside, None))
                    await trio.sleep_forever()

        port: int = await nursery.start(run)
        with trio.fail_after(10):
            async with trio_ws.connect(f"ws://127.0.0.1:{port}/") as ws:
                await ws.ping()
                scope.cancel()
                assert (await ws.wait_closed()).code == expected[library.name]


async def test_what_the_peer_of_a_cancelled_client_sees(library: Library) -> None:
    expected = {"trio-websocket": 1006, "websockets": 1006, "trio_ws": 1001}
    codes = []

    async def handler(ws: trio_ws.WebSocket) -> None:
        codes.append((await ws.wait_closed()).code)
        server_scope.cancel()

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            server_scope = nursery.cancel_scope
            start = partial(trio_ws.serve, handler, 0, host="127.0.0.1")
            server = await nursery.start(start)
            async with trio.open_nursery() as clients:
                await clients.start(library.wait_in_client, f"ws://127.0.0.1:{server.port}/")
                clients.cancel_scope.cancel()
            await trio.sleep_forever()
    assert codes == [expected[library.name]]


async def test_what_a_handler_that_raises_does_to_the_server(library: Library) -> None:
    ended: BaseException | None = None
    code = None
    try:
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                port = await library.serve(nursery, RuntimeError("in the handler"))
                async with trio_ws.connect(f"ws://127.0.0.1:{port}/") as ws:
                    code = (await ws.wait_closed()).code
                async with await trio.open_tcp_stream("127.0.0.1", port):
                    nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        ended = group
    if library.name == "trio-websocket":
        assert ended is not None
    else:
        assert (ended, code) == (None, 1011)


async def test_what_a_page_of_another_origin_is_told(
    library: Library, nursery: trio.Nursery
) -> None:
    port = await library.serve(nursery, None)
    opening = trio_ws.connect(
        f"ws://127.0.0.1:{port}/", headers=[("Origin", "https://evil.example")]
    )
    if library.name == "trio_ws":
        with pytest.raises(trio_ws.Rejected, match="403"):
            async with opening:
                pass
    else:
        async with opening as ws:
            assert ws.closed is None


def test_the_guide_marks_these_rows_and_no_others() -> None:
    marked = [line for line in GUIDE.read_text().splitlines() if " * |" in line]
    assert len(marked) == 4
