"""What the fuzz targets share: cutting bytes into reads, and running a target under atheris.

Lives here: plumbing. Must never live here: a property of the library.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import atheris

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def halves(data: bytes) -> tuple[bytes, bytes]:
    """An input is two: how to cut, and what to cut. The first byte says how long the first is."""
    length = data[0] if data else 0
    return data[1 : 1 + length], data[1 + length :]


def cut(data: bytes, cuts: bytes) -> Iterator[bytes]:
    """`data` in pieces whose lengths `cuts` gives, in turns; byte by byte without any."""
    position = turn = 0
    while position < len(data):
        size = max(1, cuts[turn % len(cuts)]) if cuts else 1
        yield data[position : position + size]
        position += size
        turn += 1


def fuzz(target: Callable[[bytes], None]) -> None:
    """Run libFuzzer on `target` with the command line's arguments."""
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()
