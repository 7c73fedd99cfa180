"""`trio_ws.metrics`: an instrument whose numbers are served on the same port."""

from __future__ import annotations

from typing import Any

import pytest

from trio_ws.testing import upgrade_head

prometheus_client = pytest.importorskip("prometheus_client", reason="the extra `metrics`")

from prometheus_client.parser import text_string_to_metric_families  # noqa: E402

from trio_ws.metrics import Metrics  # noqa: E402


async def ask(served: Any, path: bytes = b"/metrics", method: bytes = b"GET") -> tuple[bytes, str]:
    stream = served.listener.connect()
    await stream.send_all(method + b" " + path + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
    received = b""
    while data := await stream.receive_some():
        received += data
    await stream.aclose()
    head, _, body = received.partition(b"\r\n\r\n")
    return head, body.decode()


def numbers(page: str) -> dict[tuple[str, ...], float]:
    """Sample name and label values, by label, to the value; without time stamps and buckets."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if not sample.name.endswith(("_created", "_bucket"))
    }


async def test_the_numbers_are_served_beside_the_websockets(served: Any) -> None:
    metrics = Metrics()
    await served.start(instruments=[metrics], http=metrics.http)
    first, second = await served.peers(2)
    await first.send_message("hello")
    await first.receive_message()
    for code in (4001, 4002):
        peer = first if code == 4001 else second
        await peer.send_close(code)
        await peer.expect_close(code)
    await served.peers(1)
    refused = served.listener.connect()
    await refused.send_all(upgrade_head(headers=[(b"Origin", b"https://evil.example")]))
    await refused.receive_some()
    await refused.aclose()
    head, page = await ask(served)
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nContent-Type: text/plain; version=" in head
    assert numbers(page) == {
        ("trio_ws_handshakes_total", "", "101"): 3,
        ("trio_ws_handshakes_total", "origins", "403"): 1,
        ("trio_ws_connections",): 1,
        ("trio_ws_closed_total", "4xxx", "peer"): 2,
        ("trio_ws_message_bytes_count", "in", "text"): 1,
        ("trio_ws_message_bytes_sum", "in", "text"): 5,
        ("trio_ws_message_bytes_count", "out", "text"): 1,
        ("trio_ws_message_bytes_sum", "out", "text"): 5,
    }
    assert (await ask(served, b"/other"))[0].startswith(b"HTTP/1.1 404 ")
    head, body = await ask(served, method=b"HEAD")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert not body
    served.scope.cancel()


async def test_labels_hold_nothing_that_a_peer_makes_up(served: Any) -> None:
    """A hundred codes, a hundred paths: no more lines than two of each."""
    metrics = Metrics(path="/m")
    await served.start(instruments=[metrics], http=metrics.http)
    for code in range(3000, 3100):
        (peer,) = await served.peers(1)
        await peer.send_close(code)
        await peer.expect_close(code)
    for number in range(100):
        await ask(served, b"/%d" % number)
    found = numbers((await ask(served, b"/m"))[1])
    assert found["trio_ws_closed_total", "3xxx", "peer"] == 100
    assert found["trio_ws_handshakes_total", "", "404"] == 100
    assert len(found) < 10
    served.scope.cancel()


def test_a_registry_of_the_application_is_used() -> None:
    registry = prometheus_client.CollectorRegistry()
    prometheus_client.Gauge("mine", "Something else.", registry=registry).set(3)
    page = Metrics(registry=registry).page().body.decode()
    assert numbers(page)["mine",] == 3
    assert ("trio_ws_connections",) in numbers(page)
