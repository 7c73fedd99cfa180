"""The options that several commands share.

Lives here: their spelling, and what `connect` gets from them. Must never live here: what only one
command has.
"""

from __future__ import annotations

import argparse
import ssl
import sys
from typing import TYPE_CHECKING

from trio_ws import (
    ClientOptions,
    Limits,
    Policy,
    allow_origins,
    same_origin,
    unsafe_any_origin,
)
from trio_ws._client_handshake import ClientHandshake
from trio_ws._tunnel import proxy_for
from trio_ws._url import parse_url

if TYPE_CHECKING:
    from trio_ws._client_options import ClientKeywords

__all__ = [
    "CommandFailed",
    "UsageError",
    "add_client_options",
    "add_json_option",
    "add_origin_options",
    "client_keywords",
    "count",
    "header",
    "policy_of",
    "seconds",
    "tls_context",
]


def count(text: str) -> int:
    """A whole number, 1 or more."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def seconds(text: str) -> float:
    """A time of 0 or more; ``inf`` for any."""
    number = float(text)
    if not number >= 0:
        raise ValueError(text)
    return number


def header(text: str) -> tuple[str, str]:
    """``Name: value``, as a pair."""
    name, colon, value = text.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError("write it as 'Name: value'")
    return name.strip(), value.strip()


def add_json_option(parser: argparse.ArgumentParser, what: str) -> None:
    """``--json``."""
    parser.add_argument("--json", action="store_true", help=f"for scripts: {what}")


def add_client_options(parser: argparse.ArgumentParser) -> None:
    """What a client can be told about its handshake."""
    group = parser.add_argument_group("handshake")
    group.add_argument(
        "--header",
        action="append",
        default=[],
        type=header,
        metavar="'NAME: VALUE'",
        help="a further header of the request; may be repeated",
    )
    group.add_argument(
        "--origin", metavar="ORIGIN", help="the Origin header, as a browser sends it"
    )
    group.add_argument(
        "--subprotocol",
        action="append",
        default=[],
        metavar="NAME",
        help="a subprotocol to offer; may be repeated, the preferred one first",
    )
    group.add_argument(
        "--proxy",
        default="env",
        metavar="URL",
        help="a proxy's URL, or 'none' (default: as the environment says)",
    )
    group.add_argument(
        "--timeout",
        type=seconds,
        default=Limits().handshake_timeout,
        metavar="SECONDS",
        help="for name, TCP, TLS and handshake together (default: %(default)g)",
    )
    group.add_argument(
        "--insecure",
        action="store_true",
        help="accept any certificate and any host name: whoever is on the way can read along",
    )


class UsageError(Exception):
    """What was said on the command line cannot be done; the message says why."""


class CommandFailed(Exception):
    """What the command is for did not work; the message says why."""


def client_keywords(args: argparse.Namespace) -> ClientKeywords:
    """The keyword arguments of `connect` for what was said.

    Raises:
        UsageError: it cannot be said to a server; found before anything is opened.
    """
    headers = list(args.header)
    if args.origin is not None:
        headers.append(("Origin", args.origin))
    keywords: ClientKeywords = {
        "headers": headers,
        "subprotocols": args.subprotocol,
        "proxy": None if args.proxy == "none" else args.proxy,
        "limits": Limits(handshake_timeout=args.timeout),
    }
    try:
        url = parse_url(args.url)
        proxy_for(url, keywords["proxy"])
        ClientOptions(**keywords)
        ClientHandshake(url, headers=headers, subprotocols=args.subprotocol)
    except ValueError as exc:
        raise UsageError(str(exc)) from exc
    keywords["ssl_context"] = tls_context(insecure=args.insecure) if url.secure else None
    return keywords


def tls_context(*, insecure: bool) -> ssl.SSLContext:
    """The client's side of TLS. ``--insecure`` is said aloud, each time."""
    context = ssl.create_default_context()
    if insecure:
        print("trio-ws: --insecure: nobody checks who the server is", file=sys.stderr)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def add_origin_options(parser: argparse.ArgumentParser) -> None:
    """Whose pages may connect to a server."""
    group = parser.add_argument_group(
        "whose pages may connect (default: those of this very server)"
    )
    either = group.add_mutually_exclusive_group()
    either.add_argument(
        "--origin",
        action="append",
        metavar="PATTERN",
        help="these, too, such as 'https://*.example.com'; may be repeated",
    )
    either.add_argument(
        "--unsafe-any-origin", action="store_true", help="every page of the web, with its visitors"
    )


def policy_of(args: argparse.Namespace) -> Policy:
    """The policy that `add_origin_options` describes.

    Raises:
        UsageError: a pattern is malformed.
    """
    if args.unsafe_any_origin:
        return Policy(origins=unsafe_any_origin)
    try:
        return Policy(origins=allow_origins(*args.origin) if args.origin else same_origin)
    except ValueError as exc:
        raise UsageError(str(exc)) from exc
