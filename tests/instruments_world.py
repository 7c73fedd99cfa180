"""What the tests of instruments share: one that keeps everything it is told.

Lives here: this. Must never live here: a test.
"""

from __future__ import annotations

from typing import Any

from trio_ws import Accept, Close, Instrument, Response, UpgradeRequest, WebSocket


class Recorder(Instrument):
    """Keeps everything it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def handshake_decided(self, request: UpgradeRequest | None, answer: Accept | Response) -> None:
        status = 101 if isinstance(answer, Accept) else answer.status
        self.told.append(("decided", request and request.path, status))

    def opened(self, ws: WebSocket) -> None:
        self.told.append(("opened", ws.request.path))

    def message_received(self, ws: WebSocket, size: int, kind: str) -> None:
        self.told.append(("received", size, kind))

    def message_sent(self, ws: WebSocket, size: int, kind: str) -> None:
        self.told.append(("sent", size, kind))

    def closed(self, ws: WebSocket, close: Close, cause: BaseException | None) -> None:
        assert ws.closed is close
        self.told.append(("closed", close.code, close.initiator, type(cause)))
