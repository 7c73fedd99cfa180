"""What trio_ws exports, and that every public thing says what it is.

Lives here: the lists of names that users may rely on, of the package and of its classes. A name is
added or taken away here first. Must never live here: what the names do.
"""

from __future__ import annotations

import inspect
import re
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

ATTRIBUTES = {
    "Server": "listeners port connections stats drain",
    "ServerOptions": "policy limits compression http authorize instruments cancel_code"
    " cancel_reason cancel_on_close raise_handler_errors",
    "ServerStats": "open handshaking accepted refused closed messages_in messages_out bytes_in"
    " bytes_out outbox slow latency_min latency_median latency_p95 latency_max",
    "ClientOptions": "ssl_context headers subprotocols proxy limits compression redirects"
    " instruments cancel_code cancel_reason",
    "WebSocket": "send receive message_writer message_reader ping close aclose wait_closed request"
    " response subprotocol context closed latency id local_address peer_address",
    "UpgradeRequest": "method target raw_target path raw_path query params http_version headers"
    " header header_all cookies origin host authority scheme tls subprotocols peer_address"
    " local_address client_address forwarded",
    "Response": "status headers body header",
    "Accept": "subprotocol headers context",
    "Close": "code reason initiator",
    "CloseCode": "NORMAL GOING_AWAY PROTOCOL_ERROR UNSUPPORTED_DATA NO_STATUS ABNORMAL INVALID_DATA"
    " POLICY_VIOLATION MESSAGE_TOO_BIG MANDATORY_EXTENSION INTERNAL_ERROR SERVICE_RESTART"
    " TRY_AGAIN_LATER BAD_GATEWAY TLS_HANDSHAKE",
    "Limits": "max_header_bytes max_headers max_target handshake_timeout max_message max_fragments"
    " read_ahead max_outbox ping_interval ping_timeout idle_timeout max_lifetime close_timeout"
    " cancel_grace max_connections max_connections_per_address",
    "Deflate": "server_no_context_takeover client_no_context_takeover server_max_window_bits"
    " client_max_window_bits threshold level mem_level",
    "Policy": "origins hosts checks subprotocols trusted_proxies decide explain",
    "Routes": "match",
    "Room": "name members stats join presence publish broadcast",
    "Member": "ws context dropped backlog backlog_bytes",
    "Presence": "joined left",
    "RoomStats": "members published delivered dropped evicted backlog backlog_bytes",
    "Broker": "publish subscribe history",
    "MemoryBroker": "publish subscribe history",
    "Instrument": "handshake_decided opened message_received message_sent closed",
    "WebSocketError": "",
    "HandshakeError": "",
    "Rejected": "response",
    "InvalidURL": "",
    "ConnectionClosed": "close",
    "ConnectionLost": "close",
    "BrokerError": "",
}
"""What each public class has, beside what it inherits from Python and trio."""


def own_bases(cls: type, package: str = "trio_ws") -> list[type]:
    return [base for base in cls.__mro__ if base.__module__.startswith(package)]


def attributes(bases: list[type]) -> set[str]:
    """Public attributes of a class and, as far as its methods assign them, of its objects."""
    names: set[str] = set()
    for base in bases:
        names |= {*vars(base), *inspect.get_annotations(base)}
        names |= set(re.findall(r"\bself\.(\w+)(?:: [^=\n]+)? = ", inspect.getsource(base)))
    return {name for name in names if not name.startswith("_")}


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_a_public_class_has_these_attributes_and_no_other(name: str) -> None:
    cls = getattr(trio_ws, name)
    assert attributes(own_bases(cls)) == set(ATTRIBUTES[name].split())


def test_every_public_class_is_listed() -> None:
    classes = {name for name in trio_ws.__all__ if inspect.isclass(getattr(trio_ws, name))}
    assert classes == set(ATTRIBUTES)


@pytest.mark.parametrize(
    "name", sorted(ATTRIBUTES.keys() - {"CloseCode"})
)  # IANA describes its names
def test_what_is_no_method_is_described_too(name: str) -> None:
    """Below its field, or under Attributes or Args of its class."""
    bases = own_bases(getattr(trio_ws, name))
    described: set[str] = set()
    for base in bases:
        for names in re.findall(r"^ *([a-z_0-9, ]+): ", base.__doc__ or "", re.MULTILINE):
            described |= set(names.split(", "))
        source = inspect.getsource(base)
        described |= set(
            re.findall(r"^    (\w+)(?:: [^\n]+)?(?: = .+)?\n    \"\"\"", source, re.MULTILINE)
        )
        described |= {
            key
            for key, value in vars(base).items()
            if isinstance(value, FunctionType | property) and value.__doc__
        }
    assert set(ATTRIBUTES[name].split()) <= described


def test_the_reader_of_attributes_sees_what_it_must() -> None:
    """The positive control: without it, a reader that finds nothing would pass everything."""

    assert attributes([Slotted]) == {"slot"}
    assert attributes(own_bases(Everything, __name__)) == {"slot", "field", "kept", "method"}


class Slotted:
    __slots__ = ("_hidden", "slot")


class Everything(Slotted):
    field: int

    def __init__(self) -> None:
        self.kept: int = 1
        self._hidden = self.kept == 1

    def method(self) -> None: ...


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
