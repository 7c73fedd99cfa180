"""However the same bytes are cut, they mean the same, rubbish included.

Lives here: properties of `_protocol`. Must never live here: what single bytes mean (the other files
of this name).
"""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_ws._protocol import PeerClose
from trio_ws.testing import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT

from .frames_world import Value, frame, values_of
from .protocol_world import close, dribble, machine


def transcript(*, client: bool) -> tuple[bytes, list[Value]]:
    """About 200 bytes with a bit of everything, and what they mean."""
    parts = [
        (TEXT, "hé".encode(), True),
        (BINARY, b"\x00\xff", False),
        (PING, b"in between", True),
        (CONTINUATION, b"\x01", False),
        (CONTINUATION, b"", True),
        (TEXT, b"\xe2\x82", False),
        (PONG, b"", True),
        (CONTINUATION, b"\xac", True),
        (BINARY, b"z" * 130, True),
        (TEXT, b"", True),
        (CLOSE, b"\x03\xf6bye", True),
        (PING, b"late", True),
    ]
    data = b"".join(frame(opcode, body, fin=fin, client=client) for opcode, body, fin in parts)
    messages: list[Value] = ["hé", b"\x00\xff\x01", "€", b"z" * 130, ""]
    control: list[Value] = [("ping", b"in between"), ("pong", b"")]
    return data, [*messages, *control, PeerClose(code=1014, reason="bye")]


def sorted_out(values: list[Value]) -> list[Value]:
    """Messages first, then control values: the two are told apart, each in order."""
    messages = [value for value in values if isinstance(value, str | bytes)]
    return [*messages, *(value for value in values if not isinstance(value, str | bytes))]


@pytest.mark.row("G3")
@pytest.mark.parametrize("client", [False, True])
def test_every_split_point_gives_the_same_values(client: bool) -> None:
    """A transcript cut in two anywhere, or into single bytes, means the same."""
    data, expected = transcript(client=client)
    assert 180 <= len(data) <= 260
    for cut in range(len(data) + 1):
        values = values_of(machine(client=client), [data[:cut], data[cut:]])
        assert sorted_out(values) == expected, cut
    assert sorted_out(values_of(machine(client=client), dribble(data))) == expected


@pytest.mark.row("G3")
@settings(max_examples=100)
@given(st.booleans(), st.sets(st.integers(1, 210), max_size=20))
def test_any_split_gives_the_same_values(client: bool, cuts: set[int]) -> None:
    """The same for any number of pieces."""
    data, expected = transcript(client=client)
    bounds = [0, *sorted(cuts), len(data) + 210]
    pieces = [data[start:stop] for start, stop in pairwise(bounds)]
    assert sorted_out(values_of(machine(client=client), pieces)) == expected


RUBBISH = st.lists(
    st.one_of(
        st.binary(max_size=30),
        st.builds(
            frame,
            st.sampled_from([CONTINUATION, TEXT, BINARY, PING, PONG]),
            st.binary(max_size=20) | st.text(max_size=10).map(str.encode),
            fin=st.booleans(),
        ),
        st.builds(close, st.integers(0, 65535), st.binary(max_size=20)),
    ),
    max_size=12,
).map(b"".join)


@pytest.mark.row("G3")
@given(RUBBISH, st.integers(0, 100))
def test_rubbish_never_raises_and_means_the_same_however_it_is_cut(data: bytes, cut: int) -> None:
    """Whatever bytes a peer sends, the machine yields values, the same for whole and dribbled."""

    def meaning(*pieces: bytes) -> list[Value]:
        return sorted_out(values_of(machine(max_message=30, max_fragments=3), pieces))

    whole = meaning(data)
    assert meaning(data[:cut], data[cut:]) == whole
    assert meaning(*dribble(data)) == whole
