"""Running an async function until it returns or a signal ends it.

Lives here: signals. Must never live here: what a command does.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Final

import trio

from .words import SIGNALLED

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

ENDING: Final = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")
    if hasattr(signal, name)
)
"""SIGQUIT, too: Ctrl-backslash must not leave a terminal without echo."""


def run_until_signal(
    function: Callable[[], Awaitable[int]], *, signalled: int | None = None
) -> int:
    """Run `function` in trio; a signal cancels it, which says goodbye to every peer.

    Returns:
        What `function` returned; or, ended by a signal, `signalled` or else 128 and its number.
    """
    return trio.run(_until_signal, function, signalled)


async def _until_signal(function: Callable[[], Awaitable[int]], signalled: int | None) -> int:
    caught: list[int] = []
    status = 0

    async def watch() -> None:
        async for number in signals:
            caught.append(number)
            nursery.cancel_scope.cancel()

    with trio.open_signal_receiver(*ENDING) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            status = await function()
            nursery.cancel_scope.cancel()
    if caught:
        return SIGNALLED + caught[0] if signalled is None else signalled
    return status
