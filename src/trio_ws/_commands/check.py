"""``trio-ws check``: do one opening handshake, and show what was said.

Lives here: the exchange as it was on the wire, and its two forms (words and JSON). Must never live
here: the rules of the handshake; a server of ours names the row that refused, and it is only read.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio

from trio_ws import HandshakeError, Rejected, connect_stream
from trio_ws._attempt import encrypted
from trio_ws._headers import printable_untrusted
from trio_ws._tunnel import proxy_for, reach
from trio_ws._url import parse_url

from .options import add_client_options, add_json_option, client_keywords
from .running import run_until_signal
from .words import (
    NOT_OPENED,
    OK,
    REFUSED,
    reason_of,
    redacted_header_untrusted,
    redacted_target_untrusted,
    shown_untrusted,
)

if TYPE_CHECKING:
    import argparse

    from trio_ws._client_options import ClientKeywords
    from trio_ws._url import WebSocketURL

MAX_RECORD: Final = 64 * 1024
"""Bytes kept of each direction: a handshake is smaller, and the body shown is cut off anyway."""

MAX_BODY_LINES: Final = 20

_ROW = re.compile(r"^refused by: (.{1,100})$", re.MULTILINE)


def add_command(commands: Any) -> None:
    """Add this command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "check",
        help="do the handshake and show request and answer",
        description="Do the opening handshake, show the request and the answer, and close. Headers"
        " that may hold secrets, and the values of queries, are left out.",
    )
    parser.add_argument("url", metavar="URL", help="ws:// or wss://")
    parser.add_argument("--show-secrets", action="store_true", help="leave nothing out")
    add_json_option(parser, "one JSON object")
    add_client_options(parser)
    parser.set_defaults(run=run)


@dataclass(kw_only=True)
class Exchange:
    """What was found out."""

    url: WebSocketURL
    status: int | None = None
    error: str | None = None
    subprotocol: str | None = None
    tls: str | None = None
    sent: bytearray = field(default_factory=bytearray)
    received: bytearray = field(default_factory=bytearray)


class Recorded(trio.abc.Stream):
    """A stream that keeps the beginning of what passes."""

    def __init__(self, stream: trio.abc.Stream, exchange: Exchange) -> None:
        self._stream = stream
        self._exchange = exchange

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self._exchange.sent += data[: MAX_RECORD - len(self._exchange.sent)]
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data = bytes(await self._stream.receive_some(max_bytes))
        self._exchange.received += data[: MAX_RECORD - len(self._exchange.received)]
        return data

    async def aclose(self) -> None:
        await self._stream.aclose()


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    return run_until_signal(partial(check, args, client_keywords(args)))


async def check(args: argparse.Namespace, keywords: ClientKeywords) -> int:
    """Do the handshake, print what was said; returns the exit status."""
    exchange = Exchange(url=parse_url(args.url))
    status = NOT_OPENED
    try:
        with trio.fail_after(args.timeout):
            stream = await _open(exchange, keywords)
        recorded = Recorded(stream, exchange)
        async with connect_stream(recorded, args.url, **_over_a_stream(keywords)) as ws:
            exchange.status, exchange.subprotocol = 101, ws.subprotocol
        status = OK
    except Rejected as exc:
        exchange.status = exc.response.status
        status = REFUSED
    except HandshakeError as exc:
        exchange.error = reason_of(exc)
    except trio.TooSlowError:
        exchange.error = f"no connection within {args.timeout:g} s"
    except (OSError, trio.BrokenResourceError) as exc:
        exchange.error = reason_of(exc)
    show = _Show(secrets=args.show_secrets)
    print(json.dumps(show.document(exchange)) if args.json else show.page(exchange))
    return status


def _over_a_stream(keywords: ClientKeywords) -> ClientKeywords:
    """Without what this file has done itself: the proxy, TLS."""
    kept = keywords.copy()
    kept.pop("proxy", None)
    kept.pop("ssl_context", None)
    return kept


async def _open(exchange: Exchange, keywords: ClientKeywords) -> trio.abc.Stream:
    """TCP, through a proxy or not, and TLS."""
    url = exchange.url
    tcp = await reach(url, proxy_for(url, keywords.get("proxy")))
    if not url.secure:
        return tcp
    context = keywords.get("ssl_context")
    assert context is not None
    stream = encrypted(tcp, url, context)
    try:
        await stream.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    exchange.tls = stream.version()
    return stream


class _Show:
    """An exchange as words or as JSON, without its secrets."""

    def __init__(self, *, secrets: bool) -> None:
        self._secrets = secrets

    def page(self, exchange: Exchange) -> str:
        """For people."""
        request, _ = self._message(exchange, exchange.sent)
        answer, body = self._message(exchange, exchange.received)
        lines = [f"> {line}" for line in request] + [""] * bool(request)
        lines += [f"< {line}" for line in answer] + [""] * bool(answer)
        if exchange.status != 101 and body:
            lines += [f"< {shown_untrusted(line)}" for line in body.split("\n")[:MAX_BODY_LINES]]
            lines.append("")
        return "\n".join([*lines, *self._summary(exchange, body)])

    def _summary(self, exchange: Exchange, body: str) -> list[str]:
        lines = []
        if exchange.tls:
            lines.append(f"TLS: {exchange.tls}")
        if exchange.error is not None:
            return [*lines, f"failed: {exchange.error}"]
        if exchange.status == 101:
            if exchange.subprotocol is not None:
                chosen = exchange.subprotocol if self._secrets else "one of those offered"
                lines.append(f"subprotocol: {chosen}")
            return [*lines, "open: the server agreed"]
        row = row_untrusted(body)
        by = "" if row is None else f", by the row {row!r} of its policy"
        return [*lines, f"refused: {exchange.status}{by}"]

    def document(self, exchange: Exchange) -> dict[str, Any]:
        """For scripts."""
        request, _ = self._message(exchange, exchange.sent)
        answer, body = self._message(exchange, exchange.received)
        refused = exchange.status not in (None, 101)
        return {
            "open": exchange.status == 101,
            "status": exchange.status,
            "row": row_untrusted(body) if refused else None,
            "error": exchange.error,
            "tls": exchange.tls,
            "request": request,
            "answer": answer,
            "body": body if refused else None,
        }

    def _message(self, exchange: Exchange, raw: bytearray) -> tuple[list[str], str]:
        """The lines of a head, printable, and the text behind it."""
        head, _, body = bytes(raw).partition(b"\r\n\r\n")
        if not head:
            return [], ""
        start, *fields = head.split(b"\r\n")
        lines = [self._start(start) if raw is exchange.sent else printable_untrusted(start, 1000)]
        for text in fields:
            name, colon, value = text.partition(b":")
            shown = printable_untrusted(value.strip(), 1000)
            if not self._secrets:
                shown = redacted_header_untrusted(name, value.strip())
            lines.append(f"{printable_untrusted(name)}{colon.decode()} {shown}")
        return lines, body.decode("utf-8", "replace").replace("\r\n", "\n").rstrip("\n")

    def _start(self, line: bytes) -> str:
        if not self._secrets and line.startswith(b"GET "):
            method, target, version = line.split(b" ", 2)  # our own request
            return f"{method.decode()} {redacted_target_untrusted(target)} {version.decode()}"
        return printable_untrusted(line, 1000)


def row_untrusted(body: str) -> str | None:
    """The row that a server of ours says refused; None if the body names none."""
    found = _ROW.search(body)
    return None if found is None else printable_untrusted(found[1].strip(), 100)
