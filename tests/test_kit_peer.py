"""The hand-made peer: its parser refuses every lie, its encoder tells every lie.

Lives here: frames, transcripts and `RawPeer` against another `RawPeer`. Must never live here: the
library's own protocol code.
"""

from __future__ import annotations

import pytest
import trio
import trio.testing

from trio_ws.testing import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Frame,
    FrameError,
    FrameParser,
    RawPeer,
    accept_token,
    encode_frame,
    parse_frames,
    upgrade_head,
)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 70000])
@pytest.mark.parametrize("masked", [False, True])
def test_what_is_encoded_is_parsed(size: int, masked: bool) -> None:
    """Every size class and both mask bits survive the way there and back."""
    payload = bytes(range(256)) * 300
    data = encode_frame(BINARY, payload[:size], masked=masked)
    frames, rest = parse_frames(data, masked=masked)
    assert frames == [Frame(opcode=BINARY, payload=payload[:size], masked=masked)]
    assert rest == b""


def test_known_bytes_of_the_rfc() -> None:
    """The examples of RFC 6455 section 5.7, byte by byte."""
    key = bytes.fromhex("37fa213d")
    assert encode_frame(TEXT, b"Hello").hex() == "810548656c6c6f"
    masked = encode_frame(TEXT, b"Hello", masked=True, masking_key=key)
    assert masked.hex() == "818537fa213d7f9f4d5158"
    assert encode_frame(BINARY, b"x" * 256)[:4].hex() == "827e0100"
    assert encode_frame(BINARY, b"x" * 65536)[:10].hex() == "827f0000000000010000"


def test_any_split_gives_the_same_frames() -> None:
    """The parser does not care how the bytes arrive; the torn tail is reported as such."""
    data = encode_frame(TEXT, b"ab", fin=False) + encode_frame(PING, b"!")
    data += encode_frame(CONTINUATION, b"c") + encode_frame(CLOSE, b"\x03\xe8")
    for cut in range(len(data) + 1):
        parser = FrameParser(masked=False)
        for piece in (data[:cut], data[cut:]):
            parser.feed(piece)
            while parser.next_frame():
                pass
        assert [frame.opcode for frame in parser.frames] == [TEXT, PING, CONTINUATION, CLOSE]
        assert parser.messages == ["abc"]
        assert not parser.partial
        assert not parser.in_message
        frames, rest = parse_frames(data[:cut], masked=False)
        assert (
            b"".join(encode_frame(f.opcode, f.payload, fin=f.fin) for f in frames) + rest
            == (data[:cut])
        )


