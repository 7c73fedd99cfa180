"""Python's `websockets` client against the echo server, with and without TLS."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

if TYPE_CHECKING:
    from conftest import EchoServer


@contextmanager
def connected(server: EchoServer) -> Iterator[ClientConnection]:
    context = ssl.create_default_context(cafile=server.ca) if server.ca else None
    with connect(server.url, ssl=context, proxy=None, open_timeout=10, close_timeout=10) as client:
        yield client


@pytest.mark.parametrize(
    "message",
    ["hello", "héllo 🐟", "", b"\x00\x01\xfe\xff", b"", bytes(range(256)) * 4096, "é" * 500_000],
    ids=["text", "unicode", "no text", "binary", "no bytes", "1 MiB", "1 MB of text"],
)
def test_a_message_echoes(echo_server: EchoServer, message: str | bytes) -> None:
    with connected(echo_server) as client:
        client.send(message)
        assert client.recv(timeout=10) == message


def test_fragments_arrive_as_one_message(echo_server: EchoServer) -> None:
    with connected(echo_server) as client:
        client.send(["in ", "three ", "parts"])
        assert client.recv(timeout=10) == "in three parts"


def test_a_ping_is_answered(echo_server: EchoServer) -> None:
    with connected(echo_server) as client:
        assert client.ping(b"are you there").wait(10)


def test_the_clients_close_is_answered(echo_server: EchoServer) -> None:
    with connected(echo_server) as client:
        client.close(4321, "from the client")
        assert (client.close_code, client.close_reason) == (4321, "from the client")


def test_the_client_sees_1001_when_the_server_is_interrupted(echo_server: EchoServer) -> None:
    with connected(echo_server) as client:
        client.send("here")
        assert client.recv(timeout=10) == "here"
        assert echo_server.interrupt() == 0
        with pytest.raises(ConnectionClosed) as caught:
            client.recv(timeout=10)
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1001
