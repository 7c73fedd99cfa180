"""``trio-ws explain``: what a policy says about a request, row by row, without a server.

Lives here: loading the policy, making up the request, the table. Must never live here: a rule.
"""

from __future__ import annotations

import importlib
import json
import sys
import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from trio_ws import Policy, Routes, UpgradeRequest
from trio_ws._client_handshake import ClientHandshake
from trio_ws._headers import printable_untrusted
from trio_ws._url import parse_url

from .options import CommandFailed, UsageError, add_json_option, header
from .words import OK, REFUSED

if TYPE_CHECKING:
    import argparse

    from trio_ws._policy import Verdict

MARKS: Final = {"passed": "ok", "refused": "NO", "not reached": "", "not asked": "?"}
WIDTH: Final = 100


def add_command(commands: Any) -> None:
    """Add this command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "explain",
        help="what a policy says about a request, row by row, offline",
        description="Ask a Policy about a request that was made up, and show the verdict of every"
        " row. Nothing is opened. The module is imported, with the current directory on its path.",
    )
    parser.add_argument("policy", metavar="MODULE:POLICY", help="such as myapp.web:policy")
    parser.add_argument("url", metavar="URL", help="that the client asks for, ws:// or wss://")
    parser.add_argument("--origin", help="the page's origin; without it, the client is no browser")
    parser.add_argument(
        "--header", action="append", default=[], type=header, metavar="'NAME: VALUE'"
    )
    parser.add_argument("--subprotocol", action="append", default=[], metavar="NAME")
    parser.add_argument(
        "--peer", metavar="ADDRESS", help="the IP address that the request comes from"
    )
    parser.add_argument("--routes", metavar="MODULE:ROUTES", help="the Routes of the server")
    parser.add_argument(
        "--http", action="store_true", help="the server also answers plain requests"
    )
    add_json_option(parser, "one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    policy = load(args.policy, Policy)
    routes: Routes[Any] | None = load(args.routes, Routes) if args.routes else None
    verdicts = policy.explain(make_request(args), routes=routes, plain=args.http)
    refused = next((verdict for verdict in verdicts if verdict.outcome == "refused"), None)
    if args.json:
        rows = [asdict(verdict) for verdict in verdicts]
        row = None if refused is None else refused.row
        print(json.dumps({"accepted": refused is None, "row": row, "rows": rows}))
    else:
        print(table(verdicts))
        print()
        print("accepted" if refused is None else f"refused by the row {refused.row!r}")
    return OK if refused is None else REFUSED


def load(name: str, kind: type[Any]) -> Any:
    """What ``module:attribute`` names.

    Raises:
        UsageError: nothing, or something of another kind.
        CommandFailed: the module cannot be imported.
    """
    module_name, colon, attribute = name.partition(":")
    if not (module_name and colon and attribute):
        raise UsageError(f"write {name!r} as MODULE:NAME, such as myapp.web:policy")
    if "" not in sys.path:
        sys.path.insert(0, "")  # as `python -m` does; the script's own directory is of no use
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as exc:
        raise CommandFailed(f"importing {module_name}: {type(exc).__name__}: {exc}") from exc
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise UsageError(f"{module_name} has no {attribute!r}") from None
    if not isinstance(found, kind):
        raise UsageError(f"{name} is a {type(found).__name__}, not a {kind.__name__}")
    return found


def make_request(args: argparse.Namespace) -> UpgradeRequest:
    """The request that a client of ours would send, as the server would see it."""
    given = [*args.header, *([("Origin", args.origin)] if args.origin is not None else [])]
    try:
        handshake = ClientHandshake(
            parse_url(args.url), headers=given, subprotocols=args.subprotocol
        )
    except ValueError as exc:
        raise UsageError(str(exc)) from exc
    request = handshake.request
    return UpgradeRequest(
        method=request.method,
        raw_target=request.raw_target,
        headers=request.headers,
        tls=request.tls,
        peer_address=None if args.peer is None else (args.peer, 0),
    )


def table(verdicts: tuple[Verdict, ...]) -> str:
    """One row for each verdict, its reason wrapped."""
    width = max(len(verdict.row) for verdict in verdicts)
    lines: list[str] = []
    for verdict in verdicts:
        begin = f"{MARKS[verdict.outcome]:<2}  {verdict.row:<{width}}  {verdict.outcome:<11}  "
        # Checks are the application's, and may repeat a peer's words.
        why = printable_untrusted(verdict.why, 1000)
        first, *more = textwrap.wrap(why, WIDTH - len(begin), break_on_hyphens=False) or [""]
        lines += [begin + first, *(" " * len(begin) + line for line in more)]
    return "\n".join(line.rstrip() for line in lines)
