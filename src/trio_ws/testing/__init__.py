"""The test kit: what a test of WebSocket code, or of any trio code, needs from the other side.

Lives here: the public names of the kit. Must never live here: code, or anything that the library
itself imports.
"""

from __future__ import annotations

from ._frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Frame,
    FrameError,
    FrameParser,
    encode_frame,
    parse_frames,
)
from ._pair import open_pair, open_websocket, request
from ._peer import RawPeer, accept_token, upgrade_head
from ._streams import (
    BreakingStream,
    ChunkedStream,
    DelayedStream,
    PartialWriter,
    StallingStream,
    WrappedStream,
)
from ._sweep import SweepFailure, SweepReport, cancel_at_every_step, interrupt_at_every_step
from ._target import Target

__all__ = [
    # both sides, ready made
    "open_pair",
    "open_websocket",
    "request",
    # the other side, by hand
    "RawPeer",
    "upgrade_head",
    "accept_token",
    "Frame",
    "FrameParser",
    "FrameError",
    "parse_frames",
    "encode_frame",
    "CONTINUATION",
    "TEXT",
    "BINARY",
    "CLOSE",
    "PING",
    "PONG",
    # bad transports
    "WrappedStream",
    "ChunkedStream",
    "StallingStream",
    "DelayedStream",
    "BreakingStream",
    "PartialWriter",
    # the sweep
    "cancel_at_every_step",
    "interrupt_at_every_step",
    "Target",
    "SweepReport",
    "SweepFailure",
]
