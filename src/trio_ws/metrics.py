"""Metrics for Prometheus: an instrument, and the page that it is read from.

Lives here: names and labels of metrics, their exposition. Must never live here: an import by the
rest of the package; ``prometheus-client`` is asked for by the extra ``trio_ws[metrics]`` only.

Labels never take what a peer makes up: close codes of applications (3000 and above) are counted by
their thousand, and requests by the row of the handshake's table, not by path or address.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from ._instruments import Instrument
from ._response import Accept, Refusal, Response

if TYPE_CHECKING:
    from ._close import Close
    from ._request import UpgradeRequest
    from ._websocket import WebSocket

__all__ = ["Metrics"]

SIZES = (64, 256, 1024, 4096, 16384, 65536, 262144, 1048576)
"""Bounds of the histogram of message sizes, in bytes; the last is the default `max_message`."""


class Metrics(Instrument):
    """Counts a server's handshakes, connections and messages for Prometheus.

    ::

        metrics = Metrics()
        await serve(handler, 8000, instruments=(metrics,), http=metrics.http)

    ``trio_ws_handshakes_total{status, row}``, ``trio_ws_connections`` (open now),
    ``trio_ws_closed_total{code, initiator}``, ``trio_ws_message_bytes{direction, kind}`` (a
    histogram: its ``_count`` counts messages, its ``_sum`` bytes of payload).

    Several servers may share one object; what it counts is their sum. Clients may have one, too.

    Args:
        registry: where the metrics are kept: ``prometheus_client.REGISTRY`` to have them beside
            others of the process; None for a registry of their own. One registry takes one
            `Metrics`.
        path: what `http` answers on.

    Attributes:
        registry: that registry.
    """

    def __init__(
        self, *, registry: CollectorRegistry | None = None, path: str = "/metrics"
    ) -> None:
        self.registry = CollectorRegistry() if registry is None else registry
        self.path = path
        self._handshakes = Counter(
            "trio_ws_handshakes",
            "Opening handshakes by what they were answered with.",
            ("status", "row"),
            registry=self.registry,
        )
        self._connections = Gauge(
            "trio_ws_connections", "Open connections.", registry=self.registry
        )
        self._closed = Counter(
            "trio_ws_closed",
            "Connections that have ended, by close code and by who began it.",
            ("code", "initiator"),
            registry=self.registry,
        )
        self._messages = Histogram(
            "trio_ws_message_bytes",
            "Messages by their size in bytes of payload.",
            ("direction", "kind"),
            buckets=SIZES,
            registry=self.registry,
        )

    async def http(self, request: UpgradeRequest) -> Response:
        """Answer GET and HEAD on `path`, for the ``http`` option; 404 elsewhere.

        Like all of ``http`` it is asked before origins are looked at, and knows no users: whoever
        reaches the port and passes `Policy.hosts` reads the numbers. Where that is too many, serve
        it from a second server on a port of your own, or ask `page` from an ``http`` that checks.
        """
        return self.page() if request.path == self.path else Response(404)

    def page(self) -> Response:
        """The numbers as of now, in the text format of Prometheus."""
        headers = [("Content-Type", CONTENT_TYPE_LATEST), ("Cache-Control", "no-store")]
        return Response(200, headers, generate_latest(self.registry))

    # -- what an instrument is told --------------------------------------------------------------

    def handshake_decided(self, request: UpgradeRequest | None, answer: Accept | Response) -> None:
        status = 101 if isinstance(answer, Accept) else answer.status
        row = answer.row if isinstance(answer, Refusal) else ""
        self._handshakes.labels(str(status), row).inc()

    def opened(self, ws: WebSocket) -> None:
        self._connections.inc()

    def closed(self, ws: WebSocket, close: Close, cause: BaseException | None) -> None:
        self._connections.dec()
        self._closed.labels(code_label(close.code), close.initiator).inc()

    def message_received(self, ws: WebSocket, size: int, kind: Literal["text", "binary"]) -> None:
        self._messages.labels("in", kind).observe(size)

    def message_sent(self, ws: WebSocket, size: int, kind: Literal["text", "binary"]) -> None:
        self._messages.labels("out", kind).observe(size)


def code_label(code: int) -> str:
    """A close code as a label: peers choose among two thousand codes of applications."""
    return str(code) if code < 3000 else f"{code // 1000}xxx"
