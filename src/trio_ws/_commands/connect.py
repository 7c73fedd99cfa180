"""``trio-ws connect``: talk to a WebSocket server, by hand or from a script.

Lives here: the conversation, and the two voices that tell about it (words and JSON). Must never
live here: the terminal (`terminal`), the spelling of shared options (`options`).
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import signal
import sys
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from trio_ws import ConnectionClosed, HandshakeError, Rejected, WebSocket
from trio_ws import connect as open_websocket

from .options import add_client_options, add_json_option, client_keywords, count, seconds
from .running import run_until_signal
from .terminal import Terminal, is_interactive, open_terminal
from .words import (
    USAGE,
    duration,
    reason_of,
    redacted_target_untrusted,
    shown_message_untrusted,
    shown_untrusted,
    status_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio_ws import Close

DESCRIPTION = """\
Talk to a WebSocket server. On a terminal: type a line to send it, Ctrl-D to close, Ctrl-C to leave.
In a pipe: each line of stdin is sent, each text message becomes a line of stdout; everything else
is told on stderr. Messages are shown on one line, their control characters escaped; --json keeps
them exact.
"""


def add_command(commands: Any) -> None:
    """Add this command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "connect", help="talk to a server, by hand or in a pipe", description=DESCRIPTION
    )
    parser.add_argument("url", metavar="URL", help="ws:// or wss://")
    parser.add_argument(
        "--send",
        action="append",
        default=[],
        metavar="TEXT",
        help="send this instead of reading stdin; may be repeated",
    )
    parser.add_argument(
        "--ping",
        type=_pings,
        nargs="?",
        const=1,
        default=0,
        metavar="COUNT",
        help="ping instead of reading stdin, once a second, and show the round trips (default: 1)",
    )
    parser.add_argument(
        "--wait",
        type=seconds,
        default=1.0,
        metavar="SECONDS",
        help="when all is sent, stay until nothing has come for so long; 'inf': until the server"
        " closes (default: %(default)g)",
    )
    add_json_option(parser, "one JSON object on each line of stdout")
    add_client_options(parser)
    parser.set_defaults(run=run)


