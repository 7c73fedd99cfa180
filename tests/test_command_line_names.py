"""`check` asks for a server by the name that `connect` asks by: what it finds is what users get.

Lives here: the command in this process, where names resolve as the test says. Must never live here:
who is trusted (`test_client_tls.py`), what the command prints.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme

from trio_ws import WebSocket, serve
from trio_ws._commands.check import check
from trio_ws._commands.main import build_parser
from trio_ws._commands.options import client_keywords


class Loopback(trio.abc.HostnameResolver):
    """Every name is 127.0.0.1."""

    async def getaddrinfo(self, host: object, port: object, *args: object) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    async def getnameinfo(self, *args: object) -> Any:
        raise NotImplementedError


@pytest.fixture
async def names_resolve() -> AsyncIterator[None]:
    trio.socket.set_custom_hostname_resolver(Loopback())
    yield
    trio.socket.set_custom_hostname_resolver(None)


async def nothing(ws: WebSocket) -> None:
    await ws.wait_closed()


@pytest.fixture
def trusted(ca: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system trusts the authority of this run."""
    authority = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(str(authority))
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))


async def test_a_final_dot_is_no_part_of_the_name(
    ca: trustme.CA, names_resolve: None, trusted: None, nursery: trio.Nursery
) -> None:
    """Neither in the certificate nor in SNI (RFC 6066 section 3)."""
    asked: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("name.example").configure_cert(context)
    context.sni_callback = lambda _object, name, _context: asked.append(name)
    start = partial(serve, nothing, 0, host="127.0.0.1", ssl_context=context)
    server = await nursery.start(start)
    url = f"wss://name.example.:{server.port}/"
    args = build_parser().parse_args(["check", url, "--proxy=none"])
    assert await check(args, client_keywords(args)) == 0
    assert asked == ["name.example"]
    nursery.cancel_scope.cancel()
