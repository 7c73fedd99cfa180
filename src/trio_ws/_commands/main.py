"""The command line put together: the commands, their help, and errors that any of them may meet.

Lives here: the parser and the one place where an exception becomes words and an exit status. Must
never live here: what a command does.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from trio_ws import HandshakeError, InvalidURL, Rejected

from . import bench, check, connect, explain, serve
from .options import CommandFailed, UsageError
from .words import FAILED, NOT_OPENED, REFUSED, SIGNALLED, USAGE, reason_of

if TYPE_CHECKING:
    from collections.abc import Sequence

EPILOG = """\
exit status:
  0         it worked; a connection ended with close code 1000, 1001 or 1005
  1         it did not: a benchmark without replies, a port that is taken
  2         the command line or the URL is wrong
  3         the handshake got no proper answer: name, TCP, TLS, proxy, time
  4         the handshake was refused: an answer other than 101
  12 to 25  close code 1002 to 1015: subtract 990; 16 is a lost connection
  30, 40    a close code of 3000 to 3999, of 4000 to 4999
  128 + n   ended by signal n: 130 is Ctrl-C
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser of everything; each command adds its own part."""
    parser = argparse.ArgumentParser(
        prog="trio-ws",
        description="WebSockets from the command line.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"trio_ws {_version()}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (connect, serve, check, explain, bench):
        module.add_command(commands)
    return parser


def _version() -> str:
    try:
        return version("trio_ws")
    except PackageNotFoundError:
        return "(a source tree, not installed)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status.

    Raises:
        SystemExit: from argparse: help was asked for, or an argument is wrong.
    """
    args = build_parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # an old encoding must not be fatal
            stream.reconfigure(errors="backslashreplace")
    try:
        return int(args.run(args))
    except BaseExceptionGroup as group:
        return _report(_leaf(group))
    except BaseException as exc:  # noqa: BLE001 the unexpected ones are raised again by `_report`
        return _report(exc)


def _leaf(exc: BaseException) -> BaseException:
    """What went wrong first, out of nurseries."""
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    return exc


def _report(exc: BaseException) -> int:
    if isinstance(exc, BrokenPipeError):
        # Whoever read our output has gone. What is still buffered must not fail at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return SIGNALLED + 13
    for kind, status in (
        (KeyboardInterrupt, SIGNALLED + 2),
        ((InvalidURL, UsageError), USAGE),
        (Rejected, REFUSED),
        (HandshakeError, NOT_OPENED),
        (CommandFailed, FAILED),
        (OSError, FAILED),
    ):
        if isinstance(exc, kind):
            if not isinstance(exc, KeyboardInterrupt):
                print(f"trio-ws: {reason_of(exc)}", file=sys.stderr)
            return status
    raise exc
