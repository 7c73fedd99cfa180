"""What trio_ws exports, and that every public thing says what it is.

Lives here: the list of names that users may rely on. A name is added or taken away here first.
"""

from __future__ import annotations

import inspect
from types import FunctionType

import pytest

import trio_ws

NAMES = [
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


def test_the_public_names_are_these_in_reading_order() -> None:
    assert trio_ws.__all__ == NAMES


def test_every_public_name_exists_and_nothing_else_is_public() -> None:
    visible = {
        name
        for name, value in vars(trio_ws).items()
        if not name.startswith("_") and not inspect.ismodule(value) and name != "annotations"
    }
    assert visible == set(NAMES)


def public_callables() -> list[tuple[str, object]]:
    """Public functions, classes, and the public methods and properties of the classes."""
    found: list[tuple[str, object]] = []
    for name in trio_ws.__all__:
        value = getattr(trio_ws, name)
        if inspect.isclass(value):
            found.append((name, value))
            found += [
                (f"{name}.{member}", getattr(value, member))
                for member, raw in vars(value).items()
                if not member.startswith("_")
                and isinstance(raw, FunctionType | property | classmethod | staticmethod)
            ]
        elif inspect.isroutine(value):
            found.append((name, value))
    return found


@pytest.mark.parametrize(("name", "value"), public_callables())
def test_every_public_callable_has_a_docstring(name: str, value: object) -> None:
    own = value.__dict__.get("__doc__") if inspect.isclass(value) else inspect.getdoc(value)
    assert own, f"{name} has no docstring"
    assert not own.startswith(f"{name}("), f"{name} has only the docstring dataclasses generate"
