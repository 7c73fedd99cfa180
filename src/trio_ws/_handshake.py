"""The opening handshake's bytes, for the server (RFC 6455 section 4.2, RFC 9112).

Lives here: reading one request head with h11, and the bytes of every answer. Must never live here:
a decision about a request that could be read (`_checks`), waiting, or a socket.

Theory. h11 parses heads, but it takes bare LF and folded lines, and its size limit bounds only
what is incomplete. So bytes are scanned here first, from left to right, each once, up to the blank
line. Every fault has a position: the byte with which it becomes certain. The fault with the least
position wins, and it is reported with that byte, whether or not the head is complete. This makes
the outcome a function of the bytes alone: however they were cut into reads, the answer is the same.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from email.utils import formatdate
from enum import Enum
from typing import TYPE_CHECKING, Final, Literal

import h11

from ._headers import TOKEN
from ._request import Address, UpgradeRequest
from ._response import Accept, Refusal, Response, reason_phrase, refuse

if TYPE_CHECKING:
    from ._limits import Limits

__all__: list[str] = []

READ_SIZE: Final = 4096
"""What to read at a time while the head is incomplete: it bounds what is read past a limit."""

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class HandshakeEvent(Enum):
    """What `ServerHandshake.next_event` says besides a request or a refusal."""

    NEED_DATA = "need data"
    PEER_GONE = "peer gone"
    """The stream ended before a single byte of a request: there is nobody to answer."""


# Each alternative ends with the byte that makes it certain. They begin with one class of bytes:
# that makes the search four times as fast, and it runs over every byte that comes.
_fault = re.compile(rb"[\x00\r\n](?:(?<=\x00)|(?<=\r)[^\n]|(?<=\n)(?<!\r\n)|(?<=\r)\n[ \t])")
_no_first_byte = frozenset(range(0x21))
_end_of_head = b"\r\n\r\n"
_request_line = re.compile(TOKEN + rb" [\x21-\x7e]+ HTTP/(?P<version>[0-9]+(?:\.[0-9]+)?)")
_header_line = re.compile(TOKEN + rb":[^\x0b\x0c]*")


class ServerHandshake:
    """Reads the head of one request; bytes in, one value out.

    `receive_data`, then `next_event`, until that returns something else than ``NEED_DATA``; from
    then on it returns the same again. Memory is bounded by `Limits.max_header_bytes` and the size
    of one `receive_data`.
    """

    def __init__(
        self,
        *,
        limits: Limits,
        tls: bool = False,
        peer_address: Address = None,
        local_address: Address = None,
    ) -> None:
        self._limits = limits
        self._tls = tls
        self._peer_address = peer_address
        self._local_address = local_address
        self._buffer = bytearray()
        self._scanned = 0
        self._lines = 0
        self._eof = False
        self._trailing = bytearray()
        self._outcome: UpgradeRequest | Refusal | Literal[HandshakeEvent.PEER_GONE] | None = None

    @property
    def head_complete(self) -> bool:
        """Whether a whole head was read and could be parsed."""
        return isinstance(self._outcome, UpgradeRequest)

    @property
    def trailing_data(self) -> bytes:
        """What followed a good head, the first frames; nothing after a refused one."""
        return bytes(self._trailing)

    def receive_data(self, data: bytes) -> None:
        """Take in what was read; ``b""`` is the end of the stream."""
        if not data:
            self._eof = True
        elif self._outcome is None:
            self._buffer += data
        elif self.head_complete:
            self._trailing += data

    def next_event(self) -> UpgradeRequest | Refusal | HandshakeEvent:
        """The request, the refusal of the row `head`, `size`, `protocol`, `host` or `body` that it
        fails in the parser, or a `HandshakeEvent`. Never raises."""
        if self._outcome is None and (self._eof or len(self._buffer) > self._scanned):
            self._outcome = self._advance()
            if self._outcome is not None:
                self._buffer.clear()
        return HandshakeEvent.NEED_DATA if self._outcome is None else self._outcome

    def _advance(self) -> UpgradeRequest | Refusal | Literal[HandshakeEvent.PEER_GONE] | None:
        buffer = self._buffer
        found = buffer.find(_end_of_head, max(0, self._scanned - 3))
        end = len(buffer) if found < 0 else found + 4
        faults = [*self._malformed(end), *self._oversized(end)]
        self._scanned = end
        if faults:
            return min(faults, key=lambda fault: fault[0])[1]
        if found >= 0:
            outcome = self._parse(bytes(buffer[:end]))
            if isinstance(outcome, UpgradeRequest):
                self._trailing += buffer[end:]
            return outcome
        if not self._eof:
            return None
        return _bad_head("The request ended early.") if buffer else HandshakeEvent.PEER_GONE

    def _malformed(self, end: int) -> list[tuple[int, Refusal]]:
        buffer = self._buffer
        if self._scanned == 0 and buffer and buffer[0] in _no_first_byte:
            position = 0
        else:
            # Two bytes back: the longest fault that can have begun in an earlier read.
            match = _fault.search(buffer, max(0, self._scanned - 2), end)
            if match is None:
                return []
            position = match.end() - 1
        text = "The request head has a bare CR or LF, a NUL, a folded or an empty first line."
        return [(position, _bad_head(text))]

    def _oversized(self, end: int) -> list[tuple[int, Refusal]]:
        limits, buffer = self._limits, self._buffer
        faults: list[tuple[int, Refusal]] = []
        if end > limits.max_target and self._lines == 0:
            # The target starts behind the first space; `last` is its first byte too many.
            start = buffer.find(b" ", 0, end) + 1
            last = start + limits.max_target
            if start and last < end and buffer.find(b" ", start, last + 1) < 0:
                line_end = buffer.find(b"\n", 0, last + 1)
                if line_end < 0:
                    faults.append((last, refuse("size", 414, "The request target is too long.")))
        if end > limits.max_header_bytes:
            text = "The request head is too long; send fewer cookies, perhaps."
            faults.append((limits.max_header_bytes, refuse("size", 431, text)))
        lines = self._lines + buffer.count(b"\n", self._scanned, end)
        if lines > limits.max_headers + 1:
            faults += self._too_many_lines(end)
        self._lines = lines
        return faults

    def _too_many_lines(self, end: int) -> list[tuple[int, Refusal]]:
        buffer, lines, position = self._buffer, self._lines, self._scanned - 1
        while (position := buffer.find(b"\n", position + 1, end)) >= 0:
            lines += 1
            is_blank = buffer[max(0, position - 3) : position + 1] == _end_of_head
            if lines > self._limits.max_headers + 1 and not is_blank:
                return [(position, refuse("size", 431, "There are too many headers."))]
        return []

    def _parse(self, head: bytes) -> UpgradeRequest | Refusal:
        if b"\x0b" in head or b"\x0c" in head:
            # Nowhere allowed, and found at once here.
            return _why_unreadable(head)
        parser = h11.Connection(h11.SERVER)
        parser.receive_data(head)
        try:
            request = parser.next_event()
        except h11.RemoteProtocolError:
            return _why_unreadable(head)
        assert isinstance(request, h11.Request), "a head up to its blank line is one request"
        return upgrade_request(
            request,
            tls=self._tls,
            peer_address=self._peer_address,
            local_address=self._local_address,
        )


def upgrade_request(
    request: h11.Request, *, tls: bool, peer_address: Address, local_address: Address
) -> UpgradeRequest:
    """The value for a request that h11 has read, here or in a server of the application's."""
    return UpgradeRequest(
        method=bytes(request.method),
        raw_target=bytes(request.target),
        http_version=bytes(request.http_version),
        headers=tuple(request.headers.raw_items()),
        peer_address=peer_address,
        local_address=local_address,
        tls=tls,
    )


