"""`cancel_on_close=True`: a handler whose peer has gone is cancelled, and ends in good order."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from trio_ws import Limits, WebSocket
from trio_ws.testing import RawPeer


class Busy:
    """A handler that does anything but look at its connection."""

    def __init__(self) -> None:
        self.ended: list[str] = []

    async def __call__(self, ws: WebSocket) -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            self.ended.append(f"cancelled, {ws.closed and ws.closed.code}")
            raise


@pytest.mark.parametrize("how", ["close", "eof"])
async def test_a_busy_handler_is_cancelled_when_its_peer_has_gone(
    served: Any, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """Within a tick of the attendant's, for a Close; nothing is logged, its siblings live."""
    busy = Busy()
    await served.start(busy, cancel_on_close=True, limits=Limits(ping_interval=None))
    first, second = await served.peers(2)
    if how == "close":
        await first.send_close(4000)
        await first.expect_close(4000)
    else:
        await first.aclose()
    await trio.sleep(10)
    assert busy.ended == [f"cancelled, {4000 if how == 'close' else 1006}"]
    assert len(served.server.connections) == 1
    assert not caplog.records
    await second.aclose()
    served.scope.cancel()


async def test_without_it_the_handler_goes_on(
    served: Any, autojump_clock: trio.testing.MockClock
) -> None:
    busy = Busy()
    await served.start(busy, limits=Limits(ping_interval=None))
    (peer,) = await served.peers(1)
    await peer.send_close(4000)
    await trio.sleep(100)
    assert busy.ended == []
    served.scope.cancel()


async def test_the_handlers_own_close_does_not_cancel_it(
    served: Any, autojump_clock: trio.testing.MockClock
) -> None:
    finished = []

    async def handler(ws: WebSocket) -> None:
        await ws.close(4000)
        await trio.sleep(100)
        finished.append(ws.closed)

    await served.start(handler, cancel_on_close=True)
    (peer,) = await served.peers(1)
    await peer.expect_close(4000)
    await peer.send_close(4000)
    await trio.sleep(101)
    assert [close.code for close in finished] == [4000]
    served.scope.cancel()


async def test_limits_and_drains_cancel_it_too(
    served: Any, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    busy = Busy()
    await served.start(busy, cancel_on_close=True)
    (peer,) = await served.peers(1)

    async def answer() -> None:
        await peer.expect_close(1001)
        await peer.send_close(1001)

    nursery.start_soon(answer)
    with trio.fail_after(5):
        assert await served.server.drain(60) == ()
    assert busy.ended == ["cancelled, 1001"]


async def test_a_server_that_is_cancelled_stays_cancelled(
    served: Any, autojump_clock: trio.testing.MockClock
) -> None:
    """The scope around the handler catches its own cancellation only."""
    busy = Busy()
    await served.start(busy, cancel_on_close=True)
    (peer,) = await served.peers(1)
    served.scope.cancel()
    await peer.expect_close(1001)
    assert busy.ended == ["cancelled, None"]
    await trio.sleep(1)
    assert served.returned_at is None
    await peer.aclose()


async def test_an_error_on_the_way_out_is_still_an_error(
    served: Any, caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    async def handler(ws: WebSocket) -> None:
        try:
            await ws.wait_closed()
            await trio.sleep_forever()
        finally:
            raise RuntimeError("a bug")

    await served.start(handler, cancel_on_close=True)
    peer: RawPeer
    (peer,) = await served.peers(1)
    await peer.send_close(4000)
    await peer.expect_close(4000)
    await trio.testing.wait_all_tasks_blocked()
    (record,) = caplog.records
    assert record.exc_info is not None
    served.scope.cancel()
