"""WebSockets (RFC 6455) for trio.

Lives here: the public names, flat, in reading order. Must never live here: code.
"""

from __future__ import annotations

from ._broker import Broker, BrokerError, MemoryBroker
from ._client import connect, connect_stream
from ._client_options import ClientOptions
from ._close import Close, CloseCode
from ._deflate import Deflate
from ._engine import ENGINE
from ._errors import (
    ConnectionClosed,
    ConnectionLost,
    HandshakeError,
    InvalidURL,
    Rejected,
    WebSocketError,
)
from ._instruments import Instrument
from ._limits import Limits
from ._listeners import open_tcp_listeners, open_unix_listener
from ._member import Member
from ._options import ServerOptions
from ._origin import allow_origins, same_origin, unsafe_any_origin
from ._policy import Policy
from ._reconnect import reconnect, worth_retrying
from ._request import UpgradeRequest
from ._response import Accept, Response
from ._rooms import Presence, Room, RoomStats
from ._routes import Routes
from ._rules import Check
from ._server import Server, serve, serve_listeners, serve_stream, serve_upgrade
from ._stats import ServerStats
from ._websocket import WebSocket

__all__ = [
    # doors
    "serve",
    "serve_listeners",
    "serve_stream",
    "serve_upgrade",
    "connect",
    "connect_stream",
    "reconnect",
    "worth_retrying",
    "open_tcp_listeners",
    "open_unix_listener",
    # what they give
    "Server",
    "ServerOptions",
    "ServerStats",
    "ClientOptions",
    "WebSocket",
    # values
    "UpgradeRequest",
    "Response",
    "Accept",
    "Close",
    "CloseCode",
    "Limits",
    "Deflate",
    # who may connect
    "Policy",
    "same_origin",
    "allow_origins",
    "unsafe_any_origin",
    "Check",
    "Routes",
    # one message to many
    "Room",
    "Member",
    "Presence",
    "RoomStats",
    "Broker",
    "MemoryBroker",
    # who watches
    "Instrument",
    "ENGINE",
    # errors
    "WebSocketError",
    "HandshakeError",
    "Rejected",
    "InvalidURL",
    "ConnectionClosed",
    "ConnectionLost",
    "BrokerError",
]
