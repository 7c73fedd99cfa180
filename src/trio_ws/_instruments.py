"""Instruments: objects of the application that watch what a server or a client does.

Lives here: the base class with its events, and how they are reported to several instruments at
once. Must never live here: an instrument, or a decision that depends on one: who watches changes
nothing.

In trio's manner: an instrument overrides the methods it is interested in, and only those are ever
called. An event that nobody overrides costs one look at an empty tuple; without any instrument a
connection does not get as far as that.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ._close import Close
    from ._request import UpgradeRequest
    from ._response import Accept, Response
    from ._websocket import WebSocket

__all__ = ["Instrument", "Watchers", "checked_instruments", "payload_size", "watchers_of"]

Kind: TypeAlias = Literal["text", "binary"]

log = logging.getLogger("trio_ws.server")


class Instrument:
    """Watches a server or a client. A base class whose methods do nothing: override some.

    Give instances to the `ServerOptions.instruments` or `ClientOptions.instruments` option. Every
    method is called synchronously, in the task and at the moment where the thing happens: it must
    be quick and cannot wait. One that raises is logged with its traceback, once, and the instrument
    is called no more by that server, `connect` or `reconnect`; nothing else changes.

    `trio_ws.metrics` is one.
    """

    def handshake_decided(self, request: UpgradeRequest | None, answer: Accept | Response) -> None:
        """A server has answered an opening handshake. Clients are told by `connect` itself.

        Args:
            request: what was asked; None if there was no readable request.
            answer: the `Accept` that became a 101; or the `Response` that is being sent instead,
                a page of ``http`` or a refusal (which names its ``row`` of the table).
        """

    def opened(self, ws: WebSocket) -> None:
        """A connection is open; its handler, or the block of `connect`, is about to run."""

    def message_received(self, ws: WebSocket, size: int, kind: Kind) -> None:
        """The application took a message.

        Args:
            size: bytes of payload (of UTF-8 for text), after inflation. Of a message that was read
                in pieces: the bytes that were taken, when its block was left.
            kind: ``"text"`` or ``"binary"``.
        """

    def message_sent(self, ws: WebSocket, size: int, kind: Kind) -> None:
        """The application sent a message: it is complete and in the outbox.

        Args:
            size: bytes of payload (of UTF-8 for text), before compression.
            kind: ``"text"`` or ``"binary"``.
        """

    def closed(self, ws: WebSocket, close: Close, cause: BaseException | None) -> None:
        """It is decided how a connection ended. Once for each `opened`; the handler may still run,
        and messages that had arrived before may still be taken.

        Args:
            close: code, reason, initiator; ``ws.closed``.
            cause: the exception behind an end without a closing handshake, if there was one.
        """


EVENTS = ("handshake_decided", "opened", "message_received", "message_sent", "closed")


class Watchers:
    """The instruments of one server or client, by event. An event is reported by calling its name
    here."""

    __slots__ = ("_of",)

    def __init__(self, instruments: Iterable[Instrument]) -> None:
        found = tuple(instruments)
        self._of: dict[str, tuple[tuple[Instrument, Callable[..., object]], ...]] = {
            event: tuple(
                (instrument, getattr(instrument, event))
                for instrument in found
                if overrides(instrument, event)
            )
            for event in EVENTS
        }

    def handshake_decided(self, request: UpgradeRequest | None, answer: Accept | Response) -> None:
        self._report("handshake_decided", request, answer)

    def opened(self, ws: WebSocket) -> None:
        self._report("opened", ws)

    def message_received(self, ws: WebSocket, message: str | bytes) -> None:
        if self._of["message_received"]:
            self._report("message_received", ws, payload_size(message), kind_of(message))

    def streamed_in(self, ws: WebSocket, size: int, kind: Kind) -> None:
        self._report("message_received", ws, size, kind)

    def message_sent(self, ws: WebSocket, message: str | bytes | bytearray | memoryview) -> None:
        if self._of["message_sent"]:
            self._report("message_sent", ws, payload_size(message), kind_of(message))

    def streamed_out(self, ws: WebSocket, size: int, kind: Kind) -> None:
        self._report("message_sent", ws, size, kind)

    def closed(self, ws: WebSocket, close: Close, cause: BaseException | None) -> None:
        self._report("closed", ws, close, cause)

    def _report(self, event: str, *args: object) -> None:
        for instrument, method in self._of[event]:
            try:
                method(*args)
            except Exception:
                log.exception("the instrument %r failed and is called no more", instrument)
                self._remove(instrument)

    def _remove(self, instrument: Instrument) -> None:
        for event, methods in self._of.items():
            self._of[event] = tuple(pair for pair in methods if pair[0] is not instrument)


def checked_instruments(instruments: Iterable[Instrument]) -> tuple[Instrument, ...]:
    """What the option of that name was given. TypeError: something of it is no instrument."""
    found = tuple(instruments)
    for instrument in found:
        if not isinstance(instrument, Instrument):
            raise TypeError(f"instruments must be Instrument objects, not {instrument!r}")
    return found


def watchers_of(instruments: Iterable[Instrument]) -> Watchers | None:
    """None if nobody watches: connections do not even ask then."""
    found = tuple(instruments)
    return Watchers(found) if found else None


def overrides(instrument: Instrument, event: str) -> bool:
    """Whether the instrument has a method of its own for `event`."""
    method = getattr(instrument, event)
    return getattr(method, "__func__", None) is not getattr(Instrument, event)


def payload_size(message: str | bytes | bytearray | memoryview) -> int:
    """The bytes that `message` takes in frames, before compression."""
    if isinstance(message, str):
        return len(message) if message.isascii() else len(message.encode())
    return message.nbytes if isinstance(message, memoryview) else len(message)


def kind_of(message: object) -> Kind:
    """What kind of message carries such a value."""
    return "text" if isinstance(message, str) else "binary"