LIES = {
    "opcode": encode_frame(0x3),
    "control opcode": encode_frame(0xB),
    "rsv": encode_frame(TEXT, rsv=1),
    "rsv1 on control": encode_frame(PING, rsv=4),
    "masked": encode_frame(TEXT, masked=True),
    "long form of 5": encode_frame(TEXT, b"Hello", length_size=2),
    "longest form of 200": encode_frame(BINARY, b"x" * 200, length_size=8),
    "fragmented control": encode_frame(PING, fin=False),
    "long control": encode_frame(PING, b"x" * 126),
    "orphan continuation": encode_frame(CONTINUATION, b"x"),
    "message in a message": encode_frame(TEXT, b"a", fin=False) + encode_frame(TEXT, b"b"),
    "text": encode_frame(TEXT, b"\xff"),
    "one-byte close": encode_frame(CLOSE, b"\x03"),
    "close code 1005": encode_frame(CLOSE, b"\x03\xed"),
    "close reason": encode_frame(CLOSE, b"\x03\xe8\xff"),
    "bytes behind close": encode_frame(CLOSE) + b"\x00",
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_the_parser_refuses_what_no_server_may_send(lie: bytes) -> None:
    """Each rule of sections 5.2 to 5.6 that the parser claims to hold refuses its violation."""
    with pytest.raises(FrameError):
        parse_frames(lie, masked=False)


def test_bytes_behind_a_close_are_refused_later_too() -> None:
    """Also if they come in a read of their own."""
    parser = FrameParser(masked=False)
    parser.feed(encode_frame(CLOSE))
    assert parser.next_frame() is not None
    with pytest.raises(FrameError):
        parser.feed(b"\x81")


def test_a_declared_length_may_lie() -> None:
    """The header claims 2^62 bytes; the parser just waits for them."""
    lie = encode_frame(BINARY, b"abc", declared_length=1 << 62)
    assert lie[:10].hex() == "827f4000000000000000"
    frames, rest = parse_frames(lie, masked=False)
    assert (frames, rest) == ([], lie)


def test_the_sample_handshake_of_the_rfc() -> None:
    """The key and token of section 1.3."""
    assert accept_token(b"dGhlIHNhbXBsZSBub25jZQ==") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    head = upgrade_head("/chat", omit=[b"host"], headers=[(b"Origin", b"https://a.example")])
    assert head.startswith(b"GET /chat HTTP/1.1\r\nUpgrade: websocket\r\n")
    assert b"Host" not in head
    assert head.endswith(b"\r\nOrigin: https://a.example\r\n\r\n")


def pair() -> tuple[RawPeer, RawPeer]:
    left, right = trio.testing.memory_stream_pair()
    return RawPeer(left), RawPeer(right, role="server")


async def test_two_peers_shake_hands_and_talk(nursery: trio.Nursery) -> None:
    """Both roles of the opening handshake, messages, control frames, the close, the end."""
    client, server = pair()
    nursery.start_soon(server.accept)
    await client.request("/room")
    await client.send_message("hi")
    await client.send_ping(b"1")
    await client.send_message(b"\x00\x01")
    assert await server.receive_message() == "hi"
    assert await server.receive_message() == b"\x00\x01"
    assert [frame.opcode for frame in server.frames] == [TEXT, PING, BINARY]
    await server.send_pong(b"1")
    await client.expect(PONG, b"1")
    await server.send_close(4000, "bye")
    frame = await client.expect_close(4000)
    assert frame.close_reason == "bye"
    await server.aclose()
    await client.expect_eof()
    assert bytes(client.received_bytes) == b"".join(
        encode_frame(f.opcode, f.payload) for f in client.frames
    )


async def test_frames_glued_to_the_101_are_kept(nursery: trio.Nursery) -> None:
    """What follows a head in the same read is the first frame."""
    client, server = pair()

    async def serve() -> None:
        head = await server.receive_head()
        key = head.split(b"Sec-WebSocket-Key: ")[1].split(b"\r\n")[0]
        answer = b"HTTP/1.1 101 Fine\r\nSec-WebSocket-Accept: " + accept_token(key) + b"\r\n\r\n"
        await server.send_raw(answer + encode_frame(TEXT, b"early"))

    nursery.start_soon(serve)
    await client.request()
    assert await client.receive_message() == "early"


async def test_expectations_fail_with_what_came_instead() -> None:
    """Each `expect` is an assertion, with the frame in its message."""
    client, server = pair()
    await server.send_message("x")
    await server.send_close(1001)
    await server.send_raw(b"")
    with pytest.raises(AssertionError, match="TEXT"):
        await client.expect(CLOSE)
    with pytest.raises(AssertionError, match="CLOSE"):
        await client.receive_message()
    await server.aclose()
    await client.expect_eof()


async def test_a_torn_end_is_no_clean_end() -> None:
    """`expect_eof` tells a boundary from the middle of a frame; `read_to_end` only reads."""
    client, server = pair()
    await server.send_raw(encode_frame(TEXT, b"torn")[:-1])
    await server.aclose()
    with pytest.raises(AssertionError, match="inside a frame"):
        await client.expect_eof()
    assert await client.read_to_end() == []
    assert client.partial == encode_frame(TEXT, b"torn")[:-1]
