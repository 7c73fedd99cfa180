"""Which engine turns bytes into frames and back: wsproto, or `_speedups`, the same compiled.

Lives here: the choice, the only one; what both are seen as. Must never live here: what an engine
does (wsproto, `_guard`, src/engine), what is made of its events (`_protocol`).

wsproto is the reference. The compiled engine gives the same events for the same bytes in the same
pieces and is used where it has been compiled. The environment variable TRIO_WS_ENGINE forces
either, "wsproto" or "compiled".
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, Literal, Protocol

from wsproto.connection import CLIENT, SERVER, Connection, ConnectionState
from wsproto.events import BytesMessage, TextMessage

from ._guard import Guard

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from wsproto.events import Event
    from wsproto.extensions import Extension

    from ._limits import Limits

VARIABLE = "TRIO_WS_ENGINE"


class Engine(Protocol):
    """wsproto's `Connection`, and what makes it fast.

    Attributes:
        missing: payload bytes of the data frame in hand that have not come; 0 if not known.
        verdict: why a limit refused a frame; None before.
        peer_said_1014: the peer's Close had code 1014, which its event calls 1013.
    """

    @property
    def state(self) -> ConnectionState: ...
    @property
    def missing(self) -> int: ...
    @property
    def verdict(self) -> str | None: ...
    @property
    def peer_said_1014(self) -> bool: ...
    def receive_data(self, data: bytes | None, /) -> None: ...
    def events(self) -> Iterator[Event]: ...
    def send(self, event: Event, /) -> bytes: ...

    def take(self, messages: list[str | bytes], limit: int, /) -> int:
        """Append the whole messages that come next, up to `limit` and to whatever else comes,
        which `events` tells; return an upper bound of the bytes they take in memory. May always do
        nothing."""
        ...

    def feed(self, data: bytes, messages: list[str | bytes], limit: int, /) -> int | None:
        """`receive_data` and `take` in one: return what `take` does if that was all that came, None
        if something may be left for `take` or `events`. Messages may have been appended all the
        same; what they take in memory is then the caller's to find out."""
        ...

    def encode(self, message: str | bytes | bytearray | memoryview, final: bool, /) -> bytes:
        """One data frame, as `send` makes it of a `TextMessage` or a `BytesMessage`."""
        ...


class Reference(Connection):
    """wsproto as an `Engine`."""

    missing = 0  # wsproto does not tell, and is slower than any read

    def __init__(
        self,
        *,
        client: bool,
        extensions: Sequence[Extension],
        trailing_data: bytes,
        max_message: int,
        max_fragments: int | None,
    ) -> None:
        self._guard = Guard(max_message, max_fragments)
        super().__init__(CLIENT if client else SERVER, [*extensions, self._guard], trailing_data)

    @property
    def verdict(self) -> str | None:
        return self._guard.verdict

    @property
    def peer_said_1014(self) -> bool:
        return self._guard.peer_said_1014

    def take(self, messages: list[str | bytes], limit: int, /) -> int:  # noqa: ARG002
        return 0

    def feed(self, data: bytes, messages: list[str | bytes], limit: int, /) -> None:  # noqa: ARG002
        self.receive_data(data)

    def encode(self, message: str | bytes | bytearray | memoryview, final: bool, /) -> bytes:
        if isinstance(message, str):
            return self.send(TextMessage(data=message, message_finished=final))
        data: bytes = message  # type: ignore[assignment]  # wsproto takes any buffer
        return self.send(BytesMessage(data=data, message_finished=final))


class _Maker(Protocol):
    def __call__(
        self,
        *,
        client: bool,
        extensions: Sequence[Extension],
        trailing_data: bytes,
        max_message: int,
        max_fragments: int | None,
    ) -> Engine: ...


def choose(forced: str | None) -> tuple[Literal["compiled", "wsproto"], _Maker]:
    """The engine's name and class.

    Args:
        forced: what the environment variable says.

    Raises:
        ImportError: "compiled" is forced and was not compiled, or fails to load.
        ValueError: there is no engine of that name.
    """
    if forced not in (None, "", "compiled", "wsproto"):
        raise ValueError(f"{VARIABLE} must be 'compiled' or 'wsproto', not {forced!r}")
    if forced == "wsproto":
        return "wsproto", Reference
    try:
        from ._speedups import Engine as Compiled  # noqa: PLC0415  it may not be there
    except ImportError as exc:
        if forced == "compiled":
            raise ImportError(
                f"{VARIABLE}=compiled, but trio_ws was installed without its compiled engine: "
                "install it from a wheel for this platform, or where there is a C compiler"
            ) from exc
        return "wsproto", Reference
    return "compiled", Compiled


_chosen = choose(os.environ.get(VARIABLE))
_make = _chosen[1]

ENGINE: Final = _chosen[0]
"""The engine in use, "compiled" or "wsproto"; decided when `trio_ws` is imported."""


def open_engine(
    *, client: bool, limits: Limits, extensions: Sequence[Extension], trailing_data: bytes
) -> Engine:
    """An engine for one connection whose opening handshake is done."""
    return _make(
        client=client,
        extensions=extensions,
        trailing_data=trailing_data,
        max_message=limits.max_message,
        max_fragments=limits.max_fragments,
    )
