"""The application's code: calling it, and how it ended.

Lives here: the ranking of exceptions, one function over the leaves of what was raised. Must never
live here: closing, logging, or any decision about what follows.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, TypeVar

import trio

from ._errors import ConnectionClosed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from ._close import Close

__all__ = ["Outcome", "holds_error", "how_it_ended", "interruptible"]

T = TypeVar("T")
R = TypeVar("R")


@trio.lowlevel.disable_ki_protection
async def interruptible(function: Callable[[T], Awaitable[R]], argument: T) -> R:
    """Call the application's code, which KeyboardInterrupt may strike anywhere, unlike ours."""
    return await function(argument)


class Outcome(Enum):
    """How user code ended, the weightiest first."""

    EXIT = "KeyboardInterrupt, SystemExit, or another exception that is no Exception"
    CANCELLED = "trio.Cancelled"
    ERROR = "an Exception"
    RETURNED = "nothing, or only the end of its own connection"


def how_it_ended(raised: BaseException | None, closed: Close | None = None) -> Outcome:
    """Rank what user code raised.

    Args:
        raised: the exception, possibly a group, or None if the code returned.
        closed: how the code's own connection ended; that very value in a `ConnectionClosed` makes
            it no error. An equal one of another connection does not.
    """
    found = {_rank(leaf, closed) for leaf in _leaves(raised)}
    return next((outcome for outcome in Outcome if outcome in found), Outcome.RETURNED)


def holds_error(raised: BaseException | None, closed: Close | None = None) -> bool:
    """Whether an error is among what was raised, perhaps outranked by something else."""
    return any(_rank(leaf, closed) is Outcome.ERROR for leaf in _leaves(raised))


def _rank(leaf: BaseException, closed: Close | None) -> Outcome:
    if isinstance(leaf, trio.Cancelled):
        return Outcome.CANCELLED
    if not isinstance(leaf, Exception):
        return Outcome.EXIT
    if closed is not None and isinstance(leaf, ConnectionClosed) and leaf.close is closed:
        return Outcome.RETURNED
    return Outcome.ERROR


def _leaves(raised: BaseException | None) -> Iterator[BaseException]:
    """The exceptions in a group, however deep; iterative, because depth is up to the user."""
    pending = [] if raised is None else [raised]
    while pending:
        exc = pending.pop()
        if isinstance(exc, BaseExceptionGroup):
            pending.extend(exc.exceptions)
        else:
            yield exc