def _pings(text: str) -> int:
    """A count; the URL is easily taken for one."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number: the URL goes before --ping")
    return count(text)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    keywords = client_keywords(args)
    return run_until_signal(partial(_connect, args, keywords))


class Voice:
    """Tells what happens: messages on stdout, the rest on stderr; or all above a typed line."""

    terminal: Terminal | None = None

    def opened(self, ws: WebSocket, url: str) -> None:
        chosen = "" if ws.subprotocol is None else f", subprotocol {ws.subprotocol}"
        self.tell(f"connected to {redacted_target_untrusted(url.encode())}{chosen}")

    def message(self, message: str | bytes) -> None:
        text = shown_message_untrusted(message)
        if self.terminal is None:
            print(text, flush=True)
        else:
            self.terminal.show(f"< {text}")

    def pong(self, round_trip: float) -> None:
        self.tell(f"pong after {duration(round_trip)}")

    def closed(self, closed: Close) -> None:
        self.tell(f"closed: {shown_untrusted(str(closed))}")

    def failed(self, exc: Exception) -> None:
        """The error is told on stderr, where it ends the command."""

    def tell(self, text: str) -> None:
        if self.terminal is None:
            print(text, file=sys.stderr, flush=True)
        else:
            self.terminal.show(text)


class JSONVoice(Voice):
    """The same as one JSON object on a line, exact, in ASCII."""

    def opened(self, ws: WebSocket, url: str) -> None:
        self._write("open", url=url, subprotocol=ws.subprotocol)

    def message(self, message: str | bytes) -> None:
        if isinstance(message, str):
            self._write("message", text=message)
        else:
            self._write("message", base64=base64.b64encode(message).decode())

    def pong(self, round_trip: float) -> None:
        self._write("pong", seconds=round_trip)

    def closed(self, closed: Close) -> None:
        self._write(
            "close", code=int(closed.code), reason=closed.reason, initiator=closed.initiator
        )

    def failed(self, exc: Exception) -> None:
        status = exc.response.status if isinstance(exc, Rejected) else None
        self._write("error", message=reason_of(exc), status=status)

    def _write(self, event: str, **facts: Any) -> None:
        print(json.dumps({"event": event, **facts}), flush=True)


async def _connect(args: argparse.Namespace, keywords: Any) -> int:
    voice = JSONVoice() if args.json else Voice()
    try:
        async with open_websocket(args.url, **keywords) as ws:
            voice.opened(ws, args.url)
            talk = Conversation(ws, voice, args)
            with _terminal_for(voice, args):
                await talk.run()
                await ws.close()
    except HandshakeError as exc:
        voice.failed(exc)
        raise
    assert ws.closed is not None
    voice.closed(ws.closed)
    return USAGE if talk.unsendable else status_of(ws.closed)


@contextmanager
def _terminal_for(voice: Voice, args: argparse.Namespace) -> Iterator[None]:
    if args.json or args.send or args.ping or not is_interactive():
        yield
        return
    with open_terminal() as terminal:
        voice.terminal = terminal
        try:
            yield
        finally:
            voice.terminal = None


class Conversation:
    """Both directions at once, until one of them is over."""

    def __init__(self, ws: WebSocket, voice: Voice, args: argparse.Namespace) -> None:
        self.unsendable = False
        self._ws = ws
        self._voice = voice
        self._args = args
        self._silence: trio.CancelScope | None = None

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            if self._voice.terminal is not None and hasattr(signal, "SIGTSTP"):
                nursery.start_soon(_suspend_on_request, self._voice.terminal)
            for direction in (self._hear, self._say):
                nursery.start_soon(self._until_over, direction, nursery.cancel_scope)

    async def _until_over(self, direction: Any, scope: trio.CancelScope) -> None:
        try:
            await direction()
        except ConnectionClosed:
            pass  # told once, by who reads `ws.closed`
        scope.cancel()

    async def _hear(self) -> None:
        async for message in self._ws:
            self._voice.message(message)
            if self._silence is not None:
                self._silence.deadline = trio.current_time() + self._args.wait

    async def _say(self) -> None:
        args = self._args
        for text in args.send:
            await self._ws.send(text)
        for number in range(args.ping):
            if number:
                await trio.sleep(1)
            self._voice.pong(await self._ws.ping())
        if not args.send and not args.ping:
            if self._voice.terminal is not None:
                await self._send_typed(self._voice.terminal)
                return
            await self._send_lines()
        if args.send or not args.ping:
            await self._until_quiet()

    async def _send_typed(self, terminal: Terminal) -> None:
        while not terminal.line.ended and (data := await _read_stdin()):
            for text in terminal.typed(data):
                await self._ws.send(text)

    async def _send_lines(self) -> None:
        rest, number, ended = b"", 0, False
        while not ended:
            data = await _read_stdin()
            ended = not data
            *lines, rest = (rest + data).split(b"\n")
            for line in [*lines, rest] if ended and rest else lines:
                number += 1
                try:
                    text = line.removesuffix(b"\r").decode()
                except UnicodeDecodeError:
                    self._voice.tell(f"trio-ws: line {number} is not UTF-8; stopped there")
                    self.unsendable = True
                    return
                await self._ws.send(text)

    async def _until_quiet(self) -> None:
        with trio.move_on_after(self._args.wait) as self._silence:
            await trio.sleep_forever()


async def _suspend_on_request(terminal: Terminal) -> None:
    with trio.open_signal_receiver(signal.SIGTSTP) as signals:
        async for _ in signals:
            terminal.suspend()


async def _read_stdin() -> bytes:
    """What there is, at most 64 KiB; b"" at the end. In a thread, as stdin may be anything; one
    that is left behind holds no lock and ends with the process."""
    try:
        return await trio.to_thread.run_sync(os.read, 0, 65536, abandon_on_cancel=True)
    except OSError:  # closed, or a terminal that is gone
        return b""
