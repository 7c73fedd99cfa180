"""The words and colours of the pictures: tables, one line for each thing that can be shown.

Lives here: what servers, quantities, cases and figures are called, in which order they stand, how a
number is written. Must never live here: measurements, matplotlib.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Kind: TypeAlias = Literal["ours", "trio", "asyncio", "raw"]
Wanted: TypeAlias = "tuple[str, str, str]"  # suite, case, quantity

RAW: Final = "raw"

SERVERS: Final[dict[str, tuple[str, Kind]]] = {
    "trio_ws": ("trio_ws", "ours"),
    "wsproto": ("bare wsproto loop", "trio"),
    "trio-websocket": ("trio-websocket", "trio"),
    "websockets": ("websockets (trio)", "trio"),
    "websockets (trio)": ("websockets (trio)", "trio"),
    "websockets-asyncio": ("websockets (asyncio)", "asyncio"),
    "aiohttp": ("aiohttp", "asyncio"),
    "picows": ("picows", "asyncio"),
    RAW: ("raw trio", "raw"),
}
"""Name in the document, name in the picture, and what it is; from top to bottom."""

COLOURS: Final[dict[Kind, str]] = {
    "ours": "#c8500a",
    "trio": "#27408b",
    "asyncio": "#4a9c9c",
    "raw": "#6b7280",
}
"""Apart in hue and in lightness, so that they stay apart for every eye and in grey print."""

KEY: Final[dict[Kind, str]] = {
    "ours": "trio_ws",
    "trio": "other trio servers",
    "asyncio": "asyncio servers",
    "raw": "raw trio socket, no WebSocket",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Quantity:
    """How a quantity of the document is shown.

    Attributes:
        unit: what the picture says it is.
        better: which of two bars.
        factor: from the document's unit to the picture's.
        thousand: the unit, where most numbers of a panel would be thousands of it.
    """

    unit: str
    better: Literal["longer", "shorter"]
    factor: float = 1.0
    thousand: str | None = None


QUANTITIES: Final[dict[str, Quantity]] = {
    "messages/s": Quantity(unit="messages/s", better="longer"),
    "deliveries/s": Quantity(unit="deliveries/s", better="longer"),
    "handshakes/s": Quantity(unit="handshakes/s", better="longer"),
    "CPU us/message": Quantity(unit="CPU µs/message", better="shorter", thousand="CPU ms/message"),
    "CPU us/delivery": Quantity(unit="CPU µs/delivery", better="shorter"),
    "CPU us/handshake": Quantity(
        unit="CPU µs/handshake", better="shorter", thousand="CPU ms/handshake"
    ),
    "p50 us": Quantity(unit="µs, p50", better="shorter", thousand="ms, p50"),
    "p99 us": Quantity(unit="µs, p99", better="shorter", thousand="ms, p99"),
    "bytes/connection": Quantity(unit="KiB per connection", better="shorter", factor=1 / 1024),
}

TITLES: Final[dict[tuple[str, str], str]] = {
    ("echo", "1x1"): "1 connection, 1 in flight",
    ("echo", "100x1"): "100 connections, 1 in flight",
    ("echo", "16x16"): "16 connections, 16 in flight",
    ("echo", "16 KiB 16x4"): "16 KiB: 16 conn., 4 in flight",
    ("echo", "1 MiB 1x4"): "1 MiB: 1 conn., 4 in flight",
    ("broadcast", "100x1"): "to 100, 1 under way",
    ("broadcast", "1000x1"): "to 1,000, 1 under way",
    ("broadcast", "100x16"): "to 100, 16 under way",
    ("broadcast", "1000x16"): "to 1,000, 16 under way",
    ("handshakes", "1 at a time"): "1 handshake at a time",
    ("handshakes", "16 at a time"): "16 handshakes at a time",
    ("idle", "1000"): "1,000 idle connections",
}

OVERVIEW: Final[dict[Wanted, str]] = {
    ("echo", "100x1", "messages/s"): "Echo, 100 connections",
    ("echo", "16x16", "messages/s"): "Echo, 16 × 16 in flight",
    ("broadcast", "1000x1", "deliveries/s"): "Broadcast to 1,000",
    ("handshakes", "16 at a time", "handshakes/s"): "Opening connections",
    ("echo", "1x1", "p50 us"): "Echo, round trip",
    ("idle", "1000", "bytes/connection"): "Memory when idle",
}
"""What a reader of the README cares about, and its words there."""

BARS: Final[dict[str, tuple[str, str, tuple[str, ...]]]] = {
    "throughput": ("Echo: throughput", "echo", ("messages/s",)),
    "cpu": ("Echo: what a message costs the server", "echo", ("CPU us/message",)),
    "latency": ("Echo: time from message to reply", "echo", ("p50 us",)),
    "broadcast": ("One message to many", "broadcast", ("deliveries/s", "CPU us/delivery")),
    "handshakes": ("Opening handshakes", "handshakes", ("handshakes/s", "CPU us/handshake")),
    "memory": ("Memory of an idle connection", "idle", ("bytes/connection",)),
}
"""Figures of bars: its name, its title, its suite, and what is shown of each case."""

FAR: Final = {"latency": "p99 us"}
"""What such a figure shows beside the first, as a second dot on the same line."""

CURVES: Final = (
    "scale",
    "As connections grow: at most 100 talk, the others are idle",
    ("CPU us/message", "bytes/connection"),
)


def rank(server: str) -> tuple[int, str]:
    """What to sort servers by: the order of `SERVERS`, strangers behind them."""
    names = list(SERVERS)
    return (names.index(server) if server in SERVERS else len(names), server)


def label_of(server: str) -> str:
    """What the picture calls it."""
    return SERVERS[server][0] if server in SERVERS else server


def kind_of(server: str) -> Kind:
    """What it is, which decides its colour; a stranger is somebody else's, on asyncio."""
    return SERVERS[server][1] if server in SERVERS else "asyncio"


def short(value: float) -> str:
    """Three digits and a suffix: 9.12, 22.4, 278, 1.32k, 45.2k, 278k, 1.05M."""
    size = abs(value)
    factor, suffix = (1.0, "") if size < 999.5 else (1e3, "k") if size < 999.5e3 else (1e6, "M")
    size /= factor
    digits = 2 if size < 9.995 else 1 if size < 99.95 else 0
    return f"{value / factor:.{digits}f}{suffix}"
