"""Writes the corpus: inputs by hand that libFuzzer's own then grow from.

    python fuzz/make_corpus.py

Lives here: the seeds. What a fuzzer finds is added to the corpus as a file of its own, named after
what it showed, and stays.
"""

from __future__ import annotations

import zlib
from pathlib import Path

from trio_ws.testing import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    encode_frame,
    upgrade_head,
)

CORPUS = Path(__file__).parent / "corpus"
KEY = bytes(4)  # a mask that changes nothing: the fuzzer sees what it writes
TAIL = b"\x00\x00\xff\xff"


def deflated(data: bytes, mode: int = zlib.Z_SYNC_FLUSH) -> bytes:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (compressor.compress(data) + compressor.flush(mode)).removesuffix(TAIL)


def cutting(cuts: bytes, data: bytes) -> bytes:
    return bytes([len(cuts)]) + cuts + data


def wire(*frames: tuple[int, bytes, bool, int], client: bool) -> bytes:
    """Frames for a machine in the role of a client or a server."""
    cuts = b"\x01" if client else b"\x02"
    return cutting(
        cuts,
        b"".join(
            encode_frame(opcode, payload, fin=fin, rsv=rsv, masked=not client, masking_key=KEY)
            for opcode, payload, fin, rsv in frames
        ),
    )


def heads() -> dict[str, bytes]:
    good = upgrade_head("/chat/%2F?x=1", headers=[(b"Origin", b"http://localhost:80")])
    return {
        "good": cutting(b"", good),
        "trailing": cutting(b"\x07", good + b"\x81\x80\x00\x00\x00\x00"),
        "extensions": cutting(
            b"\x20",
            upgrade_head(
                headers=[
                    (b"Sec-WebSocket-Protocol", b"chat, b"),
                    (b"Sec-WebSocket-Extensions", b"permessage-deflate"),
                    (b"Cookie", b"a=b; c"),
                    (b"X-Forwarded-For", b"10.0.0.1, 127.0.0.1"),
                    (b"X-Forwarded-Proto", b"https"),
                ]
            ),
        ),
        "post": cutting(b"\x10", upgrade_head(method=b"POST", headers=[(b"Content-Length", b"5")])),
        "http10": cutting(b"\x10", upgrade_head(version=b"HTTP/1.0")),
        "absolute": cutting(b"\x10", upgrade_head("http://u@localhost:8/p", host=b"\xff[::1]:1")),
        "bare-lf": cutting(b"\x03", good.replace(b"\r\n", b"\n")),
        "fold": cutting(b"\x03", good.replace(b"Upgrade: ", b"Upgrade:\r\n ")),
    }


def responses() -> dict[str, bytes]:
    good = (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: ACCEPT\r\n"
    )
    chosen = b"Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Extensions: permessage-deflate"
    return {
        "good": cutting(b"", good + b"\r\n"),
        "hints": cutting(b"\x09", b"HTTP/1.1 103 Hints\r\nA: b\r\n\r\n" + good + b"\r\n\x81\x00"),
        "chosen": cutting(
            b"\x20", good + chosen + b"; server_max_window_bits=10;client_max_window_bits=9\r\n\r\n"
        ),
        "not-offered": cutting(b"\x20", good + b"Sec-WebSocket-Protocol: c\xff\r\n\r\n"),
        "http10": cutting(b"\x20", good.replace(b"1.1", b"1.0") + b"\r\n"),
        "refused": cutting(
            b"\x05", b"HTTP/1.1 403 \xff\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n"
        ),
        "moved": cutting(b"\x05", b"HTTP/1.0 302 x\r\nLocation: //[::1/\r\n\r\nto the end"),
    }


def offers() -> dict[str, bytes]:
    name = b"permessage-deflate"
    return {
        "plain": name,
        "all": name + b"; server_no_context_takeover; client_no_context_takeover;"
        b" server_max_window_bits=10; client_max_window_bits",
        "quoted": name + b'; server_max_window_bits="1\\2" ; client_max_window_bits = 9',
        "several": name + b"; server_max_window_bits=8, x-other; a=b," + name + b"\n" + name,
        "unclosed": name + b'; server_max_window_bits="10, ' + name,
    }


def frames(client: bool) -> dict[str, bytes]:
    side = "client" if client else "server"
    made = {
        "text": wire((TEXT, "h\u00e9llo \U0001f600".encode(), True, 0), client=client),
        "fragments": wire(
            (TEXT, b"\xf0\x9f", False, 0),
            (PING, b"now", True, 0),
            (CONTINUATION, b"\x98\x80", False, 0),
            (PONG, b"", True, 0),
            (CONTINUATION, b"", True, 0),
            (CLOSE, b"\x03\xe8bye", True, 0),
            client=client,
        ),
        "lengths": wire(
            (BINARY, bytes(126), True, 0), (BINARY, bytes(300), True, 0), client=client
        ),
        "too-big": wire((BINARY, bytes(301), True, 0), client=client),
        "close-1014": wire((CLOSE, b"\x03\xf6", True, 0), client=client),
        "close-only": wire((CLOSE, b"", True, 0), client=client),
    }
    return {f"{side}-{name}": data for name, data in made.items()}


def compressed(client: bool) -> dict[str, bytes]:
    side = "client" if client else "server"
    text, half = deflated(b"Hello " * 20), deflated(b"Hello")
    made = {
        "text": wire((TEXT, text, True, 4), (TEXT, text, True, 4), client=client),
        "fragments": wire(
            (TEXT, half[:2], False, 4),
            (PING, b"now", True, 0),
            (CONTINUATION, half[2:], True, 0),
            (BINARY, b"plain", True, 0),
            client=client,
        ),
        "final-block": wire(
            (BINARY, deflated(b"x" * 99, zlib.Z_FINISH), True, 4),
            (BINARY, deflated(b"y" * 99), True, 4),
            client=client,
        ),
        "stored": wire((BINARY, b"\x00\x05\x00\xfa\xffHello\x00", True, 4), client=client),
        "empty": wire((BINARY, b"\x00", True, 4), client=client),
        "bomb": wire((BINARY, deflated(bytes(5000)), True, 4), client=client),
        "bad-utf8": wire((TEXT, deflated(b"\xff" * 9), True, 4), client=client),
    }
    return {f"{side}-{name}": data for name, data in made.items()}


def main() -> None:
    for folder, seeds in {
        "head": heads(),
        "response": responses(),
        "extensions": offers(),
        "frames": frames(False) | frames(True),
        "compressed": compressed(False) | compressed(True) | frames(False),
    }.items():
        (CORPUS / folder).mkdir(parents=True, exist_ok=True)
        for name, data in seeds.items():
            (CORPUS / folder / name).write_bytes(data)


if __name__ == "__main__":
    main()
