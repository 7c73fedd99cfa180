"""The application's hooks in an opening handshake: `authorize` and `http`.

Lives here: calling them, and what their answers and their errors mean. Must never live here: when
they are asked, and for how long (`_opening`).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import trio

from ._checks import authorize_failed
from ._outcome import Outcome, holds_error, how_it_ended, interruptible
from ._response import Accept, Refusal, Response, refined, refuse

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._options import Authorize, Http
    from ._request import UpgradeRequest

__all__: list[str] = []

log = logging.getLogger("trio_ws.handshake")


async def authorized(hook: Authorize, request: UpgradeRequest, accept: Accept) -> Accept | Refusal:
    """`accept`, as what `authorize` says about `request` makes it."""
    said, error = await ask(hook, request)
    if error is not None:
        return authorize_failed(error)
    if said is None:
        return accept
    if isinstance(said, Accept):
        return refined(accept, said)
    if isinstance(said, Response):
        return Refusal(said, "authorize")
    kinds = "a Response, an Accept or None"
    return authorize_failed(TypeError(f"authorize must return {kinds}, not {type(said).__name__}"))


async def page(hook: Http, request: UpgradeRequest) -> Response:
    """The page that `http` makes of `request`."""
    said, error = await ask(hook, request)
    if error is None and not isinstance(said, Response):
        error = TypeError(f"http must return a Response, not {type(said).__name__}")
    if error is not None:
        return refuse("plain", 500, "the server has a problem with this page", error=error)
    assert isinstance(said, Response)
    return said


async def ask(
    hook: Callable[[UpgradeRequest], Any], request: UpgradeRequest
) -> tuple[Any, Exception | None]:
    """Call the application's hook: what it returned, and the error it raised.

    Raises only what is no error: Cancelled, KeyboardInterrupt and their like.
    """
    try:
        return await interruptible(hook, request), None
    except Exception as exc:  # noqa: BLE001  the caller's to log, with its row
        return None, exc
    except BaseExceptionGroup as exc:
        if how_it_ended(exc) is Outcome.CANCELLED and holds_error(exc):
            log.exception("a hook failed while it was being cancelled")
            await trio.lowlevel.checkpoint_if_cancelled()
        raise
