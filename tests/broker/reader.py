"""A process with a room and one member in it, who writes down what it gets.

Usage: reader.py URL ROOM AFTER. Prints "ready", then "id message" for each; ends with the message
"end", or when its standard input ends.
"""

from __future__ import annotations

import os
import sys

import trio

from trio_ws import Room
from trio_ws.redis import RedisBroker
from trio_ws.testing import open_pair


async def main(url: str, name: str, after: str) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read, url, name, after, nursery.cancel_scope)
        async with trio.lowlevel.FdStream(os.dup(0)) as lifeline:
            while await lifeline.receive_some():
                pass
        nursery.cancel_scope.cancel()


async def read(url: str, name: str, after: str, over: trio.CancelScope) -> None:
    async with RedisBroker(url) as broker, open_pair() as (client, server):
        async with Room(name, broker=broker, wrap="{} {}".format) as room:
            async with room.join(server, after=after or None):
                print("ready", flush=True)
                async for message in client:
                    print(message, flush=True)
                    if str(message).endswith(" end"):
                        over.cancel()


trio.run(main, *sys.argv[1:])
