"""The client's side of the opening handshake, without I/O: the request, and what may answer it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_ws import Deflate, HandshakeError, Response
from trio_ws._client_handshake import (
    MAX_BODY,
    MAX_HEAD,
    MAX_INFORMATIONAL,
    Agreed,
    ClientHandshake,
)
from trio_ws._handshake import HandshakeEvent
from trio_ws._url import parse_url
from trio_ws.testing import accept_token

URL = parse_url("ws://example.com:8000/chat?room=1")


def handshake(**options: Any) -> ClientHandshake:
    return ClientHandshake(URL, **options)


def token_for(machine: ClientHandshake) -> bytes:
    key = machine.request.header("sec-websocket-key")
    assert key is not None
    return accept_token(key)


def answer(
    machine: ClientHandshake,
    *,
    status: bytes = b"HTTP/1.1 101 Switching Protocols",
    omit: Iterable[bytes] = (),
    add: Iterable[bytes] = (),
) -> bytes:
    """A good 101, less some lines, plus some."""
    usual = {
        b"upgrade": b"Upgrade: websocket",
        b"connection": b"Connection: Upgrade",
        b"accept": b"Sec-WebSocket-Accept: " + token_for(machine),
    }
    lines = [status, *(line for name, line in usual.items() if name not in set(omit)), *add]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def outcome(machine: ClientHandshake, pieces: Iterable[bytes], *, eof: bool = True) -> Any:
    """What comes of these pieces: a value, or the words of the error."""
    try:
        for piece in [*pieces, *([b""] if eof else [])]:
            machine.receive_data(piece)
            event = machine.next_event()
            if event is not HandshakeEvent.NEED_DATA:
                return event
    except HandshakeError as exc:
        return str(exc)
    return HandshakeEvent.NEED_DATA


# -- the request ---------------------------------------------------------------------------------


def test_the_request_is_that_of_the_rfc() -> None:
    machine = handshake()
    key = machine.request.header("sec-websocket-key") or b""
    assert machine.head == (
        b"GET /chat?room=1 HTTP/1.1\r\n"
        b"Host: example.com:8000\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Key: " + key + b"\r\n"
        b"Sec-WebSocket-Version: 13\r\n\r\n"
    )


def test_every_handshake_has_its_own_key() -> None:
    keys = {handshake().request.header("sec-websocket-key") for _ in range(20)}
    assert len(keys) == 20


def test_options_become_headers() -> None:
    machine = handshake(
        headers=[("Authorization", "Bearer x"), (b"Origin", b"https://a.example")],
        subprotocols=["chat", "superchat"],
        compression=Deflate(),
    )
    assert b"Sec-WebSocket-Protocol: chat, superchat\r\n" in machine.head
    assert b"Sec-WebSocket-Extensions: permessage-deflate" in machine.head
    assert b"Authorization: Bearer x\r\nOrigin: https://a.example\r\n\r\n" in machine.head


def test_a_host_of_the_callers_replaces_ours() -> None:
    machine = handshake(headers=[("host", "other.example")])
    assert machine.request.header_all("host") == (b"other.example",)


@pytest.mark.parametrize(
    "options",
    [
        {"headers": [("X", "a\r\nY: b")]},
        {"headers": [("X\r\nY", "a")]},
        {"headers": [("X", "\x00")]},
        {"headers": [("X", "€")]},
        {"headers": [("Upgrade", "h2c")]},
        {"headers": [("Connection", "close")]},
        {"headers": [("Sec-WebSocket-Key", "mine")]},
        {"headers": [("sec-websocket-protocol", "mine")]},
        {"headers": [("Content-Length", "5")]},
        {"headers": [("Transfer-Encoding", "chunked")]},
        {"headers": [("Host", "a"), ("Host", "b")]},
        {"subprotocols": ["a b"]},
        {"subprotocols": ["a,b"]},
        {"subprotocols": [""]},
        {"subprotocols": ["é"]},
        {"subprotocols": ["a", "a"]},
    ],
)
def test_what_cannot_be_sent_is_a_value_error(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        handshake(**options)


@pytest.mark.parametrize("subprotocols", ["chat", [b"chat"], [1]])
def test_subprotocols_of_another_kind_are_a_type_error(subprotocols: Any) -> None:
    with pytest.raises(TypeError, match="subprotocol"):
        handshake(subprotocols=subprotocols)


# -- a good answer -------------------------------------------------------------------------------


@pytest.mark.row("H2")
@pytest.mark.parametrize(
    ("before", "changed"),
    [
        (b"", {}),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n", {}),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * MAX_INFORMATIONAL, {}),
        (b"", {"omit": [b"upgrade"], "add": [b"upgrade:   WebSocket  "]}),
        (b"", {"omit": [b"connection"], "add": [b"Connection: keep-alive, UPGRADE"]}),
        (b"", {"omit": [b"connection"], "add": [b"Connection: x", b"Connection: upgrade"]}),
        (b"", {"status": b"HTTP/1.1 101 \xff\xfe"}),
        (b"", {"status": b"HTTP/1.1 101"}),
        (b"", {"add": [b"X-Odd: \xff\xfe"]}),
        (b"", {"add": [b"Set-Cookie: a=1", b"Set-Cookie: b=2"]}),
    ],
)
def test_a_faultless_101_opens(before: bytes, changed: dict[str, Any]) -> None:
    """Whatever 1xx came before it, and whatever else its head says."""
    machine = handshake()
    agreed = outcome(machine, [before + answer(machine, **changed)])
    assert isinstance(agreed, Agreed), agreed
    assert agreed.response.status == 101
    assert agreed.subprotocol is None
    assert agreed.compression is None
    assert agreed.trailing_data == b""


def test_frames_behind_the_101_are_kept() -> None:
    machine = handshake()
    agreed = outcome(machine, [answer(machine) + b"\x81\x02hi"])
    assert agreed.trailing_data == b"\x81\x02hi"


def test_an_offered_subprotocol_is_agreed() -> None:
    machine = handshake(subprotocols=["a", "b"])
    agreed = outcome(machine, [answer(machine, add=[b"Sec-WebSocket-Protocol: b"])])
    assert agreed.subprotocol == "b"


def test_compression_is_agreed() -> None:
    machine = handshake(compression=Deflate(server_max_window_bits=15))
    agreed = outcome(
        machine, [answer(machine, add=[b"Sec-WebSocket-Extensions: permessage-deflate"])]
    )
    assert agreed.compression is not None


# -- a bad 101 -----------------------------------------------------------------------------------


@pytest.mark.row("H2")
@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"omit": [b"upgrade"]}, "Upgrade: websocket"),
        ({"omit": [b"upgrade"], "add": [b"Upgrade: h2c"]}, "Upgrade: websocket"),
        ({"omit": [b"upgrade"], "add": [b"Upgrade: websocket, h2c"]}, "Upgrade: websocket"),
        ({"omit": [b"upgrade"], "add": [b"Upgrade: websocket2"]}, "Upgrade: websocket"),
        ({"omit": [b"upgrade"], "add": [b"Upgrade: \xff"]}, "Upgrade: websocket"),
        ({"add": [b"Upgrade: h2c"]}, "Upgrade: websocket"),
        ({"omit": [b"connection"]}, "Connection: Upgrade"),
        ({"omit": [b"connection"], "add": [b"Connection: close"]}, "Connection: Upgrade"),
        ({"omit": [b"connection"], "add": [b"Connection: Upgrade \xff"]}, "Connection: Upgrade"),
        ({"omit": [b"accept"]}, "Sec-WebSocket-Accept"),
        ({"omit": [b"accept"], "add": [b"Sec-WebSocket-Accept:"]}, "Sec-WebSocket-Accept"),
        ({"omit": [b"accept"], "add": [b"Sec-WebSocket-Accept: \xff"]}, "Sec-WebSocket-Accept"),
        (
            {"omit": [b"accept"], "add": [b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="]},
            "Sec-WebSocket-Accept",
        ),
        ({"add": [b"Sec-WebSocket-Accept: x"]}, "Sec-WebSocket-Accept"),
        ({"add": [b"Sec-WebSocket-Protocol: chat"]}, "subprotocol we did not offer: chat"),
        ({"add": [b"Sec-WebSocket-Protocol:"]}, "subprotocol we did not offer"),
        ({"add": [b"Sec-WebSocket-Protocol: \x1b[31m\xff"]}, r"\x1b[31m\xff"),
        ({"add": [b"Sec-WebSocket-Extensions: permessage-deflate"]}, "extension not offered"),
        ({"add": [b"Sec-WebSocket-Extensions: \xff"]}, "malformed"),
        ({"status": b"HTTP/1.0 101 Switching Protocols"}, "HTTP/1.0"),
        ({"status": b"HTTP/2.0 101 Switching Protocols"}, "HTTP/2.0"),
    ],
)
def test_a_101_that_is_not_what_was_asked_for_is_an_error(
    changed: dict[str, Any], words: str
) -> None:
    machine = handshake()
    said = outcome(machine, [answer(machine, **changed)])
    assert isinstance(said, str)
    assert words in said
    assert said.isprintable()
    assert said.isascii()


@pytest.mark.row("H2")
def test_the_accept_token_must_occur_once() -> None:
    machine = handshake()
    again = b"Sec-WebSocket-Accept: " + token_for(machine)
    assert "Sec-WebSocket-Accept" in outcome(machine, [answer(machine, add=[again])])


@pytest.mark.parametrize(
    "lines",
    [
        [b"Sec-WebSocket-Protocol: c"],
        [b"Sec-WebSocket-Protocol: A"],
        [b"Sec-WebSocket-Protocol: a, b"],
        [b"Sec-WebSocket-Protocol: a", b"Sec-WebSocket-Protocol: b"],
        [b"Sec-WebSocket-Protocol: a", b"Sec-WebSocket-Protocol: a"],
    ],
)
def test_a_subprotocol_must_be_one_that_was_offered_and_one_only(lines: list[bytes]) -> None:
    machine = handshake(subprotocols=["a", "b"])
    assert "subprotocol we did not offer" in outcome(machine, [answer(machine, add=lines)])


@pytest.mark.parametrize(
    "value",
    [
        b"permessage-deflate, permessage-deflate",
        b"x-webkit-deflate-frame",
        b"permessage-deflate; unknown",
        b"permessage-deflate; server_max_window_bits=16",
        b"permessage-deflate; client_max_window_bits",
        b'permessage-deflate; server_max_window_bits="',
        b"permessage-deflate; server_no_context_takeover; server_no_context_takeover",
    ],
)
def test_an_extension_must_be_answered_as_it_was_offered(value: bytes) -> None:
    machine = handshake(compression=Deflate())
    line = b"Sec-WebSocket-Extensions: " + value
    assert "the server's 101 is wrong" in outcome(machine, [answer(machine, add=[line])])


# -- another answer ------------------------------------------------------------------------------


@pytest.mark.row("H2")
@pytest.mark.parametrize(
    ("data", "status", "body"),
    [
        (b"HTTP/1.1 403 No\r\nContent-Length: 4\r\n\r\nnope", 403, b"nope"),
        (b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", 302, b""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", 200, b"hi"),
        (b"HTTP/1.0 502 Bad Gateway\r\n\r\nto the end", 502, b"to the end"),
        (b"HTTP/1.1 204 None\r\n\r\n", 204, b""),
        (b"HTTP/1.1 999 \xff\r\nX: \xff\r\nContent-Length: 0\r\n\r\n", 999, b""),
        (b"HTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n", 401, b""),
        (b"HTTP/1.1 500 X\r\nContent-Length: 9\r\n\r\ncut", 500, b"cut"),
        (b"HTTP/1.1 500 X\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 500, b""),
        (b"HTTP/1.1 500 X\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 more", 500, b"ok"),
    ],
)
def test_any_other_response_is_a_value(data: bytes, status: int, body: bytes) -> None:
    response = outcome(handshake(), [data])
    assert isinstance(response, Response), response
    assert (response.status, response.body) == (status, body)


def test_an_endless_body_is_cut_off() -> None:
    machine = handshake()
    head = b"HTTP/1.1 404 No\r\nContent-Length: 1000000000\r\n\r\n"
    response = outcome(machine, [head, *([b"x" * 4096] * 100)], eof=False)
    assert isinstance(response, Response)
    assert len(response.body) == MAX_BODY


def test_a_refusal_is_known_from_its_head_on() -> None:
    machine = handshake()
    assert not machine.refused
    assert outcome(machine, [b"HTTP/1.1 403 No\r\nContent-Length: 9\r\n\r\nhal"], eof=False) is (
        HandshakeEvent.NEED_DATA
    )
    assert machine.refused
    assert machine.refusal().body == b"hal"


# -- no answer -----------------------------------------------------------------------------------


@pytest.mark.row("H2")
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "closed the connection before its response"),
        (b"HTTP/1.1 1", "closed the connection before its response"),
        (b"HTTP/1.1 103 Hints\r\n\r\n", "closed the connection before its response"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "not HTTP"),
        (b"\x15\x03\x01\x00\x02\x02\x16", "not HTTP"),
        (b"\x88\x02\x03\xe8", "closed the connection before its response"),
        (b"GET / HTTP/1.1\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 101 x\r\nno colon\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 101 x\r\n\xff: x\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 101 x\r\nX : x\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 abc x\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 x\r\nContent-Length: -1\r\n\r\n", "not HTTP"),
        (b"\x1b[2J\xff\r\n\r\n", "not HTTP"),
    ],
)
def test_what_is_no_response_is_an_error_that_says_so(data: bytes, words: str) -> None:
    said = outcome(handshake(), [data] if data else [])
    assert isinstance(said, str)
    assert words in said
    assert said.isprintable()
    assert said.isascii()


@pytest.mark.row("H2")
@pytest.mark.parametrize("byte", [b"\x0b", b"\x0c"])
@pytest.mark.parametrize("before", [b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"])
def test_vt_and_ff_in_a_head_are_found_at_once(before: bytes, byte: bytes) -> None:
    """However it is cut; and in the time of one look, not of a search for what it might be."""
    data = before + b"HTTP/1.1 403 No\r\nX:" + b" " * 20_000 + byte + b"\r\n\r\n"
    for cut in (1, len(before), len(before) + 10, len(data) - 5, len(data) - 1, len(data)):
        pieces = [piece for piece in (data[:cut], data[cut:]) if piece]
        said = outcome(handshake(), pieces, eof=False)
        assert said == "the server's response is not HTTP: VT or FF in its head"


@pytest.mark.parametrize("newline", [b"\r\n", b"\n"])
def test_vt_and_ff_in_a_body_are_what_they_are(newline: bytes) -> None:
    """Wherever the blank line before it is cut."""
    head = newline.join([b"HTTP/1.1 403 No", b"Content-Length: 4", b"", b""])
    data = head + b"\n\x0b\n\x0c"
    for cut in range(len(data) + 1):
        pieces = [piece for piece in (data[:cut], data[cut:]) if piece]
        said = outcome(handshake(), pieces)
        assert isinstance(said, Response)
        assert (said.status, said.body) == (403, b"\n\x0b\n\x0c")


@pytest.mark.row("H1", "H2")
def test_an_endless_head_is_given_up() -> None:
    machine = handshake()
    pieces = [b"HTTP/1.1 101 x\r\n", *([b"X: " + b"y" * 1000 + b"\r\n"] * 200)]
    said = outcome(machine, pieces, eof=False)
    assert isinstance(said, str), "over MAX_HEAD bytes it must have ended"
    assert sum(map(len, pieces)) > 4 * MAX_HEAD


@pytest.mark.row("H2")
def test_endless_1xx_responses_are_given_up() -> None:
    said = outcome(handshake(), [b"HTTP/1.1 100 C\r\n\r\n" * (MAX_INFORMATIONAL + 1)], eof=False)
    assert "1xx" in said


# -- chunking ------------------------------------------------------------------------------------


def asking() -> ClientHandshake:
    return handshake(subprotocols=["a"], compression=Deflate(server_max_window_bits=15))


@given(st.data())
def test_any_chunking_gives_the_same(data: st.DataObject) -> None:
    """Also of noise: whether it ends in a value or in an error does not depend on the pieces."""
    kind = data.draw(st.sampled_from(["good", "refused", "noise"]))
    one, other = asking(), asking()

    def response(machine: ClientHandshake) -> bytes:
        if kind == "good":
            chosen = [b"Sec-WebSocket-Protocol: a", b"Sec-WebSocket-Extensions: permessage-deflate"]
            return b"HTTP/1.1 103 x\r\n\r\n" + answer(machine, add=chosen) + b"\x81\x00"
        return noise

    body = b"HTTP/1.1 403 No\r\nX: y\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    noise = body if kind == "refused" else data.draw(st.binary(max_size=60))
    whole = outcome(one, [response(one)] if response(one) else [])
    text = response(other)
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(text) - 1)))))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    split = outcome(other, [piece for piece in pieces if piece])
    if isinstance(whole, Agreed):
        assert isinstance(split, Agreed)
        assert (whole.subprotocol, whole.compression) == (split.subprotocol, split.compression)
        # What has not been read yet is not trailing data yet.
        assert whole.trailing_data.startswith(split.trailing_data)
    elif isinstance(whole, Response):
        assert split == whole
    else:
        assert isinstance(split, str)
