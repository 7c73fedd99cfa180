"""The opening handshake's bytes, for the client (RFC 6455 sections 4.1 and 4.2.2).

Lives here: the request, and the strict check of what comes back. Must never live here: connecting,
redirects, waiting.

Theory. h11 parses; what we decide is whether the answer is the one we asked for. Anything but a
faultless 101 is either an HTTP response, which is a value (`Response`), or a `HandshakeError` that
says which rule the server broke. Everything a server sends is bounded: its head by h11's limit,
1xx responses by number, the body of a refusal by size.
"""

from __future__ import annotations

import base64
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import h11

from ._deflate import Agreement, BadAnswer, check_answer_untrusted, make_offer
from ._errors import HandshakeError
from ._handshake import HandshakeEvent, accept_token
from ._headers import check_header_fields, check_token, printable_untrusted, tokens_untrusted
from ._request import UpgradeRequest
from ._response import Response, received_response

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ._deflate import Deflate
    from ._headers import HeaderPairs
    from ._url import WebSocketURL

MAX_HEAD: Final = 32 * 1024
"""Bytes of one response head. Servers that set many cookies stay under half of it."""

MAX_BODY: Final = 64 * 1024
"""Bytes kept of a refusal's body; the rest is not read."""

MAX_INFORMATIONAL: Final = 8
"""1xx responses before the final one (RFC 9110 section 15.2). One or two are usual."""

Headers = list[tuple[bytes, bytes]]

_blank_line = re.compile(rb"\n\r?\n")  # h11 takes a bare LF, too


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreed:
    """The server's faultless 101.

    Attributes:
        trailing_data: what followed it: the first frames.
    """

    response: Response
    subprotocol: str | None
    compression: Agreement | None
    trailing_data: bytes


