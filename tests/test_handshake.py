"""The bytes of the opening handshake: reading a head, writing an answer.

Lives here: `ServerHandshake` under every split of its input, and the bytes of 101 and refusals.
Must never live here: the rows of the table (see test_checks), sockets.
"""

from __future__ import annotations

import re
import tracemalloc
from random import Random

import h11
import pytest

from trio_ws import Accept, Limits, Policy, Response, UpgradeRequest
from trio_ws import _checks as checks
from trio_ws._handshake import (
    HandshakeEvent,
    ServerHandshake,
    http_response,
    switching_protocols,
    upgrade_request,
)
from trio_ws._response import Refusal, refuse

LIMITS = Limits(max_header_bytes=400, max_headers=6, max_target=40)
HOST = b"Host: a.example\r\n"
GOOD = (
    b"GET /chat HTTP/1.1\r\n" + HOST + b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
LINE = b"GET / HTTP/1.1\r\n"

Outcome = tuple[object, ...]


def outcome_of(machine: ServerHandshake) -> Outcome:
    event = machine.next_event()
    if isinstance(event, Refusal):
        return event.row, event.status, event.body
    return event, machine.trailing_data


def feed(data: bytes, size: int, limits: Limits = LIMITS) -> Outcome:
    """The outcome of `data` read `size` bytes at a time, asked after each read."""
    machine = ServerHandshake(limits=limits)
    for start in range(0, len(data), size):
        machine.receive_data(data[start : start + size])
        machine.next_event()
    return outcome_of(machine)


def feed_split(data: bytes, at: int) -> Outcome:
    machine = ServerHandshake(limits=LIMITS)
    for part in (data[:at], data[at:]):
        if part:
            machine.receive_data(part)
            machine.next_event()
    return outcome_of(machine)


row = pytest.mark.row

HEADS = [
    # bytes, row, status, bytes after which that is certain (None: the whole)
    pytest.param(GOOD, None, None, None),
    pytest.param(GOOD + b"\x81\x85\r\n\r\n\x00 more \n", None, None, None, marks=row("A13")),
    pytest.param(b"GET / HTTP/1.1\nHost: a\n\n", "head", 400, 15, marks=row("A18")),
    pytest.param(LINE + b"Host: a\n\r\n", "head", 400, 24, marks=row("A18")),
    pytest.param(LINE + HOST + b"\n", "head", 400, 34, marks=row("A18")),
    pytest.param(LINE + HOST + b"\r\r\n", "head", 400, 35, marks=row("A18")),
    pytest.param(LINE + b"X: a\rb\r\n" + HOST + b"\r\n", "head", 400, 22, marks=row("A18")),
    pytest.param(LINE + b"X: a\r\r\n" + HOST + b"\r\n", "head", 400, 22, marks=row("A18")),
    pytest.param(LINE + b"X: a\x00b\r\n\r\n", "head", 400, 21, marks=row("A18")),
    pytest.param(LINE + b"X: a\r\n b\r\n\r\n", "head", 400, 23, marks=row("A18")),
    pytest.param(LINE + b"Origin: a\r\n\tb\r\n\r\n", "head", 400, 28, marks=row("A18", "B3")),
    pytest.param(LINE + b" X: a\r\n\r\n", "head", 400, 17, marks=row("A18")),
    pytest.param(LINE + HOST + b"X : a\r\n\r\n", "head", 400, None, marks=row("A18")),
    pytest.param(LINE + HOST + b": a\r\n\r\n", "head", 400, None, marks=row("A18")),
    pytest.param(LINE + HOST + b"X\r\n\r\n", "head", 400, None, marks=row("A18")),
    pytest.param(LINE + HOST + b"X\xff: a\r\n\r\n", "head", 400, None, marks=row("A18")),
    pytest.param(LINE + b"X: a\x0bb\r\n\r\n", "head", 400, None, marks=row("A18")),
    pytest.param(b"\r\n" + GOOD, "head", 400, 1),
    pytest.param(b"\x16\x03\x01\x02\x00\x01", "head", 400, 1),
    pytest.param(b"GET / HTTP/1.1 \r\n" + HOST + b"\r\n", "head", 400, None),
    pytest.param(b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n", "head", 400, None),
    pytest.param(b"GET /\r\n\r\n", "head", 400, None),
    pytest.param(b"GET / http/1.1\r\n" + HOST + b"\r\n", "head", 400, None),
    pytest.param(b"GET /\xff HTTP/1.1\r\n" + HOST + b"\r\n", "head", 400, None, marks=row("A19")),
    pytest.param(b"G\x1bT / HTTP/1.1\r\n" + HOST + b"\r\n", "head", 400, None, marks=row("A19")),
    pytest.param(b"GET / HTTP/2\r\n" + HOST + b"\r\n", "protocol", 505, None, marks=row("A7")),
    pytest.param(b"GET / HTTP/11.1\r\n" + HOST + b"\r\n", "protocol", 505, None, marks=row("A7")),
    pytest.param(
        b"GET / HTTP/1.0\r\n" + HOST + HOST + b"\r\n", "protocol", 505, None, marks=row("A7")
    ),
    pytest.param(LINE + b"\r\n", "host", 400, None, marks=row("A9")),
    pytest.param(LINE + HOST + HOST + b"\r\n", "host", 400, None, marks=row("A9")),
    pytest.param(
        LINE + HOST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "body",
        400,
        73,
        marks=row("A12"),
    ),
    pytest.param(
        LINE + HOST + b"Content-Length: x\r\n\r\n", "body", 400, None, marks=row("A12")
    ),
    pytest.param(
        LINE + HOST + b"Transfer-Encoding: gzip\r\n\r\n", "body", 400, None, marks=row("A12")
    ),
    pytest.param(b"GET /" + b"a" * 100, "size", 414, 4 + 41, marks=row("A15")),
    pytest.param(b"GET /" + b"a" * 39 + b" HTTP/1.1\r\n\r\n", "host", 400, None, marks=row("A15")),
    pytest.param(b"GET /" + b"a" * 40 + b" HTTP/1.1\r\n\r\n", "size", 414, 45, marks=row("A15")),
    pytest.param(b"G" * 500, "size", 431, 401, marks=row("A15")),
    pytest.param(LINE + b"X: " + b"a" * 500, "size", 431, 401, marks=row("A15")),
    pytest.param(LINE + HOST + b"X: a\r\n" * 5 + b"\r\n", None, None, None, marks=row("A15")),
    pytest.param(LINE + HOST + b"X: a\r\n" * 6 + b"\r\n", "size", 431, 69, marks=row("A15")),
    pytest.param(LINE + b"X: a\r\n" * 90, "size", 431, 16 + 42, marks=row("A15")),
    # Which of two faults comes first is decided by position, not by kind.
    pytest.param(b"GET /" + b"a" * 30 + b"\x00" + b"a" * 50, "head", 400, 36),
    pytest.param(b"GET /" + b"a" * 50 + b"\x00", "size", 414, 45),
    pytest.param(LINE + b"X: " + b"a" * 381 + b"\x00", "head", 400, 401),
    pytest.param(LINE + b"X: " + b"a" * 382 + b"\x00", "size", 431, 401),
    pytest.param(LINE + b"X: a\r\n" * 6 + b"X: a\n", "head", 400, 16 + 36 + 5),
    pytest.param(LINE + b"X: a\r\n" * 7 + b"X: a\n", "size", 431, 16 + 42),
]  # fmt: skip


@pytest.mark.row("A7", "A9", "A12", "A13", "A15", "A18", "A19", "B3")
@pytest.mark.parametrize(("data", "name", "status", "_certain"), HEADS)
def test_a_head(data: bytes, name: str | None, status: int | None, _certain: int | None) -> None:
    """A request, or the refusal of the row it fails."""
    machine = ServerHandshake(limits=LIMITS)
    machine.receive_data(data)
    event = machine.next_event()
    if name is None:
        assert isinstance(event, UpgradeRequest)
        assert machine.head_complete
        assert machine.trailing_data == data.partition(b"\r\n\r\n")[2]
    else:
        assert isinstance(event, Refusal)
        assert (event.row, event.status) == (name, status)
        assert not machine.head_complete
        assert machine.trailing_data == b""
    assert machine.next_event() is event


@pytest.mark.parametrize(("data", "_name", "_status", "_certain"), HEADS)
def test_any_split_of_the_same_bytes_has_the_same_outcome(
    data: bytes, _name: str | None, _status: int | None, _certain: int | None
) -> None:
    """Byte by byte, in two parts at every point, and in parts of any size."""
    expected = feed(data, len(data))
    for size in (1, 2, 3, 5, 7, 64):
        assert feed(data, size) == expected, f"{size} at a time"
    for at in range(len(data)):
        assert feed_split(data, at) == expected, f"split at {at}"


@pytest.mark.row("A15", "A18")
@pytest.mark.parametrize(
    ("data", "certain"),
    [(p.values[0], p.values[3]) for p in HEADS if p.values[3] is not None],
)
def test_a_refusal_comes_with_the_byte_that_makes_it_certain(data: bytes, certain: int) -> None:
    """Not a byte later: a bad peer is not waited for until its head is complete."""
    machine = ServerHandshake(limits=LIMITS)
    if certain > 1:
        machine.receive_data(data[: certain - 1])
    assert machine.next_event() is HandshakeEvent.NEED_DATA
    machine.receive_data(data[certain - 1 : certain])
    assert isinstance(machine.next_event(), Refusal)


@pytest.mark.row("A15")
@pytest.mark.parametrize(
    ("data", "name", "status"),
    [
        (LINE + HOST + b"Cookie: " + b"a" * 20_000 + b"\r\n\r\n", "size", 431),
        (LINE + HOST + b"X: a\r\n" * 200 + b"\r\n", "size", 431),
        (b"GET /" + b"a" * 8192 + b" HTTP/1.1\r\n" + HOST + b"\r\n", "size", 414),
        (b"GET /" + b"a" * 8191 + b" HTTP/1.1\r\n" + HOST + b"\r\n", None, None),
    ],
)
def test_the_default_limits(data: bytes, name: str | None, status: int | None) -> None:
    """20 KB of header, 200 headers, a target over 8 KiB; read 4 KiB at a time."""
    outcome = feed(data, 4096, Limits())
    if name is None:
        assert isinstance(outcome[0], UpgradeRequest)
    else:
        assert outcome[:2] == (name, status)


@pytest.mark.row("A15", "A16")
def test_memory_is_bounded_whatever_comes() -> None:
    """A megabyte of header, and a megabyte after the refusal, is not kept."""
    machine = ServerHandshake(limits=LIMITS)
    machine.receive_data(LINE + b"X: ")
    tracemalloc.start()
    try:
        for _ in range(512):
            machine.receive_data(b"a" * 4096)
            machine.next_event()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * 1024
    assert outcome_of(machine)[:2] == ("size", 431)


@pytest.mark.row("A17")
def test_the_end_of_the_stream() -> None:
    """Nobody there: no answer. In mid-head: 400. After the head: as if nothing had happened."""
    empty = ServerHandshake(limits=LIMITS)
    assert empty.next_event() is HandshakeEvent.NEED_DATA
    empty.receive_data(b"")
    assert empty.next_event() is empty.next_event() is HandshakeEvent.PEER_GONE
    cut = ServerHandshake(limits=LIMITS)
    cut.receive_data(GOOD[:-1])
    cut.receive_data(b"")
    assert outcome_of(cut)[:2] == ("head", 400)
    whole = ServerHandshake(limits=LIMITS)
    whole.receive_data(GOOD)
    whole.receive_data(b"")
    assert isinstance(whole.next_event(), UpgradeRequest)


@pytest.mark.row("A13")
def test_frames_glued_to_the_head_are_kept_in_order() -> None:
    """In the same read, and in reads that come before the answer is decided."""
    machine = ServerHandshake(limits=LIMITS)
    machine.receive_data(GOOD + b"\x81\x80")
    machine.next_event()
    machine.receive_data(b"\x00\r\n\r\n")
    assert machine.trailing_data == b"\x81\x80\x00\r\n\r\n"


@pytest.mark.row("A12", "A23")
def test_nothing_after_a_refused_head_is_kept() -> None:
    machine = ServerHandshake(limits=LIMITS)
    machine.receive_data(LINE + b"\r\n\x81\x80")
    assert isinstance(machine.next_event(), Refusal)
    machine.receive_data(b"\x00\x00\x00\x00")
    assert machine.trailing_data == b""


@pytest.mark.row("A1", "A2", "A3", "A5", "A6", "A7", "A8", "A9", "A11", "A12")
@pytest.mark.parametrize(
    ("change", "name", "status"),
    [
        ((b"Host: a.example", b"Host: \xff"), "host", 400),
        ((b"Host: a.example", b"Host: xn--99999999999"), "host", 400),
        ((b"Host: a.example", b"Host:"), "host", 400),
        ((b"Host: a.example", b"Host: a@b/c"), "host", 400),
        ((b"Connection: Upgrade", b"Connection: Upgrade, \xff"), "lists", 400),
        ((b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol: \xff\r\n\r\n"), "lists", 400),
        ((b"ZQ==", b"ZR=="), "key", 400),
        ((b"Version: 13", b"Version: 12"), "version", 426),
        ((b"HTTP/1.1", b"HTTP/1.0"), "protocol", 505),
        ((b"HTTP/1.1", b"HTTP/1.9"), "protocol", 505),
        ((b"GET", b"POST"), "method", 405),
        ((b"GET /chat", b"CONNECT a.example:80"), "method", 405),
        ((b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\nhello"), "body", 400),
        ((b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), "body", 400),
        ((b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"), "body", 400),
        ((b"Connection: Upgrade", b"Connection: x\r\nCONNECTION: uPGRADE"), None, None),
        ((b"Upgrade: websocket", b"Upgrade: websocket, h2c"), None, None),
    ],
)
def test_from_bytes_to_verdict(
    change: tuple[bytes, bytes], name: str | None, status: int | None
) -> None:
    """The machine and the table together: hostile bytes end in a row, never in an exception."""
    machine = ServerHandshake(limits=Limits(), peer_address=("192.0.2.1", 1))
    machine.receive_data(GOOD.replace(*change))
    event = machine.next_event()
    assert isinstance(event, UpgradeRequest)
    assert event.peer_address == ("192.0.2.1", 1)
    verdict = Policy().decide(event)
    if name is None:
        assert verdict == Accept()
    else:
        assert isinstance(verdict, Refusal)
        assert (verdict.row, verdict.status) == (name, status)


@pytest.mark.row("A1", "A2", "A3", "A9", "A18")
@pytest.mark.parametrize("seed", range(300))
def test_mutated_heads_end_in_a_verdict_however_they_are_split(seed: int) -> None:
    """A few hostile bytes anywhere: no exception, one outcome for all splits, and with a verdict
    that the table and its explanation agree on."""
    random = Random(seed)
    data = bytearray(GOOD + b"\x81\x80\r\n")
    for _ in range(random.randint(1, 4)):
        at = random.randrange(len(data))
        junk = random.choice([b"", b"\r", b"\n", b"\r\n", b"\x00", b"\xff", b" ", b",", b":", b'"'])
        data[at : at + random.randint(0, 3)] = junk
    whole = feed(bytes(data), len(data))
    assert feed(bytes(data), 1) == whole
    assert feed_split(bytes(data), random.randrange(1, len(data))) == whole
    if isinstance(whole[0], UpgradeRequest):
        verdict = Policy().decide(whole[0])
        refused = [v.row for v in Policy().explain(whole[0]) if v.outcome == "refused"]
        assert refused == ([verdict.row] if isinstance(verdict, Refusal) else [])
        assert not isinstance(verdict, Refusal) or verdict.error is None


def test_the_time_for_a_line_grows_with_its_length() -> None:
    """Not with its square, which would let one client stop the server; this would take minutes."""
    head = LINE + HOST + b"X:" + b" " * 400_000 + b"\x0b\r\n\r\n"
    limits = Limits(max_header_bytes=1_000_000)
    assert feed(head, len(head), limits)[:2] == ("head", 400)


@pytest.mark.row("A7")
def test_the_http2_preface_is_505() -> None:
    machine = ServerHandshake(limits=Limits())
    machine.receive_data(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    event = machine.next_event()
    assert isinstance(event, UpgradeRequest)
    verdict = Policy().decide(event)
    assert isinstance(verdict, Refusal)
    assert (verdict.row, verdict.status) == ("protocol", 505)


def good_request(*headers: tuple[bytes, bytes]) -> UpgradeRequest:
    parsed = h11.Request(
        method=b"GET",
        target=b"/chat",
        headers=[
            (b"Host", b"a.example"),
            (b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ=="),
            *headers,
        ],
    )
    return upgrade_request(
        parsed, tls=True, peer_address=("192.0.2.1", 1), local_address=("192.0.2.2", 2)
    )


def test_a_request_of_another_server_becomes_a_value() -> None:
    """`upgrade_request` takes what h11 gave to whoever read it."""
    request = good_request()
    assert (request.method, request.raw_target, request.http_version) == (b"GET", b"/chat", b"1.1")
    assert (request.host, request.scheme, request.tls) == ("a.example", "https", True)
    assert request.local_address == ("192.0.2.2", 2)


def parse_response(data: bytes, request_method: bytes = b"GET") -> tuple[h11.Response, bytes]:
    """What an HTTP client makes of a response that ends with the connection."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=request_method, target=b"/", headers=[(b"Host", b"a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    client.receive_data(b"")
    response = client.next_event()
    assert isinstance(response, h11.Response)
    body = b""
    while isinstance(event := client.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert isinstance(client.next_event(), h11.ConnectionClosed)
    return response, body


def test_switching_protocols_is_the_answer_of_the_rfc() -> None:
    """The key and its answer of RFC 6455 section 1.3."""
    assert switching_protocols(good_request(), Accept()) == (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    )


@pytest.mark.row("B5")
def test_switching_protocols_carries_what_was_agreed() -> None:
    """Subprotocol, extensions, the application's headers; none of them unless given."""
    request = good_request((b"Sec-WebSocket-Protocol", b"a, b"))
    head = switching_protocols(
        request, Accept("b", [("Set-Cookie", "x=1"), ("Set-Cookie", "y=2")]), "permessage-deflate"
    )
    lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")[4:]
    assert lines == [
        b"Sec-WebSocket-Protocol: b",
        b"Sec-WebSocket-Extensions: permessage-deflate",
        b"Set-Cookie: x=1",
        b"Set-Cookie: y=2",
    ]
    assert b"rotocol:" not in switching_protocols(request, Accept())


@pytest.mark.row("B5")
@pytest.mark.parametrize("offered", [(), ((b"Sec-WebSocket-Protocol", b"a, B"),)])
def test_a_subprotocol_that_was_not_offered_is_a_valueerror(
    offered: tuple[tuple[bytes, bytes], ...],
) -> None:
    with pytest.raises(ValueError, match="not offered"):
        switching_protocols(good_request(*offered), Accept("b"))


@pytest.mark.parametrize(
    "response",
    [
        refuse("key", 400, "Send a key."),
        checks.draining(),
        checks.too_many_from_address(),
        checks.too_slow(head_complete=False),
        Response(200, [("Content-Type", "text/html"), ("Cache-Control", "max-age=60")], b"<p>"),
        Response(302, [("Location", "/x")]),
        Response(418, [("Date", "Sun, 06 Nov 1994 08:49:37 GMT")], "tea"),
        Response(599, (), b"x" * 100_000),
        Response(426),
        Response(204),
        Response(304, [("ETag", '"1"')]),
    ],
    ids=lambda response: str(response.status),
)
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_a_response_is_complete_http(response: Response, method: bytes) -> None:
    """An HTTP client reads it to its end; HEAD has no body but the same headers."""
    data = http_response(response, head_only=method == b"HEAD", now=784111777)
    parsed, body = parse_response(data, method)
    headers = dict(parsed.headers)
    bodiless = response.status in (204, 304)
    assert parsed.status_code == response.status
    assert parsed.reason
    assert body == (b"" if method == b"HEAD" or bodiless else response.body)
    assert headers[b"date"] == b"Sun, 06 Nov 1994 08:49:37 GMT"
    assert headers[b"cache-control"] == (response.header("cache-control") or b"no-store")
    assert headers.get(b"content-length") == (None if bodiless else b"%d" % len(response.body))
    if not bodiless:
        wanted = response.header("content-type") or b"text/plain; charset=utf-8"
        assert headers[b"content-type"] == wanted
    if response.status == 426:
        assert headers[b"connection"] == b"Upgrade, close"
        assert headers[b"upgrade"] == b"websocket"
    else:
        assert headers[b"connection"] == b"close"
        assert b"upgrade" not in headers
    assert len(headers) == len(list(parsed.headers)), "no header twice"


def test_the_clock_gives_the_date() -> None:
    assert re.search(
        rb"\r\nDate: \w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT\r\n", http_response(Response(200))
    )


@pytest.mark.row("A6")
def test_a_version_refusal_on_the_wire() -> None:
    """426 with what would do (RFC 6455 section 4.4)."""
    machine = ServerHandshake(limits=Limits())
    machine.receive_data(GOOD.replace(b"Version: 13", b"Version: 13, 8"))
    event = machine.next_event()
    assert isinstance(event, UpgradeRequest)
    verdict = Policy().decide(event)
    assert isinstance(verdict, Refusal)
    headers = dict(parse_response(http_response(verdict))[0].headers)
    assert headers[b"sec-websocket-version"] == b"13"
    assert headers[b"upgrade"] == b"websocket"
