"""`RawPeer`: the other end of a connection, played by the test, frame by frame or byte by byte.

Lives here: sending what a test says, valid or not, and checking what comes back. Must never live
here: any wish to be a good peer (it answers no ping and no Close unless told to).
"""

from __future__ import annotations

import base64
import hashlib
import os
from typing import TYPE_CHECKING, Literal, Self

import trio

from ._frames import BINARY, CLOSE, PING, PONG, TEXT, Frame, FrameParser, encode_frame
from ._streams import half_close

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

__all__ = ["RawPeer", "accept_token", "upgrade_head"]

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_SAMPLE_KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
_MAX_HEAD = 64 * 1024


def accept_token(key: bytes) -> bytes:
    """The `Sec-WebSocket-Accept` that answers this `Sec-WebSocket-Key` (section 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


def upgrade_head(
    target: str | bytes = "/",
    *,
    method: bytes = b"GET",
    version: bytes = b"HTTP/1.1",
    host: bytes | None = b"localhost",
    key: bytes | None = _SAMPLE_KEY,
    headers: Iterable[tuple[bytes, bytes]] = (),
    omit: Iterable[bytes] = (),
) -> bytes:
    """The bytes of an upgrade request (RFC 6455 section 4.1); every part can be a lie.

    Args:
        target: the request target; a str is sent as UTF-8.
        method: the method, as it is to be sent.
        version: the HTTP version, as it is to be sent.
        host: the Host header; None leaves it out.
        key: the Sec-WebSocket-Key header; None leaves it out.
        headers: raw pairs added at the end, duplicates and all.
        omit: names of the usual headers to leave out, in any case.
    """
    usual = [(b"Host", host), (b"Upgrade", b"websocket"), (b"Connection", b"Upgrade")]
    usual += [(b"Sec-WebSocket-Key", key), (b"Sec-WebSocket-Version", b"13")]
    dropped = {name.lower() for name in omit}
    pairs = [(n, v) for n, v in usual if v is not None and n.lower() not in dropped]
    lines = [b" ".join((method, target.encode() if isinstance(target, str) else target, version))]
    lines += [name + b": " + value for name, value in (*pairs, *headers)]
    return b"\r\n".join(lines) + b"\r\n\r\n"


class RawPeer:
    """Speaks WebSocket by hand over any stream, in either role.

    What arrives is held to the strict rules of `FrameParser` for the opposite role; a violation
    raises `FrameError` (an AssertionError) from the call that reads. Nothing is ever sent on its
    own: no pong, no echo of a Close.

    The peer owns `stream`: `aclose`, or leaving ``async with peer:``, closes it. One task may
    read and one may send at a time, as on the stream itself.

    Args:
        stream: any `trio.abc.Stream`, before or after the opening handshake.
        role: what this peer plays; a "client" masks its frames and expects unmasked ones.
        allow_rsv: reserved bits that the other side may use (see `FrameParser`).

    Attributes:
        stream: as given.
        received_bytes: every byte that arrived after the opening handshake (or from the start,
            if this object did none).
        frames: every whole frame that arrived.
        messages: every whole message that arrived.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        *,
        role: Literal["client", "server"] = "client",
        allow_rsv: int = 0,
    ) -> None:
        self.stream = stream
        self.received_bytes = bytearray()
        self._masks = role == "client"
        self._parser = FrameParser(masked=not self._masks, allow_rsv=allow_rsv)

    @property
    def frames(self) -> list[Frame]:
        return self._parser.frames

    @property
    def messages(self) -> list[str | bytes]:
        return self._parser.messages

    @property
    def partial(self) -> bytes:
        """What has arrived of a frame that is not complete; b"" at a frame boundary."""
        return self._parser.partial

    # -- the opening handshake ---------------------------------------------------------------

    async def request(
        self, target: str | bytes = "/", *, headers: Iterable[tuple[bytes, bytes]] = ()
    ) -> bytes:
        """Send a good upgrade request with a fresh key, read the 101, return its head as bytes.

        Frames that arrive with the 101 are kept for `receive_frame`. Raises AssertionError if the
        answer is anything but a 101 with the right accept token.
        """
        key = base64.b64encode(os.urandom(16))
        await self.send_raw(upgrade_head(target, key=key, headers=headers))
        head = await self.receive_head()
        assert head.startswith(b"HTTP/1.1 101 "), head
        assert b"sec-websocket-accept: " + accept_token(key).lower() in head.lower(), head
        return head

    async def accept(self, *, headers: Iterable[tuple[bytes, bytes]] = ()) -> bytes:
        """As a server: read an upgrade request, answer 101, return the request head as bytes."""
        head = await self.receive_head()
        key = b""
        for line in head.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"sec-websocket-key":
                key = value.strip()
        lines = [b"HTTP/1.1 101 Switching Protocols", b"Upgrade: websocket", b"Connection: Upgrade"]
        lines += [b"Sec-WebSocket-Accept: " + accept_token(key)]
        lines += [name + b": " + value for name, value in headers]
        await self.send_raw(b"\r\n".join(lines) + b"\r\n\r\n")
        return head

    async def receive_head(self) -> bytes:
        """Read an HTTP head up to and with its empty line; what follows it is taken as frames.

        Raises AssertionError if the stream ends, or 64 KiB have come, before the empty line.
        """
        head = bytearray()
        while b"\r\n\r\n" not in head:
            chunk = await self.stream.receive_some()
            assert chunk, f"the stream ended inside a head: {bytes(head)!r}"
            head += chunk
            assert len(head) <= _MAX_HEAD, "this head does not end"
        end = head.index(b"\r\n\r\n") + 4
        if head[end:]:
            self._take(head[end:])
        return bytes(head[:end])

    # -- sending -----------------------------------------------------------------------------

    async def send_raw(self, data: bytes) -> None:
        """Send these bytes as they are."""
        await self.stream.send_all(data)

    async def send_frame(
        self,
        opcode: int,
        payload: bytes = b"",
        *,
        fin: bool = True,
        rsv: int = 0,
        masked: bool | None = None,
        declared_length: int | None = None,
        length_size: int | None = None,
    ) -> None:
        """Send one frame, valid or not (see `encode_frame`); masked as the role has it if None."""
        await self.send_raw(
            encode_frame(
                opcode,
                payload,
                fin=fin,
                rsv=rsv,
                masked=self._masks if masked is None else masked,
                declared_length=declared_length,
                length_size=length_size,
            )
        )

    async def send_message(self, message: str | bytes) -> None:
        """Send a whole text or binary message in one frame."""
        if isinstance(message, str):
            await self.send_frame(TEXT, message.encode())
        else:
            await self.send_frame(BINARY, message)

    async def send_ping(self, payload: bytes = b"") -> None:
        """Send a Ping."""
        await self.send_frame(PING, payload)

    async def send_pong(self, payload: bytes = b"") -> None:
        """Send a Pong, asked for or not."""
        await self.send_frame(PONG, payload)

    async def send_close(self, code: int | None = 1000, reason: str | bytes = "") -> None:
        """Send a Close frame, with an empty payload if `code` is None; any code goes out."""
        text = reason.encode() if isinstance(reason, str) else reason
        await self.send_frame(CLOSE, b"" if code is None else code.to_bytes(2, "big") + text)

    # -- receiving ---------------------------------------------------------------------------

    async def receive_frame(self) -> Frame:
        """The next frame. Cancelled: no frame is lost.

        Raises:
            trio.EndOfChannel: the other side ended the stream (`partial` may hold a torn frame).
            trio.BrokenResourceError: the stream broke.
            FrameError: what arrived is no valid frame.
        """
        while True:
            frame = self._parser.next_frame()
            if frame is not None:
                return frame
            data = await self.stream.receive_some()
            if not data:
                raise trio.EndOfChannel("the stream has ended")
            self._take(data)

    async def receive_message(self) -> str | bytes:
        """The next whole message; control frames on the way are read over, a Close is an error.

        Raises AssertionError if a Close frame comes first, and whatever `receive_frame` raises.
        """
        known = len(self._parser.messages)
        while len(self._parser.messages) == known:
            frame = await self.receive_frame()
            assert frame.opcode != CLOSE, f"expected a message, got {frame}"
        return self._parser.messages[known]

    async def expect(self, opcode: int, payload: bytes | None = None) -> Frame:
        """Read one frame, assert its opcode and, unless None, its payload, and return it."""
        frame = await self.receive_frame()
        assert frame.opcode == opcode, f"expected opcode {opcode:#x}, got {frame}"
        assert payload is None or frame.payload == payload, f"expected {payload!r}, got {frame}"
        return frame

    async def expect_close(self, code: int | None = None) -> Frame:
        """Read up to the Close frame (other frames are read over), assert its code, return it."""
        while True:
            frame = await self.receive_frame()
            if frame.opcode == CLOSE:
                assert code is None or frame.close_code == code, f"expected {code}, got {frame}"
                return frame

    async def expect_eof(self) -> None:
        """Assert that the stream ends now: no frame, no torn frame, no break."""
        try:
            frame = await self.receive_frame()
        except trio.EndOfChannel:
            assert not self.partial, f"the stream ended inside a frame: {self.partial!r}"
        else:
            raise AssertionError(f"expected the end of the stream, got {frame}")

    async def read_to_end(self) -> list[Frame]:
        """Read until the stream ends or breaks; return all frames since the beginning."""
        try:
            while True:
                await self.receive_frame()
        except (trio.EndOfChannel, trio.BrokenResourceError, trio.ClosedResourceError):
            return self.frames

    def _take(self, data: bytes | bytearray) -> None:
        self.received_bytes += data
        self._parser.feed(data)

    # -- the end -----------------------------------------------------------------------------

    async def send_eof(self) -> None:
        """Half-close. Raises TypeError if the stream cannot."""
        await half_close(self.stream)

    async def aclose(self) -> None:
        """Close the stream, with no word to the other side."""
        await self.stream.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()
