"""A peer that does harm, in a process of its own, until it is ended.

    python flood.py KIND PORT

Lives here: the harm. Must never live here: any look at what it does to the server.
"""

from __future__ import annotations

import socket
import sys
import time
import zlib
from functools import partial
from typing import TYPE_CHECKING

from trio_ws.testing import BINARY, CONTINUATION, PING, PONG, TEXT, encode_frame, upgrade_head

if TYPE_CHECKING:
    from collections.abc import Callable

OFFER = (b"Sec-WebSocket-Extensions", b"permessage-deflate; client_max_window_bits")


def dial(port: int, path: str, *, deflate: bool = False) -> socket.socket:
    peer = socket.create_connection(("127.0.0.1", port))
    peer.sendall(upgrade_head(path, headers=[OFFER] if deflate else []))
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += peer.recv(1)
    if not head.startswith(b"HTTP/1.1 101 ") or deflate != (b"permessage-deflate" in head):
        raise SystemExit(f"refused: {head!r}")
    return peer


def pour(port: int, path: str, frame: bytes, *, reads: bool) -> None:
    """Send one frame over and over; with ``reads=False`` the answers fill every buffer."""
    block = frame * (64 * 1024 // len(frame) + 1)
    while True:
        with dial(port, path) as peer:
            try:
                while True:
                    peer.sendall(block)
                    if reads:
                        drain(peer)
            except (ConnectionError, BlockingIOError):
                continue  # thrown out, as it should be: come again


def drain(peer: socket.socket) -> None:
    peer.setblocking(False)
    try:
        while True:
            if not peer.recv(1 << 20):
                raise ConnectionResetError
    except BlockingIOError:
        pass
    finally:
        peer.setblocking(True)


def burst(port: int, data: bytes, *, deflate: bool) -> None:
    """Send what is refused, hear the Close, come again."""
    while True:
        with dial(port, "/echo", deflate=deflate) as peer:
            try:
                peer.sendall(data)
                while peer.recv(1 << 16):
                    pass
            except ConnectionError:
                continue


def unfinished(port: int) -> None:
    """Send most of a large message and leave, over and over."""
    frame = encode_frame(BINARY, bytes(1024 * 1024 - 1), fin=False, masked=True)
    while True:
        with dial(port, "/echo") as peer:
            peer.sendall(frame)


def bomb() -> bytes:
    """200 MiB of zeros in 200 KB, as one compressed message (RFC 7692 section 7.2.1)."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    parts = [compressor.compress(bytes(1 << 20)) for _ in range(200)]
    packed = b"".join([*parts, compressor.flush(zlib.Z_SYNC_FLUSH)]).removesuffix(
        b"\x00\x00\xff\xff"
    )
    return encode_frame(BINARY, packed, rsv=4, masked=True)


def deaf(port: int) -> None:
    """Ask for everything and read nothing; come again when thrown out."""
    while True:
        with dial(port, "/firehose") as peer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            peer.sendall(encode_frame(TEXT, b"go on", masked=True))
            try:
                while True:  # our bytes show life; that we read none of its is what counts
                    peer.sendall(encode_frame(PONG, masked=True))
                    time.sleep(0.05)
            except ConnectionError:
                continue


FRAGMENTS = encode_frame(TEXT, fin=False, masked=True) + 100_000 * encode_frame(
    CONTINUATION, fin=False, masked=True
)
FLOODS: dict[str, Callable[[int], None]] = {
    "ping": partial(
        pour, path="/echo", frame=encode_frame(PING, b"p" * 100, masked=True), reads=True
    ),
    "ping-deaf": partial(
        pour, path="/echo", frame=encode_frame(PING, b"p" * 100, masked=True), reads=False
    ),
    "pong": partial(pour, path="/echo", frame=encode_frame(PONG, b"?", masked=True), reads=True),
    "pong-ignored": partial(
        pour, path="/deaf", frame=encode_frame(PONG, b"?", masked=True), reads=True
    ),
    "echo-deaf": partial(
        pour, path="/echo", frame=encode_frame(BINARY, bytes(1000), masked=True), reads=False
    ),
    "tiny": partial(pour, path="/idle", frame=encode_frame(BINARY, masked=True), reads=True),
    "fragments": partial(burst, data=FRAGMENTS, deflate=False),
    "unfinished": unfinished,
    "bomb": lambda port: burst(port, bomb(), deflate=True),
    "deaf": deaf,
}


def main() -> None:
    kind, port = sys.argv[1], int(sys.argv[2])
    print("flooding", flush=True)
    FLOODS[kind](port)


if __name__ == "__main__":
    main()
