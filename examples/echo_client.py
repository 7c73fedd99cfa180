"""A client: send the words of the command line, print what comes back for each.

Lives here: one connection, opened and closed by one `with`. Must never live here: closing
handshakes or cleaning up; `connect` does both, however the block is left.

    python examples/echo_client.py ws://127.0.0.1:8000/ hello world
"""

from __future__ import annotations

import argparse
import sys

import trio

from trio_ws import ConnectionClosed, HandshakeError, connect


async def say(url: str, words: list[str], patience: float) -> None:
    """Send each word and print its answer."""
    async with connect(url) as ws:
        for word in words:
            await ws.send(word)
            # A deadline is a cancel scope around any call. The connection survives it: no message
            # is lost, and a send is either whole or not at all.
            with trio.fail_after(patience):
                print(await ws.receive(), flush=True)
        print(f"round trip of a ping: {await ws.ping():.6f} s", flush=True)


def main() -> int:
    """Say it; 1 if there is nobody to say it to."""
    parser = argparse.ArgumentParser(description="A WebSocket echo client.")
    parser.add_argument("url", help="such as ws://127.0.0.1:8000/")
    parser.add_argument("words", nargs="*", default=["hello"])
    parser.add_argument("--patience", type=float, default=5, help="seconds (default: %(default)s)")
    args = parser.parse_args()
    try:
        trio.run(say, args.url, args.words, args.patience)
    except HandshakeError as exc:
        print(f"not connected: {exc}", file=sys.stderr)
    except ConnectionClosed as exc:
        print(f"the connection ended: {exc.close}", file=sys.stderr)
    except trio.TooSlowError:
        print("no answer", file=sys.stderr)
    else:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
