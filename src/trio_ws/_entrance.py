"""The entrance of a server: what its opening handshakes share.

Lives here: who is in their handshake, whether anybody is still let in, and who is told of an
answer: the log, the totals, the instruments. Must never live here: how a handshake goes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ._reports import Hints, report_answer

if TYPE_CHECKING:
    from ._instruments import Watchers
    from ._request import UpgradeRequest
    from ._response import Accept, Response
    from ._stats import Totals

__all__ = ["Entrance"]


class Guest(Protocol):
    def turn_away(self) -> None:
        """Answer 503 now, if there is no answer yet."""


class Entrance:
    """What the handshakes of one server share.

    Attributes:
        inside: the handshakes under way.
        closed: nobody is let in any more: the server drains.
    """

    def __init__(self, totals: Totals, watchers: Watchers | None = None) -> None:
        self.inside: set[Guest] = set()
        self.closed = False
        self._totals = totals
        self._watchers = watchers
        self._hints = Hints()

    def close(self) -> None:
        """Let nobody in any more, from now on."""
        self.closed = True
        for guest in list(self.inside):
            guest.turn_away()

    def refused(self, answer: Response, request: UpgradeRequest | None, peer: str) -> None:
        """The answer is not 101; `request` is None where there was no readable one."""
        report_answer(answer, request, peer, self._hints)
        self._totals.refused_by(answer)
        if self._watchers is not None:
            self._watchers.handshake_decided(request, answer)

    def admitted(self, accept: Accept, request: UpgradeRequest, trailing_data: bytes) -> None:
        """The answer was 101."""
        self._totals.admitted(trailing_data)
        if self._watchers is not None:
            self._watchers.handshake_decided(request, accept)