def _bad_head(text: str) -> Refusal:
    return refuse("head", 400, text)


def _why_unreadable(head: bytes) -> Refusal:
    """Which row a head fails that h11 refuses; it looks into Host and the framing headers too."""
    first, *lines = head.removesuffix(_end_of_head).split(b"\r\n")
    request_line = _request_line.fullmatch(first)
    if request_line is None or not all(_header_line.fullmatch(line) for line in lines):
        return _bad_head("The request line or a header line is malformed.")
    if request_line["version"] != b"1.1":
        return refuse("protocol", 505, "Use HTTP/1.1.")
    names = [line.partition(b":")[0].lower() for line in lines]
    if names.count(b"host") != 1:
        return refuse("host", 400, "Send exactly one Host header of the form host[:port].")
    if b"content-length" in names or b"transfer-encoding" in names:
        return refuse("body", 400, "Send no body: no Content-Length or Transfer-Encoding.")
    return _bad_head("The request head is malformed.")


def switching_protocols(
    request: UpgradeRequest, accept: Accept, extensions: str | None = None
) -> bytes:
    """The 101 that opens the WebSocket (RFC 6455 section 4.2.2).

    Args:
        request: one that the table has passed.
        accept: the agreement.
        extensions: the value of `Sec-WebSocket-Extensions`, already negotiated; None for none.

    Raises:
        ValueError: the subprotocol is not among those the client offered, whose connection would
            fail on it (section 4.1).
    """
    subprotocol = accept.subprotocol
    if subprotocol is not None and subprotocol not in request.subprotocols:
        raise ValueError(f"subprotocol {subprotocol!r} was not offered by the client")
    head = _SWITCHING % accept_token(request.header(b"sec-websocket-key") or b"")
    if subprotocol is not None:
        head += _line((b"Sec-WebSocket-Protocol", subprotocol.encode("ascii")))
    if extensions is not None:
        head += _line((b"Sec-WebSocket-Extensions", extensions.encode("ascii")))
    return head + b"".join(map(_line, accept.headers)) + b"\r\n"


_SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: %s\r\n"
)


def _line(header: tuple[bytes, bytes]) -> bytes:
    return b"%s: %s\r\n" % header


def accept_token(key: bytes) -> bytes:
    """The proof that a server has understood `key` (RFC 6455 section 4.2.2)."""
    digest = hashlib.sha1(key + _GUID, usedforsecurity=False).digest()
    return binascii.b2a_base64(digest, newline=False)


def http_response(
    response: Response, *, head_only: bool = False, now: float | None = None
) -> bytes:
    """A complete HTTP response, after which the connection is closed.

    Args:
        response: what to say; its `Date`, `Content-Type` and `Cache-Control` win over ours.
        head_only: the request was a HEAD: the same without the body.
        now: seconds since the epoch for `Date`; None is the clock.
    """
    given = {name.lower() for name, _ in response.headers}
    date = formatdate(now, usegmt=True).encode("ascii")
    bodiless = response.status in (204, 304)
    headers: list[tuple[bytes, bytes]] = [*response.headers]
    for name, value, wanted in (
        (b"Date", date, True),
        (b"Content-Type", b"text/plain; charset=utf-8", not bodiless),
        (b"Cache-Control", b"no-store", True),
    ):
        if wanted and name.lower() not in given:
            headers.append((name, value))
    if not bodiless:
        headers.append((b"Content-Length", b"%d" % len(response.body)))
    if response.status == 426:
        # RFC 9110 section 15.5.22: a 426 names the protocol that would do.
        headers += [(b"Upgrade", b"websocket"), (b"Connection", b"Upgrade, close")]
    else:
        headers.append((b"Connection", b"close"))
    status_line = b"HTTP/1.1 %d %s\r\n" % (
        response.status,
        reason_phrase(response.status).encode("ascii"),
    )
    body = b"" if head_only or bodiless else response.body
    return status_line + b"".join(map(_line, headers)) + b"\r\n" + body
