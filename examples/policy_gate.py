"""Who may connect, and as whom: one table of checks in front of the handlers.

Lives here: routes, hosts, origins, a token check that hands the user to the handler, a health
endpoint. Must never live here: a check inside a handler: whoever gets there was let in.

    export POLICY_GATE_TOKENS='ann:correct-horse:admin bob:battery-staple'
    python examples/policy_gate.py --port 8000 --origin 'https://*.example.com'

Tokens are words of the form ``user:token`` or ``user:token:admin``, from that variable, or from the
file that `--tokens` names (a secret that `ps` and a child process cannot see). With neither, two
demo users are let in, and the program says so: good for a first try, for nothing else.

The refusals, in the order in which they are decided: 421 for a foreign Host, 404 for an unknown
path, 403 for a foreign Origin, 401 for a missing or wrong token, 403 for a user who is no admin.
"""

from __future__ import annotations

import argparse
import hmac
import os
import signal
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio

from trio_ws import (
    Accept,
    Policy,
    Response,
    Routes,
    Server,
    UpgradeRequest,
    WebSocket,
    allow_origins,
    serve,
)

GRACE = 10.0  # seconds that a drain takes at most
DEMO = "ann:demo-token-of-ann:admin bob:demo-token-of-bob"


@dataclass(frozen=True, kw_only=True)
class User:
    """Who is on the other side, once `authorize` has looked at the token."""

    name: str
    admin: bool = False


def read_tokens(words: str) -> dict[bytes, User]:
    """Read ``user:token`` and ``user:token:admin``, separated by white space."""
    users = {}
    for word in words.split():
        name, token, *rest = word.split(":")
        if not name or not token or rest not in ([], ["admin"]):
            raise ValueError(f"not user:token or user:token:admin: that of {name!r}")
        users[token.encode()] = User(name=name, admin=rest == ["admin"])
    return users


def token_of(request: UpgradeRequest) -> bytes:
    """Return the token: programs send `Authorization`, browsers can only send a cookie."""
    scheme, _, token = (request.header("authorization") or b"").partition(b" ")
    if scheme.lower() == b"bearer":
        return token.strip()
    return request.cookies.get("token", "").encode()


async def authorize(users: dict[bytes, User], request: UpgradeRequest) -> Response | Accept:
    """Decide about one request, after every other check. It may await: ask a database, say."""
    given, user = token_of(request), None
    # All tokens are compared, each in constant time: how long a refusal takes says nothing about
    # how much of a token was right.
    for token, owner in users.items():
        if hmac.compare_digest(token, given):
            user = owner
    if user is None:
        return Response(401, [("WWW-Authenticate", "Bearer")], "who are you?\n")
    if request.path.startswith("/admin/") and not user.admin:
        return Response(403, body=f"{user.name} is no admin\n")
    return Accept(context=user)


async def greet(ws: WebSocket) -> None:
    """Greet the user, then echo: `ws.context` is what `authorize` has accepted."""
    user = ws.context
    assert isinstance(user, User)
    await ws.send(f"hello {user.name}, this is {ws.request.params['place']}")
    async for message in ws:
        await ws.send(message)


async def admin(ws: WebSocket) -> None:
    """Serve admins only: nobody else gets here."""
    user = ws.context
    assert isinstance(user, User)
    assert user.admin  # `authorize` has seen to it
    await ws.send(f"at your service, {user.name}")
    async for message in ws:
        await ws.send(message)


async def health(request: UpgradeRequest) -> Response:
    """Answer plain HTTP. No token is needed, but `hosts` guards this, too."""
    return Response(200, body="ok\n") if request.path == "/health" else Response(404)


def policy_of(args: argparse.Namespace) -> Policy:
    """Say which names this server answers to, and whose pages may connect."""
    # `hosts` is what stops DNS rebinding: a foreign page whose name was made to point here is of
    # the "same origin" as far as a browser can tell, but its Host is still the foreign name.
    origins = allow_origins(*(args.origin or ["https://*.example.com"]))
    return Policy(hosts=args.allow_host or ["localhost", "127.0.0.1", "[::1]"], origins=origins)


async def main(args: argparse.Namespace) -> None:
    """Serve until SIGINT cancels or SIGTERM drains; both tell every peer 1001, "going away"."""
    words = os.environ.get("POLICY_GATE_TOKENS", "")
    if args.tokens is not None:
        words = await trio.Path(args.tokens).read_text()
    if not words.strip():
        print("no tokens given: anybody who reads this file is let in", file=sys.stderr)
    check = partial(authorize, read_tokens(words.strip() or DEMO))
    routes = Routes({"/greet/{place}": greet, "/admin/console": admin})
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            start = partial(serve, routes, args.port, host=args.host, policy=policy_of(args))
            server: Server = await nursery.start(partial(start, authorize=check, http=health))
            host = f"[{args.host}]" if ":" in args.host else args.host
            print(f"listening on ws://{host}:{server.port}", flush=True)
            async for signum in signals:
                if signum == signal.SIGTERM:
                    await server.drain(GRACE)
                    return
                nursery.cancel_scope.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A server that asks who you are.")
    parser.add_argument("--host", default="127.0.0.1", help="address (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="0: any (default: %(default)s)")
    parser.add_argument("--allow-host", action="append", metavar="NAME", help="may be repeated")
    parser.add_argument("--origin", action="append", metavar="PATTERN", help="may be repeated")
    parser.add_argument("--tokens", type=Path, metavar="FILE", help="instead of the variable")
    trio.run(main, parser.parse_args())
