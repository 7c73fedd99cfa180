"""What has arrived and nobody has taken: whole messages, and the pieces of one being streamed.

Lives here: reassembly (RFC 6455 section 5.4) and its memory. Must never live here: frames, limits,
the decision to read or to stop.

A message is gathered in one buffer, so that a peer which dribbles bytes costs bytes and not
objects. `stream` turns the next message, as far as it has come, into pieces that are handed out as
they arrive; `end_stream` drops the rest of it, whenever that comes.
"""

from __future__ import annotations

from collections import deque
from io import BytesIO

_OBJECT = 64
"""What an empty `str` or `bytes` and its place in a deque take, about: messages of no bytes must
fill the read-ahead, too."""


class Inbox:
    """The inbound messages of one connection.

    Attributes:
        messages: complete messages, oldest first.
        pieces: of the message being streamed, oldest first; None while none is streamed.
        streamed_whole: the last piece of that message is among them.
        gathers: nothing but `messages` is here, and a message that comes whole goes there.
        waiting: an upper bound of the bytes that all of this takes in memory, the beginning of a
            message that is not whole yet included.
        received: messages that have arrived whole so far.
        fragments: pieces that have arrived so far, the last ones of messages not counted.
        discarding: keep nothing any more (we have closed).
    """

    __slots__ = (
        "_partial",
        "_skipping",
        "_text",
        "discarding",
        "fragments",
        "gathers",
        "messages",
        "pieces",
        "received",
        "streamed_whole",
        "waiting",
    )

    def __init__(self) -> None:
        self._partial: BytesIO | None = None
        self._text = False
        self._skipping = False
        # A list, because an empty deque takes 700 bytes, and most connections are idle. It is
        # short: each message counts `_OBJECT` bytes at least of `read_ahead`.
        self.messages: list[str | bytes] = []
        self.pieces: deque[str | bytes] | None = None
        self.streamed_whole = False
        self.waiting = 0
        self.received = 0
        self.fragments = 0
        self.discarding = False
        self.gathers = True

    def add(self, piece: str | bytes, *, last: bool) -> None:
        """Take in the next piece of the message at hand, or a new one's first."""
        if last:
            self.received += 1
            if self._partial is None and not self._elsewhere():
                self._keep(self.messages, piece)
                return
        else:
            self.fragments += 1
        if self._elsewhere():
            self._add_elsewhere(piece, last=last)
        else:
            if self._partial is None:
                self._partial, self._text = BytesIO(), isinstance(piece, str)
            self.waiting += self._partial.write(piece.encode() if isinstance(piece, str) else piece)
            if last:
                self._keep(self.messages, self._gathered())
        self._look()

    def _look(self) -> None:
        """Whoever touches what it tells calls this: nearly every message asks, few change it."""
        only_messages = self._partial is None and self.pieces is None
        self.gathers = only_messages and not self._skipping and not self.discarding

    def _elsewhere(self) -> bool:
        """Whether the message at hand goes to a stream, or nowhere, instead of being gathered."""
        streaming = self.pieces is not None and not self.streamed_whole
        return streaming or self._skipping or self.discarding

    def _add_elsewhere(self, piece: str | bytes, *, last: bool) -> None:
        if self.discarding:
            return
        if self._skipping:
            self._skipping = not last
            return
        assert self.pieces is not None
        if piece:
            self._keep(self.pieces, piece)
        self.streamed_whole = last

    def _keep(self, where: list[str | bytes] | deque[str | bytes], what: str | bytes) -> None:
        where.append(what)
        self.waiting += size_of(what)

    def _gathered(self) -> str | bytes:
        assert self._partial is not None
        gathered, self._partial = self._partial, None
        self.waiting -= gathered.tell()
        return str(gathered.getbuffer(), "utf-8") if self._text else gathered.getvalue()

    def pop(self) -> str | bytes:
        """The oldest complete message."""
        message = self.messages.pop(0)
        if self.gathers and not self.messages:
            self.waiting = 0
        else:
            self.waiting -= size_of(message)
        return message

    def discard(self) -> None:
        """Drop what nobody has received, and all that follows."""
        self.discarding = True
        self._partial = None
        self.messages.clear()
        if self.pieces:
            self.pieces.clear()
            self.streamed_whole = False  # who reads it must not take the rest for its end
        self.waiting = 0
        self._look()

    def give_up(self) -> None:
        """Nothing more comes: a message of which only the beginning is here will never be whole."""
        if self._partial is not None:
            self.waiting -= self._partial.tell()
            self._partial = None
            self._look()

    # -- one message, piece by piece -------------------------------------------------------------

    @property
    def begun(self) -> bool:
        """Something has come of the next message."""
        return bool(self.messages) or self._partial is not None

    def stream(self) -> bool:
        """Begin to stream the next message, of which something must have `begun`.

        Returns:
            Whether it is text.
        """
        assert self.pieces is None
        self.streamed_whole = bool(self.messages)
        what = self.pop() if self.messages else self._gathered()
        self.pieces = deque()
        self._look()
        if what:
            self._keep(self.pieces, what)
        return isinstance(what, str)

    def pop_piece(self) -> str | bytes:
        """The oldest piece of the message being streamed."""
        assert self.pieces is not None
        piece = self.pieces.popleft()
        self.waiting -= size_of(piece)
        return piece

    def end_stream(self) -> None:
        """Stream no more: what is left of the message is dropped, now and as it comes."""
        assert self.pieces is not None
        self.waiting -= sum(map(size_of, self.pieces))
        self._skipping = not self.streamed_whole
        self.pieces = None
        self._look()


def size_of(message: str | bytes) -> int:
    """An upper bound of the bytes that `message` takes in memory."""
    if isinstance(message, str) and not message.isascii():
        return 4 * len(message) + _OBJECT
    return len(message) + _OBJECT
