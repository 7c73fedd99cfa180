"""Frames without extensions; see `frames`."""

from __future__ import annotations

import atheris

with atheris.instrument_imports(include=["trio_ws", "wsproto"]):
    from frames import check

from fuzzing import fuzz


def target(data: bytes) -> None:
    check(data, lambda _client: [])


if __name__ == "__main__":
    fuzz(target)