class ClientHandshake:
    """Writes one request and reads its answer; bytes in, one value out.

    Send `head`; then `receive_data`, then `next_event`, until that returns something else than
    ``NEED_DATA``, or raises.

    Attributes:
        head: the request's bytes.
        request: the same as a value.

    Raises:
        ValueError: a header or a subprotocol cannot be sent.
    """

    def __init__(
        self,
        url: WebSocketURL,
        *,
        headers: HeaderPairs = (),
        subprotocols: Sequence[str] = (),
        compression: Deflate | None = None,
    ) -> None:
        self._subprotocols = check_subprotocols(subprotocols)
        self._compression = compression
        self._key = base64.b64encode(os.urandom(16))
        self._informational = 0
        self._ended = False
        self._refusal: h11.Response | None = None
        self._body = bytearray()
        pairs = self._headers(url, check_header_fields(headers))
        self._parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        try:
            request = h11.Request(method="GET", target=url.target, headers=pairs)
        except h11.LocalProtocolError as exc:
            raise ValueError(f"this request cannot be sent: {exc}") from exc
        self.head: bytes = self._parser.send(request) or b""
        self._parser.send(h11.EndOfMessage())
        self._incoming = b""  # what h11 has not been given
        self._line_end = b""  # the last bytes it was given of a head
        self.request = UpgradeRequest(
            method=b"GET",
            raw_target=url.target.encode("ascii"),
            headers=tuple(pairs),
            tls=url.secure,
        )

    def _headers(self, url: WebSocketURL, given: tuple[tuple[bytes, bytes], ...]) -> Headers:
        pairs: Headers = []
        if not any(name.lower() == b"host" for name, _ in given):
            pairs.append((b"Host", url.authority.encode("ascii")))
        pairs += [
            (b"Upgrade", b"websocket"),
            (b"Connection", b"Upgrade"),
            (b"Sec-WebSocket-Key", self._key),
            (b"Sec-WebSocket-Version", b"13"),
        ]
        if self._subprotocols:
            pairs.append((b"Sec-WebSocket-Protocol", ", ".join(self._subprotocols).encode()))
        if self._compression is not None:
            pairs.append((b"Sec-WebSocket-Extensions", make_offer(self._compression).encode()))
        return [*pairs, *given]

    def receive_data(self, data: bytes) -> None:
        """Take in what was read; ``b""`` is the end of the stream."""
        self._ended = not data
        self._incoming += data

    def next_event(self) -> Agreed | Response | HandshakeEvent:
        """What the server said: `Agreed`, another `Response`, or ``NEED_DATA``.

        Raises:
            HandshakeError: it is no HTTP, or a 101 that breaks a rule; the message says which.
        """
        try:
            while True:
                event = self._parser.next_event()
                if event is h11.NEED_DATA:
                    if not self._feed():
                        return HandshakeEvent.NEED_DATA
                    continue
                if isinstance(event, h11.InformationalResponse):
                    if event.status_code == 101:
                        return self._agreed(event)
                    self._count_informational()
                elif isinstance(event, h11.Response):
                    self._refusal = event
                elif isinstance(event, h11.Data):
                    self._body += event.data
                    if len(self._body) >= MAX_BODY:
                        return self.refusal()
                else:
                    return self.refusal()
        except h11.RemoteProtocolError as exc:
            if self._refusal is not None:  # cut off in its body: its head is what counts
                return self.refusal()
            if self._ended:
                raise HandshakeError(
                    "the server closed the connection before its response"
                ) from exc
            words = printable_untrusted(str(exc))
            raise HandshakeError(f"the server's response is not HTTP: {words}") from exc

    def _feed(self) -> bool:
        """Give h11 what has come, a head by itself; whether there was anything.

        Heads are looked at first: VT and FF are allowed nowhere in them, and found at once here.
        """
        data, self._incoming = self._incoming, b""
        if data and self._parser.their_state is h11.SEND_RESPONSE:
            before = len(self._line_end)
            blank = _blank_line.search(self._line_end + data)
            if blank is not None:
                data, self._incoming = data[: blank.end() - before], data[blank.end() - before :]
            if b"\x0b" in data or b"\x0c" in data:
                raise HandshakeError("the server's response is not HTTP: VT or FF in its head")
            self._line_end = b"" if blank is not None else (self._line_end + data)[-2:]
        elif not data and not self._ended:
            return False
        self._parser.receive_data(data)
        return True

    def _count_informational(self) -> None:
        self._informational += 1
        if self._informational > MAX_INFORMATIONAL:
            raise HandshakeError(f"the server sent over {MAX_INFORMATIONAL} 1xx responses")

    @property
    def refused(self) -> bool:
        """The head of a response other than 101 has arrived; perhaps not all of its body."""
        return self._refusal is not None

    def refusal(self) -> Response:
        """That response, with as much of the body as has come."""
        assert self._refusal is not None
        headers = tuple(self._refusal.headers)
        return received_response(self._refusal.status_code, headers, bytes(self._body[:MAX_BODY]))

    # -- the 101 ---------------------------------------------------------------------------------

    def _agreed(self, event: h11.InformationalResponse) -> Agreed:
        headers = tuple((bytes(name), bytes(value)) for name, value in event.headers)
        if event.http_version != b"1.1":
            version = printable_untrusted(bytes(event.http_version))
            raise HandshakeError(f"the server's 101 is HTTP/{version}, which knows no upgrade")
        if _lower_tokens(headers, b"upgrade") != {"websocket"}:
            raise HandshakeError("the server's 101 does not say Upgrade: websocket and only that")
        if "upgrade" not in _lower_tokens(headers, b"connection"):
            raise HandshakeError("the server's 101 has no Connection: Upgrade")
        if _values(headers, b"sec-websocket-accept") != [accept_token(self._key)]:
            raise HandshakeError("the server's Sec-WebSocket-Accept does not match our key")
        compression = check_answer_untrusted(
            self._compression, _values(headers, b"sec-websocket-extensions")
        )
        if isinstance(compression, BadAnswer):
            raise HandshakeError(f"the server's 101 is wrong: {compression.why}")
        return Agreed(
            response=received_response(101, headers),
            subprotocol=self._chosen(_values(headers, b"sec-websocket-protocol")),
            compression=compression,
            trailing_data=self._parser.trailing_data[0] + self._incoming,
        )

    def _chosen(self, values: list[bytes]) -> str | None:
        if not values:
            return None
        chosen = values[0].decode("latin-1")
        if len(values) > 1 or chosen not in self._subprotocols:
            said = printable_untrusted(b", ".join(values), 60)
            raise HandshakeError(f"the server chose a subprotocol we did not offer: {said}")
        return chosen


def check_subprotocols(subprotocols: Sequence[str]) -> tuple[str, ...]:
    """What a client wants to offer, validated: tokens, each named once."""
    if isinstance(subprotocols, str):
        raise TypeError("subprotocols is a sequence of str, not one str")
    checked = tuple(check_token(name, "subprotocol") for name in subprotocols)
    if len(set(checked)) != len(checked):
        raise ValueError("a subprotocol is named twice (RFC 6455 section 4.1)")
    return checked


def _values(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    return [value for key, value in headers if key.lower() == name]


def _lower_tokens(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> set[str]:
    tokens = tokens_untrusted(_values(headers, name), versions=True) or ()
    return {token.lower() for token in tokens}
