"""Frames with permessage-deflate; see `frames`."""

from __future__ import annotations

import atheris

with atheris.instrument_imports(include=["trio_ws", "wsproto"]):
    from frames import LIMITS, check

    from trio_ws import Deflate
    from trio_ws._deflate import Agreement
    from trio_ws._permessage import PerMessageDeflate

from fuzzing import fuzz

DEFLATE = Deflate()
AGREEMENTS = {
    client: Agreement(
        # One side of each kind: the window is kept, or dropped, between messages.
        server_no_context_takeover=client,
        client_no_context_takeover=False,
        server_max_window_bits=15,
        client_max_window_bits=15,
    )
    for client in (False, True)
}


def target(data: bytes) -> None:
    check(
        data,
        lambda client: [
            PerMessageDeflate(
                AGREEMENTS[client], DEFLATE, client=client, max_message=LIMITS.max_message
            )
        ],
        # A text that is no UTF-8 and too long: a read is inflated as one, so that one read shows
        # the length first and two may show the encoding.
        either=frozenset({1007, 1009}),
    )


if __name__ == "__main__":
    fuzz(target)
